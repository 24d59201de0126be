package faults

import (
	"context"
	"net/http"
	"net/url"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// Clocks that jump. No process can be given a clock of its own, so these are
// tested with the engine itself in a bubble, the server on a connection in
// memory, and the hook by which the engine asks how long the machine has slept.
// A step of the wall clock is what that hook shows of one: a second clock that
// has gone another way. (A server whose clock is off is among the answers.)
var clockLines = []line{
	{name: "clock stepped an hour ahead", want: used, clock: &jump{by: -time.Hour, life: 12 * time.Hour, keeps: true}},
	{name: "clock stepped an hour back", want: used, clock: &jump{by: time.Hour, life: 12 * time.Hour, keeps: true}},
	{name: "machine suspended for an hour, past the token's end", want: used, clock: &jump{by: time.Hour, life: 30 * time.Minute}},
}

// jump is what a clock does, and what becomes of a token that is held.
type jump struct {
	by    time.Duration // of the time that the machine seems to have slept
	life  time.Duration // of the tokens
	keeps bool          // the token is used on; it is due at once either way
}

// bubble is an engine with a clock that jumps.
type bubble struct {
	*testing.T
	*jump
	auth   *authserver.Server
	source *token.Source
	way    *http.Transport
	url    string
	slept  atomic.Int64
}

// bubbleRequester makes the token requests; its name tells those of one config
// from those of another.
type bubbleRequester struct {
	b    *bubble
	name string
}

// Request implements token.Requester.
func (q bubbleRequester) Request(ctx context.Context, on token.Occasion) (*oauth.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, on.Limit)
	defer cancel()
	header := http.Header{"User-Agent": {q.name}}
	params := url.Values{"grant_type": {"client_credentials"}, "client_id": {"app"}, "client_secret": {marker}}
	return (&oauth.Request{URL: q.b.url, Params: params, Header: header}).Do(ctx, q.b.way)
}

// Stale implements token.Requester.
func (bubbleRequester) Stale() bool { return false }

// unobserved is a token.Observer.
type unobserved struct{}

func (unobserved) Attempted(token.Attempt)       {}
func (unobserved) Expired(token.Snapshot)        {}
func (unobserved) Rejected(token.Snapshot, bool) {}

// inBubble runs a column's course. The bubble fails the test if a goroutine is
// left at its end.
func (j *jump) inBubble(t *testing.T, at when) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{T: t, jump: j}
		b.auth = authserver.New(authserver.Config{ClientID: "app", ClientSecret: marker, Lifetime: j.life})
		server := authserver.ListenMemory(b.auth)
		defer server.Close()
		b.way = &http.Transport{DialContext: server.Dial}
		defer b.way.CloseIdleConnections()
		b.url = server.URL() + authserver.TokenPath
		policy := token.Policy{RefreshAt: 75, ExpiryMargin: 10 * time.Second, DefaultLifetime: assumed, Timeout: 10 * time.Second}
		b.source = token.NewSource(policy, &token.Scheduler{Slept: func() time.Duration { return time.Duration(b.slept.Load()) }}, unobserved{})
		b.source.Use(bubbleRequester{b, "first"})
		defer b.source.Close()
		clockCourses[at](b)
	})
}

// clockCourses is what happens when the clock jumps, column by column.
var clockCourses = map[when]func(*bubble){
	// while no token is held yet and the server is down
	firstToken: func(b *bubble) {
		b.auth.SetFault(authserver.Down())
		b.source.Start()
		b.pass(2 * time.Second)
		b.jumps()
		b.auth.SetFault(nil)
		b.pass(time.Minute)
		b.holds("after the server came back", true)
	},
	// while a refresh hangs
	atRefresh: func(b *bubble) {
		b.source.Start()
		b.pass(b.life * 3 / 5)
		b.auth.SetFault(authserver.Hang())
		b.pass(b.life*3/20 + time.Second)
		b.jumps()
		b.holds("while the refresh hangs", b.keeps)
		b.mended("first")
	},
	// while one hangs that an upstream's 401 forced
	forced: func(b *bubble) {
		b.source.Start()
		b.pass(time.Minute)
		b.auth.SetFault(authserver.Hang())
		if t := b.source.Token(); t == nil || !b.source.Reject(context.Background(), t, true) {
			b.Fatal("no refresh was started")
		}
		b.jumps()
		b.pass(11 * time.Second)
		b.holds("after the refresh has failed", b.keeps)
		b.mended("first")
	},
	// just before a stop, while requests wait
	atStop: func(b *bubble) {
		b.auth.SetFault(authserver.Hang())
		b.source.Start()
		synctest.Wait()
		answer := make(chan error, 1)
		go func() {
			_, err := b.source.Wait(b.Context(), time.Hour)
			answer <- err
		}()
		b.jumps()
		b.source.Close()
		if err := <-answer; err == nil {
			b.Error("a request was given a token by a source that is closed")
		}
	},
	// just before another config's requester takes over
	duringReload: func(b *bubble) {
		b.source.Start()
		b.pass(time.Minute)
		b.auth.SetFault(authserver.Down())
		b.jumps()
		b.source.Use(bubbleRequester{b, "second"})
		b.source.Start()
		b.holds("after the reload", b.keeps)
		b.mended("second")
	},
}

// pass lets time pass.
func (b *bubble) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// jumps has the clock jump, and the engine notice.
func (b *bubble) jumps() {
	b.slept.Add(int64(b.by))
	b.pass(2 * time.Second)
}

// holds wants a valid token to be held, or none.
func (b *bubble) holds(moment string, want bool) {
	b.Helper()
	if got := b.source.Token() != nil; got != want {
		b.Errorf("a token is held %s: %v, want %v", moment, got, want)
	}
}

// mended wants a token soon after the server is well, by the requester of the
// config that runs, long before the old one would have been due.
func (b *bubble) mended(by string) {
	b.Helper()
	before := b.auth.Issued()
	b.auth.SetFault(nil)
	b.pass(2 * time.Minute)
	if b.auth.Issued() == before {
		b.Error("the token was not renewed soon after the jump")
	}
	b.holds("after the server came back", true)
	log := b.auth.Log()
	if got := log[len(log)-1].Header.Get("User-Agent"); got != by {
		b.Errorf("the last token request was made by the %s config, want the %s", got, by)
	}
	for n := 1; n < len(log); n++ {
		if gap := log[n].Time.Sub(log[n-1].Time); gap < leastGap {
			b.Errorf("token request %d came %s after the one before it", n+1, gap)
		}
	}
}

// Interface guards
var (
	_ token.Requester = bubbleRequester{}
	_ token.Observer  = unobserved{}
)
