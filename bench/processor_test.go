package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestPin: a proxy that is started while this process is pinned has a processor
// of its own, and afterwards all is as before.
func TestPin(t *testing.T) {
	const file = "/proc/self/status"
	before := allowed(t, exec.Command("cat", file), pins{})
	p, undo := pin()
	if !p.on {
		undo()
		t.Logf("not looked at: %s", p.note)
		return
	}
	proxy, own := allowed(t, exec.Command("cat", file), p), allowed(t, exec.Command("cat", file), pins{})
	undo()
	if proxy != fmt.Sprint(p.proxy) || own != fmt.Sprint(p.others) || p.proxy == p.others {
		t.Errorf("the proxy has %q, and this process %q: %s", proxy, own, p.note)
	}
	if after := allowed(t, exec.Command("cat", file), pins{}); after != before {
		t.Errorf("%q before, %q after", before, after)
	}
}

// allowed are the processors of a process that says its status.
func allowed(t *testing.T, cmd *exec.Cmd, p pins) string {
	t.Helper()
	var out strings.Builder
	cmd.Stdout = &out
	if err := p.start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(out.String(), "Cpus_allowed_list:")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

// TestAccounts: what this process uses shows in its account, and in that of no
// other.
func TestAccounts(t *testing.T) {
	const long = 20 * time.Millisecond
	w, err := watchMachine()
	if err != nil {
		t.Fatal(err)
	}
	self := os.Getpid()
	for used := time.Duration(0); used < long; {
		a, err := accountOf(self)
		if err != nil {
			t.Fatal(err)
		}
		used = a.used - w.ledger[self].used
	}
	mine, err := w.end(w.ledger[self].group)
	if err != nil {
		t.Fatal(err)
	}
	nobody, err := w.end(-1)
	if err != nil {
		t.Fatal(err)
	}
	if mine.proxy < long || mine.all < long || nobody.proxy != 0 {
		t.Errorf("of %s this process used %s, and nobody %s", mine.all, mine.proxy, nobody.proxy)
	}
	if _, err := accountOf(1 << 29); err == nil {
		t.Error("a process that is not there has an account")
	}
}
