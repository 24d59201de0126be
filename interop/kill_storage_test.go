package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mount puts the storage on a small file system of its own, in a mount namespace
// that Caddy shares and that ends with the test, however that ends.
func (v *victim) mount(t *testing.T) *mounted {
	t.Helper()
	f := &mounted{at: v.storage}
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c",
		`mount -t tmpfs -o size=256k,mode=700 tmpfs "$1" && echo mounted && exec cat`, "sh", f.at)
	f.process = start(t, "unshare", cmd)
	t.Cleanup(func() { f.stop(t, syscall.SIGKILL) })
	ctx, cancel := context.WithTimeout(t.Context(), startDeadline)
	defer cancel()
	if _, err := f.await(ctx, func(line string) bool { return line == "mounted" }); err != nil {
		t.Fatalf("a file system that is read-only, or full, is needed, and root alone can mount one (unshare --mount, mount -t tmpfs): run this test as root, or leave it out with -skip TestKillStorage: %v\n%s", err, &f.output)
	}
	pid := strconv.Itoa(f.cmd.Process.Pid)
	f.enter = []string{"nsenter", "--mount=/proc/" + pid + "/ns/mnt"}
	v.runner = f.enter
	v.storage = "/proc/" + pid + "/root" + f.at
	f.filler = filepath.Join(v.storage, "filler")
	return f
}

// mounted is a file system in a mount namespace.
type mounted struct {
	*process          // holds the namespace
	enter    []string // runs a command in it
	at       string
	filler   string // a file that fills it, as it is seen from here
}

// remount makes it writable, or not.
func (f *mounted) remount(t *testing.T, option string) {
	t.Helper()
	poll(t, startDeadline, "mount -o remount,"+option, func(ctx context.Context) error {
		// not while a file is open for writing
		args := append(f.enter[1:len(f.enter):len(f.enter)], "mount", "-o", "remount,"+option, f.at)
		if out, err := exec.CommandContext(ctx, f.enter[0], args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

func (f *mounted) readOnly(t *testing.T) { t.Helper(); f.remount(t, "ro") }
func (f *mounted) writable(t *testing.T) { t.Helper(); f.remount(t, "rw") }

// fill leaves no room for another file.
func (f *mounted) fill(t *testing.T) {
	t.Helper()
	file, err := os.OpenFile(f.filler, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for err == nil {
		_, err = io.WriteString(file, strings.Repeat("x", 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

func (f *mounted) empty(t *testing.T) {
	t.Helper()
	if err := os.Remove(f.filler); err != nil {
		t.Fatal(err)
	}
}

// Access tokens have to end while the storage fails, but not before they arrive
// on a machine that is slow.
const (
	storageTTL = 8 * time.Second
	storageAt  = "35%"
)

// TestKillStorage: the storage takes no write, for a time in which Caddy is
// killed. Nothing is spent meanwhile; the access token serves to its end, and
// when the storage is back all goes on by itself.
func TestKillStorage(t *testing.T) {
	t.Parallel()
	faults := map[string]struct{ breaks, mends func(*mounted, *testing.T) }{
		"read-only": {(*mounted).readOnly, (*mounted).writable},
		"full":      {(*mounted).fill, (*mounted).empty},
	}
	tests := make(map[string]func(*testing.T) killed)
	for server, start := range map[string]startRotating{
		"oidc-provider": rotatingProvider,
		"fosite":        rotatingServer(fosite),
	} {
		for name, fault := range faults {
			tests[server+", "+name] = func(t *testing.T) killed {
				t.Helper()
				v := newVictim(t, start(t, storageTTL, killDelay), storageAt, "storage "+name)
				f := v.mount(t)
				s := &failing{
					victim: v,
					breaks: func(t *testing.T) { t.Helper(); fault.breaks(f, t) },
					mends:  func(t *testing.T) { t.Helper(); fault.mends(f, t) },
				}
				began := time.Now()
				v.start(t)
				for n := range 10 {
					s.killWhileBroken(t, n%3 == 0)
				}
				s.breakInRefresh(t)
				s.killUnsaved(t)
				v.isWell(t)
				row := v.row(t, time.Since(began))
				if len(row.lost) != 1 || row.lost[unstored] != 1 || row.others != 0 {
					t.Errorf("lost chains %v, and %d others; want the one alone that could not be stored", row.lost, row.others)
				}
				return row
			}
		}
	}
	atOnce(t, tests)
}

// failing is a victim with a storage that can be made to take no write.
type failing struct {
	*victim
	breaks, mends func(*testing.T)
}

// renewal is a line of the log about a new token.
type renewal struct {
	Msg         string
	Ts          float64 // as Unix times are, and so on
	Took        float64
	NextRequest float64 `json:"next_request"`
}

// renewed waits for what Caddy says of a refresh whose token it uses.
func (v *failing) renewed(t *testing.T, s spend) renewal {
	t.Helper()
	var found renewal
	poll(t, startDeadline, "the refresh in the log", func(context.Context) error {
		lines, _ := v.output.lines()
		for _, line := range lines {
			var r renewal
			if json.Unmarshal([]byte(line), &r) == nil && strings.HasPrefix(r.Msg, "access token ") && r.Took != 0 && r.Ts > unix(s.answered) {
				found = r
				return nil
			}
		}
		return errors.New("nothing is said of it")
	})
	return found
}

func unix(at time.Time) float64 { return float64(at.UnixNano()) / float64(time.Second) }

// breakAtRest makes the storage fail before the next refresh begins, and tells
// until when the token that is held serves, by all that Caddy says.
func (v *failing) breakAtRest(t *testing.T) (end time.Time) {
	t.Helper()
	for range 100 {
		s := v.refreshed(t)
		r := v.renewed(t, s)
		v.ends(time.Now())
		v.breaks(t)
		if unix(time.Now()) < r.NextRequest {
			// its life counts from when it was asked for
			return s.answered.Add(s.ttl - s.ttl/10 - time.Duration(r.Took*float64(time.Second)))
		}
		v.mends(t) // that took too long
	}
	t.Fatal("the storage cannot be made to fail in time")
	return time.Time{}
}

// killWhileBroken: some time into the failure Caddy is killed, after it has run
// out of tokens where it is let, and started again before the end.
func (v *failing) killWhileBroken(t *testing.T, starved bool) {
	t.Helper()
	end := v.breakAtRest(t)
	broken := time.Now()
	_, spends := v.witness.last()
	if starved {
		v.starves(t)
	} else {
		v.rest(t, v.random(storageTTL))
	}
	v.kill(t)

	for _, s := range v.sampled(broken, v.kills[len(v.kills)-1].from) {
		early := s.ended.Before(end)
		switch {
		case s.status == http.StatusOK, s.status == http.StatusServiceUnavailable && s.retryAfter != "" && !early:
		default:
			t.Errorf("%s: status %d, Retry-After %q, %s before the token's end; want 200, and 503 with Retry-After then",
				s.way, s.status, s.retryAfter, end.Sub(s.began))
		}
	}

	v.live(t)
	v.starves(t)
	v.rest(t, v.random(time.Second))
	for _, c := range v.complaints() {
		if c.Kind != "unreachable" || !strings.Contains(c.Cause, "the storage for refresh tokens fails") || !strings.Contains(c.Advice, "no refresh token is spent") {
			t.Errorf("of a storage that fails caddy says %s, cause %q, advice %q", c.Kind, c.Cause, c.Advice)
		}
	}
	if _, n := v.witness.last(); n != spends {
		t.Errorf("%d token requests while nothing could be stored; want none", n-spends)
	}
	v.mends(t)
	v.comeBack(t)
}

// starves waits for a 503 with Retry-After.
func (v *failing) starves(t *testing.T) {
	t.Helper()
	poll(t, startDeadline, "a 503 with Retry-After", func(ctx context.Context) error {
		s, err := v.get(ctx, ways[1])
		if err == nil && (s.status != http.StatusServiceUnavailable || s.retryAfter == "") {
			err = fmt.Errorf("status %d, Retry-After %q", s.status, s.retryAfter)
		}
		return err
	})
}

// spendUnsaved: the storage fails while a refresh is under way. What comes of it
// is used, and kept in memory, and an alarm is raised.
func (v *failing) spendUnsaved(t *testing.T) spend {
	t.Helper()
	alarms := v.says("a new refresh token cannot be stored")
	release := v.witness.hold()
	defer release()
	under := v.awaitRefresh(t)
	var s spend
	poll(t, startDeadline, "the server's answer", func(context.Context) error {
		v.witness.note(func() { s = *under })
		if s.read.IsZero() {
			return errors.New("none yet")
		}
		return nil
	})
	v.ends(time.Now())
	v.breaks(t)
	release()
	poll(t, startDeadline, "the new token in use, and an alarm", func(context.Context) error {
		v.witness.note(func() { s = *under })
		if n := v.says("a new refresh token cannot be stored") - alarms; !s.used && !v.tooSlow() || n != 1 {
			return fmt.Errorf("the token is used: %t, %d alarms", s.used, n)
		}
		return nil
	})
	return s
}

// breakInRefresh: what could not be stored is stored when the storage is back,
// and is not spent before.
func (v *failing) breakInRefresh(t *testing.T) {
	t.Helper()
	s := v.spendUnsaved(t)
	v.starves(t)
	if last, _ := v.witness.last(); last.spent != s.spent {
		t.Errorf("%.8s was spent, and was not stored", last.spent)
	}
	v.mends(t)
	v.comeBack(t)
	poll(t, startDeadline, "the end of the alarm", func(context.Context) error {
		if v.says("the refresh token is stored again") == 0 {
			return errors.New("nothing is said of it")
		}
		return nil
	})
	v.kill(t)
	v.live(t)
	v.comeBack(t)
}

// killUnsaved: what was only in memory is lost with it, and told. A new chain is
// taken up at once though by then Caddy seldom asks.
func (v *failing) killUnsaved(t *testing.T) {
	t.Helper()
	v.absent = 10 * time.Second
	v.unsaved = v.spendUnsaved(t).spent
	v.kill(t)
	v.mends(t)
	v.live(t)
	v.comeBack(t)
}
