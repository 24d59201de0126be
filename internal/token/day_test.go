//go:build !race

// A day of a thousand instances has more events than the race detector can count
// in one bubble (golang/go#78156). The engine's other tests run under it.

package token

import (
	"context"
	"flag"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

var dayPlot = flag.String("day.svg", "", "the file that the plot of the simulated day is written to, none if empty")

const (
	dayInstances = 1000
	startWithin  = time.Second
	traffic      = 1_000_000 // where the random numbers of the requests to the API begin
)

// dayLives are the lifetimes of the tokens, each of as many instances.
var dayLives = []time.Duration{5 * time.Minute, 15 * time.Minute, time.Hour, 8 * time.Hour, 24 * time.Hour}

var dayTroubles = []trouble{
	{"401", 3 * time.Hour, 3*time.Hour + 10*time.Minute, 401},
	{"hangs", 8*time.Hour + 20*time.Minute, 8*time.Hour + 40*time.Minute, 0},
	{"503", 14 * time.Hour, 15 * time.Hour, 503},
}

// dayInstance is one process of the fleet: a real Source, on a Scheduler of its
// own.
type dayInstance struct {
	*Source
	life   time.Duration
	began  time.Time // the day
	report *dayReport
	share  *Share    // nil if it goes alone
	store  *dayStore // what it shares by
	mu     sync.Mutex
	end    time.Duration // of the token that it was given last, by the server's clock
	killed bool
}

func newDayInstance(n int, life time.Duration, began time.Time, report *dayReport) *dayInstance {
	i := &dayInstance{Source: NewSource(defaults, new(Scheduler), silent{}), life: life, began: began, report: report}
	i.random = seeded(1 + n).Float64 // called with the source's lock only
	i.Use(i)
	return i
}

// Request looks for a token in the storage, or asks the model of a server.
func (i *dayInstance) Request(ctx context.Context, on Occasion) (res *oauth.Response, err error) {
	if i.share != nil {
		res, err = i.share.Request(ctx, on, i.open, i.ask)
	} else {
		res, err = i.ask(ctx, on)
	}
	if err == nil {
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.end == 0 {
			i.report.first(i.now())
		}
		i.end = endOf(res.AccessToken)
	}
	return res, err
}

func (i *dayInstance) ask(_ context.Context, on Occasion) (*oauth.Response, error) {
	if i.store != nil && i.store.kills(i.now()) {
		return nil, i.die()
	}
	got := i.report.ask(i.now(), i.life, on.Limit)
	time.Sleep(got.took)
	switch got.status {
	case 200:
		value := strconv.FormatInt(int64(got.end), 10) + "." + strconv.Itoa(got.serial)
		return &oauth.Response{AccessToken: value, ExpiresIn: i.life, Bearer: true}, nil
	case 401:
		return nil, &oauth.Failure{Kind: oauth.Refused, Status: 401, Code: "invalid_client"}
	case 429:
		return nil, &oauth.Failure{Kind: oauth.Unreachable, Status: 429, RetryAfter: retryLater}
	}
	return nil, &oauth.Failure{Kind: oauth.Unreachable, Status: got.status}
}

func (i *dayInstance) Stale() bool {
	return i.share != nil && i.share.Stale(context.Background(), i.open)
}

// endOf is when a token ends, by the server's clock.
func endOf(token string) time.Duration {
	text, _, _ := strings.Cut(token, ".")
	end, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic(err)
	}
	return time.Duration(end)
}

func (i *dayInstance) lastEnd() time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.end
}

func (i *dayInstance) alive() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return !i.killed
}

func (i *dayInstance) now() time.Duration { return time.Since(i.began) }

// serve sends requests to the API all day.
func (i *dayInstance) serve(rnd *rand.Rand) {
	for at := i.now(); at < dayLength && i.alive(); at = i.now() {
		t, err := i.Token(), error(nil)
		if t == nil {
			t, err = i.Wait(context.Background(), patience)
		}
		now := i.now()
		if err == nil {
			i.report.sent(now, now-at, between(rnd, 0, travel), endOf(t.Value))
		} else {
			i.report.turnedAway(now, now-at, i.lastEnd(), DefaultExpiryMargin)
		}
		time.Sleep(gap(rnd, now, i.lastEnd()))
	}
}

// engineDay is the day of a fleet that runs the engine.
func engineDay(t *testing.T, lives []time.Duration, troubles []trouble) *dayReport {
	t.Helper()
	report := newDayReport("this engine", lives, troubles)
	synctest.Test(t, func(*testing.T) {
		began := time.Now()
		var wg sync.WaitGroup
		for n, life := range lives {
			i := newDayInstance(n, life, began, report)
			wg.Go(func() { i.live(seeded(traffic + n)) })
		}
		wg.Wait()
		time.Sleep(time.Minute) // what is under way ends
	})
	return report
}

// live is the whole day of an instance.
func (i *dayInstance) live(rnd *rand.Rand) {
	time.Sleep(between(rnd, 0, startWithin))
	i.Start()
	i.serve(rnd)
	i.Close()
}

// TestDay: a thousand instances that start within one second live through a day
// of an authorization server that has its troubles, beside as many that keep to
// Envoy's rule.
func TestDay(t *testing.T) {
	lives := make([]time.Duration, dayInstances)
	for n := range lives {
		lives[n] = dayLives[n%len(dayLives)]
	}
	engine, envoys := engineDay(t, lives, dayTroubles), envoyDay(lives, dayTroubles)
	t.Log("\n" + dayTable(engine, envoys))
	if *dayPlot != "" {
		if err := os.WriteFile(*dayPlot, plotDay(engine, envoys), 0o644); err != nil {
			t.Error(err)
		}
	}
	engine.check(t)
	for _, life := range dayLives {
		if n := engine.renewals(life); n > 1.5 {
			t.Errorf("%.2f renewals in a lifetime of %v", n, life)
		}
	}
	for _, tr := range dayTroubles {
		least := 3
		if tr.to-tr.from >= time.Hour {
			least = 5
		}
		if n, rule := engine.after(tr), envoys.after(tr); least*n > rule {
			t.Errorf("up to %d token requests a second after %q, %d by Envoy's rule", n, tr.name, rule)
		}
	}
}

// check is what holds on any day.
func (r *dayReport) check(t *testing.T) {
	t.Helper()
	if r.expired+r.withValid+r.other > 0 {
		t.Errorf("%d requests with an expired token, %d failed while one was valid, %d in quiet times", r.expired, r.withValid, r.other)
	}
	if r.longest > patience {
		t.Errorf("a request waited %v", r.longest)
	}
}
