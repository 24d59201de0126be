package token

import (
	"testing"
	"time"
)

// TestJumpsStop: this system's own, as long as nobody sets the clock; what it
// says when one does is in clock_set_test.go.
func TestJumpsStop(t *testing.T) {
	jumps, stop := Jumps()
	if jumps == nil {
		t.Fatal("the kernel does not tell of a clock that is set")
	}
	select {
	case _, more := <-jumps:
		t.Errorf("before anything was set: %v", more)
	case <-time.After(10 * time.Millisecond):
	}
	stop()
	for range jumps {
	}
}
