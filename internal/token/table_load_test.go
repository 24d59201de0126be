package token

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// counter answers for all values and remembers none of them.
type counter struct {
	requests atomic.Int64
	size     int // of a token
	life     time.Duration
	failure  error
}

func (c *counter) Request(context.Context, Occasion) (*oauth.Response, error) {
	n := c.requests.Add(1)
	if c.failure != nil {
		return nil, c.failure
	}
	return &oauth.Response{AccessToken: fmt.Sprintf("%0*d", c.size, n), ExpiresIn: c.life, Bearer: true}, nil
}

func (c *counter) Stale() bool { return false }

// silent is an observer that keeps nothing.
type silent struct{}

func (silent) Attempted(Attempt)       {}
func (silent) Expired(Snapshot)        {}
func (silent) Rejected(Snapshot, bool) {}

func numbered(n int) Key {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n))
	return sha256.Sum256(b[:])
}

// heapInUse is what is live after a collection.
func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestTableFlood: a million distinct values within half an hour cost the memory
// of a full table and the requests that the limits allow, and those in use keep
// their tokens.
func TestTableFlood(t *testing.T) {
	const (
		length = 30 * time.Minute
		ticks  = 36_000
		each   = 28 // in a tick
		inUse  = 500
	)
	no := &oauth.Failure{Kind: oauth.Refused, Status: 400, Code: "invalid_scope"}
	busy := &oauth.Failure{Kind: oauth.Unreachable, Status: 503}
	for name, tc := range map[string]struct {
		failure  error
		requests int64
	}{
		// 500 in the first 50 s, then as many each time that they are idle
		"taken": {nil, 3 * (1000 - inUse)},
		// ten a second
		"refused": {no, 10 * 1800},
		// a pause of 30 s each, once it has grown to a minute with full jitter
		"unreachable": {busy, 65},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tab := NewTable(defaults, usual, new(Scheduler), silent{})
				tab.random = func() float64 { return 0.5 }
				defer tab.Close()
				ask := func(n int, source *counter) bool {
					tok, _ := tab.Wait(t.Context(), numbered(n), time.Second, func() Requester { return source })
					return tok != nil
				}
				well := &counter{size: 909, life: 24 * time.Hour}
				for i := range inUse {
					if i%10 == 0 {
						pass(time.Second)
					}
					if !ask(-1-i, well) {
						t.Fatal("no token")
					}
				}
				pass(time.Minute)
				before, most, goroutines := heapInUse(), int64(0), runtime.NumGoroutine()

				source := &counter{size: 909, life: 24 * time.Hour, failure: tc.failure}
				for tick := range ticks {
					for i := range each {
						ask(tick*each+i, source)
					}
					if tab.Token(numbered(-1-tick%inUse)) == nil {
						t.Fatal("one in use was pushed out")
					}
					if tick%4000 == 0 {
						most = max(most, heapInUse()-before)
					}
					pass(length / ticks)
				}
				most = max(most, heapInUse()-before)
				n := source.requests.Load()
				t.Logf("%d values: %d token requests, %d places taken, %d KiB at most", ticks*each, n, tab.entries, most>>10)
				if n != tc.requests || well.requests.Load() != inUse {
					t.Errorf("%d requests for the flood and %d for those in use, want %d and %d", n, well.requests.Load(), tc.requests, inUse)
				}
				if tab.entries > usual.MaxTokens || most > 2<<20 {
					t.Errorf("%d places taken, %d bytes", tab.entries, most)
				}
				if n := runtime.NumGoroutine() - goroutines; n > 0 {
					t.Errorf("%d goroutines more", n)
				}
			})
		})
	}
}

// TestTableMemory: what a token costs, its 909 bytes in it.
func TestTableMemory(t *testing.T) {
	for _, size := range []int{10_000, 100_000} {
		synctest.Test(t, func(t *testing.T) {
			limits := usual
			limits.MaxTokens, limits.MaxNew = size, 1000
			source := &counter{size: 909, life: 24 * time.Hour}
			goroutines := runtime.NumGoroutine()
			before := heapInUse()
			tab := NewTable(defaults, limits, new(Scheduler), silent{})
			defer tab.Close()
			for i := range size {
				if i%1000 == 0 {
					pass(time.Second)
				}
				if _, err := tab.Wait(t.Context(), numbered(i), time.Second, func() Requester { return source }); err != nil {
					t.Fatal(err)
				}
			}
			pass(time.Second)
			each := (heapInUse() - before) / int64(size)
			t.Logf("%d tokens: %d bytes each", size, each)
			if s := tab.Snapshot(); s.Tokens != size || each > 1350 {
				t.Errorf("%d tokens, %d bytes each; want 1350 at most", s.Tokens, each)
			}
			if n := runtime.NumGoroutine() - goroutines; n > 1 { // the scheduler's
				t.Errorf("%d goroutines more", n)
			}
		})
	}
}

// TestTableKeepsNoAnswers: a token may be a part of a large answer's text.
func TestTableKeepsNoAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := NewTable(defaults, usual, new(Scheduler), silent{})
		defer tab.Close()
		before := heapInUse()
		source := requesterFunc(func(context.Context) (*oauth.Response, error) {
			answer := strings.Repeat("x", 1<<20)
			return &oauth.Response{AccessToken: answer[:909], ExpiresIn: time.Hour}, nil
		})
		for i := range 10 {
			if _, err := tab.Wait(t.Context(), numbered(i), time.Second, func() Requester { return source }); err != nil {
				t.Fatal(err)
			}
		}
		if grown := heapInUse() - before; grown > 1<<20 {
			t.Errorf("ten tokens keep %d bytes", grown)
		}
		if tab.Snapshot().Tokens != 10 {
			t.Error("nothing is held")
		}
	})
}

// TestTableRaces has everything happen at once.
func TestTableRaces(t *testing.T) {
	limits := Limits{MaxTokens: 50, MaxNew: 1000, InFlight: 4, Idle: time.Nanosecond, Remember: time.Millisecond}
	no := &oauth.Failure{Kind: oauth.Refused, Status: 400}
	for range 20 {
		tab := NewTable(defaults, limits, &Scheduler{Slept: Slept}, silent{})
		var n atomic.Int64
		source := requesterFunc(func(context.Context) (*oauth.Response, error) {
			switch i := n.Add(1); {
			case i%7 == 0:
				return nil, no
			case i%50 == 0:
				return nil, &down
			default:
				return &oauth.Response{AccessToken: "tok", ExpiresIn: time.Duration(i%5) * time.Millisecond}, nil
			}
		})
		var wg sync.WaitGroup
		for worker := range 16 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				for i := range 500 {
					key := numbered((worker*i + i) % 80)
					tok, err := tab.Wait(ctx, key, time.Duration(i%3)*time.Millisecond, func() Requester { return source })
					if tok == nil && err == nil {
						t.Error("neither a token nor an error")
					}
					tab.Token(key)
					again := func() Requester { return source }
					switch {
					case tok != nil && i%3 == 0:
						tab.Reject(t.Context(), key, tok, i%2 == 0, again)
						tab.Other(ctx, key, tok, time.Duration(i%3)*time.Millisecond)
					case i%50 == 0:
						tab.Snapshot()
					case i%97 == 0:
						if e := tab.find(&key); e != nil {
							e.clockMoved(time.Millisecond)
						}
						tab.clockMoved(time.Millisecond)
					case worker == 0 && i == 499:
						tab.Close()
					}
				}
			})
		}
		wg.Wait()
		if _, err := tab.Wait(t.Context(), numbered(1), 0, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
		tab.mu.Lock()
		if tab.entries != 0 || tab.tokens != 0 {
			t.Errorf("%d places, %d tokens after the end", tab.entries, tab.tokens)
		}
		tab.mu.Unlock()
	}
}

// BenchmarkTable is what a request pays for a token that is held.
func BenchmarkTable(b *testing.B) {
	const values = 1000
	limits := usual
	limits.MaxNew = values
	tab := NewTable(defaults, limits, new(Scheduler), silent{})
	defer tab.Close()
	source := &counter{size: 909, life: time.Hour}
	keys := make([]Key, values)
	for i := range keys {
		keys[i] = numbered(i)
		if _, err := tab.Wait(b.Context(), keys[i], time.Second, func() Requester { return source }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if tab.Token(keys[i%values]) == nil {
				b.Error("nothing is held")
			}
		}
	})
}
