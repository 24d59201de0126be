package token

import (
	"context"
	"errors"
	"sync"
	"time"
)

// longestPause is how long a process may stand still with a lock in hand.
// Storages hold a holder for dead that has not been heard of for twice as long
// at least: Caddy's files after 10s.
const longestPause = 4 * time.Second

const leaseBeat = 500 * time.Millisecond

var errLeaseLost = errors.New("this process was paused with the lock in hand, which another may have by now")

// lease knows whether this process has run all the while since it got a lock:
// who is stopped, or whose machine is suspended, finds another in its place.
type lease struct {
	slept func() time.Duration
	done  chan struct{}

	mu   sync.Mutex
	last instant
	lost bool
}

func newLease(slept func() time.Duration) *lease {
	l := &lease{slept: slept, done: make(chan struct{})}
	l.last = l.now()
	go func() {
		beat := time.NewTicker(leaseBeat)
		defer beat.Stop()
		for {
			select {
			case <-beat.C:
				l.check()
			case <-l.done:
				return
			}
		}
	}()
	return l
}

// now counts the time in which the machine is suspended, too.
func (l *lease) now() instant { return now().add(l.slept()) }

// check tells whether the lease holds.
func (l *lease) check() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.now()
	if t.sub(l.last) > longestPause {
		l.lost = true
	}
	l.last = t
	return !l.lost
}

// holds implements Occasion.Lease.
func (l *lease) holds(context.Context) error {
	if !l.check() {
		return errLeaseLost
	}
	return nil
}

func (l *lease) end() { close(l.done) }
