package token

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// realm is an authorization server that gives a token for each value.
type realm struct {
	mu     sync.Mutex
	delay  time.Duration
	life   time.Duration
	fail   *oauth.Failure            // of every value
	bad    map[string]*oauth.Failure // of one
	stale  bool
	asked  []string
	times  []time.Time
	in     int
	peak   int
	scopes []string
}

// seeker asks a realm for the token of one value.
type seeker struct {
	realm *realm
	value string
}

func (k *seeker) Request(ctx context.Context, on Occasion) (*oauth.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, on.Limit)
	defer cancel()
	r := k.realm
	r.mu.Lock()
	r.asked, r.times = append(r.asked, k.value), append(r.times, time.Now())
	n, delay := len(r.asked), r.delay
	r.in++
	r.peak = max(r.peak, r.in)
	r.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.in--
	switch {
	case ctx.Err() != nil:
		return nil, &oauth.Failure{Kind: oauth.Unreachable, Err: ctx.Err()}
	case r.fail != nil:
		return nil, r.fail
	case r.bad[k.value] != nil:
		return nil, r.bad[k.value]
	}
	return &oauth.Response{AccessToken: fmt.Sprintf("%s-%d", k.value, n), ExpiresIn: r.life, Bearer: true, Scopes: r.scopes}, nil
}

func (k *seeker) Stale() bool {
	k.realm.mu.Lock()
	defer k.realm.mu.Unlock()
	return k.realm.stale
}

func (r *realm) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

func (r *realm) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.asked)
}

// atOnce is how many requests were under way together at most.
func (r *realm) atOnce() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.peak
}

// of counts the requests for one value.
func (r *realm) of(value string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, v := range r.asked {
		if v == value {
			n++
		}
	}
	return n
}

func keyOf(value string) Key { return sha256.Sum256([]byte(value)) }

var usual = Limits{MaxTokens: 1000, MaxNew: 10, InFlight: 16, Idle: 10 * time.Minute, Remember: 30 * time.Second}

// bench is a table before a realm.
type bench struct {
	*Table
	realm *realm
	obs   *observer
	ctx   context.Context
}

// tableOf makes a table whose random numbers are all 0.5.
func tableOf(t *testing.T, r *realm, change func(*Limits)) *bench {
	t.Helper()
	limits := usual
	if change != nil {
		change(&limits)
	}
	obs := new(observer)
	tab := NewTable(defaults, limits, new(Scheduler), obs)
	tab.random = func() float64 { return 0.5 }
	t.Cleanup(tab.Close)
	return &bench{tab, r, obs, t.Context()}
}

// get waits 5s for a value's token.
func (b *bench) get(value string) (string, error) { return b.getFor(value, 5*time.Second) }

func (b *bench) getFor(value string, most time.Duration) (string, error) {
	tok, err := b.Wait(b.ctx, keyOf(value), most, func() Requester { return &seeker{b.realm, value} })
	if tok == nil {
		return "", err
	}
	return tok.Value, err
}

// held is the token that costs nothing.
func (b *bench) held(value string) string {
	if tok := b.Token(keyOf(value)); tok != nil {
		return tok.Value
	}
	return ""
}

// places is how many are taken.
func (b *bench) places() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.entries
}

// entry is a value's entry.
func (b *bench) entry(value string) *entry {
	key := keyOf(value)
	return b.find(&key)
}

func isLimited(err error, which error) (time.Duration, bool) {
	l, ok := errors.AsType[*Limited](err)
	if !ok || !errors.Is(err, which) {
		return 0, false
	}
	return l.RetryAfter, true
}

func isLimitedAtAll(err error) bool {
	_, ok := errors.AsType[*Limited](err)
	return ok
}

// TestTableOneForEach: callers at once for a value cost one request, each value
// has a token of its own, and one that is held costs none.
func TestTableOneForEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tableOf(t, &realm{life: time.Hour, delay: time.Second}, nil)
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				value := fmt.Sprint("v", i%5)
				got, err := b.get(value)
				if err != nil || got[:2] != value {
					t.Errorf("%s: got %q, %v", value, got, err)
				}
			})
		}
		wg.Wait()
		for range 1000 {
			for i := range 5 {
				if b.held(fmt.Sprint("v", i)) == "" {
					t.Fatal("nothing is held")
				}
			}
		}
		if n := b.realm.count(); n != 5 || b.Snapshot().Tokens != 5 {
			t.Errorf("%d requests, %d tokens", n, b.Snapshot().Tokens)
		}
		if a := b.obs.last(); b.obs.count() != 5 || a.Reason != Demand || !a.Held || a.Lifetime != time.Hour || a.Took != time.Second {
			t.Errorf("%d attempts told of, the last %+v", b.obs.count(), a)
		}
	})
}

// TestTableMarksUse: a use is written down once a second.
func TestTableMarksUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tableOf(t, &realm{life: time.Hour}, nil)
		if _, err := b.get("a"); err != nil {
			t.Fatal(err)
		}
		first := b.entry("a").used.Load()
		pass(time.Second - 1)
		b.held("a")
		if b.entry("a").used.Load() != first {
			t.Error("each request writes what all read")
		}
		pass(1)
		b.held("a")
		if b.entry("a").used.Load() != int64(now()) {
			t.Error("not marked as used")
		}
	})
}

// TestTableLateProcess: see TestLateProcess. Who comes before the scheduler has
// noticed the end makes the next request.
func TestTableLateProcess(t *testing.T) {
	for _, onDemand := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := tableOf(t, &realm{life: time.Hour}, func(l *Limits) { l.OnDemand = onDemand })
			if _, err := b.get("a"); err != nil {
				t.Fatal(err)
			}
			b.mu.Lock()
			e := b.entry("a")
			old := *e.held.p.Load()
			old.until, e.next = now()-1, now()
			e.hold(&old)
			b.mu.Unlock()
			if b.held("a") != "" {
				t.Error("an expired token was given out")
			}
			if !onDemand {
				b.scheduler.set(e, now())
			}
			began := time.Now()
			if got, err := b.get("a"); got != "a-2" || time.Since(began) != 0 {
				t.Errorf("got %q, %v after %v", got, err, time.Since(began))
			}
		})
	}
}

// TestTableLeaving: a caller that leaves ends nothing for the others.
func TestTableLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tableOf(t, &realm{life: time.Hour, delay: 3 * time.Second}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := b.Wait(ctx, keyOf("a"), time.Minute, func() Requester { return &seeker{b.realm, "a"} }); !errors.Is(err, context.Canceled) {
				t.Errorf("who left got %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if got, err := b.get("a"); got != "a-1" {
				t.Errorf("who stayed got %q, %v", got, err)
			}
		})
		wg.Go(func() {
			began := time.Now()
			_, err := b.getFor("a", time.Second)
			if f, ok := errors.AsType[*oauth.Failure](err); !ok || f.Kind != oauth.Unreachable || time.Since(began) != time.Second {
				t.Errorf("who waited a second got %v after %v", err, time.Since(began))
			}
		})
		synctest.Wait()
		cancel()
		wg.Wait()
		if b.realm.count() != 1 {
			t.Errorf("%d requests", b.realm.count())
		}
	})
}

// TestTableRefused: a value that is refused holds no place, its failure is
// shared, and it is asked for once in 30s, whatever comes.
func TestTableRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		failure oauth.Failure
		again   time.Duration
	}{
		"refused":              {oauth.Failure{Kind: oauth.Refused, Status: 400, Code: "invalid_scope"}, 30 * time.Second},
		"refused, Retry-After": {oauth.Failure{Kind: oauth.Refused, Status: 403, RetryAfter: time.Minute}, 75 * time.Second},
		"could not be made":    {oauth.Failure{Kind: oauth.Refused, Err: errors.New("no such file")}, time.Second},
		"malformed":            {oauth.Failure{Kind: oauth.Malformed, Status: 200}, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := tableOf(t, &realm{life: time.Hour, delay: time.Second, bad: map[string]*oauth.Failure{"bad": &tc.failure}}, nil)
				var wg sync.WaitGroup
				for range 50 {
					wg.Go(func() {
						if _, err := b.get("bad"); !errors.Is(err, error(&tc.failure)) {
							t.Errorf("got %v", err)
						}
					})
				}
				wg.Wait()
				if b.realm.count() != 1 || b.places() != 0 || b.Snapshot().Tokens != 0 {
					t.Fatalf("%d requests, %d places taken", b.realm.count(), b.places())
				}
				for passed := time.Duration(0); passed < tc.again; passed += time.Second / 2 {
					began := time.Now()
					if _, err := b.get("bad"); !errors.Is(err, error(&tc.failure)) || time.Since(began) != 0 {
						t.Fatalf("%v after the failure: got %v after %v", passed, err, time.Since(began))
					}
					pass(time.Second / 2)
				}
				if b.realm.count() != 1 {
					t.Errorf("%d requests in %v", b.realm.count(), tc.again)
				}
				if got, _ := b.get("good"); got == "" || b.Snapshot().Failures != 0 {
					t.Errorf("another value got %q; failures of the credential: %d", got, b.Snapshot().Failures)
				}
				b.realm.set(func() { b.realm.bad = nil })
				if got, err := b.get("bad"); got != "bad-3" {
					t.Errorf("after that got %q, %v", got, err)
				}
			})
		})
	}
}

// TestTableRate: no more than max_new new values in any second, and who is
// told when to come again has luck then.
func TestTableRate(t *testing.T) {
	for _, tc := range []struct {
		rate float64
		burst,
		inTen int
		again time.Duration
	}{
		{10, 10, 100, time.Second},
		{1, 1, 10, time.Second},
		{0.25, 1, 3, 4 * time.Second},
		{2.5, 2, 26, 800 * time.Millisecond},
	} {
		t.Run(fmt.Sprint(tc.rate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := tableOf(t, &realm{life: time.Hour}, func(l *Limits) { l.MaxNew = tc.rate })
				tried := 0
				for range tc.burst {
					if _, err := b.get(fmt.Sprint("v", tried)); err != nil {
						t.Fatalf("value %d: %v", tried, err)
					}
					tried++
				}
				_, err := b.get("one more")
				if again, ok := isLimited(err, ErrTooManyNew); !ok || again != tc.again {
					t.Fatalf("got %v, again in %v, want %v", err, again, tc.again)
				}
				pass(tc.again - 1)
				if _, err := b.get("one more"); err == nil {
					t.Error("let in too early")
				}
				pass(1)
				if got, err := b.get("one more"); got == "" {
					t.Errorf("not let in when it was told to come: %v", err)
				}
				if b.held("v0") == "" {
					t.Error("one that is held needs a permit")
				}
				pass(time.Minute)
				before := b.realm.count()
				for range 10000 {
					_, _ = b.get(fmt.Sprint("v", tried))
					tried++
					pass(time.Millisecond)
				}
				if n := b.realm.count() - before; n != tc.inTen {
					t.Errorf("%d requests in ten seconds, want %d", n, tc.inTen)
				}
			})
		})
	}
}

// TestTableFull: the value that is idle longest makes room, one in use never
// does; and a full table takes no permits.
func TestTableFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tableOf(t, &realm{life: 24 * time.Hour}, func(l *Limits) { l.MaxTokens = 3 })
		for _, v := range []string{"a", "b", "c"} {
			if _, err := b.get(v); err != nil {
				t.Fatal(err)
			}
			pass(time.Second)
		}
		for i := range 100 {
			_, err := b.get(fmt.Sprint("v", i))
			again, ok := isLimited(err, ErrTableFull)
			if want := 10*time.Minute - 3*time.Second; !ok || again != want {
				t.Fatalf("got %v, again in %v, want %v", err, again, want)
			}
		}
		pass(5*time.Minute - 3*time.Second)
		b.held("a") // in use
		pass(5*time.Minute - 1)
		for _, want := range []time.Duration{1, time.Second} { // a could be idle, and is not: b is next
			_, err := b.get("d")
			if again, ok := isLimited(err, ErrTableFull); !ok || again != want {
				t.Fatalf("got %v, again in %v, want %v", err, again, want)
			}
			pass(want)
		}
		for range 2 {
			if got, err := b.get("d"); got != "d-4" {
				t.Fatalf("got %q, %v", got, err)
			}
		}
		if b.held("a") == "" || b.held("b") != "" || b.held("c") == "" || b.Snapshot().Tokens != 3 {
			t.Errorf("held: a %q, b %q, c %q", b.held("a"), b.held("b"), b.held("c"))
		}
		if n := b.rate.free(now()); n != 9 {
			t.Errorf("%d permits are left, want 9", n)
		}
		if b.obs.expired != 0 {
			t.Error("an idle value's end was told")
		}
	})
}

// TestTableInFlight: no more requests at once than allowed. Others wait for a
// place in the line within their wait, and none is made for who has left.
func TestTableInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tableOf(t, &realm{life: time.Hour, delay: 2 * time.Second}, func(l *Limits) { l.InFlight, l.MaxNew = 4, 10 })
		var wg sync.WaitGroup
		var mu sync.Mutex
		took := make(map[time.Duration]int)
		for i := range 10 {
			wg.Go(func() {
				began := time.Now()
				_, err := b.get(fmt.Sprint("v", i))
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					took[time.Since(began)]++
				} else {
					took[-time.Since(began)]++
				}
			})
		}
		wg.Wait()
		// the third four of them leave at 5s, while two are under way
		if want := map[time.Duration]int{2 * time.Second: 4, 4 * time.Second: 4, -5 * time.Second: 2}; !maps.Equal(took, want) {
			t.Errorf("took %v, want %v", took, want)
		}
		pass(time.Minute)
		if b.realm.atOnce() != 4 || b.realm.count() != 10 || b.Snapshot().Tokens != 10 {
			t.Errorf("%d at once, %d requests, %d tokens", b.realm.atOnce(), b.realm.count(), b.Snapshot().Tokens)
		}

		// who leaves the line takes the wish along
		before := b.realm.count()
		for i := range 10 {
			wg.Go(func() { _, _ = b.getFor(fmt.Sprint("w", i), time.Second) })
		}
		synctest.Wait()
		if b.places() != 20 {
			t.Errorf("%d places taken, want 20", b.places())
		}
		wg.Wait()
		if n := b.realm.count() - before; n != 4 || b.places() != 14 {
			t.Errorf("%d requests, %d places; want 4 and 14", n, b.places())
		}
		for i := range 10 {
			wg.Go(func() {
				if _, err := b.getFor(fmt.Sprint("x", i), 0); isLimitedAtAll(err) {
					t.Errorf("those who left took permits along: %v", err)
				}
			})
		}
		wg.Wait()
	})
}

// TestTableLineIsShort: a server that hangs has no more new values wait than
// there are permits.
func TestTableLineIsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tableOf(t, &realm{life: time.Hour, delay: 10 * time.Minute}, func(l *Limits) { l.InFlight = 2 })
		var wg sync.WaitGroup
		var mu sync.Mutex
		limited := 0
		for i := range 1000 {
			wg.Go(func() {
				_, err := b.get(fmt.Sprint("v", i))
				if again, ok := isLimited(err, ErrTooManyNew); ok && again == time.Second {
					mu.Lock()
					limited++
					mu.Unlock()
				}
			})
		}
		synctest.Wait()
		if b.places() != 10 || limited != 990 {
			t.Errorf("%d have a place, %d were turned away", b.places(), limited)
		}
		wg.Wait()
	})
}

// TestTableRenewal: values in use are renewed in the background; an idle one is
// given up when it is due, and nobody is told that it expired.
func TestTableRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tableOf(t, &realm{life: 10 * time.Minute, scopes: []string{"read"}}, func(l *Limits) { l.Idle = 5 * time.Minute })
		for _, v := range []string{"used", "idle"} {
			if _, err := b.get(v); err != nil {
				t.Fatal(err)
			}
		}
		if a, c := b.Token(keyOf("used")), b.Token(keyOf("idle")); a.granted == nil || a.granted != c.granted {
			t.Error("what is granted to all is kept for each")
		}
		if s := b.obs.last().Snapshot; !slices.Equal(s.Scopes, []string{"read"}) {
			t.Errorf("told of scopes %v", s.Scopes)
		}
		for range 6 * 60 {
			pass(time.Minute)
			if b.held("used") == "" {
				t.Fatal("one in use was dropped")
			}
		}
		if n := b.realm.of("used"); n != 1+51 { // every 7m
			t.Errorf("%d requests for the one in use", n)
		}
		if n := b.realm.of("idle"); n != 1 || b.held("idle") != "" || b.places() != 1 || b.obs.expired != 0 {
			t.Errorf("%d requests for the idle one, held %q; %d told of", n, b.held("idle"), b.obs.expired)
		}
		if a := b.obs.last(); a.Reason != Scheduled || a.Failure != nil || a.Same {
			t.Errorf("told of %+v", a)
		}
	})
}

// TestTableRenewalRefused: a value that is refused later keeps its token to its
// end, with a pause of its own, and is then gone.
func TestTableRenewalRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tableOf(t, &realm{life: time.Hour}, nil)
		for _, v := range []string{"a", "b"} {
			if _, err := b.get(v); err != nil {
				t.Fatal(err)
			}
		}
		gone := &oauth.Failure{Kind: oauth.Refused, Status: 400, Code: "invalid_target"}
		b.realm.set(func() { b.realm.bad = map[string]*oauth.Failure{"a": gone} })
		for range 59 {
			pass(time.Minute)
			if b.held("a") != "a-1" || b.held("b") == "" {
				t.Fatal("dropped before its end")
			}
		}
		if n := b.realm.of("a") - 1; n < 8 || n > 12 {
			t.Errorf("%d requests for a value that is refused, in 17m", n)
		}
		if s := b.Snapshot(); s.Failures != 0 || b.realm.of("b") != 2 {
			t.Errorf("the other value suffers: %+v, %d requests", s, b.realm.of("b"))
		}
		pass(time.Minute)
		if b.held("a") != "" || b.places() != 1 || b.obs.expired != 1 {
			t.Errorf("held %q after its end, %d places, %d told of", b.held("a"), b.places(), b.obs.expired)
		}
		if _, err := b.get("a"); !errors.Is(err, error(gone)) {
			t.Errorf("got %v", err)
		}
	})
}

// TestTableRenewalOvertaken: a caller whose token ends while the next is on its
// way waits for that one.
func TestTableRenewalOvertaken(t *testing.T) {
	for _, ok := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := tableOf(t, &realm{life: 20 * time.Second}, nil)
			if _, err := b.get("a"); err != nil {
				t.Fatal(err)
			}
			b.realm.set(func() {
				b.realm.delay = 8 * time.Second // due at 14s, ends at 18s
				if !ok {
					b.realm.fail = &odd
				}
			})
			pass(19 * time.Second)
			if b.held("a") != "" || b.Snapshot().Tokens != 0 {
				t.Fatal("used beyond its end")
			}
			began := time.Now()
			got, err := b.get("a")
			if ok && (got != "a-2" || time.Since(began) != 3*time.Second) || !ok && (!errors.Is(err, error(&odd)) || b.places() != 0) {
				t.Errorf("got %q, %v after %v", got, err, time.Since(began))
			}
			if b.realm.count() != 2 {
				t.Errorf("%d requests", b.realm.count())
			}
		})
	}
}

// TestTableRunningToken: where a server hands out a running token to its end,
// who comes in the gap waits for the next.
func TestTableRunningToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const life = 60 * time.Second
		began := time.Now()
		b := tableOf(t, &realm{}, nil)
		ask := requesterFunc(func(context.Context) (*oauth.Response, error) {
			age := time.Since(began)
			return &oauth.Response{AccessToken: fmt.Sprint("tok-", age/life), ExpiresIn: (life - age%life).Truncate(time.Second), Bearer: true}, nil
		})
		for range 4 * 5 * 60 {
			at := time.Now()
			tok, err := b.Wait(t.Context(), keyOf("a"), 5*time.Second, func() Requester { return ask })
			if err != nil {
				t.Fatalf("%v on: %v", time.Since(began), err)
			}
			if want := fmt.Sprint("tok-", time.Since(began)/life); tok.Value != want || time.Since(at) > 3*time.Second {
				t.Fatalf("%v on: got %s after %v, want %s", time.Since(began), tok.Value, time.Since(at), want)
			}
			pass(time.Second / 4)
		}
	})
}

type requesterFunc func(context.Context) (*oauth.Response, error)

func (f requesterFunc) Request(ctx context.Context, _ Occasion) (*oauth.Response, error) {
	return f(ctx)
}
func (requesterFunc) Stale() bool { return false }

// TestTableOnDemand: such a token is not renewed, and goes at its end.
func TestTableOnDemand(t *testing.T) {
	for name, tc := range map[string]struct{ life, end time.Duration }{
		"a life":            {10 * time.Minute, 10*time.Minute - 10*time.Second},
		"an assumed life":   {0, DefaultLifetime},
		"longer than a day": {48 * time.Hour, 48*time.Hour - 10*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := tableOf(t, &realm{life: tc.life}, func(l *Limits) { l.OnDemand = true })
				if _, err := b.get("a"); err != nil {
					t.Fatal(err)
				}
				if b.entry("a").requester != nil {
					t.Error("what made the request is kept, and with it the client's token")
				}
				pass(tc.end - 1)
				if b.held("a") != "a-1" {
					t.Fatal("gone too early")
				}
				pass(1)
				if b.held("a") != "" || b.places() != 0 || b.realm.count() != 1 || b.obs.expired != 0 {
					t.Errorf("after its end: held %q, %d places, %d requests, %d told of", b.held("a"), b.places(), b.realm.count(), b.obs.expired)
				}
				if got, err := b.get("a"); got != "a-2" {
					t.Errorf("got %q, %v", got, err)
				}
			})
		})
	}
}

// TestTableTooShort: a client's token that ends in a moment is no failure of
// the server; a server whose tokens come too late is.
func TestTableTooShort(t *testing.T) {
	for _, onDemand := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := tableOf(t, &realm{life: time.Nanosecond, delay: time.Second}, func(l *Limits) { l.OnDemand = onDemand })
			_, err := b.get("a")
			if !errors.Is(err, errTooSlow) || b.places() != 0 {
				t.Errorf("got %v, %d places", err, b.places())
			}
			want := 1
			if onDemand {
				want = 0
			}
			if got := b.Snapshot().Failures; got != want {
				t.Errorf("on demand %v: %d failures of the credential, want %d", onDemand, got, want)
			}
			if _, err := b.get("a"); !errors.Is(err, errTooSlow) || b.realm.count() != 1 {
				t.Errorf("asked for again at once: %v, %d requests", err, b.realm.count())
			}
		})
	}
}

// TestTableFair: new values that a slow server keeps waiting keep no renewal
// from being made.
func TestTableFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tableOf(t, &realm{life: time.Minute}, func(l *Limits) { l.InFlight, l.Idle, l.MaxNew = 2, 10*time.Second, 20 })
		for i := range 10 {
			if _, err := b.get(fmt.Sprint("used", i)); err != nil {
				t.Fatal(err)
			}
		}
		b.realm.set(func() { b.realm.delay = time.Second }) // two a second
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer stop()
		for worker := range 30 {
			wg.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					_, _ = b.get(fmt.Sprint("new", worker, i))
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
		for range 100 {
			pass(time.Second)
			for i := range 10 {
				if b.held(fmt.Sprint("used", i)) == "" {
					t.Fatalf("used%d lost its token", i)
				}
			}
		}
		if b.realm.atOnce() != 2 {
			t.Errorf("%d requests at once", b.realm.atOnce())
		}
	})
}

// TestTableFairToNew: a thousand renewals at once keep no new value waiting.
func TestTableFairToNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tableOf(t, &realm{life: time.Hour}, func(l *Limits) { l.MaxTokens, l.InFlight, l.Idle, l.MaxNew = 2000, 2, 2*time.Hour, 1000 })
		for i := range 1000 {
			if _, err := b.get(fmt.Sprint("used", i)); err != nil {
				t.Fatal(err)
			}
		}
		b.realm.set(func() { b.realm.delay = time.Second })
		pass(42 * time.Minute)
		for i := range 10 {
			began := time.Now()
			if _, err := b.get(fmt.Sprint("new", i)); err != nil || time.Since(began) > 3*time.Second {
				t.Errorf("got %v after %v", err, time.Since(began))
			}
		}
	})
}

// TestTableClockStepped: after a step of the wall clock all are due, but those
// that the server has just refused.
func TestTableClockStepped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tableOf(t, &realm{life: time.Hour, bad: make(map[string]*oauth.Failure)}, func(l *Limits) { l.Idle = 2 * time.Hour })
		for _, v := range []string{"a", "b"} {
			if _, err := b.get(v); err != nil {
				t.Fatal(err)
			}
		}
		b.realm.set(func() { b.realm.bad["b"] = &oauth.Failure{Kind: oauth.Refused, Status: 400} })
		pass(42 * time.Minute)
		b.entry("a").clockMoved(0)
		b.entry("b").clockMoved(0)
		pass(1)
		if b.realm.of("a") != 3 || b.realm.of("b") != 2 || b.held("b") == "" {
			t.Errorf("%d and %d requests", b.realm.of("a"), b.realm.of("b"))
		}
	})
}

// TestTableSuspended: see TestSuspended.
func TestTableSuspended(t *testing.T) {
	for _, onDemand := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			var slept time.Duration
			b := tableOf(t, &realm{life: time.Hour}, func(l *Limits) { l.OnDemand = onDemand; l.Idle = 24 * time.Hour })
			b.scheduler.Slept = func() time.Duration {
				mu.Lock()
				defer mu.Unlock()
				return slept
			}
			if _, err := b.get("a"); err != nil {
				t.Fatal(err)
			}
			sleep := func(d time.Duration) {
				synctest.Wait() // until the scheduler has read the clocks
				mu.Lock()
				slept += d
				mu.Unlock()
				pass(2 * time.Second)
			}
			sleep(10 * time.Minute)
			want := map[bool]string{true: "a-1", false: "a-2"}[onDemand]
			if b.held("a") != want {
				t.Errorf("after ten minutes: held %q, want %q", b.held("a"), want)
			}
			b.realm.set(func() { b.realm.fail = &oauth.Failure{Kind: oauth.Unreachable, RetryAfter: 4 * time.Minute} })
			sleep(2 * time.Hour)
			if b.held("a") != "" {
				t.Error("a token that expired in its sleep is still held")
			}
			_, _ = b.get("b")
			if s := b.Snapshot(); s.Next.IsZero() {
				t.Error("no pause")
			}
			sleep(10 * time.Minute)
			if s := b.Snapshot(); !s.Next.IsZero() {
				t.Errorf("a pause outlasts a sleep: %v", time.Until(s.Next))
			}
		})
	}
}

// TestTableHandOverLate: who waits at a closed table is given no token that has
// ended.
func TestTableHandOverLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tableOf(t, &realm{life: time.Second, delay: 3 * time.Second}, nil)
		got := make(chan error, 1)
		go func() {
			tok, err := b.get("a")
			if tok != "" {
				t.Errorf("got %q", tok)
			}
			got <- err
		}()
		pass(time.Second)
		b.Close()
		f, ok := errors.AsType[*oauth.Failure](<-got)
		if !ok || !errors.Is(f, errTooSlow) {
			t.Errorf("got %v", f)
		}
	})
}

// TestTableClosedForNobody: a request that nobody waits for any more ends.
func TestTableClosedForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tableOf(t, &realm{life: time.Hour, delay: 5 * time.Second}, func(*Limits) {})
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error)
		go func() {
			_, err := b.Wait(ctx, keyOf("a"), time.Minute, func() Requester { return &seeker{b.realm, "a"} })
			left <- err
		}()
		synctest.Wait()
		b.Close()
		synctest.Wait()
		if b.realm.in != 1 {
			t.Fatalf("%d requests go on", b.realm.in)
		}
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		if b.realm.in != 0 {
			t.Error("it goes on for nobody")
		}
	})
}

// TestTableClosed: whoever waits for a request that has begun gets what it brings,
// the others are told, and nothing is published or asked for any more.
func TestTableClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tableOf(t, &realm{life: time.Hour}, func(l *Limits) { l.InFlight = 2 })
		if _, err := b.get("held"); err != nil {
			t.Fatal(err)
		}
		b.realm.set(func() { b.realm.delay = 3 * time.Second })
		var wg sync.WaitGroup
		var served, closed atomic.Int64
		for i := range 4 {
			wg.Go(func() {
				switch _, err := b.get(fmt.Sprint("v", i)); {
				case err == nil:
					served.Add(1)
				case errors.Is(err, ErrClosed):
					closed.Add(1)
				default:
					t.Errorf("who waited got %v", err)
				}
			})
		}
		synctest.Wait()
		b.Close()
		b.Close()
		wg.Wait()
		synctest.Wait()
		if served.Load() != 2 || closed.Load() != 2 {
			t.Errorf("%d were served, %d told", served.Load(), closed.Load())
		}
		if b.held("held") != "" || b.realm.count() != 3 || b.realm.in != 0 || b.obs.count() != 1 {
			t.Errorf("held %q, %d requests, %d under way, %d told of", b.held("held"), b.realm.count(), b.realm.in, b.obs.count())
		}
		if _, err := b.get("held"); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
		pass(24 * time.Hour)
		if s := b.Snapshot(); b.realm.count() != 3 || s.Tokens != 0 || s.InFlight != 0 {
			t.Errorf("%d requests, %+v", b.realm.count(), s)
		}
	})
}

// TestRefusals: what is remembered is bounded, whatever the order of the ends.
func TestRefusals(t *testing.T) {
	f := func(n int) *oauth.Failure { return &oauth.Failure{Status: n} }
	type refusal = memo[*oauth.Failure]
	r := newMemory[*oauth.Failure](3)
	for i := range 100 {
		r.add(refusal{numbered(i), instant(1000 + i), f(i)}, 0)
	}
	if len(r.by) != 3 || len(r.order) != 3 || r.find(numbered(96), 0) != nil || r.find(numbered(97), 0).Status != 97 {
		t.Errorf("%d remembered, %d in order", len(r.by), len(r.order))
	}
	r.add(refusal{numbered(200), 2000, f(200)}, 1099)
	if len(r.by) != 1 || len(r.order) != 1 || r.find(numbered(200), 1999) == nil || r.find(numbered(200), 2000) != nil {
		t.Errorf("%d remembered once the others are past", len(r.by))
	}

	r = newMemory[*oauth.Failure](3)
	r.add(refusal{numbered(1), 3000, f(1)}, 0)
	r.add(refusal{numbered(2), 10, f(2)}, 0) // behind one that lasts
	r.add(refusal{numbered(2), 5000, f(3)}, 20)
	r.add(refusal{numbered(3), 5000, f(4)}, 3000) // the first two go
	if got := r.find(numbered(2), 3000); got == nil || got.Status != 3 {
		t.Errorf("the newer refusal went with the older: %v", got)
	}
}

// TestShard: entries are found however many there are, and leave nothing.
func TestShard(t *testing.T) {
	tab := NewTable(defaults, usual, new(Scheduler), silent{})
	var entries []*entry
	for i := range 20_000 {
		e := &entry{table: tab, key: numbered(i)}
		tab.put(e)
		entries = append(entries, e)
		if old := i - 1000; old >= 0 {
			tab.take(entries[old])
		}
	}
	found, chains := 0, 0
	for range tab.all() {
		found++
	}
	for i := range tab.shards {
		chains += len(tab.shards[i].chains)
	}
	if found != 1000 || chains < 1000 || chains > 4000 {
		t.Errorf("%d entries in %d chains", found, chains)
	}
	for i, e := range entries {
		got := tab.find(&e.key)
		if i < 19_000 && got != nil || i >= 19_000 && got != e {
			t.Fatalf("entry %d: found %v", i, got)
		}
	}
}
