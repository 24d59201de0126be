package token

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// wish asks for another token, and waits until it is there.
func wish(t *testing.T, s *Source) {
	t.Helper()
	ended, err := s.Refresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	<-ended
}

// TestRefresh: an operator's wish is one request, whoever else wishes meanwhile,
// and the token held serves until the other one is there.
func TestRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour)}
		s, obs := start(t, srv, 0)
		pass(time.Minute)
		srv.set(func() { srv.delay = time.Second })
		first, err := s.Refresh(t.Context())
		second, errToo := s.Refresh(t.Context())
		if err != nil || errToo != nil || first != second {
			t.Fatalf("got %v, %v", err, errToo)
		}
		if snap := s.Snapshot(); value(s) != "tok-1" || !snap.Requesting {
			t.Errorf("meanwhile %+v", snap)
		}
		<-first
		a := obs.last()
		if srv.count() != 2 || value(s) != "tok-2" || a.Reason != Forced || a.Failure != nil {
			t.Errorf("%d requests, held %q, told %+v", srv.count(), value(s), a)
		}
		if snap := s.Snapshot(); !snap.Next.Equal(snap.Due) || snap.Requesting || snap.Ends.Sub(snap.Sent) != time.Hour {
			t.Errorf("got %+v", snap)
		}
	})
}

// TestRefreshTooSoon: wishes are granted once in 5s, and not while the server
// wants to be left alone.
func TestRefreshTooSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour)}
		s, _ := start(t, srv, 0)
		pass(time.Minute)
		wish(t, s)
		pass(2 * time.Second)
		_, err := s.Refresh(t.Context())
		if soon, ok := errors.AsType[*TooSoon](err); !ok || soon.Wait != 3*time.Second || soon.Server {
			t.Errorf("after 2s: %v", err)
		}
		pass(3 * time.Second)
		srv.set(func() {
			srv.answer = fails(oauth.Failure{Kind: oauth.Unreachable, Status: 429, RetryAfter: time.Minute})
		})
		wish(t, s)
		if snap := s.Snapshot(); snap.Failures != 1 || value(s) != "tok-2" {
			t.Errorf("a failure: %+v", snap)
		}
		pass(50 * time.Second)
		_, err = s.Refresh(t.Context())
		if soon, ok := errors.AsType[*TooSoon](err); !ok || soon.Wait != 10*time.Second || !soon.Server {
			t.Errorf("within Retry-After: %v", err)
		}
		if srv.count() != 3 {
			t.Errorf("%d requests", srv.count())
		}
	})
}

// TestRefreshClosed: what is not in use asks for nothing.
func TestRefreshClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour)}
		rest := NewSource(defaults, new(Scheduler), new(observer))
		s, _ := start(t, srv, 0)
		s.Close()
		for _, s := range []*Source{rest, s} {
			if _, err := s.Refresh(t.Context()); !errors.Is(err, ErrClosed) {
				t.Errorf("got %v", err)
			}
		}
	})
}

// TestShareRefresh: a wish asks the server, though a token is shared, and the
// others take over what came of it; two who wish at once ask once.
func TestShareRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour), delay: 100 * time.Millisecond}
		f := fleet(t, 3, newShelf(), srv)
		pass(time.Minute)
		wish(t, f[0].Source)
		if srv.count() != 2 || value(f[0].Source) != "tok-2" || value(f[1].Source) != "tok-1" {
			t.Fatalf("%d requests, held %q and %q", srv.count(), value(f[0].Source), value(f[1].Source))
		}
		pass(10 * time.Second)
		a, err := f[0].Refresh(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		wish(t, f[2].Source)
		<-a
		if srv.count() != 3 || value(f[0].Source) != "tok-3" || value(f[2].Source) != "tok-3" {
			t.Errorf("%d requests, held %q and %q", srv.count(), value(f[0].Source), value(f[2].Source))
		}
	})
}

// TestShareRefreshSkew: by the clock of another instance a token that is held may
// be of the future. A wish is not granted with that one.
func TestShareRefreshSkew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, shelf := &server{answer: lives(time.Hour)}, newShelf()
		f := fleet(t, 1, shelf, srv)
		pass(time.Minute)
		r := parseShared(shelf.content)
		r.AccessToken, r.Obtained = "theirs", time.Now().Add(3*time.Second)
		shelf.content = r.bytes()
		f[0].share.has(r.Obtained) // it was taken over
		wish(t, f[0].Source)
		if srv.count() != 2 || value(f[0].Source) != "tok-2" {
			t.Errorf("%d requests, held %q", srv.count(), value(f[0].Source))
		}
	})
}
