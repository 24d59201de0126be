//go:build linux && setclock

package token

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestJumpsSet sets the machine's clock ahead, by a billionth of a second; this
// it must be allowed to (CAP_SYS_TIME), so that it runs only where it was asked
// for.
func TestJumpsSet(t *testing.T) {
	jumps, stop := Jumps()
	defer stop()
	for n := range 3 {
		ahead := unix.Timex{Modes: unix.ADJ_SETOFFSET | unix.ADJ_NANO, Time: unix.Timeval{Usec: 1}}
		if _, err := unix.Adjtimex(&ahead); err != nil {
			t.Fatalf("setting the clock: %v", err)
		}
		select {
		case _, more := <-jumps:
			if !more {
				t.Fatal("nothing tells of it any more")
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("nothing tells that the clock was set, the %d. time", n+1)
		}
	}
}
