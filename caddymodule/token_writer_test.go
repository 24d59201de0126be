package caddymodule

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// TestTokenFileRetries: when a file is tried again that could not be brought to
// what it should be.
func TestTokenFileRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &tokenFile{working: true} // so nothing is done when it is woken
		retried := func(wanted bool) time.Duration {
			f.mu.Lock()
			f.again = false
			f.plan(wanted, errors.New("no"))
			f.mu.Unlock()
			for begin := time.Now(); time.Since(begin) < time.Minute; {
				time.Sleep(10 * time.Millisecond) // in the bubble
				f.mu.Lock()
				again := f.again
				f.mu.Unlock()
				if again {
					return time.Since(begin).Round(100 * time.Millisecond)
				}
			}
			return 0 // not at all
		}
		for i, want := range []float64{1, 2, 4, 5, 5, 5, 5, 5, 5, 5} {
			if got := retried(true).Seconds(); got != want {
				t.Errorf("after %d failures it is tried again after %gs, want %gs", i+1, got, want)
			}
		}
		// what cannot be replaced is removed when its token ends
		f.disk.there = livingFor(t, 2*time.Second)
		if got := retried(true); got != 1800*time.Millisecond {
			t.Errorf("a token that ends in 1.8s stays for %s", got)
		}
		if got := retried(true); got != 5*time.Second {
			t.Errorf("after its end it is tried again after %s", got)
		}
		// what nobody wants is not tried for ever
		f.plan(false, nil)
		for i, want := range []float64{1, 2, 4, 5, 5, 5, 5, 0, 0} {
			if got := retried(false).Seconds(); got != want {
				t.Errorf("unwanted, after %d failures it is tried again after %gs, want %gs", i+1, got, want)
			}
		}
	})
}

// livingFor is a token with a life.
func livingFor(t *testing.T, life time.Duration) *token.Token {
	t.Helper()
	s := token.NewSource(token.Policy{RefreshAt: 75, ExpiryMargin: 10 * time.Second, Timeout: time.Second}, new(token.Scheduler), unheard{})
	s.Use(issues(life))
	s.Start()
	synctest.Wait()
	held := s.Newest()
	s.Close()
	if held == nil {
		t.Fatal("no token has come")
	}
	return held
}

// issues is a server whose tokens live so long.
type issues time.Duration

func (i issues) Request(context.Context, token.Occasion) (*oauth.Response, error) {
	return &oauth.Response{AccessToken: "one", ExpiresIn: time.Duration(i), Bearer: true}, nil
}
func (issues) Stale() bool { return false }

// unheard is an observer that keeps nothing.
type unheard struct{}

func (unheard) Attempted(token.Attempt)       {}
func (unheard) Expired(token.Snapshot)        {}
func (unheard) Rejected(token.Snapshot, bool) {}

// TestTokenFileReport: the newest config's file counts, and one that holds its
// token can still be wrong.
func TestTokenFileReport(t *testing.T) {
	var s claims
	if r, do := s.report(); r != nil || do != "" {
		t.Errorf("without a file there is %+v, %s", r, do)
	}
	for path, shown := range map[string]fileState{
		"/run/app/old": {wrong: "there is no room left in /run/app", do: "make room there"},
		"/run/app/new": {written: true, wrong: "this system knows no user or group app", do: "write its number in owner"},
	} {
		c := &fileClaim{place: &filePlace{path: path}, file: &tokenFile{path: path, shown: shown}}
		s.add(c)
		r, do := s.report()
		if r == nil || r.Path != path || r.Written != shown.written || r.Problem != shown.wrong || do != shown.do {
			t.Fatalf("got %+v, %s", r, do)
		}
		begins := "the token file cannot be written: "
		if shown.written {
			begins = "the token file is not as it should be: "
		}
		if got := r.wrong(); got != begins+shown.wrong {
			t.Errorf("it says %s", got)
		}
	}
}

// Interface guards
var (
	_ token.Requester = issues(0)
	_ token.Observer  = unheard{}
)
