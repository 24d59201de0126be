package interop

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

// tally is what became of the requests of a test, as their client saw it.
type tally struct {
	mu       sync.Mutex
	requests int
	failed   int
	longest  time.Duration
	reasons  map[string]int
}

func (ta *tally) add(took time.Duration, reason string) {
	ta.mu.Lock()
	defer ta.mu.Unlock()
	ta.requests++
	ta.longest = max(ta.longest, took)
	if reason != "" {
		ta.failed++
		if ta.reasons == nil {
			ta.reasons = make(map[string]int)
		}
		ta.reasons[reason]++
	}
}

func (ta *tally) sent() int {
	ta.mu.Lock()
	defer ta.mu.Unlock()
	return ta.requests
}

// send sends one request; due is when it should have left.
func (ta *tally) send(ctx context.Context, s *site, way string, due time.Time) (answer, error) {
	a, err := s.get(ctx, way)
	reason := ""
	switch {
	case err != nil:
		reason = fmt.Sprintf("%s: %v", way, err)
	case a.status != http.StatusOK:
		reason = fmt.Sprintf("%s: %d %s", way, a.status, http.StatusText(a.status))
	}
	ta.add(time.Since(due), reason)
	return a, err
}

// loading is a load that runs until it is stopped.
type loading struct {
	tally
	cancel context.CancelFunc
	ended  chan struct{}
}

// startLoad sends rate requests a second, by each way in turn, whatever becomes
// of those before.
func startLoad(t *testing.T, s *site) *loading {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &loading{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(l.ended)
		var underWay sync.WaitGroup
		defer underWay.Wait()
		tick := time.NewTicker(time.Second / rate)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case due := <-tick.C:
				underWay.Go(func() {
					// one that is under way when the load ends is let finish
					one, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
					defer cancel()
					_, _ = l.send(one, s, ways[n%len(ways)], due) // it is counted
				})
			}
		}
	}()
	t.Cleanup(func() { l.stop() })
	return l
}

// stop ends the load and waits for the requests under way.
func (l *loading) stop() *tally {
	l.cancel()
	<-l.ended
	return &l.tally
}
