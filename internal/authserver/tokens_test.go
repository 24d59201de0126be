package authserver

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// issueOne returns the text and the expires_in of a good answer.
func issueOne(t *testing.T, s *Server) (token string, expiresIn float64) {
	t.Helper()
	m := askPost(t, s)
	token, ok := m["access_token"].(string)
	expiresIn, isNumber := m["expires_in"].(float64)
	if !ok || !isNumber {
		t.Fatalf("the answer is %v", m)
	}
	return token, expiresIn
}

// wait passes time in a bubble.
func wait(d time.Duration) { <-time.After(d) }

func TestVerify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{ClientID: client, ClientSecret: secret, Lifetime: 10 * time.Second})
		want := func(token string, left time.Duration, err error) {
			t.Helper()
			gotLeft, gotErr := s.Verify(token)
			if gotLeft != left || !errors.Is(gotErr, err) {
				t.Errorf("after %v: left %v, %v; want %v, %v", time.Now(), gotLeft, gotErr, left, err)
			}
		}
		first, _ := issueOne(t, s)
		want("at-other", 0, ErrUnknown)
		wait(4 * time.Second)
		want(first, 6*time.Second, nil)
		second, _ := issueOne(t, s)
		want(first, 6*time.Second, nil) // a new one does not end it
		s.Revoke(second)
		s.Revoke("at-other")
		want(second, 0, ErrRevoked)
		wait(6 * time.Second)
		want(first, 0, ErrExpired)
		third, _ := issueOne(t, s)
		s.RevokeAll()
		want(third, 0, ErrRevoked)
		want(first, 0, ErrExpired) // it had ended before
	})
}

func TestRunningToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		s := New(Config{ClientID: client, ClientSecret: secret, Lifetime: 10 * time.Second, RunningToken: true,
			OnIssue: func(int, time.Duration) { told++ }})
		first, in := issueOne(t, s)
		for _, step := range []struct {
			wait time.Duration
			left float64
		}{{0, 10}, {2500 * time.Millisecond, 7}, {7 * time.Second, 0}} {
			wait(step.wait)
			if token, left := issueOne(t, s); token != first || left != step.left {
				t.Errorf("at %v it hands out another, or %v is left of it", time.Now(), left)
			}
		}
		wait(500 * time.Millisecond)
		second, in2 := issueOne(t, s)
		if second == first || in2 != in || s.Issued() != 2 || told != 2 {
			t.Errorf("after its end: the same %t, expires_in %v, issued %d, told of %d", second == first, in2, s.Issued(), told)
		}
		s.RevokeAll()
		third, _ := issueOne(t, s)
		if third == second {
			t.Error("a revoked token is handed out")
		}
		if other := members(t, ask(s, TokenPath, form("scope", "read"))); other["access_token"] == third {
			t.Error("another scope is given the same token")
		}
	})
}

func TestOneAtATime(t *testing.T) {
	s := New(Config{ClientID: client, ClientSecret: secret, OneAtATime: true})
	first, _ := issueOne(t, s)
	second, _ := issueOne(t, s)
	if _, err := s.Verify(first); !errors.Is(err, ErrRevoked) {
		t.Errorf("the older token: %v", err)
	}
	if _, err := s.Verify(second); err != nil {
		t.Errorf("the new token: %v", err)
	}
}

func TestIssue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{ClientID: client, ClientSecret: secret, Lifetime: 10 * time.Second,
			Issue: func(n int) string { return fmt.Sprint("t", n/2) }})
		issueOne(t, s)
		second, _ := issueOne(t, s)
		wait(4 * time.Second)
		third, _ := issueOne(t, s)
		if second != "t1" || third != "t1" || s.Issued() != 2 {
			t.Errorf("the tokens are %s and %s, %d are issued", second, third, s.Issued())
		}
		if left, err := s.Verify("t1"); left != 10*time.Second {
			t.Errorf("the same token with a new life has %v left: %v", left, err)
		}
	})
}

// TestForgetting runs a server for a day of tokens that live a second.
func TestForgetting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{ClientID: client, ClientSecret: secret, Lifetime: time.Second})
		first, _ := issueOne(t, s)
		most := 0
		for range 24 * 60 * 60 / 10 {
			wait(10 * time.Second)
			s.tokens.issue(rights{}, terms{})
			most = max(most, len(s.tokens.byText))
		}
		if most > minSweep {
			t.Errorf("%d tokens were held at once", most)
		}
		last, _, _ := s.tokens.issue(rights{}, terms{})
		if _, err := s.Verify(first); !errors.Is(err, ErrUnknown) {
			t.Errorf("a token of yesterday: %v", err)
		}
		wait(forgetAfter)
		s.tokens.sweepAt = 0 // now, and not when their number has doubled
		s.tokens.issue(rights{}, terms{})
		if _, err := s.Verify(last.text); !errors.Is(err, ErrExpired) {
			t.Errorf("a token that ended lately: %v", err)
		}
	})
}
