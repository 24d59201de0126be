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

// server is an authorization server as a source sees it.
type server struct {
	mu       sync.Mutex
	delay    time.Duration
	answer   func(n int) (*oauth.Response, error) // of the nth request, the first is 1
	stale    bool
	requests []time.Time
	peak, in int
}

func (s *server) Request(ctx context.Context, on Occasion) (*oauth.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, on.Limit)
	defer cancel()
	s.mu.Lock()
	s.requests = append(s.requests, time.Now())
	n, delay, answer := len(s.requests), s.delay, s.answer
	s.in++
	s.peak = max(s.peak, s.in)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.in--
		s.mu.Unlock()
	}()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, &oauth.Failure{Kind: oauth.Unreachable, Err: ctx.Err()}
		}
	}
	return answer(n)
}

func (s *server) Stale() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stale
}

// set changes the server while it runs.
func (s *server) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

func (s *server) underWay() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in
}

// lives answers with a new token of that life each time.
func lives(life time.Duration) func(int) (*oauth.Response, error) {
	return func(n int) (*oauth.Response, error) {
		return &oauth.Response{AccessToken: fmt.Sprintf("tok-%d", n), ExpiresIn: life, Bearer: true}, nil
	}
}

func fails(f oauth.Failure) func(int) (*oauth.Response, error) {
	return func(int) (*oauth.Response, error) { return nil, &f }
}

var (
	down    = oauth.Failure{Kind: oauth.Unreachable, Status: 503}
	refused = oauth.Failure{Kind: oauth.Refused, Status: 401, Code: "invalid_client"}
	odd     = oauth.Failure{Kind: oauth.Malformed, Status: 200}
)

// observer records what it is told.
type observer struct {
	mu       sync.Mutex
	attempts []Attempt
	expired  int
	rejected int
	again    int
}

func (o *observer) Attempted(a Attempt) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.attempts = append(o.attempts, a)
}

func (o *observer) Rejected(_ Snapshot, again bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rejected++
	if again {
		o.again++
	}
}

func (o *observer) Expired(Snapshot) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.expired++
}

func (o *observer) rejections() (told, again int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.rejected, o.again
}

func (o *observer) last() Attempt {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.attempts[len(o.attempts)-1]
}

func (o *observer) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.attempts)
}

var defaults = Policy{RefreshAt: DefaultRefreshAt, ExpiryMargin: DefaultExpiryMargin, DefaultLifetime: DefaultLifetime, Timeout: DefaultTimeout}

// start starts a source whose random numbers are all the same.
func start(t *testing.T, srv *server, rnd float64) (*Source, *observer) {
	t.Helper()
	obs := new(observer)
	s := NewSource(defaults, new(Scheduler), obs)
	s.random = func() float64 { return rnd }
	s.Use(srv)
	s.Start()
	t.Cleanup(s.Close)
	synctest.Wait()
	return s, obs
}

// pass lets time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func value(s *Source) string {
	if t := s.Token(); t != nil {
		return t.Value
	}
	return ""
}

func TestRenewedBeforeItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour)}
		s, obs := start(t, srv, 0)
		if value(s) != "tok-1" || obs.last().Reason != Start {
			t.Fatalf("held %q after %v", value(s), obs.last().Reason)
		}
		pass(45*time.Minute - time.Second)
		if value(s) != "tok-1" {
			t.Fatal("renewed too early")
		}
		pass(time.Second)
		if value(s) != "tok-2" || obs.last().Reason != Scheduled {
			t.Fatalf("held %q after %v, 75%% of its life on", value(s), obs.last().Reason)
		}
		for range 24 * 60 {
			pass(time.Minute)
			if value(s) == "" {
				t.Fatal("no token held")
			}
		}
		if n := srv.count(); n != 2+32 {
			t.Errorf("%d requests in a day, want one each 45 minutes", n)
		}
	})
}

// TestOneRequestForAll: 60 callers at once on a slow server cost one request,
// and a caller that leaves does not end it for the others.
func TestOneRequestForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour), delay: 3 * time.Second}
		s, _ := start(t, srv, 0)
		var wg sync.WaitGroup
		var served, left int
		var mu sync.Mutex
		for i := range 60 {
			ctx, cancel := context.WithCancel(t.Context())
			wg.Go(func() {
				tok, err := s.Wait(ctx, 5*time.Second)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case tok != nil && tok.Value == "tok-1":
					served++
				case errors.Is(err, context.Canceled):
					left++
				default:
					t.Errorf("got %v, %v", tok, err)
				}
			})
			if i%6 == 0 {
				synctest.Wait()
				cancel()
			}
			defer cancel()
		}
		wg.Wait()
		if served != 50 || left != 10 || srv.count() != 1 {
			t.Errorf("%d served, %d left, %d requests", served, left, srv.count())
		}
	})
}

// TestSharedFailure: who waits gets the failure of the request under way.
func TestSharedFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: fails(refused), delay: 3 * time.Second}
		s, _ := start(t, srv, 1)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				_, err := s.Wait(t.Context(), 5*time.Second)
				if f, ok := errors.AsType[*oauth.Failure](err); !ok || f.Code != "invalid_client" {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if n := srv.count(); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

// TestWaitThroughAFirstFailure: through a first unreachable requests wait, and
// fail at once from the second in a row on, and after any other kind.
func TestWaitThroughAFirstFailure(t *testing.T) {
	for _, tc := range []struct {
		name    string
		answers []func(int) (*oauth.Response, error)
		want    string // the token, or the failure's kind
		after   time.Duration
	}{
		{"unreachable, then a token", []func(int) (*oauth.Response, error){fails(down), lives(time.Hour)}, "tok-2", time.Second},
		{"unreachable twice", []func(int) (*oauth.Response, error){fails(down), fails(down)}, "unreachable", time.Second},
		{"refused", []func(int) (*oauth.Response, error){fails(refused)}, "refused", 0},
		{"malformed", []func(int) (*oauth.Response, error){fails(odd)}, "malformed", 0},
		{"unreachable, then refused", []func(int) (*oauth.Response, error){fails(down), fails(refused)}, "refused", time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := &server{answer: func(n int) (*oauth.Response, error) { return tc.answers[min(n, len(tc.answers))-1](n) }}
				s, _ := start(t, srv, 1)
				began := time.Now()
				tok, err := s.Wait(t.Context(), 5*time.Second)
				got := ""
				if f, ok := errors.AsType[*oauth.Failure](err); ok {
					got = f.Kind.String()
				} else if tok != nil {
					got = tok.Value
				}
				if took := time.Since(began); got != tc.want || took != tc.after {
					t.Errorf("got %q (%v) after %v, want %q after %v", got, err, took, tc.want, tc.after)
				}
			})
		})
	}
}

// TestWaitEnds: a request waits no longer than it is told to, and says what it
// waited for.
func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour), delay: 8 * time.Second}
		s, _ := start(t, srv, 0)
		began := time.Now()
		_, err := s.Wait(t.Context(), 5*time.Second)
		if f, ok := errors.AsType[*oauth.Failure](err); !ok || f.Kind != oauth.Unreachable || time.Since(began) != 5*time.Second {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		pass(3 * time.Second)
		if value(s) != "tok-1" || srv.count() != 1 {
			t.Errorf("held %q after %d requests", value(s), srv.count())
		}
	})
}

// TestWaitInVain: where one has waited as long for a server that hangs, those
// who come after do not, until a token comes.
func TestWaitInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour), delay: 8 * time.Second}
		s, _ := start(t, srv, 0)
		wait := func(most time.Duration) time.Duration {
			began := time.Now()
			_, err := s.Wait(t.Context(), most)
			if f, ok := errors.AsType[*oauth.Failure](err); !ok || f.Kind != oauth.Unreachable {
				t.Errorf("got %v", err)
			}
			return time.Since(began)
		}
		if took := wait(time.Second); took != time.Second {
			t.Errorf("the first waited %v", took)
		}
		if took := wait(time.Second); took != 0 {
			t.Errorf("the second waited %v", took)
		}
		if took := wait(3 * time.Second); took != 3*time.Second {
			t.Errorf("one with more patience waited %v", took)
		}
		if tok, err := s.Wait(t.Context(), 10*time.Second); err != nil || tok.Value != "tok-1" {
			t.Errorf("got %v, %v", tok, err)
		}
	})
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour), delay: time.Hour}
		_, obs := start(t, srv, 1)
		pass(DefaultTimeout)
		if obs.count() != 1 || obs.last().Failure == nil || obs.last().Took != DefaultTimeout {
			t.Errorf("after the timeout: %+v", obs.attempts)
		}
	})
}

// TestOutage: an outage costs no request while a token is valid, few token
// requests, and ends within one step of backoff.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(14 * time.Second)}
		s, obs := start(t, srv, 0.5)
		srv.set(func() { srv.answer = fails(down) })
		before := srv.count()
		pass(12600*time.Millisecond - 1) // until its margin of a tenth of 14s
		if value(s) != "tok-1" {
			t.Fatal("the old token was dropped while it was valid")
		}
		pass(1)
		if value(s) != "" || obs.expired != 1 {
			t.Fatalf("held %q in its margin; told %d times that it expired", value(s), obs.expired)
		}
		began := time.Now()
		if _, err := s.Wait(t.Context(), 5*time.Second); err == nil || time.Since(began) != 0 {
			t.Errorf("got %v after %v, want a failure at once", err, time.Since(began))
		}
		pass(18 * time.Second)
		if n := srv.count() - before; n > 15 {
			t.Errorf("%d token requests in the outage", n)
		}
		srv.set(func() { srv.answer = lives(time.Hour) })
		pass(time.Minute / 2)
		if value(s) == "" {
			t.Error("no token a step of backoff after the server's return")
		}
	})
}

// TestNoneIsTerminal: after any failure the next request comes by itself.
func TestNoneIsTerminal(t *testing.T) {
	for _, f := range []oauth.Failure{down, refused, odd} {
		synctest.Test(t, func(t *testing.T) {
			srv := &server{answer: fails(f)}
			s, _ := start(t, srv, 0.99)
			pass(3 * time.Hour)
			n := srv.count()
			if n < 3*60 {
				t.Errorf("%v: %d requests in three hours without a token, want one a minute", f.Kind, n)
			}
			srv.set(func() { srv.answer = lives(time.Hour) })
			pass(time.Minute)
			if value(s) == "" {
				t.Errorf("%v: no token a minute after all is well", f.Kind)
			}
		})
	}
}

func TestRetryAfterIsAFloor(t *testing.T) {
	for _, tc := range []struct {
		asked time.Duration
		rnd   float64
		want  time.Duration
	}{
		{2 * time.Minute, 0, 2 * time.Minute},
		{2 * time.Minute, 1, 3 * time.Minute}, // a random half on top
		{24 * time.Hour, 0, 10 * time.Minute},
		{9 * time.Minute, 1, 10 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			srv := &server{answer: fails(oauth.Failure{Kind: oauth.Unreachable, Status: 429, RetryAfter: tc.asked})}
			s, _ := start(t, srv, tc.rnd)
			for srv.count() == 1 {
				began := time.Now()
				_, _ = s.Wait(t.Context(), time.Second) // demand keeps to it too
				if time.Since(began) == 0 {
					pass(time.Second)
				}
			}
			if got := srv.requests[1].Sub(srv.requests[0]); got != tc.want {
				t.Errorf("asked for %v: the next came after %v, want %v", tc.asked, got, tc.want)
			}
		})
	}
}

// TestNoUseInWaiting: where the server has asked to be left alone for longer
// than a caller waits, it is told so at once.
func TestNoUseInWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: fails(oauth.Failure{Kind: oauth.Unreachable, Status: 429, RetryAfter: 30 * time.Second})}
		s, _ := start(t, srv, 0)
		began := time.Now()
		if _, err := s.Wait(t.Context(), 5*time.Second); err == nil || time.Since(began) != 0 {
			t.Errorf("got %v after %v, want a failure at once", err, time.Since(began))
		}
		srv.set(func() { srv.answer = lives(time.Hour) })
		if tok, err := s.Wait(t.Context(), time.Minute); err != nil || time.Since(began) != 30*time.Second {
			t.Errorf("got %v, %v after %v, want a token after 30s", tok, err, time.Since(began))
		}
	})
}

// TestChangedFile: a failing credential whose file changed is tried at once.
func TestChangedFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: fails(refused)}
		s, _ := start(t, srv, 1)
		pass(40 * time.Second) // the next step is a minute
		before := srv.count()
		srv.set(func() { srv.stale, srv.answer = true, lives(time.Hour) })
		pass(time.Second)
		if value(s) == "" || srv.count() != before+1 {
			t.Errorf("held %q after %d requests more", value(s), srv.count()-before)
		}
	})
}

// TestClosed: the request of a credential that is gone is given to those who
// wait for it, and told of to nobody else.
func TestClosed(t *testing.T) {
	for name, tc := range map[string]struct {
		answer func(int) (*oauth.Response, error)
		delay  time.Duration
		most   time.Duration // that one waits
		want   string
	}{
		"it comes":        {lives(time.Hour), 3 * time.Second, time.Minute, "tok-1"},
		"it fails":        {fails(down), 3 * time.Second, time.Minute, ""},
		"nobody waits":    {lives(time.Hour), 3 * time.Second, 0, ""},
		"it takes long":   {lives(time.Hour), 3 * time.Second, 2 * time.Second, ""},
		"it hangs":        {lives(time.Hour), time.Hour, time.Minute, ""},
		"too short-lived": {lives(time.Millisecond), 3 * time.Second, time.Minute, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := &server{answer: tc.answer, delay: tc.delay}
				s, obs := start(t, srv, 0)
				waited := make(chan string)
				go func() {
					tok, err := s.Wait(t.Context(), tc.most)
					if (err == nil) != (tok != nil) {
						t.Errorf("got %v, %v", tok, err)
					}
					if tok == nil {
						waited <- ""
						return
					}
					waited <- tok.Value
				}()
				if tc.most == 0 {
					<-waited
				}
				synctest.Wait()
				s.Close()
				synctest.Wait()
				if going := srv.underWay() == 1; going != (tc.most > 0) {
					t.Errorf("the request goes on: %v", going)
				}
				if tc.most > 0 {
					if got := <-waited; got != tc.want {
						t.Errorf("who waited got %q", got)
					}
					synctest.Wait()
				}
				if srv.underWay() != 0 || value(s) != tc.want || obs.count() != 0 {
					t.Errorf("%d requests go on, held %q, %d attempts told of", srv.underWay(), value(s), obs.count())
				}
				if tok, err := s.Wait(t.Context(), time.Minute); tc.want == "" && !errors.Is(err, ErrClosed) || tc.want != "" && tok == nil {
					t.Errorf("who comes later got %v, %v", tok, err)
				}
				s.Start()
				s.Close()
				pass(2 * time.Hour)
				if srv.count() != 1 || value(s) != "" {
					t.Errorf("%d requests, held %q", srv.count(), value(s))
				}
			})
		})
	}
}

// TestClosedKeepsToken: requests that are being drained have the token held, be
// it withheld from new ones.
func TestClosedKeepsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour)}
		s, _ := start(t, srv, 0)
		pass(time.Minute)
		srv.set(func() { srv.delay = time.Second })
		s.Reject(t.Context(), s.Token(), true)
		s.Close()
		if value(s) != "tok-1" {
			t.Errorf("held %q", value(s))
		}
		pass(time.Hour)
		if value(s) != "" || srv.count() != 2 {
			t.Errorf("after its end held %q, %d requests", value(s), srv.count())
		}
	})
}

// TestStartIsOnce: a reload starts what runs already.
func TestStartIsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour)}
		s, _ := start(t, srv, 0)
		for range 20 {
			s.Use(srv)
			s.Start()
			synctest.Wait()
		}
		if srv.count() != 1 || value(s) != "tok-1" {
			t.Errorf("%d requests", srv.count())
		}
	})
}

// TestRequestBeforeStart: one that comes before the app has started waits for
// it.
func TestRequestBeforeStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour)}
		s := NewSource(defaults, new(Scheduler), new(observer))
		t.Cleanup(s.Close)
		time.AfterFunc(time.Second, func() { s.Use(srv); s.Start() })
		tok, err := s.Wait(t.Context(), 5*time.Second)
		if err != nil || tok.Value != "tok-1" {
			t.Errorf("got %v, %v", tok, err)
		}
	})
}

// TestExpiredOnArrival: too slow is a failure, with backoff.
func TestExpiredOnArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(3 * time.Second), delay: 4 * time.Second}
		s, obs := start(t, srv, 1)
		pass(4 * time.Second)
		if f := obs.last().Failure; f == nil || f.Kind != oauth.Unreachable || value(s) != "" {
			t.Errorf("got %+v, held %q", f, value(s))
		}
		srv.set(func() { srv.delay = 0 })
		pass(2 * time.Second)
		if value(s) != "tok-2" {
			t.Errorf("held %q", value(s))
		}
	})
}

// TestLateProcess: a process that was stopped past the token's end sends no
// expired token, though no timer has fired yet.
func TestLateProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSource(defaults, new(Scheduler), new(observer))
		s.held.p.Store(&Token{Value: "old", until: now().add(-1)})
		if s.Token() != nil {
			t.Error("an expired token was given out")
		}
	})
}

func TestAssumedLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(0)}
		s, obs := start(t, srv, 0.5)
		if a := obs.last(); !a.Assumed || a.Lifetime != DefaultLifetime {
			t.Fatalf("got %+v", a)
		}
		pass(DefaultLifetime * 70 / 100) // 75% less half of the jitter
		if value(s) != "tok-2" {
			t.Error("not renewed by the default lifetime")
		}
		// while the server fails, it serves on for a day
		srv.set(func() { srv.answer = fails(down) })
		pass(24*time.Hour - time.Second)
		if value(s) != "tok-2" {
			t.Error("dropped while the server fails")
		}
		pass(2 * time.Second)
		if value(s) != "" {
			t.Error("used for more than a day")
		}
	})
}

// TestRunningToken: a server that hands out the running token with what is
// left of it (OneAccess) is asked at half of what is left, not too often, and
// no request goes without a token until a second before its end.
func TestRunningToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const life = 1800 * time.Second
		began := time.Now().Add(-81 * time.Second) // 1719 are left of the first
		srv := &server{}
		srv.answer = func(int) (*oauth.Response, error) {
			age := time.Since(began)
			n := age / life
			left := (life - age%life).Truncate(time.Second)
			return &oauth.Response{AccessToken: fmt.Sprintf("tok-%d", n), ExpiresIn: left, Bearer: true}, nil
		}
		s, obs := start(t, srv, 0.5)
		bare := 0
		const seconds = 4 * 1800
		for range seconds * 4 {
			pass(time.Second / 4)
			if tok := s.Token(); tok == nil {
				bare++
			} else if want := fmt.Sprintf("tok-%d", time.Since(began)/life); tok.Value != want {
				t.Fatalf("sent %s at %v", tok.Value, time.Since(began))
			}
		}
		if most := 4 * (2*4 + 1); bare > most { // from a second before its end to one after
			t.Errorf("without a token for %d quarters of a second in four lives, want no more than %d", bare, most)
		}
		if n := srv.count(); n > 4*7 {
			t.Errorf("%d requests in four lives", n)
		}
		for _, a := range obs.attempts {
			if a.Failure != nil {
				t.Errorf("counted as failed: %v", a.Failure)
			}
		}
		for i := 1; i < len(srv.requests); i++ {
			if gap := srv.requests[i].Sub(srv.requests[i-1]); gap < successGap {
				t.Errorf("two requests within %v", gap)
			}
		}
	})
}

// TestSameTokenLaterEnd: one whose end moves counts as new.
func TestSameTokenLaterEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: func(int) (*oauth.Response, error) {
			return &oauth.Response{AccessToken: "tok", ExpiresIn: time.Hour, Bearer: true}, nil
		}}
		s, obs := start(t, srv, 0)
		pass(10 * time.Hour)
		if n := srv.count(); n != 14 || value(s) != "tok" || !obs.last().Same {
			t.Errorf("%d requests in ten hours, want one each 45 minutes", n)
		}
	})
}

// TestSameTokenWithoutLifetime: an answer that says nothing new of a token
// takes nothing from what is known.
func TestSameTokenWithoutLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: func(n int) (*oauth.Response, error) {
			res := &oauth.Response{AccessToken: "tok", Bearer: true}
			if n == 1 {
				res.ExpiresIn = time.Hour
			}
			return res, nil
		}}
		s, obs := start(t, srv, 0)
		pass(time.Hour - 2*time.Second)
		if a := obs.last(); value(s) != "tok" || a.Assumed || srv.count() < 2 {
			t.Errorf("held %q after %d requests, lifetime assumed: %v", value(s), srv.count(), a.Assumed)
		}
		pass(time.Second)
		if value(s) != "" {
			t.Error("used to its very end")
		}
	})
}

// TestSuspended: what a machine sleeps is taken off a token's life, told by a
// clock that runs on; a wall clock that was set only makes it due.
func TestSuspended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var slept time.Duration
		scheduler := &Scheduler{Slept: func() time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return slept
		}}
		srv := &server{answer: lives(time.Hour)}
		s := NewSource(defaults, scheduler, new(observer))
		s.random = func() float64 { return 0 }
		s.Use(srv)
		s.Start()
		t.Cleanup(s.Close)
		pass(time.Minute)
		srv.set(func() { srv.answer = fails(down) })
		mu.Lock()
		slept = 2 * time.Hour
		mu.Unlock()
		pass(2 * time.Second)
		if value(s) != "" {
			t.Error("a token that expired in its sleep is still held")
		}
		if srv.count() < 2 {
			t.Error("no new one was asked for after the sleep")
		}
	})
}

// TestJumps: where something tells of clocks that jump, they are looked at then,
// and not each second; and each second again when it is no longer there.
func TestJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slept, looks, listening atomic.Int64
		jumps := make(chan struct{}, 1)
		scheduler := &Scheduler{
			Slept: func() time.Duration {
				looks.Add(1)
				return time.Duration(slept.Load())
			},
			Jumps: func() (<-chan struct{}, func()) {
				listening.Add(1)
				return jumps, func() { listening.Add(-1) }
			},
		}
		srv := &server{answer: lives(24 * time.Hour)}
		s := NewSource(defaults, scheduler, new(observer))
		s.random = func() float64 { return 0 }
		s.Use(srv)
		s.Start()
		pass(time.Minute)
		before := looks.Load()
		pass(time.Hour)
		if n := looks.Load() - before; n > 0 {
			t.Errorf("in an hour with nothing to do the clocks are looked at %d times", n)
		}
		srv.set(func() { srv.answer = fails(down) })
		slept.Store(int64(48 * time.Hour))
		jumps <- struct{}{}
		synctest.Wait()
		if value(s) != "" {
			t.Error("a token that expired in its sleep is still held")
		}
		srv.set(func() { srv.answer = lives(24 * time.Hour) })
		pass(time.Hour)
		if value(s) == "" {
			t.Fatal("there is no token again")
		}
		close(jumps)
		slept.Store(int64(96 * time.Hour))
		srv.set(func() { srv.answer = fails(down) })
		pass(2 * time.Second)
		if value(s) != "" {
			t.Error("once nothing tells of it any more, a token that expired in its sleep is still held")
		}
		s.Close()
		synctest.Wait()
		if n := listening.Load(); n != 0 {
			t.Errorf("%d still listen when there is nothing left to wake", n)
		}
	})
}

// TestClocks: the wall clock was set if it went more ahead or back than the
// others, and a suspension is none of that.
func TestClocks(t *testing.T) {
	for name, test := range map[string]struct {
		wall, slept time.Duration // what they jumped by
		unheard     bool          // nothing was told of the wall clock
		want        time.Duration
		stepped     bool
	}{
		"nothing":          {},
		"slewed":           {wall: time.Second},
		"forward":          {wall: time.Hour, stepped: true},
		"back":             {wall: -time.Hour, stepped: true},
		"set, not told":    {wall: time.Hour, unheard: true},
		"slept":            {wall: time.Hour, slept: time.Hour, want: time.Hour},
		"slept, not told":  {wall: time.Hour, slept: time.Hour, unheard: true, want: time.Hour},
		"slept, then set":  {wall: time.Minute, slept: time.Hour, want: time.Hour, stepped: true},
		"a moment's sleep": {wall: tolerance / 4, slept: tolerance / 4},
	} {
		t.Run(name, func(t *testing.T) {
			var slept time.Duration
			c := newClocks(func() time.Duration { return slept })
			slept = test.slept
			c.wall = c.wall.Add(-test.wall)
			got, stepped := c.compare(!test.unheard)
			if got != test.want || stepped != test.stepped {
				t.Errorf("slept %v, set %v; want %v, %v", got, stepped, test.want, test.stepped)
			}
			if got, stepped := c.compare(true); got != 0 || stepped != (test.unheard && test.slept == 0) {
				t.Errorf("the next time: slept %v, set %v", got, stepped)
			}
		})
	}
}

func TestClockStepped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour)}
		s, _ := start(t, srv, 0)
		pass(time.Minute)
		srv.set(func() { srv.delay = time.Second })
		s.clockMoved(0)
		synctest.Wait()
		if value(s) != "tok-1" {
			t.Error("a step of the wall clock dropped the token")
		}
		pass(time.Second)
		if value(s) != "tok-2" {
			t.Error("a step of the wall clock did not make the token due")
		}
	})
}
