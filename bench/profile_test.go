package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// traced is what go tool pprof -traces -unit=ns writes, a stack for each payer.
const traced = `File: sidecar
Type: cpu
Duration: 5s, Total samples = 300000000ns ( 6.00%)
-----------+-------------------------------------------------------
 10000000ns   internal/runtime/syscall.Syscall6
             syscall.RawSyscall6
             syscall.write
             internal/poll.(*FD).Write
             net/http.persistConnWriter.Write
-----------+-------------------------------------------------------
 20000000ns   internal/runtime/syscall.Syscall6
             internal/runtime/syscall.EpollWait (inline)
             runtime.netpoll
             runtime.findRunnable
             runtime.mcall
-----------+-------------------------------------------------------
    thread:  4
 30000000ns   runtime.memclrNoHeapPointers
             runtime.mallocgc
             strings.Clone
             github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule.(*injector).apply
             github.com/caddyserver/caddy/v2/modules/caddyhttp.HandlerFunc.ServeHTTP
-----------+-------------------------------------------------------
 40000000ns   runtime.mapassign_faststr
             net/http.Header.Set (inline)
             github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule.(*injector).apply
             net/http.serverHandler.ServeHTTP
-----------+-------------------------------------------------------
 50000000ns   runtime.memmove
             bufio.(*Reader).Read
-----------+-------------------------------------------------------
 60000000ns   strings.Replace
             github.com/caddyserver/caddy/v2.(*Replacer).replace
-----------+-------------------------------------------------------
 70000000ns   golang.org/x/oauth2.(*reuseTokenSource).Token
             github.com/caddy-upstream-auth/caddy-upstream-auth/bench/peers/xoauth2/handler.(*Handler).ServeHTTP
-----------+-------------------------------------------------------
 20000000ns   runtime.memmove
`

func TestSpending(t *testing.T) {
	var s spending
	for range 2 { // they add up
		if err := s.add(traced); err != nil {
			t.Fatal(err)
		}
	}
	want := map[payer]int64{
		ofSockets: 20, ofScheduler: 40, ofMemory: 60, ofOurs: 80, ofStandard: 100, ofCaddy: 120, ofPeer: 140, ofNobody: 40,
	}
	for _, p := range payers {
		if got := time.Duration(s.by[p]).Milliseconds(); got != want[p] {
			t.Errorf("%s: %d ms, expected %d", p, got, want[p])
		}
	}
	if got := time.Duration(s.all); got != 600*time.Millisecond {
		t.Errorf("all: %s", got)
	}
	const apply = "caddymodule.(*injector).apply"
	if got, want := s.ours[apply], (functionTime{itself: taken(80 * time.Millisecond), memory: taken(60 * time.Millisecond)}); got != want || len(s.ours) != 1 {
		t.Errorf("our functions: %v, expected %v", s.ours, want)
	}
}

func TestSpendingRefused(t *testing.T) {
	for _, text := range []string{
		"",
		"File: sidecar\nType: cpu\n",
		ruler + "\n   runtime.main\n",
		ruler + "\n 10ns\n",
	} {
		if err := new(spending).add(text); err == nil {
			t.Errorf("%q is read", text)
		}
	}
}

// TestWithoutPaths: texts that are paths lose their folders, and all else stays
// as it is.
func TestWithoutPaths(t *testing.T) {
	text := func(s string) string { return "\x32" + string(rune(len(s))) + s }
	const number, sample = "\x48\x81\x01", "\x12\x03\x0a\x01\x06"
	got, err := withoutPaths(packed(t, sample+text("/tmp/build1/sidecar")+number+text("net/http/server.go")))
	if err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(got))
	if err != nil {
		t.Fatal(err)
	}
	message, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if want := sample + text("sidecar") + number + text("net/http/server.go"); string(message) != want {
		t.Errorf("got %q, expected %q", message, want)
	}
	for _, cut := range []string{"\x32", "\x32\x05abc", "\x80", "\x31\x01"} {
		if _, err := withoutPaths(packed(t, cut)); !errors.Is(err, errField) {
			t.Errorf("%q: %v", cut, err)
		}
	}
	if _, err := withoutPaths([]byte(strings.Repeat("x", 20))); err == nil {
		t.Error("what is not packed is read")
	}
}

func packed(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
