package token

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// TestReject: a hundred refusals of one token cost one token request, and those
// of an older one none.
func TestReject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour)}
		s, obs := start(t, srv, 0)
		pass(time.Minute)
		srv.set(func() { srv.delay = time.Second })
		old := s.Token()
		for range 100 {
			if !s.Reject(t.Context(), old, false) {
				t.Fatal("no request is under way")
			}
			if value(s) != "tok-1" {
				t.Fatal("the token is not in use while it is asked for another")
			}
		}
		if other := s.Other(t.Context(), old, time.Minute); other == nil || other.Value != "tok-2" {
			t.Fatalf("got %+v", other)
		}
		pass(time.Minute)
		if s.Reject(t.Context(), old, true) || srv.count() != 2 || value(s) != "tok-2" || s.Snapshot().Suspect {
			t.Errorf("an older token: %d requests, held %q", srv.count(), value(s))
		}
		if a := obs.last(); a.Reason != Rejected {
			t.Errorf("told %+v", a)
		}
		if told, again := obs.rejections(); told != 1 || again != 0 {
			t.Errorf("told %d times, %d of them again", told, again)
		}
		if other := s.Other(t.Context(), old, 0); other == nil || other.Value != "tok-2" {
			t.Errorf("what is held is not given at once: %+v", other)
		}
	})
}

// TestRejectInvalid: new requests wait for another token, and if none comes the
// one that was refused is used.
func TestRejectInvalid(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(int) (*oauth.Response, error)
		most   time.Duration
		want   string
		took   time.Duration
	}{
		"another":                {lives(time.Hour), 5 * time.Second, "tok-2", 2 * time.Second},
		"too slow":               {lives(time.Hour), time.Second, "tok-1", time.Second},
		"no patience":            {lives(time.Hour), 0, "tok-1", 0},
		"failed":                 {fails(down), 5 * time.Second, "tok-1", 2 * time.Second},
		"refused":                {fails(refused), 5 * time.Second, "tok-1", 2 * time.Second},
		"the same":               {func(int) (*oauth.Response, error) { return lives(time.Hour)(1) }, 5 * time.Second, "tok-1", 2 * time.Second},
		"expired on its arrival": {lives(time.Second), 5 * time.Second, "tok-1", 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := &server{answer: lives(time.Hour)}
				s, _ := start(t, srv, 0)
				pass(time.Minute)
				srv.set(func() { srv.delay, srv.answer = 2*time.Second, test.answer })
				old := s.Token()
				s.Reject(t.Context(), old, true)
				if value(s) != "" {
					t.Fatalf("%q is in use", value(s))
				}
				if snap := s.Snapshot(); !snap.Held || !snap.Suspect {
					t.Errorf("it is held, and suspect: %+v", snap)
				}
				began := time.Now()
				tok, err := s.Wait(t.Context(), test.most)
				if err != nil || tok.Value != test.want || time.Since(began) != test.took {
					t.Fatalf("got %+v, %v after %s", tok, err, time.Since(began))
				}
				if value(s) != test.want {
					t.Errorf("after that %q is held", value(s))
				}
				pass(time.Second)
				other := s.Other(t.Context(), old, time.Minute)
				if (other != nil) != (s.Token().Value != "tok-1") {
					t.Errorf("another token: %+v", other)
				}
			})
		})
	}
}

// TestRejectSpared: who has lost patience once is not made to wait for the same
// request again.
func TestRejectSpared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour)}
		s, _ := start(t, srv, 0)
		pass(time.Minute)
		srv.set(func() { srv.delay = 8 * time.Second })
		old := s.Token()
		s.Reject(t.Context(), old, true)
		if tok, err := s.Wait(t.Context(), time.Second); err != nil || tok != old {
			t.Fatalf("got %+v, %v", tok, err)
		}
		if !s.Reject(t.Context(), old, true) || s.Token() != old {
			t.Error("it is withheld once more")
		}
		pass(time.Minute)
		srv.set(func() { srv.delay = time.Second })
		if tok := s.Token(); !s.Reject(t.Context(), tok, true) || s.Token() != nil {
			t.Error("the next one is not withheld")
		}
	})
}

// TestRejectSpaced: an upstream that refuses whatever it is given does not churn
// tokens.
func TestRejectSpaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour)}
		s, obs := start(t, srv, 0)
		pass(time.Minute)
		refuse := func(d time.Duration) { // whatever is held, for a time
			for range d / (100 * time.Millisecond) {
				if tok := s.Token(); tok != nil {
					s.Reject(t.Context(), tok, true)
				} else {
					t.Fatal("a request has to wait")
				}
				pass(100 * time.Millisecond)
			}
		}
		before := srv.count()
		refuse(30 * time.Minute)
		var gaps []time.Time
		srv.set(func() { gaps = slices.Clone(srv.requests[before:]) })
		for i := 1; i < len(gaps); i++ {
			want := min(time.Second<<(i-1), 5*time.Minute)
			if gap := gaps[i].Sub(gaps[i-1]); gap < want || gap > want+200*time.Millisecond {
				t.Errorf("gap %d is %s, want %s", i, gap, want)
			}
		}
		if len(gaps) != 14 { // at 0, 1, 3, 7 … 255 s, then every 5 min
			t.Errorf("%d requests", len(gaps))
		}
		if told, again := obs.rejections(); told < len(gaps) || told > len(gaps)+1 || again != told-1 {
			t.Errorf("told %d times, %d of them again", told, again)
		}

		pass(2 * time.Hour) // a token lives to its due point
		before = srv.count()
		refuse(10 * time.Second)
		if n := srv.count() - before; n != 4 { // at 0, 1, 3, 7 s
			t.Errorf("after a token that was accepted: %d requests", n)
		}
	})
}

// TestRejectHeeds: a refusal keeps to the server's Retry-After, and to the gap
// behind a success; what is due then is asked for without another refusal.
func TestRejectHeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour)}
		s, obs := start(t, srv, 0)
		if s.Reject(t.Context(), s.Token(), true) || srv.count() != 1 || value(s) != "tok-1" {
			t.Errorf("at once behind a success: %d requests", srv.count())
		}
		pass(successGap)
		if srv.count() != 2 || obs.last().Reason != Rejected {
			t.Errorf("%d requests, %s", srv.count(), obs.last().Reason)
		}

		pass(time.Minute)
		busy := down
		busy.RetryAfter = time.Minute
		srv.set(func() { srv.answer = fails(busy) })
		s.Reject(t.Context(), s.Token(), true)
		pass(time.Second)
		for range 58 {
			if s.Reject(t.Context(), s.Token(), true) {
				t.Fatal("within Retry-After")
			}
			pass(time.Second)
		}
		if srv.count() != 3 {
			t.Errorf("%d requests", srv.count())
		}
		srv.set(func() { srv.answer = lives(time.Hour) })
		pass(time.Second)
		if srv.count() != 4 || value(s) != "tok-4" {
			t.Errorf("%d requests, held %q", srv.count(), value(s))
		}
	})
}

// TestRejectEnds: a token that is withheld ends in its time, and with the source.
func TestRejectEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(10 * time.Second)}
		s, _ := start(t, srv, 0)
		pass(5 * time.Second)
		srv.set(func() { srv.delay, srv.answer = 8*time.Second, fails(down) })
		old := s.Token()
		s.Reject(t.Context(), old, true)
		pass(4500 * time.Millisecond) // past its end
		if tok, err := s.Wait(t.Context(), time.Second); err == nil {
			t.Errorf("got %+v", tok)
		}
		ctx, leave := context.WithCancel(t.Context())
		leave()
		if other := s.Other(ctx, old, time.Minute); other != nil {
			t.Errorf("got %+v", other)
		}
		go s.Close()
		if other := s.Other(t.Context(), old, time.Minute); other != nil {
			t.Errorf("got %+v", other)
		}
		if s.Reject(t.Context(), old, true) {
			t.Error("a closed source asks")
		}
	})
}
