package token

import (
	"errors"
	"math"
	"os"
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

// Jumps tells each time that the wall clock was set, and that the machine woke
// up, for its wall clock is then set too: a timer that never ends is cancelled
// by it (TFD_TIMER_CANCEL_ON_SET, timerfd_create(2)). In between it costs
// nothing, where a look at the clocks each second wakes a processor. The channel
// is nil where the kernel does not tell, and closed if it no longer does; stop
// ends it.
func Jumps() (jumps <-chan struct{}, stop func()) {
	none := func() {}
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, none
	}
	timer := os.NewFile(uintptr(fd), "timerfd")
	never := unix.ItimerSpec{Value: unix.Timespec{Sec: math.MaxInt}}
	if unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &never, nil) != nil {
		_ = timer.Close()
		return nil, none
	}
	told := make(chan struct{}, 1)
	go func() {
		defer close(told)
		var times [8]byte
		for {
			// a cancelled timer goes on, and is cancelled by the next one as well
			if _, err := timer.Read(times[:]); !errors.Is(err, unix.ECANCELED) {
				return
			}
			select {
			case told <- struct{}{}:
			default: // one that was not heard yet stands for both
			}
		}
	}()
	return told, func() { _ = timer.Close() }
}
