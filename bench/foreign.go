package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// mostForeign is the share of the processors' time that others may take before
// a turn is thrown away: more of it, and the figures are theirs.
const mostForeign = 0.05

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
