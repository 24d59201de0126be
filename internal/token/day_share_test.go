//go:build !race

package token

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// dayStore is a model of a storage that the instances share.
type dayStore struct {
	began time.Time
	down  trouble       // when it does not answer
	kill  time.Duration // the first that has the lock after this, and asks, is killed; 0: none
	over  chan struct{} // closed at the end of the day
	lock  chan struct{} // holds one while it is free

	mu      sync.Mutex
	rnd     *rand.Rand
	content []byte
	calls   []int // in each second
	holder  int   // the number of the last that got the lock
	died    time.Duration
}

const (
	fastStorage = 2 * time.Millisecond
	slowStorage = 10 * time.Millisecond
	storageGone = 2 * time.Second  // after which a call is given up
	lockExpires = 10 * time.Second // after the death of its holder
)

func newDayStore(down trouble, kill time.Duration) *dayStore {
	s := &dayStore{began: time.Now(), down: down, kill: kill, over: make(chan struct{}), lock: make(chan struct{}, 1),
		rnd: seeded(-1), calls: make([]int, dayLength/time.Second+60)}
	s.lock <- struct{}{}
	return s
}

// call is how long each call takes, and how it fails.
func (s *dayStore) call(ctx context.Context) error {
	s.mu.Lock()
	at := time.Since(s.began)
	s.calls[min(int(at/time.Second), len(s.calls)-1)]++
	took, err := between(s.rnd, fastStorage, slowStorage), error(nil)
	if at >= s.down.from && at < s.down.to {
		took, err = storageGone, errors.New("no answer")
	}
	s.mu.Unlock()
	timer := time.NewTimer(took)
	defer timer.Stop()
	select {
	case <-timer.C:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *dayStore) Load(ctx context.Context) ([]byte, error) {
	if err := s.call(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.content == nil {
		return nil, fs.ErrNotExist
	}
	return s.content, nil
}

func (s *dayStore) Save(ctx context.Context, content []byte) error {
	if err := s.call(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.content = content
	return nil
}

func (s *dayStore) Lock(ctx context.Context) (func(), error) {
	if err := s.call(ctx); err != nil {
		return nil, err
	}
	select {
	case <-s.lock:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holder++
	mine := s.holder
	return func() { s.unlock(mine) }, nil
}

func (s *dayStore) Break(context.Context) error {
	s.mu.Lock()
	holder := s.holder
	s.mu.Unlock()
	s.unlock(holder)
	return nil
}

// unlock gives the lock back, unless it is another's by now.
func (s *dayStore) unlock(holder int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holder != holder || len(s.lock) > 0 {
		return
	}
	s.lock <- struct{}{}
}

// kills tells whether the instance that asks now is to be killed.
func (s *dayStore) kills(at time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kill == 0 || s.died > 0 || at < s.kill || len(s.lock) > 0 {
		return false
	}
	s.died = at
	return true
}

func (i *dayInstance) open(context.Context) (*Shared, error) { return &Shared{Store: i.store}, nil }

// die has the process end where it stands, with the lock in hand.
func (i *dayInstance) die() error {
	i.mu.Lock()
	i.killed = true
	i.mu.Unlock()
	go i.Close()
	time.Sleep(lockExpires)
	_ = i.store.Break(context.Background())
	<-i.store.over
	return ErrClosed
}

// sharedDay is the day of a fleet on one storage.
func sharedDay(t *testing.T, lives []time.Duration, troubles []trouble, down trouble, kill time.Duration) (*dayReport, *dayStore) {
	t.Helper()
	report := newDayReport("share", lives, troubles)
	var store *dayStore
	synctest.Test(t, func(*testing.T) {
		began := time.Now()
		store = newDayStore(down, kill)
		var wg sync.WaitGroup
		for n, life := range lives {
			i := newDayInstance(n, life, began, report)
			i.store, i.share = store, NewShare(defaults, false, nil)
			i.share.random = seeded(-2 - n).Float64
			wg.Go(func() { i.live(seeded(traffic + n)) })
		}
		wg.Wait()
		close(store.over)
		time.Sleep(time.Minute) // what is under way ends
	})
	return report, store
}

// refreshes are the token requests in a part of the day, and how often the fleet
// came to a new token: those that come together are for one.
func (r *dayReport) refreshes(from, to time.Duration) (requests, times int) {
	last := -time.Hour
	for second, n := range r.server.received {
		at := time.Duration(second) * time.Second
		if n == 0 || at < from || at >= to {
			continue
		}
		requests += n
		if at-last > 10*time.Minute {
			times++
		}
		last = at
	}
	return requests, times
}

// sharedLife is that of a token which a fleet shares.
const sharedLife = 30 * time.Minute

func alike(instances int) []time.Duration {
	lives := make([]time.Duration, instances)
	for n := range lives {
		lives[n] = sharedLife
	}
	return lives
}

// TestInstancesOfOneToken: however many instances use one storage, they make
// the token requests of one.
func TestInstancesOfOneToken(t *testing.T) {
	var s strings.Builder
	s.WriteString("\n| instances | each alone | with `share` | for each refresh | storage calls in a second, at most | on average |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, instances := range []int{1, 10, 100, dayInstances} {
		alone, _ := engineDay(t, alike(instances), nil).total()
		shared, store := sharedDay(t, alike(instances), nil, trouble{}, 0)
		shared.check(t)
		n, times := shared.refreshes(0, dayLength)
		fmt.Fprintf(&s, "| %d | %d | %d | %.2f | %d | %.2f |\n", instances, alone, n, float64(n)/float64(times),
			slices.Max(store.calls), float64(sum(store.calls))/dayLength.Seconds())
		if n != times {
			t.Errorf("%d instances: %d token requests for %d refreshes", instances, n, times)
		}
	}
	t.Log(s.String())
}

// TestSharedDay: a fleet on one storage makes one token request for each
// refresh, though the storage is down for a while and the one whose turn it is
// gets killed, and outlives half an hour without the server.
func TestSharedDay(t *testing.T) {
	down := trouble{name: "storage", from: 4*time.Hour + 20*time.Minute, to: 4*time.Hour + 50*time.Minute}
	outage := trouble{"503", 13*time.Hour + 2*time.Minute, 13*time.Hour + 32*time.Minute, 503}
	r, store := sharedDay(t, alike(dayInstances), []trouble{outage}, down, 9*time.Hour)
	r.check(t)

	var s strings.Builder
	s.WriteString("\n| | token requests | refreshes | in a second, at most | storage calls in a second, at most | on average |\n| --- | --- | --- | --- | --- | --- |\n")
	part := func(name string, from, to time.Duration) (requests, times int) {
		requests, times = r.refreshes(from, to)
		calls := store.calls[from/time.Second : to/time.Second]
		fmt.Fprintf(&s, "| %s | %d | %d | %d | %d | %.1f |\n", name, requests, times, r.peak(from, to),
			slices.Max(calls), float64(sum(calls))/(to-from).Seconds())
		return requests, times
	}
	quiet := func(name string, from, to time.Duration) {
		if requests, times := part(name, from, to); requests != times || times == 0 {
			t.Errorf("%s: %d token requests for %d refreshes", name, requests, times)
		}
	}
	quiet("the start, and up to the storage's trouble", 0, down.from)
	alone, _ := part("the storage does not answer, 04:20 to 04:50", down.from, down.to)
	quiet("up to the death", down.to, store.died-time.Minute)
	killed, _ := part("the holder of the lock is killed: ten minutes", store.died-time.Minute, store.died+9*time.Minute)
	quiet("up to the server's trouble", store.died+9*time.Minute, outage.from)
	part("503, 13:02 to 13:32", outage.from, outage.to)
	after, _ := part("the five minutes after", outage.to, outage.to+5*time.Minute)
	quiet("the rest of the day", outage.to+5*time.Minute, dayLength)
	fmt.Fprintf(&s, "\n%d requests to the API: %d with an expired token, %d sent away while the instance had a valid one, %d in its last 10 s, %d without one in the outage, the last %s after its end; the longest wait was %s.",
		r.made, r.expired, r.withValid, r.inMargin, r.inTrouble, seconds(r.back[outage.name]), seconds(r.longest))
	t.Log(s.String())
	if most := r.peak(down.from, down.to); alone > dayInstances+10 || most > rateLimit/2 {
		t.Errorf("%d token requests while the storage was down, up to %d a second", alone, most)
	}
	if killed == 0 || killed > 10 {
		t.Errorf("%d token requests when the holder of the lock was killed", killed)
	}
	if after == 0 || after > 20 {
		t.Errorf("%d token requests after the outage", after)
	}
}

func sum(counts []int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}
