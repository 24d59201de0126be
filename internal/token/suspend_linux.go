package token

import (
	"time"

	"golang.org/x/sys/unix"
)

// Slept is how long the machine has been suspended since it was booted: the
// boot clock runs on while the monotonic clock stands still.
func Slept() time.Duration {
	var boot, mono unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono) != nil {
		return 0
	}
	return time.Duration(boot.Nano() - mono.Nano())
}
