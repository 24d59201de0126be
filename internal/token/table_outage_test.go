package token

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// TestTableOutage: what is not about one value holds all new ones back, and
// held tokens serve on. After the pause one asks, not all at once.
func TestTableOutage(t *testing.T) {
	for name, tc := range map[string]struct {
		failure oauth.Failure
		pauses  []time.Duration // with random numbers of 0.5
	}{
		"unreachable":    {oauth.Failure{Kind: oauth.Unreachable, Status: 503}, []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second}},
		"invalid_client": {oauth.Failure{Kind: oauth.Refused, Status: 401, Code: "invalid_client"}, []time.Duration{2500 * time.Millisecond, 5 * time.Second, 10 * time.Second}},
		"429":            {oauth.Failure{Kind: oauth.Unreachable, Status: 429, RetryAfter: 20 * time.Second}, []time.Duration{25 * time.Second, 25 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := tableOf(t, &realm{life: time.Hour}, func(l *Limits) { l.MaxNew = 100 })
				if _, err := b.get("held"); err != nil {
					t.Fatal(err)
				}
				pass(time.Second)
				b.realm.set(func() { b.realm.fail, b.realm.delay = &tc.failure, time.Second })
				for i, pause := range tc.pauses {
					before := b.realm.count()
					var wg sync.WaitGroup
					for j := range 50 {
						wg.Go(func() {
							if _, err := b.get(fmt.Sprint("v", j)); !errors.Is(err, error(&tc.failure)) {
								t.Errorf("got %v", err)
							}
						})
					}
					wg.Wait()
					want := 1
					if i == 0 {
						want = 16 // nobody knew
					}
					if n := b.realm.count() - before; n != want {
						t.Fatalf("pause %d: %d requests, want %d", i, n, want)
					}
					s := b.Snapshot()
					if s.Failures != i+1 || s.Failure == nil || time.Until(s.Next).Round(time.Millisecond) != pause {
						t.Errorf("pause %d: %d failures, next in %v, want %v", i, s.Failures, time.Until(s.Next), pause)
					}
					if b.places() != 1 || b.held("held") == "" {
						t.Errorf("pause %d: %d places, held %q", i, b.places(), b.held("held"))
					}
					pass(pause - 1)
					began := time.Now()
					if _, err := b.get("early"); err == nil || time.Since(began) != 0 || b.realm.count() != before+want {
						t.Errorf("pause %d: got %v after %v in the pause", i, err, time.Since(began))
					}
					pass(1)
				}
				b.realm.set(func() { b.realm.fail = nil })
				before := b.realm.count()
				var wg sync.WaitGroup
				for i := range 10 {
					wg.Go(func() {
						if got, err := b.get(fmt.Sprint("w", i)); got == "" {
							t.Errorf("after the outage: %v", err)
						}
					})
				}
				synctest.Wait()
				if n := b.realm.count() - before; n != 1 {
					t.Errorf("%d asked whether the outage is over, want 1", n)
				}
				wg.Wait()
				if s := b.Snapshot(); s.Failures != 0 || s.Failure != nil || !s.Next.IsZero() || b.realm.count()-before != 10 {
					t.Errorf("after the outage: %+v, %d requests", s, b.realm.count()-before)
				}
			})
		})
	}
}

// TestTableOutageOfRenewals: while the server is down renewals wait, one asks,
// and all are made when it is back; a value whose token ends meanwhile goes.
func TestTableOutageOfRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tableOf(t, &realm{life: time.Hour}, func(l *Limits) { l.MaxNew, l.InFlight, l.Idle = 100, 16, 24*time.Hour })
		for i := range 50 {
			if _, err := b.get(fmt.Sprint("v", i)); err != nil {
				t.Fatal(err)
			}
		}
		b.realm.set(func() { b.realm.fail, b.realm.delay = &down, time.Second })
		pass(42*time.Minute - 1) // 75% less half of the jitter
		if n := b.realm.count(); n != 50 {
			t.Fatalf("%d requests before they are due", n)
		}
		pass(1 + time.Second)
		if n := b.realm.count(); n != 50+16 || b.Snapshot().Failures != 1 {
			t.Fatalf("%d requests when they are, %d failures", n-50, b.Snapshot().Failures)
		}
		pass(10 * time.Minute)
		if n := b.realm.count() - 66; n < 20 || n > 30 || b.Snapshot().Tokens != 50 {
			t.Errorf("%d requests in ten minutes of an outage, %d tokens", n, b.Snapshot().Tokens)
		}
		b.realm.set(func() { b.realm.fail = nil })
		pass(time.Minute)
		if s := b.Snapshot(); s.Tokens != 50 || s.Failures != 0 {
			t.Errorf("after the outage: %+v", s)
		}
		for i := range 50 {
			if n := b.realm.of(fmt.Sprint("v", i)); n < 2 {
				t.Errorf("v%d was not renewed", i)
			}
		}

		b.realm.set(func() { b.realm.fail = &down })
		pass(time.Hour)
		if s := b.Snapshot(); s.Tokens != 0 || b.places() != 0 || b.obs.expired != 50 {
			t.Errorf("in a long outage: %+v, %d places, %d told of", s, b.places(), b.obs.expired)
		}
	})
}

// TestTableOutageEnds: a server that refuses one value is there; nothing is
// known of it after a request that was not made, or an answer from elsewhere.
func TestTableOutageEnds(t *testing.T) {
	for _, tc := range []struct {
		then oauth.Failure
		want int
	}{
		{oauth.Failure{Kind: oauth.Refused, Status: 400, Code: "invalid_scope"}, 0},
		{oauth.Failure{Kind: oauth.Refused, Err: errors.New("no such file")}, 1},
		{odd, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := tableOf(t, &realm{life: time.Hour, fail: &down}, nil)
			_, _ = b.get("a")
			pass(time.Second)
			b.realm.set(func() { b.realm.fail = &tc.then })
			_, _ = b.get("b")
			if s := b.Snapshot(); s.Failures != tc.want || b.realm.count() != 2 {
				t.Errorf("%v: after %d requests %d failures", &tc.then, b.realm.count(), s.Failures)
			}
		})
	}
}

// TestTableOutageBegins: who waits for a value that has no token when an outage
// begins is told so at once.
func TestTableOutageBegins(t *testing.T) {
	long := &oauth.Failure{Kind: oauth.Unreachable, Status: 503, RetryAfter: time.Minute}
	t.Run("in line for its renewal", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := tableOf(t, &realm{life: 20 * time.Second}, func(l *Limits) { l.InFlight = 1 })
			if _, err := b.get("a"); err != nil {
				t.Fatal(err)
			}
			pass(13 * time.Second) // due at 14s, ends at 18s
			b.realm.set(func() { b.realm.delay, b.realm.fail = 8*time.Second, long })
			_, _ = b.getFor("b", 0)
			pass(6 * time.Second)
			began := time.Now()
			if _, err := b.getFor("a", time.Minute); !errors.Is(err, error(long)) || time.Since(began) != 2*time.Second || b.places() != 0 {
				t.Errorf("got %v after %v", err, time.Since(began))
			}
		})
	})
	t.Run("in the gap of a running token", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := tableOf(t, &realm{fail: long}, func(l *Limits) { l.Idle = 3 * time.Second / 2 }) // who waits is not idle
			end := time.Now().Add(time.Minute)
			ask := requesterFunc(func(context.Context) (*oauth.Response, error) {
				return &oauth.Response{AccessToken: "tok", ExpiresIn: time.Until(end).Truncate(time.Second), Bearer: true}, nil
			})
			wait := func() error {
				_, err := b.Wait(t.Context(), keyOf("a"), time.Minute, func() Requester { return ask })
				return err
			}
			if err := wait(); err != nil {
				t.Fatal(err)
			}
			for b.held("a") != "" {
				pass(time.Second / 10)
			}
			_, _ = b.get("b")
			began := time.Now()
			if err := wait(); !errors.Is(err, error(long)) || time.Since(began) > 3*time.Second || b.places() != 0 {
				t.Errorf("got %v after %v, %d places", err, time.Since(began), b.places())
			}
		})
	})
	t.Run("and its renewal asks whether it is over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := tableOf(t, &realm{life: 20 * time.Second}, nil)
			if _, err := b.get("a"); err != nil {
				t.Fatal(err)
			}
			pass(13 * time.Second) // due at 14s, ends at 18s
			b.realm.set(func() { b.realm.fail = &down })
			_, _ = b.get("b")
			b.realm.set(func() { b.realm.fail, b.realm.delay = nil, 6*time.Second })
			pass(6 * time.Second)
			if b.held("a") != "" || b.places() != 1 {
				t.Errorf("held %q, %d places", b.held("a"), b.places())
			}
			pass(time.Second)
			if b.held("a") != "a-3" || b.Snapshot().Tokens != 1 || b.places() != 1 {
				t.Errorf("held %q, %d tokens, %d places", b.held("a"), b.Snapshot().Tokens, b.places())
			}
		})
	})
	t.Run("and it is idle", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := tableOf(t, &realm{life: time.Hour}, func(l *Limits) { l.Idle = 55 * time.Minute })
			if _, err := b.get("a"); err != nil {
				t.Fatal(err)
			}
			b.realm.set(func() { b.realm.fail = &oauth.Failure{Kind: oauth.Unreachable, RetryAfter: 10 * time.Minute} })
			pass(time.Hour) // due at 42m, again at 52m
			if b.held("a") != "" || b.places() != 0 || b.realm.count() != 3 || b.obs.expired != 0 {
				t.Errorf("held %q, %d places, %d requests, %d told of", b.held("a"), b.places(), b.realm.count(), b.obs.expired)
			}
		})
	})
}

// TestTableRetryAfterOfMany: what requests that were under way together ask for
// is kept to, and one that succeeds late ends nothing.
func TestTableRetryAfterOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &realm{life: time.Hour, delay: time.Second, bad: map[string]*oauth.Failure{
			"a": {Kind: oauth.Unreachable, Status: 503},
			"b": {Kind: oauth.Unreachable, Status: 429, RetryAfter: 20 * time.Second},
		}}
		b := tableOf(t, r, nil)
		var wg sync.WaitGroup
		for _, v := range []string{"a", "b"} {
			wg.Go(func() { _, _ = b.get(v) })
		}
		synctest.Wait()
		r.set(func() { r.delay = 2 * time.Second })
		wg.Go(func() { _, _ = b.get("c") })
		wg.Wait()
		if s := b.Snapshot(); s.Failures != 1 || time.Until(s.Next) != 24*time.Second || s.Tokens != 1 {
			t.Errorf("got %+v", s)
		}
		b.mu.Lock()
		b.suffer(&oauth.Failure{Kind: oauth.Unreachable, Status: 429, RetryAfter: time.Second}, &seeker{r, "d"}, 0, now())
		b.mu.Unlock()
		b.realm.set(func() { b.realm.stale = true })
		pass(2 * time.Second)
		if s := b.Snapshot(); s.Failures != 1 || time.Until(s.Next) != 22*time.Second {
			t.Errorf("after a shorter one that came late: %+v", s)
		}
	})
}

// TestTableChangedFile: a secret that was mended is used at once, but not
// within a Retry-After.
func TestTableChangedFile(t *testing.T) {
	for _, tc := range []struct{ asked, want time.Duration }{{0, time.Second}, {4 * time.Second, 5 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			b := tableOf(t, &realm{life: time.Hour, fail: &oauth.Failure{Kind: oauth.Refused, Status: 401, Code: "invalid_client", RetryAfter: tc.asked}}, nil)
			for b.Snapshot().Failures < 5 { // 40s
				_, _ = b.get("a")
				pass(time.Second / 4)
			}
			b.realm.set(func() { b.realm.stale, b.realm.fail = true, nil })
			began := time.Now()
			for b.held("a") == "" {
				_, _ = b.get("a")
				pass(time.Second / 4)
			}
			if took := time.Since(began); took > tc.want+time.Second/4 || took < tc.want-time.Second {
				t.Errorf("asked for %v: used after %v, want %v", tc.asked, took, tc.want)
			}
		})
	}
}

// TestTableHangingFiles: one look at the files is enough, and what it finds is
// used at once.
func TestTableHangingFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tableOf(t, &realm{life: 10 * time.Minute}, nil)
		if _, err := b.get("a"); err != nil {
			t.Fatal(err)
		}
		hanging := &hangingFiles{release: make(chan struct{})}
		_, _ = b.Wait(t.Context(), keyOf("b"), time.Second, func() Requester { return hanging })
		pass(5 * time.Second)
		if got, err := b.get("c"); got == "" {
			t.Fatal(err)
		}
		_, _ = b.Wait(t.Context(), keyOf("d"), time.Second, func() Requester { return hanging })
		b.mu.Lock()
		b.outage.until = now().add(10 * time.Minute)
		b.mu.Unlock()
		pass(7*time.Minute + time.Second/2) // a is due
		if hanging.looks.Load() != 1 || b.realm.count() != 2 {
			t.Errorf("%d looks at once, %d requests", hanging.looks.Load(), b.realm.count())
		}
		close(hanging.release)
		synctest.Wait()
		if b.realm.of("a") != 2 || b.Snapshot().Failures != 0 {
			t.Errorf("%d requests, %+v", b.realm.count(), b.Snapshot())
		}
	})
}

type hangingFiles struct {
	looks   atomic.Int32
	release chan struct{}
}

func (*hangingFiles) Request(context.Context, Occasion) (*oauth.Response, error) {
	return nil, &refused
}

func (h *hangingFiles) Stale() bool {
	h.looks.Add(1)
	<-h.release
	return true
}
