// Package heap has the heap of a sidecar collected when it comes to 48 MiB, and
// a larger one when it has doubled, as Go does with each. A sidecar keeps some
// 3 MiB, so that Go by itself would collect at 6, dozens of times a second: a
// fifth of what a request costs. It is imported for that, and takes effect
// before most other packages are initialized, which saves a collection at the
// start.
//
// GOGC is set anew after each collection, for what is left by it. Nothing
// simpler does that: with GOGC=400 a heap of 100 MiB grows to 500; GOGC=off with
// GOMEMLIMIT collects without an end once what is kept comes near the limit, and
// takes the place of the container's limit; ballast counts against that.
//
// Where the environment has GOGC or GOMEMLIMIT, somebody has decided, and all is
// left as it is.
package heap

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// floor is the size of the heap, in bytes, below which it is not collected
	// where the memory limit leaves room. Twice of it gains nothing: what it
	// saves is lost in the processor's caches.
	floor = 48 << 20
	// step is Go's smallest goal, in bytes, for each 100 of GOGC.
	step = 4 << 20
	// usual is Go's own GOGC.
	usual = 100
)

func init() {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		new(pacer).start()
	}
}

// pacer sets GOGC.
type pacer struct {
	percent int // as it is set
	samples []metrics.Sample
}

// start sets GOGC as for a heap with nothing in it.
func (p *pacer) start() {
	p.set(percent(0, 0, limit()))
	p.samples = []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/gc/scan/stack:bytes"},
		{Name: "/gc/scan/globals:bytes"},
	}
	p.await()
}

// await has GOGC set after the next collection, which finds that nobody holds
// the pacer, runs this, and so keeps it for one more. A cleanup would come late:
// these wait until all that was collected is swept, and for so long the goal
// would be the old GOGC's.
func (p *pacer) await() { runtime.SetFinalizer(p, (*pacer).next) }

func (p *pacer) next() {
	metrics.Read(p.samples)
	live := p.samples[0].Value.Uint64()
	n := percent(live, live+p.samples[1].Value.Uint64()+p.samples[2].Value.Uint64(), limit())
	// the world stops for it: not for a little
	if n < p.percent-p.percent/10 || n > p.percent+p.percent/10 {
		p.set(n)
	}
	p.await()
}

func (p *pacer) set(n int) {
	debug.SetGCPercent(n)
	p.percent = n
}

// limit is the memory limit, in bytes. Caddy sets it from the container's, a
// little after the start.
func limit() uint64 {
	return uint64(debug.SetMemoryLimit(-1)) //nolint:gosec // never negative
}

// percent is GOGC for a heap of which so many bytes are in use, and for a memory
// limit. Go applies it to what it has scanned: those bytes, stacks and globals.
// The floor is half of the limit at most: stacks have to fit in, too, and what
// lies idle between objects.
func percent(live, scanned, limit uint64) int {
	floor := min(floor, limit/2)
	if live >= floor {
		return usual
	}
	// Go makes no goal smaller than step for each 100, however little is in use
	most := max(usual, usual*floor/step)
	return int(min(max(usual, usual*(floor-live)/max(scanned, 1)), most))
}
