package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// pin gives this process the first processor that it may use, and the proxies
// that it starts from now on the second. The second result undoes it. Where there
// is one alone, or it is not allowed, nothing is pinned, and the note says so.
func pin() (pins, func()) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return pins{note: fmt.Sprintf("nothing is pinned to a processor (%v)", err)}, func() {}
	}
	var have []int
	for i := 0; i < len(all)*64 && len(have) < 2; i++ {
		if all.IsSet(i) {
			have = append(have, i)
		}
	}
	if len(have) < 2 {
		return pins{note: "nothing is pinned to a processor: there is one alone"}, func() {}
	}
	if err := moveThreads(just(have[0])); err != nil {
		_ = moveThreads(&all)
		return pins{note: fmt.Sprintf("nothing is pinned to a processor (%v)", err)}, func() {}
	}
	// more threads than it has processors would only take it from each other
	threads := runtime.GOMAXPROCS(1)
	p := pins{on: true, others: have[0], proxy: have[1], note: fmt.Sprintf("the proxy has processor %d, and callers, API and token endpoint have processor %d", have[1], have[0])}
	return p, func() {
		_ = moveThreads(&all)
		runtime.GOMAXPROCS(threads)
	}
}

func just(processor int) *unix.CPUSet {
	set := new(unix.CPUSet)
	set.Set(processor)
	return set
}

// moveThreads gives all threads of this process a set of processors; those to
// come have that of the thread that starts them. It goes on until it has met no
// new one.
func moveThreads(set *unix.CPUSet) error {
	moved := make(map[int]bool)
	for more := true; more; {
		more = false
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, thread := range threads {
			id, err := strconv.Atoi(thread.Name())
			if err != nil || moved[id] {
				continue
			}
			if err := unix.SchedSetaffinity(id, set); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
			moved[id], more = true, true
		}
	}
	return nil
}

// startOn starts a process from a thread that is on its processor for as long: a
// child has the set of the thread that starts it.
func startOn(processor int, cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	if err := unix.SchedSetaffinity(0, just(processor)); err != nil {
		return err
	}
	err := cmd.Start()
	return errors.Join(err, unix.SchedSetaffinity(0, &before))
}

// accountOf reads a process's clock (clock_getcpuclockid(3): the complement of
// its number, shifted by 3, and 2 for the scheduler's clock), which has
// nanoseconds where /proc has ticks of 10 ms.
func accountOf(pid int) (account, error) {
	var used unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &used); err != nil { //nolint:gosec // a number of a process fits
		return account{}, err
	}
	group, err := unix.Getpgid(pid)
	if err != nil {
		return account{}, err
	}
	return account{group, time.Duration(used.Nano())}, nil
}
