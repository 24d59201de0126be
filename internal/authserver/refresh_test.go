package authserver

import (
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// refreshForm is the body of a good refresh, with pairs of parameters added.
func refreshForm(token string, more ...string) string {
	return strings.Replace(form(append(more, "refresh_token", token)...), "client_credentials", "refresh_token", 1)
}

func askRefresh(s *Server, token string, more ...string) *httptest.ResponseRecorder {
	return ask(s, s.dialect.path, refreshForm(token, more...))
}

// mustRefresh returns the access token and the refresh token of a good answer.
func mustRefresh(t *testing.T, s *Server, token string) (access, next string) {
	t.Helper()
	w := askRefresh(s, token)
	m := members(t, w)
	access, _ = m["access_token"].(string)
	next, _ = m["refresh_token"].(string)
	if _, err := s.Verify(access); w.Code != 200 || err != nil {
		t.Fatalf("it answers %d %v, and the token: %v", w.Code, m, err)
	}
	return access, next
}

// wantRefused has a refresh answered with an error.
func wantRefused(t *testing.T, s *Server, code, token string, more ...string) {
	t.Helper()
	w := askRefresh(s, token, more...)
	if m := members(t, w); w.Code != 400 || m["error"] != code {
		t.Errorf("it answers %d %v, want %s", w.Code, m, code)
	}
}

func refresher(config Config) *Server {
	config.ClientID, config.ClientSecret, config.RefreshTokens = client, secret, true
	return New(config)
}

func TestRefreshWithoutRotation(t *testing.T) {
	s := refresher(Config{Scopes: []string{"read", "write"}})
	token := s.IssueRefreshToken()
	first, next := mustRefresh(t, s, token)
	second, _ := mustRefresh(t, s, token)
	if next != "" || first == second || s.Rotations() != 0 || s.Issued() != 2 {
		t.Errorf("it returns %q; %d rotations, %d tokens", next, s.Rotations(), s.Issued())
	}
	if _, err := s.Verify(first); err != nil {
		t.Errorf("the older access token: %v", err)
	}
	wantRefused(t, s, "invalid_grant", "rt-other")
	wantRefused(t, s, "invalid_request", "")
	if w := ask(s, TokenPath, "grant_type=refresh_token&client_id=app+1&client_secret=x&refresh_token="+token); members(t, w)["error"] != "invalid_client" {
		t.Errorf("another client is answered %s", w.Body)
	}
	if !s.ChainAlive(token) || s.ChainAlive("rt-other") || !errors.Is(s.ChainEnd("rt-other"), ErrUnknown) {
		t.Error("the wrong chains are alive")
	}
}

func TestRefreshIsOff(t *testing.T) {
	s := New(Config{ClientID: client, ClientSecret: secret})
	wantRefused(t, s, "unsupported_grant_type", s.IssueRefreshToken())
	s = refresher(Config{Grants: []string{"client_credentials"}})
	wantRefused(t, s, "unsupported_grant_type", s.IssueRefreshToken())
	if w := ask(refresher(Config{Grants: []string{"refresh_token"}}), TokenPath, form()); w.Code != 400 {
		t.Errorf("a grant that is not accepted is answered %d", w.Code)
	}
}

func TestRefreshScope(t *testing.T) {
	s := refresher(Config{Scopes: []string{"read", "write"}, Rotate: RotateAlways})
	all, one := s.IssueRefreshToken(), s.IssueRefreshToken("read")
	wantRefused(t, s, "invalid_scope", one, "scope", "read write")
	if s.Rotations() != 0 {
		t.Error("a refused scope spends the refresh token")
	}
	for _, test := range []struct{ token, scope, want string }{{one, "", "read"}, {all, "write", "write"}} {
		m := members(t, askRefresh(s, test.token, "scope", test.scope))
		if m["scope"] != test.want {
			t.Errorf("asked for %q it grants %v", test.scope, m["scope"])
		}
		next := m["refresh_token"].(string)
		if m := members(t, askRefresh(s, next)); test.token == all && m["scope"] != "read write" {
			t.Errorf("narrowed once, it is %v for good", m["scope"])
		}
	}
}

func TestRotation(t *testing.T) {
	s := refresher(Config{Rotate: RotateAlways})
	first := s.IssueRefreshToken()
	access, second := mustRefresh(t, s, first)
	if second == "" || second == first {
		t.Fatalf("it returns %q", second)
	}
	wantRefused(t, s, "invalid_grant", first)
	_, third := mustRefresh(t, s, second)
	if s.Rotations() != 2 || !s.ChainAlive(first) || !s.ChainAlive(third) {
		t.Errorf("%d rotations, and the chain: %v", s.Rotations(), s.ChainEnd(first))
	}
	if _, err := s.Verify(access); err != nil {
		t.Errorf("the older access token: %v", err)
	}
	other := s.IssueRefreshToken()
	s.RevokeChain(second)
	s.RevokeChain("rt-other")
	wantRefused(t, s, "invalid_grant", third)
	if _, err := s.Verify(access); !errors.Is(err, ErrRevoked) || !errors.Is(s.ChainEnd(third), ErrRevoked) {
		t.Errorf("revoked: access token %v, chain %v", err, s.ChainEnd(third))
	}
	mustRefresh(t, s, other)
}

func TestReuseDetection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := refresher(Config{Rotate: RotateAlways, ReuseDetection: true, Lifetime: 10 * time.Second})
		first := s.IssueRefreshToken()
		access1, second := mustRefresh(t, s, first)
		wait(10 * time.Second)
		access2, _ := mustRefresh(t, s, second)
		access3, third := mustRefresh(t, s, s.tokens.refreshTokens[second].successor.text)
		other := members(t, askRefresh(s, s.IssueRefreshToken()))["access_token"].(string)
		wantRefused(t, s, "invalid_grant", first)
		wantRefused(t, s, "invalid_grant", third)
		s.RevokeChain(first) // too late to be the reason
		if !errors.Is(s.ChainEnd(third), ErrReused) || s.ChainAlive(first) {
			t.Errorf("the chain: %v", s.ChainEnd(third))
		}
		for token, want := range map[string]error{access1: ErrExpired, access2: ErrRevoked, access3: ErrRevoked, other: nil} {
			if _, err := s.Verify(token); !errors.Is(err, want) {
				t.Errorf("an access token: %v, want %v", err, want)
			}
		}
	})
}

func TestGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := refresher(Config{Rotate: RotateAlways, ReuseDetection: true, Grace: 3 * time.Second})
		first := s.IssueRefreshToken()
		_, second := mustRefresh(t, s, first)
		wait(3 * time.Second)
		if _, again := mustRefresh(t, s, first); again != second || s.Rotations() != 1 {
			t.Errorf("the successor is another, after %d rotations", s.Rotations())
		}
		_, third := mustRefresh(t, s, second)
		_, again := mustRefresh(t, s, second)
		if again != third {
			t.Error("the successor's successor is another")
		}
		wait(3*time.Second + 1)
		wantRefused(t, s, "invalid_grant", second)
		if s.ChainAlive(third) {
			t.Error("after the grace, reuse is not seen")
		}

		first = s.IssueRefreshToken()
		_, second = mustRefresh(t, s, first)
		mustRefresh(t, s, second)
		wantRefused(t, s, "invalid_grant", first)
		if s.ChainAlive(first) {
			t.Error("within the grace, a token whose successor was used is taken")
		}
	})
}

func TestNoGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := refresher(Config{Rotate: RotateAlways})
		first := s.IssueRefreshToken()
		mustRefresh(t, s, first)
		wantRefused(t, s, "invalid_grant", first) // at the same moment
	})
}

// TestOnIssueIsToldOfAll has tokens come from logins and refreshes.
func TestOnIssueIsToldOfAll(t *testing.T) {
	var told []int
	s := refresher(Config{OnIssue: func(n int, _ time.Duration) { told = append(told, n) }})
	ask(s, TokenPath, codeForm(login(t, s, loginQuery()).Get("code")))
	mustRefresh(t, s, s.IssueRefreshToken())
	issueOne(t, s)
	if !slices.Equal(told, []int{1, 2, 3}) {
		t.Errorf("it is told of %v", told)
	}
}

func TestRefreshEndsAccess(t *testing.T) {
	s := refresher(Config{RefreshEndsAccess: true})
	mine, other := s.IssueRefreshToken(), s.IssueRefreshToken()
	apart, _ := issueOne(t, s)
	others, _ := mustRefresh(t, s, other)
	first, _ := mustRefresh(t, s, mine)
	second, _ := mustRefresh(t, s, mine)
	for token, want := range map[string]error{apart: nil, others: nil, first: ErrRevoked, second: nil} {
		if _, err := s.Verify(token); !errors.Is(err, want) {
			t.Errorf("a token: %v, want %v", err, want)
		}
	}
}

// TestLongChain has a chain that goes on for long: what it keeps is bounded.
func TestLongChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := refresher(Config{Rotate: RotateAlways, ReuseDetection: true, Lifetime: time.Minute})
		first := s.IssueRefreshToken()
		token := first
		var c *chain
		for range 3 * maxSpent {
			wait(30 * time.Second)
			g, no := s.tokens.refresh(token, "", terms{})
			if no != nil {
				t.Fatal(no)
			}
			token, c = g.refresh, s.tokens.refreshTokens[g.refresh].chain
		}
		if n := len(s.tokens.refreshTokens); n != maxSpent+1 || len(c.access) > 2 {
			t.Errorf("%d refresh tokens and %d access tokens are kept", n, len(c.access))
		}
		wantRefused(t, s, "invalid_grant", first)
		if !s.ChainAlive(token) {
			t.Error("what was forgotten ends the chain")
		}
	})
}

// TestRefreshAtOnce has two clients spend one refresh token.
func TestRefreshAtOnce(t *testing.T) {
	s := refresher(Config{Rotate: RotateAlways, ReuseDetection: true})
	first := s.IssueRefreshToken()
	var all sync.WaitGroup
	var good atomic.Int64
	for range 2 {
		all.Go(func() {
			if askRefresh(s, first).Code == 200 {
				good.Add(1)
			}
		})
	}
	all.Wait()
	if good.Load() != 1 || s.Rotations() != 1 || s.ChainAlive(first) {
		t.Errorf("%d are answered well, after %d rotations; the chain: %v", good.Load(), s.Rotations(), s.ChainEnd(first))
	}
}
