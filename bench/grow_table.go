package main

import (
	"context"
	"crypto/sha256"
	"runtime"
	"strconv"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// held is what tokens cost that a token.Table holds, beside the same tokens in a
// plain map.
type held struct {
	themselves float64 // bytes of live heap each, in a map by the same keys
	table      float64
	goroutines int // more than before
}

// holdTokens measures in this process, where what is live can be counted to the
// byte.
func holdTokens(ctx context.Context, n int) (held, error) {
	var h held
	value := func(i int) string { return growToken(int64(i), time.Now().Add(24*time.Hour)) }

	before := liveHeap()
	plain := make(map[token.Key]*token.Token)
	for i := range n {
		plain[growKey(i)] = &token.Token{Value: value(i)}
	}
	h.themselves = (liveHeap() - before) / float64(n)
	runtime.KeepAlive(plain)
	plain = nil //nolint:ineffassign,wastedassign // what it held is to be garbage

	before = liveHeap()
	goroutines := runtime.NumGoroutine()
	policy := token.Policy{RefreshAt: token.DefaultRefreshAt, ExpiryMargin: token.DefaultExpiryMargin, DefaultLifetime: token.DefaultLifetime, Timeout: token.DefaultTimeout}
	limits := token.Limits{MaxTokens: n, MaxNew: 1e6, InFlight: 16, Idle: time.Hour, Remember: time.Minute}
	table := token.NewTable(policy, limits, new(token.Scheduler), deaf{})
	defer table.Close()
	for i := range n {
		if _, err := table.Wait(ctx, growKey(i), patience, func() token.Requester { return issues(value) }); err != nil {
			return held{}, err
		}
	}
	sleep(ctx, 100*time.Millisecond) // what makes the requests is gone
	h.goroutines = runtime.NumGoroutine() - goroutines
	h.table = (liveHeap() - before) / float64(n)
	runtime.KeepAlive(table)
	return h, nil
}

func liveHeap() float64 {
	for range 2 { // the second frees what the first has finalized
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

func growKey(n int) token.Key { return sha256.Sum256([]byte(strconv.Itoa(n))) }

// issues makes token requests that are answered at once.
type issues func(n int) string

func (i issues) Request(context.Context, token.Occasion) (*oauth.Response, error) {
	return &oauth.Response{AccessToken: i(0), ExpiresIn: 24 * time.Hour, Bearer: true}, nil
}
func (issues) Stale() bool { return false }

// deaf is an observer that keeps nothing.
type deaf struct{}

func (deaf) Attempted(token.Attempt)       {}
func (deaf) Expired(token.Snapshot)        {}
func (deaf) Rejected(token.Snapshot, bool) {}

// Interface guards
var (
	_ token.Requester = issues(nil)
	_ token.Observer  = deaf{}
)
