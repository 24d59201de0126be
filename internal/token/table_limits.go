package token

import (
	"slices"
	"time"
)

// admit tells why a new value may not be asked for; or makes room for it.
func (t *Table) admit(key Key, at instant) error {
	if f := t.refused.find(key, at); f != nil {
		return f
	}
	if t.outage.active(at) {
		return t.outage.failure
	}
	if full := t.entries >= t.limits.MaxTokens; full && at < t.nextScan {
		return &Limited{ErrTableFull, t.nextScan.sub(at)}
	}
	// those in line will take their permits before
	if free := t.rate.free(at); free <= t.newcomers.length() {
		return &Limited{ErrTooManyNew, t.rate.next(at)}
	}
	return t.makeRoom(at)
}

// scanGap is how often a full table is searched for an idle value at most, so
// that a flood of new ones costs no time.
const scanGap = time.Second

// makeRoom gives up the value that has been idle longest, if the table is full.
func (t *Table) makeRoom(at instant) error {
	if t.entries < t.limits.MaxTokens {
		return nil
	}
	var idlest *entry
	for e := range t.all() {
		if e.resting() && (idlest == nil || e.used.Load() < idlest.used.Load()) {
			idlest = e
		}
	}
	if idlest != nil && idlest.idle(at) {
		t.remove(idlest)
		return nil
	}
	t.nextScan = at.add(scanGap)
	if idlest != nil {
		// no other can be idle before the one that is closest to it
		t.nextScan = max(t.nextScan, instant(idlest.used.Load()).add(t.limits.Idle))
	}
	return &Limited{ErrTableFull, t.nextScan.sub(at)}
}

// rate lets no more than a number of things happen in any span of a length.
type rate struct {
	most  int
	span  time.Duration
	taken []instant // in the last span, oldest first
}

func newRate(perSecond float64) rate {
	most := max(1, int(perSecond))
	return rate{most: most, span: time.Duration(float64(most) / perSecond * float64(time.Second))}
}

// free is how many more may happen at a moment.
func (r *rate) free(at instant) int {
	past := 0
	for past < len(r.taken) && r.taken[past].add(r.span) <= at {
		past++
	}
	r.taken = r.taken[past:]
	return r.most - len(r.taken)
}

func (r *rate) take(at instant) { r.taken = append(r.taken, at) }

// next is how long it takes until one more may happen; where all that may are
// in line for something else, nobody knows, and it is said to be a span.
func (r *rate) next(at instant) time.Duration {
	if len(r.taken) == 0 {
		return r.span
	}
	return r.taken[0].add(r.span).sub(at)
}

// memory is what is known of values that have no place: for which ones no
// token was given, and whose tokens upstreams refused.
type memory[T any] struct {
	most  int
	by    map[Key]memo[T]
	order []memo[T] // oldest first
}

type memo[T any] struct {
	key   Key
	until instant
	what  T
}

func newMemory[T any](most int) memory[T] { return memory[T]{most: most, by: make(map[Key]memo[T])} }

// find is what is remembered of a value, the zero T for nothing.
func (m *memory[T]) find(key Key, at instant) (what T) {
	if known, ok := m.by[key]; ok && at < known.until {
		what = known.what
	}
	return what
}

// take is find, and forgets it.
func (m *memory[T]) take(key Key, at instant) T {
	what := m.find(key, at)
	delete(m.by, key)
	return what
}

// add remembers something. What is past goes, and the oldest if there is too
// much.
func (m *memory[T]) add(added memo[T], at instant) {
	for len(m.order) > 0 && (at >= m.order[0].until || len(m.order) >= m.most) {
		oldest := m.order[0]
		m.order[0] = memo[T]{}
		m.order = m.order[1:]
		if m.by[oldest.key].until == oldest.until { // else there is something newer
			delete(m.by, oldest.key)
		}
	}
	m.by[added.key] = added
	m.order = append(m.order, added)
}

// line is those who wait for their turn, first come first served.
type line struct{ waiting []*fetch }

func (l *line) length() int { return len(l.waiting) }

func (l *line) push(f *fetch) { l.waiting = append(l.waiting, f) }

// pop takes the first out, nil if there is none.
func (l *line) pop() *fetch {
	for len(l.waiting) > 0 {
		f := l.waiting[0]
		l.waiting[0] = nil
		l.waiting = l.waiting[1:]
		if !f.entry.gone() {
			return f
		}
	}
	l.waiting = nil
	return nil
}

func (l *line) remove(f *fetch) {
	l.waiting = slices.DeleteFunc(l.waiting, func(q *fetch) bool { return q == f })
}
