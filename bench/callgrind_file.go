package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

func readCallgrindFile(path string) (profile, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p, err := readCallgrind(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// readCallgrind reads what each function took itself from a file in callgrind's
// format (Valgrind's manual, "Callgrind Format Specification"). What the calls
// of a function took is left out: the stacks of goroutines, between which Go
// switches, lead callgrind astray there. Recursion has its levels marked with an
// apostrophe, which is taken off.
func readCallgrind(r io.Reader) (profile, error) {
	names := make(map[string]string) // by their numbers
	out := make(profile)
	current, call := "", false
	var sum, total uint64
	ended := false
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // names of generic types are long
	for lines.Scan() {
		line := lines.Text()
		key, value, ok := strings.Cut(line, "=")
		switch {
		case ok && (key == "fn" || key == "cfn"):
			number, name, named := strings.Cut(value, " ")
			if named {
				names[number] = plainName(name)
			}
			name, known := names[number]
			if !known {
				return nil, fmt.Errorf("function %s has no name", number)
			}
			if key == "fn" {
				current = name
			}
		case ok && key == "calls":
			call = true // the next line is what they took
		case strings.HasPrefix(line, "totals:"):
			n, err := strconv.ParseUint(strings.TrimSpace(strings.TrimPrefix(line, "totals:")), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("not the form that is expected: %q", line)
			}
			total, ended = n, true
		case line != "" && strings.IndexByte("0123456789+-*", line[0]) >= 0:
			if call {
				call = false
				continue
			}
			fields := strings.Fields(line)
			if len(fields) != 2 || current == "" {
				return nil, fmt.Errorf("not the form that is expected: %q", line)
			}
			n, err := strconv.ParseUint(fields[1], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("not the form that is expected: %q", line)
			}
			out[current] += float64(n)
			sum += n
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if !ended {
		return nil, errors.New("has no line 'totals:': it was not written to its end")
	}
	if sum != total {
		return nil, fmt.Errorf("its functions took %d together, and its line 'totals:' says %d", sum, total)
	}
	return out, nil
}

func plainName(name string) string {
	before, level, ok := strings.Cut(name, "'")
	if _, err := strconv.Atoi(level); ok && err == nil {
		return before
	}
	return name
}

// owner is whose code a function is.
type owner int

const (
	oursOwner owner = iota
	caddyOwner
	httpOwner
	memoryOwner
	schedulerOwner
	runtimeOwner
	otherOwner
	owners
)

var ownerNames = [owners]string{"upstream_auth's own functions", "Caddy", "net/http, net and bufio", "runtime: memory", "runtime: scheduler, clock, system calls", "runtime: maps, strings, the rest", "others: context, strings, zap, …"}

func (o owner) String() string { return ownerNames[o] }

// steady tells whose figures do not depend on what else runs on the machine.
func (o owner) steady() bool { return o != schedulerOwner }

// ofPackage are the beginnings of functions' names, the first that fits.
var ofPackage = []struct {
	prefix string
	owner  owner
}{
	{"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/", otherOwner}, // peers
	{"github.com/caddy-upstream-auth/caddy-upstream-auth/", oursOwner},
	{"github.com/caddyserver/", caddyOwner},
	{"internal/poll.runtime_", schedulerOwner}, {"internal/poll.setDeadlineImpl", schedulerOwner}, {"sync.runtime_", schedulerOwner},
	{"net/", httpOwner}, {"net.", httpOwner}, {"bufio.", httpOwner}, {"internal/poll.", httpOwner}, {"mime", httpOwner},
	{"golang.org/x/net/", httpOwner},
	{"internal/runtime/syscall", schedulerOwner}, {"internal/runtime/maps", runtimeOwner}, {"internal/bytealg", runtimeOwner},
	{"internal/runtime/atomic", schedulerOwner}, {"internal/runtime/", runtimeOwner},
	{"syscall.", schedulerOwner}, {"runtime/internal/syscall", schedulerOwner},
	{"aeshash", runtimeOwner}, {"cmpbody", runtimeOwner}, {"memeqbody", runtimeOwner}, {"indexbytebody", runtimeOwner}, {"gogo", schedulerOwner},
}

// schedulerWords and memoryWords are parts of the names of functions of the
// runtime. Fresh pages count to the scheduler: a heap that is never collected asks
// for them in some batches, and in others not.
var (
	schedulerWords = strings.Fields(`lock2 Lock2 lockWithRank futex procyield osyield usleep nanotime walltime note sysmon retake netpoll epoll
		findRunnable schedule stealWork checkTimers timer checkdead idle Idle incidlelocked pageAlloc pallocBits pageBits pageCache allocNeedsZero
		mheap sysUsed sysMap sysGrow mmap madvise scavenge persistentalloc selectgo selunlock sellock park Park ready gstatus scanstatus
		GToWaiting execute runq wakep startm stopm handoffp acquirep releasep syscall Syscall mcall stack goexit gfget gfput newproc gosched
		wirep mget mput dropg preempt adjustframe chansend chanrecv sema sudog unwinder pcvalue runtime.step findfunc moduledata funcdata
		itab typeAssert signal runSafePointFn randomEnum randomOrder Sudog gcTrigger traceback limiterEvent Runq timeSleep
		prepareForSweep glist gList gQueue listHead`)
	memoryWords = strings.Fields(`malloc mspan mcache mcentral gc newobject newarray makeslice growslice nextFree heap memclr scan sweep wbBuf
		bulkBarrier publicationBarrier spanSet fixalloc makeSpanClass typePointers`)
)

func ownerOf(function string) owner {
	if strings.HasPrefix(function, "runtime.") {
		in := func(word string) bool { return strings.Contains(function, word) }
		switch {
		case slices.ContainsFunc(schedulerWords, in):
			return schedulerOwner
		case slices.ContainsFunc(memoryWords, in):
			return memoryOwner
		}
		return runtimeOwner
	}
	for _, of := range ofPackage {
		if strings.HasPrefix(function, of.prefix) {
			return of.owner
		}
	}
	return otherOwner
}
