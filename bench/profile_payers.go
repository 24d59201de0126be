package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// payer is whose a part of the processor's time is.
type payer string

const (
	ofSockets   payer = "kernel: reads and writes"
	ofScheduler payer = "scheduler and poller, with their calls of the kernel"
	ofMemory    payer = "allocation and garbage collection"
	ofStandard  payer = "net/http, net, bufio"
	ofCaddy     payer = "Caddy and the libraries it uses"
	ofOurs      payer = "upstream_auth"
	ofPeer      payer = "x/oauth2 and its handler"
	ofNobody    payer = "the rest"
)

// payers in the order of the table.
var payers = []payer{ofSockets, ofScheduler, ofMemory, ofStandard, ofCaddy, ofOurs, ofPeer, ofNobody}

// ourModule is what the names of our functions begin with.
const ourModule = "github.com/caddy-upstream-auth/caddy-upstream-auth/"

// prefixes of functions tell whose they are; the first that fits counts.
// Everything else is a help to whoever calls it.
var prefixes = []struct {
	pays payer
	of   []string
}{
	{ofSockets, []string{"syscall.", "golang.org/x/sys/unix."}},
	{ofScheduler, []string{
		"internal/runtime/syscall.", "runtime.futex", "runtime.usleep", "runtime.osyield", "runtime.epoll", "runtime.netpoll", "runtime.read", "runtime.write",
		"runtime.schedule", "runtime.findRunnable", "runtime.park", "runtime.gopark", "runtime.goready", "runtime.ready", "runtime.wakep", "runtime.startm", "runtime.stopm",
		"runtime.notesleep", "runtime.notewakeup", "runtime.notetsleep", "runtime.sysmon", "runtime.stealWork", "runtime.runq", "runtime.execute", "runtime.gosched", "runtime.goexit0",
		"runtime.newproc", "runtime.newstack", "runtime.copystack", "runtime.morestack", "runtime.entersyscall", "runtime.exitsyscall", "runtime.reentersyscall", "runtime.casgstatus",
		"runtime.(*timer", "runtime.retake", "runtime.preempt", "runtime.asyncPreempt", "runtime.resetspinning", "runtime.injectglist", "runtime.checkTimers", "runtime.mcall",
		"runtime.wakeNetPoller", "runtime.doAllThreadsSyscall", "runtime.handoffp", "runtime.acquirep", "runtime.releasep", "runtime.lock2", "runtime.unlock2",
	}},
	{ofMemory, []string{
		"runtime.gc", "runtime.malloc", "runtime.newobject", "runtime.bgsweep", "runtime.bgscavenge", "runtime.sweep", "runtime.scan", "runtime.greyobject", "runtime.mark", "runtime.wbBuf",
		"runtime.bulkBarrier", "runtime.typePointers", "runtime.heapSetType", "runtime.heapBits", "runtime.deductAssistCredit", "runtime.findObject", "runtime.publicationBarrier",
		"runtime.nextFreeFast", "runtime.(*mspan)", "runtime.(*mheap)", "runtime.(*mcache)", "runtime.(*mcentral)", "runtime.(*gc", "runtime.(*sweep", "runtime.(*spanSet)", "runtime.(*page",
		"runtime.(*scavenge", "runtime.(*lfstack)", "runtime.(*limiter", "runtime.runfin", "runtime.stopTheWorld", "runtime.startTheWorld", "runtime.sysUnused", "runtime.sysUsed", "runtime.madvise",
		"runtime.spanOf", "runtime.arenaIndex", "runtime.profilealloc", "runtime.drainMarkWorker", "gcWriteBarrier", "internal/runtime/gc", "sync.runtime_registerPoolCleanup", "sync.poolCleanup",
	}},
	{ofPeer, []string{ourModule + "bench/peers/", "golang.org/x/oauth2"}},
	{ofOurs, []string{ourModule, strings.TrimSuffix(ourModule, "/") + "."}},
	// whoever sets a field of a header pays for it
	{"", []string{"net/http.Header.", "net/http.CanonicalHeaderKey", "net/textproto.", "net/url."}},
	{ofStandard, []string{"net/http.", "net/http/", "net.", "bufio.", "io.", "internal/poll.", "crypto/", "vendor/golang.org/x/net/", "internal/godebug.", "mime."}},
	{ofCaddy, []string{"github.com/", "go.uber.org/", "go.opentelemetry.io/", "golang.org/x/", "google.golang.org/", "cel.dev/"}},
}

// payerOf tells whose a function is; "" of one that only helps.
func payerOf(function string) payer {
	for _, p := range prefixes {
		for _, prefix := range p.of {
			if strings.HasPrefix(function, prefix) {
				return p.pays
			}
		}
	}
	return ""
}

// taken is processor time.
type taken time.Duration

// of is the part that it is of some other; 0 of none.
func (t taken) of(all taken) float64 { return float64(t) / float64(max(1, all)) }

// spending is what became of a program's time.
type spending struct {
	all  taken
	by   map[payer]taken
	ours map[string]functionTime
}

// functionTime is that of one function of ours.
type functionTime struct {
	itself taken
	memory taken // of the collector's, for what it allocates
}

// add reads what go tool pprof -traces -unit=ns writes: below a ruler the time
// of one stack, and its functions, the innermost first.
func (s *spending) add(traces string) error {
	var stack []string
	var value taken
	began := false // the first ruler is passed
	for line := range strings.Lines(traces + ruler + "\n") {
		switch fields := strings.Fields(line); {
		case strings.HasPrefix(line, ruler):
			if began && len(stack) > 0 {
				s.count(stack, value)
			}
			began, stack, value = true, nil, 0
		case !began || len(fields) == 0 || strings.HasSuffix(fields[0], ":"): // a label
		case len(stack) == 0:
			d, err := time.ParseDuration(fields[0])
			if err != nil || len(fields) < 2 {
				return fmt.Errorf("go tool pprof: a stack begins with %q, and with no time and function", strings.TrimSpace(line))
			}
			stack, value = append(stack, fields[1]), taken(d)
		default:
			stack = append(stack, fields[0])
		}
	}
	if s.all == 0 {
		return fmt.Errorf("a profile without a sample: %.200q", traces)
	}
	return nil
}

// ruler is what a line between stacks begins with.
const ruler = "-----------+"

// count gives the time of a stack to whom it belongs.
func (s *spending) count(stack []string, value taken) {
	if s.by == nil {
		s.by, s.ours = make(map[payer]taken), make(map[string]functionTime)
	}
	s.all += value
	first, whose := "", ofNobody
	for _, function := range stack {
		if o := payerOf(function); o != "" {
			first, whose = function, o
			break
		}
	}
	// a call of the kernel is a read or a write if it is a socket's
	if whose == ofScheduler && strings.HasPrefix(first, "internal/runtime/syscall.") && slices.ContainsFunc(stack, func(f string) bool { return strings.HasPrefix(f, "syscall.") }) {
		whose = ofSockets
	}
	s.by[whose] += value
	switch whose {
	case ofOurs:
		s.note(first, functionTime{itself: value})
	case ofMemory:
		// for whom: the innermost of those that are no part of the runtime
		for _, function := range stack {
			switch payerOf(function) {
			case ofOurs:
				s.note(function, functionTime{memory: value})
				return
			case ofCaddy, ofStandard, ofPeer:
				return
			}
		}
	}
}

// note adds to the time of a function, named without the module.
func (s *spending) note(function string, f functionTime) {
	name := strings.TrimPrefix(function, ourModule)
	old := s.ours[name]
	s.ours[name] = functionTime{old.itself + f.itself, old.memory + f.memory}
}
