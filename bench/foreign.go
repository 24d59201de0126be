package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// mostForeign is the share of the processors' time that others may take before
// a turn is thrown away: more of it, and the figures are theirs.
const mostForeign = 0.05

// mostForeignSlice is the same for a slice, which is so short that 5 ms of
// another's show in the slowest hundredth of its requests. It is told by the
// nanoseconds of each process (look): in the ticks of /proc/stat, which are 10 ms,
// a slice has 24. What a process used that began and ended within the slice is
// not seen by it: of that the sum over all slices is looked at, in ticks, which
// are exact enough by then (contest.void).
const mostForeignSlice = 0.02

// watch is a look at the machine before something is measured.
type watch struct {
	began  time.Time
	ledger ledger
	clock  clock
}

func watchMachine() (w watch, err error) {
	if w.clock, err = readClock(); err != nil {
		return watch{}, err
	}
	w.ledger, err = look()
	w.began = time.Now()
	return w, err
}

// seen is processor time since then.
type seen struct {
	all    time.Duration // that there was, of all processors
	proxy  time.Duration // of the group that was measured
	others time.Duration // of processes that are neither of it nor this one, and of the hypervisor
	unseen time.Duration // that went to nobody who is known; exact in the sum of many alone
}

// end looks again.
func (w watch) end(group int) (seen, error) {
	length := time.Since(w.began)
	now, err := look()
	if err != nil {
		return seen{}, err
	}
	clock, err := readClock()
	if err != nil {
		return seen{}, err
	}
	s := seen{
		all:    length * time.Duration(runtime.NumCPU()),
		proxy:  now.of(group, w.ledger),
		others: now.others(group, w.ledger) + clock.stolen - w.clock.stolen,
	}
	self := now[os.Getpid()].used - w.ledger[os.Getpid()].used
	s.unseen = clock.busy - w.clock.busy - s.proxy - s.others - self
	return s, nil
}

// foreign is the share that others are known to have had.
func (s seen) foreign() share { return share(s.others) / share(max(1, s.all)) }

// clock is the time of all processors since the machine's start, in ticks.
type clock struct {
	busy   time.Duration // all but idle, and waiting for a disk
	stolen time.Duration // given by the hypervisor to others; part of busy
}

func readClock() (clock, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return clock{}, fmt.Errorf("the time of processors is known on Linux alone: %w", err)
	}
	return parseClock(string(text))
}

// parseClock reads the first line of /proc/stat.
func parseClock(text string) (c clock, err error) {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return clock{}, errors.New("/proc/stat does not begin with the time of all processors")
	}
	for i, field := range fields[1:9] { // guests are in user
		n, err := strconv.Atoi(field)
		if err != nil {
			return clock{}, fmt.Errorf("/proc/stat: %w", err)
		}
		switch i {
		case 3, 4: // idle, iowait
			continue
		case 7:
			c.stolen += time.Duration(n) * tick
		}
		c.busy += time.Duration(n) * tick
	}
	return c, nil
}

// tick is the unit of /proc/stat, on all machines that Go runs on.
const tick = 10 * time.Millisecond

// usage is processor time, in ticks of the kernel, since some moment.
type usage struct{ all, busy, ours int }

// usage looks at the machine, at this process and at the proxy's. Where there
// is no /proc, all is 0.
func (t *turn) usage() (u usage) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return usage{}
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for i, field := range strings.Fields(line) {
		n, err := strconv.Atoi(field)
		if err != nil || i > 8 { // its name, and guests, which are in user
			continue
		}
		u.all += n
		switch i {
		case 1, 2, 3, 8: // user, nice, system, steal; interrupts are nobody's
			u.busy += n
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return usage{}
	}
	self, group := strconv.Itoa(os.Getpid()), strconv.Itoa(t.cmd.Process.Pid)
	for _, path := range processes {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// after the name, which may hold anything: state ppid pgrp … utime stime
		pid, rest, _ := strings.Cut(string(text), " ")
		fields := strings.Fields(rest[strings.LastIndexByte(rest, ')')+1:])
		if len(fields) < 13 || pid != self && fields[2] != group {
			continue
		}
		for _, field := range fields[11:13] {
			n, err := strconv.Atoi(field)
			if err != nil {
				return usage{}
			}
			u.ours += n
		}
	}
	return u
}

// foreign is the share of the time since then that others took.
func (u usage) foreign(before usage) share {
	if u.all <= before.all {
		return 0
	}
	return share(max(0, u.busy-before.busy-u.ours+before.ours)) / share(u.all-before.all)
}

// share is a part of 1.
type share float64

func (s share) String() string { return fmt.Sprintf("%.0f%%", 100*float64(s)) }

// void says that a turn is no measure if others took too much of it.
func (s share) void() string {
	if s > mostForeign {
		return "void: others took " + s.String() + " of the processors"
	}
	return ""
}
