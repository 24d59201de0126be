package token

import (
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// sleeper is what a Scheduler wakes.
type sleeper interface {
	wake()
	clockMoved(slept time.Duration)
	own() *alarm
}

// alarm is the part of a sleeper that belongs to the scheduler, under its lock.
type alarm struct {
	at    instant
	place int // in the heap, counted from 1; 0 while nothing is planned
}

func (a *alarm) own() *alarm { return a }

// Scheduler wakes the sources that are due: one heap of deadlines and one
// goroutine for all of them, which ends when nothing is scheduled.
type Scheduler struct {
	// Slept, if set, tells how long the machine has been suspended since it
	// started; the monotonic clock does not tell. It is asked whenever a clock
	// may have jumped, and whenever a source is woken.
	Slept func() time.Duration
	// Jumps, if set, has something to say each time that a clock may have
	// jumped, until it is stopped. Without it, or where it is nil or has been
	// closed, the clocks are compared every second.
	Jumps func() (jumps <-chan struct{}, stop func())

	mu      sync.Mutex
	queue   queue
	running bool
	kick    chan struct{}
}

// clockTick is how often the clocks are compared while a source is scheduled
// and nobody tells when they jump.
const clockTick = time.Second

// set plans s to be woken at a moment, in place of an earlier plan.
func (d *Scheduler) set(s sleeper, at instant) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := s.own()
	a.at = at
	if a.place > 0 {
		heap.Fix(&d.queue, a.place-1)
	} else {
		heap.Push(&d.queue, s)
	}
	if !d.running {
		d.running = true
		d.kick = make(chan struct{}, 1)
		go d.run(d.kick)
		return
	}
	d.nudge()
}

func (d *Scheduler) remove(s sleeper) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if a := s.own(); a.place > 0 {
		heap.Remove(&d.queue, a.place-1)
	}
	if d.running && len(d.queue) == 0 {
		d.nudge()
	}
}

func (d *Scheduler) nudge() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

func (d *Scheduler) run(kick <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	clocks := newClocks(d.Slept)
	var jumps <-chan struct{}
	if d.Jumps != nil {
		told, stop := d.Jumps()
		defer stop()
		jumps = told
	}
	for {
		d.mu.Lock()
		if len(d.queue) == 0 {
			d.running = false
			d.mu.Unlock()
			return
		}
		wait := d.queue[0].own().at.sub(now())
		if wait <= 0 {
			s := heap.Pop(&d.queue).(sleeper)
			d.mu.Unlock()
			s.wake()
			continue
		}
		d.mu.Unlock()
		if d.Slept != nil && jumps == nil {
			wait = min(wait, clockTick)
		}
		timer.Reset(wait)
		wall := jumps == nil
		select {
		case <-timer.C:
		case <-kick:
		case _, more := <-jumps:
			wall = true
			if !more {
				jumps = nil
			}
		}
		if slept, stepped := clocks.compare(wall); slept > 0 || stepped {
			for _, s := range d.sleepers() {
				s.clockMoved(slept)
			}
		}
	}
}

func (d *Scheduler) sleepers() []sleeper {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.queue)
}

// ask makes one token request. It tells when it was sent and answered: a
// lifetime counts from the sending, through a suspended machine too.
func (d *Scheduler) ask(ctx context.Context, r Requester, on Occasion) (res *oauth.Response, sent, arrived instant, err error) {
	asleep := d.slept()
	sent = now()
	res, err = r.Request(ctx, on)
	arrived = now()
	if res != nil {
		sent = sent.add(-res.Age)
	}
	return res, sent.add(asleep - d.slept()), arrived, err
}

func (d *Scheduler) slept() time.Duration {
	if d.Slept == nil {
		return 0
	}
	return d.Slept()
}

// clocks tell a suspended machine and a stepped wall clock from time passing.
type clocks struct {
	slept  func() time.Duration
	asleep time.Duration
	wall   time.Time
	mono   instant
}

// tolerance is above what a clock that is being slewed drifts in a second, and
// below what would matter to a token. Where the clocks are not compared each
// second, one that was slewed by more counts as set when it is next set by
// anything: a token request too many.
const tolerance = 2 * time.Second

func newClocks(slept func() time.Duration) *clocks {
	c := &clocks{slept: slept, wall: time.Now().Round(0), mono: now()}
	if slept != nil {
		c.asleep = slept()
	}
	return c
}

// compare tells how long the machine has slept since the last call, 0 if it
// did not, and, where the wall clock matters, whether that was set since it
// last did.
func (c *clocks) compare(wall bool) (slept time.Duration, stepped bool) {
	if c.slept == nil {
		return 0, false
	}
	asleep := c.slept()
	if slept = asleep - c.asleep; slept < tolerance/2 {
		slept = 0
	}
	if slept == 0 && !wall {
		return 0, false
	}
	t, mono := time.Now().Round(0), now()
	drift := t.Sub(c.wall) - mono.sub(c.mono) - (asleep - c.asleep)
	c.wall, c.mono, c.asleep = t, mono, asleep
	return slept, drift.Abs() > tolerance
}

// queue is the heap of sleepers by the moment at which they are to be woken.
type queue []sleeper

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].own().at < q[j].own().at }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].own().place, q[j].own().place = i+1, j+1
}

func (q *queue) Push(x any) {
	s := x.(sleeper)
	*q = append(*q, s)
	s.own().place = len(*q)
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	s := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	s.own().place = 0
	return s
}
