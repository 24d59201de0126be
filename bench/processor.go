package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// pins say on which processor what runs, so that the proxy that is measured and
// those that measure it do not take it from each other. The zero value leaves
// all to the kernel.
type pins struct {
	on     bool
	proxy  int    // the processor of the proxies
	others int    // that of this process: the callers, the API, the token endpoint
	note   string // says it for a table
}

// start starts a process on the proxies' processor. All its threads and children
// stay there, and runtimes that look at it take as many threads.
func (p pins) start(cmd *exec.Cmd) error {
	if !p.on {
		return cmd.Start()
	}
	return startOn(p.proxy, cmd)
}

// ledger is the processor time of each process, by the kernel's own account.
type ledger map[int]account

// account is that of one process.
type account struct {
	group int           // its process group; 0 of the kernel's own threads
	used  time.Duration // since its start, of all its threads, in nanoseconds
}

// look reads the accounts of all processes. Where another's may not be read it is
// left out, and shows as time that nobody is known to have used.
func look() (ledger, error) {
	folder, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("the processor time of processes is known on Linux alone: %w", err)
	}
	defer folder.Close()
	names, err := folder.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	l := make(ledger, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue // no process
		}
		if a, err := accountOf(pid); err == nil {
			l[pid] = a
		}
	}
	return l, nil
}

// of is what a group has used since it was looked before.
func (l ledger) of(group int, before ledger) (used time.Duration) {
	for pid, a := range l {
		if a.group == group {
			used += max(0, a.used-before[pid].used)
		}
	}
	return used
}

// others is what processes have used that are neither this one nor of the group.
// Threads of the kernel are nobody's.
func (l ledger) others(group int, before ledger) (used time.Duration) {
	self := os.Getpid()
	for pid, a := range l {
		if pid != self && a.group != group && a.group != 0 {
			used += max(0, a.used-before[pid].used)
		}
	}
	return used
}

// processes are those of a group.
func (l ledger) processes(group int) (pids []int) {
	for pid, a := range l {
		if a.group == group {
			pids = append(pids, pid)
		}
	}
	return pids
}
