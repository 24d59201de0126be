package advice

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// memory keeps what is stored of one refresh token, or of one access token.
type memory struct {
	mu            sync.Mutex
	content       []byte
	loads, saves  error
	neverUnlocked bool
}

func (m *memory) Load(context.Context) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.loads != nil:
		return nil, m.loads
	case m.content == nil:
		return nil, fs.ErrNotExist
	}
	return m.content, nil
}

func (m *memory) Save(_ context.Context, content []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.saves == nil {
		m.content = content
	}
	return m.saves
}

func (m *memory) KeepAside(context.Context) error { return nil }
func (m *memory) Break(context.Context) error     { return nil }

func (m *memory) Lock(ctx context.Context) (func(), error) {
	if m.neverUnlocked {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return func() {}, nil
}

type spend = func(context.Context, string, token.Guard) (*oauth.Response, error)

func answer(f oauth.Failure) spend {
	return func(context.Context, string, token.Guard) (*oauth.Response, error) { return nil, &f }
}

// refreshed is how a refresh with a refresh token fails.
func refreshed(t *testing.T, m *memory, initial string, noInitial error, on token.Occasion, ask spend) *oauth.Failure {
	t.Helper()
	chain := token.NewChain()
	defer chain.Close()
	return failureOf(t, chain, on, &token.Session{Path: "crm", Store: m, Initial: initial, NoInitial: noInitial, Spend: ask})
}

func failureOf(t *testing.T, chain *token.Chain, on token.Occasion, s *token.Session) *oauth.Failure {
	t.Helper()
	_, err := chain.Refresh(t.Context(), on, func(context.Context) (*token.Session, error) { return s, nil })
	f, ok := errors.AsType[*oauth.Failure](err)
	if !ok {
		t.Fatalf("got %v, want a failure", err)
	}
	return f
}

func TestRefreshTokens(t *testing.T) {
	user := Facts{Credential: "crm", Grant: "authorization_code", Login: "run: caddy upstream-auth login crm", Endpoint: "https://idp.example.com/token", Timeout: time.Minute}
	static := Facts{Credential: "crm", Grant: "refresh_token"}
	path := &fs.PathError{Op: "open", Path: "/run/secrets/crm", Err: syscall.ENOENT}
	ended := answer(oauth.Failure{Kind: oauth.Refused, Status: 400, Code: "invalid_grant"})
	lost := answer(oauth.Failure{Kind: oauth.Unreachable, Lost: true, Err: fmt.Errorf("no complete answer within the timeout: %w", context.DeadlineExceeded)})
	none := token.Occasion{}

	for name, c := range map[string]advised{
		"no login yet":      {failure: refreshed(t, new(memory), "", nil, none, nil), facts: user, as: "no refresh token is stored", do: []string{"run: caddy upstream-auth login crm"}, topic: loginRequired},
		"no login, unasked": {failure: refreshed(t, new(memory), "", nil, none, nil), facts: Facts{Credential: "crm", Grant: "authorization_code"}, do: []string{"run: caddy upstream-auth login crm"}, topic: loginRequired},
		"no initial one": {
			failure: refreshed(t, new(memory), "", path, none, nil), facts: static,
			as: "cannot be read", wrong: []string{"/run/secrets/crm"}, do: []string{"put the file there", "ls -l /run/secrets/crm"}, topic: loginRequired,
		},
		"ended":         {failure: refreshed(t, new(memory), "r", nil, none, ended), facts: user, as: "the server refuses the refresh token", wrong: []string{"takes the refresh token no more (invalid_grant, HTTP 400)"}, do: []string{"login crm", "within seconds, without a reload"}, not: []string{"lost"}, topic: loginRequired},
		"ended, static": {failure: refreshed(t, new(memory), "r", nil, none, ended), facts: static, do: []string{"write a new one into the grant refresh_token"}, topic: loginRequired},
		"answer lost": {
			failure: refreshed(t, new(memory), "r", nil, none, lost), facts: user,
			as: "was lost", wrong: []string{"the answer to a refresh was lost", "idp.example.com got the token request and did not answer within 1m"}, do: []string{"tried again when the access token has ended", "login crm", "what lost it: "}, topic: loginRequired,
		},
		"answer lost by a 500": {
			failure: refreshed(t, new(memory), "r", nil, none, answer(oauth.Failure{Kind: oauth.Unreachable, Status: 500, Lost: true})), facts: user,
			as: "was lost", wrong: []string{"failed at the token request (HTTP 500)"}, topic: loginRequired,
		},
		"unreadable":   {failure: refreshed(t, &memory{content: []byte("{")}, "r", nil, none, nil), facts: user, as: "cannot be read", wrong: []string{"cannot be read"}, do: []string{"mend the cause, or run: caddy upstream-auth login crm"}, topic: storageTopic},
		"storage down": {failure: refreshed(t, &memory{loads: errors.New("dial redis://app:mark@10.0.0.1: refused")}, "r", nil, none, nil), facts: user, as: "the storage for refresh tokens fails", do: []string{"the storage of Caddy", "no refresh token is spent"}, not: []string{"mark"}, topic: storageTopic},
		"no right": {
			failure: refreshed(t, &memory{loads: &fs.PathError{Op: "open", Path: "/data/caddy/x.json", Err: syscall.EACCES}}, "r", nil, none, nil), facts: user,
			as: "permission denied", wrong: []string{"/data/caddy/x.json"}, do: []string{"chown"}, topic: storageTopic,
		},
		"no room":   {failure: refreshed(t, &memory{saves: &fs.PathError{Op: "write", Path: "/data/caddy/x.json", Err: syscall.ENOSPC}}, "r", nil, none, nil), facts: user, as: "no space left", wrong: []string{"no room"}, do: []string{"df -h"}, topic: storageTopic},
		"read-only": {failure: refreshed(t, &memory{saves: &fs.PathError{Op: "open", Path: "/data/caddy/x.json", Err: syscall.EROFS}}, "r", nil, none, nil), facts: user, as: "read-only", wrong: []string{"read-only"}, do: []string{"storage file_system"}, topic: storageTopic},
	} {
		t.Run(name, c.check)
	}

	t.Run("ended after a lost answer", func(t *testing.T) {
		m := new(memory)
		_ = refreshed(t, m, "r", nil, none, lost)
		advised{failure: refreshed(t, m, "r", nil, none, ended), facts: user, wrong: []string{"after the answer to an earlier refresh was lost"}, do: []string{"login crm"}, topic: loginRequired}.check(t)
	})
	t.Run("rests", func(t *testing.T) {
		m := new(memory)
		_ = refreshed(t, m, "r", nil, none, lost)
		f := refreshed(t, m, "r", nil, token.Occasion{Held: new(token.Token)}, nil)
		advised{failure: f, facts: user, as: "rests", do: []string{"tried again when the access token has ended"}, not: []string{"what lost it"}, topic: loginRequired}.check(t)
	})
	t.Run("what was stored is gone", func(t *testing.T) {
		m, chain := new(memory), token.NewChain()
		defer chain.Close()
		s := &token.Session{Path: "crm", Store: m, Initial: "r", Spend: func(context.Context, string, token.Guard) (*oauth.Response, error) {
			return &oauth.Response{AccessToken: "a", RefreshToken: "r2"}, nil
		}}
		if _, err := chain.Refresh(t.Context(), none, func(context.Context) (*token.Session, error) { return s, nil }); err != nil {
			t.Fatal(err)
		}
		m.content = nil
		advised{failure: failureOf(t, chain, none, s), facts: user, as: "what it held is gone", do: []string{"a backup", "login crm"}, topic: storageTopic}.check(t)
	})
	t.Run("overtaken", func(t *testing.T) {
		m := new(memory)
		on := token.Occasion{Lease: func(context.Context) error { return nil }}
		f := refreshed(t, m, "r", nil, on, func(ctx context.Context, _ string, guard token.Guard) (*oauth.Response, error) {
			m.content = nil // another has written
			return nil, &oauth.Failure{Kind: oauth.Unreachable, Err: guard(ctx)}
		})
		advised{failure: f, facts: user, as: "another instance has gone on", do: []string{"mends itself", "starved or suspended"}, topic: storageTopic}.check(t)
	})
}

// requests are those of a source.
type requests func(context.Context, token.Occasion) (*oauth.Response, error)

func (r requests) Request(ctx context.Context, on token.Occasion) (*oauth.Response, error) {
	return r(ctx, on)
}
func (requests) Stale() bool { return false }

type nobody struct{}

func (nobody) Attempted(token.Attempt)       {}
func (nobody) Expired(token.Snapshot)        {}
func (nobody) Rejected(token.Snapshot, bool) {}

// waited is how a request fails that waits for a token.
func waited(t *testing.T, ask requests) *oauth.Failure {
	t.Helper()
	source := token.NewSource(token.Policy{RefreshAt: 75, Timeout: 10 * time.Second}, new(token.Scheduler), nobody{})
	source.Use(ask)
	defer source.Close()
	source.Start()
	_, err := source.Wait(t.Context(), 3*time.Second)
	f, ok := errors.AsType[*oauth.Failure](err)
	if !ok {
		t.Fatalf("got %v, want a failure", err)
	}
	return f
}

// shared is how a request fails for a token that is shared.
func shared(t *testing.T, m *memory, slept func() time.Duration, ask token.Ask) *oauth.Failure {
	t.Helper()
	share := token.NewShare(token.Policy{Timeout: 10 * time.Second}, true, slept)
	defer share.Close()
	_, err := share.Request(t.Context(), token.Occasion{Reason: token.Scheduled, Limit: 10 * time.Second}, func(context.Context) (*token.Shared, error) {
		return &token.Shared{Store: m}, nil
	}, ask)
	f, ok := errors.AsType[*oauth.Failure](err)
	if !ok {
		t.Fatalf("got %v, want a failure", err)
	}
	return f
}

// TestEngine: what the server was not asked, or said too late.
func TestEngine(t *testing.T) {
	for name, tc := range map[string]struct {
		fail func(*testing.T) *oauth.Failure
		want advised
	}{
		"expired on arrival": {
			func(t *testing.T) *oauth.Failure {
				t.Helper()
				return waited(t, func(context.Context, token.Occasion) (*oauth.Response, error) {
					<-time.After(2 * time.Second)
					return &oauth.Response{AccessToken: "a", ExpiresIn: time.Second}, nil
				})
			},
			advised{as: "had expired when it arrived", wrong: []string{"had expired"}, do: []string{"a longer life"}, topic: shortLifetime},
		},
		"still awaited": {
			func(t *testing.T) *oauth.Failure {
				t.Helper()
				return waited(t, func(ctx context.Context, _ token.Occasion) (*oauth.Response, error) {
					<-ctx.Done()
					return nil, &oauth.Failure{Kind: oauth.Unreachable, Err: ctx.Err()}
				})
			},
			advised{as: "still awaited", wrong: []string{"the first answer is still awaited"}, do: []string{"curl -sv"}, topic: unreachable},
		},
		"no longer configured": {
			func(t *testing.T) *oauth.Failure {
				t.Helper()
				chain := token.NewChain()
				chain.Drain()
				return failureOf(t, chain, token.Occasion{}, nil)
			},
			advised{as: "no longer configured", do: []string{"taken out of the config"}, topic: unreachable},
		},
		"an earlier refresh": {
			func(t *testing.T) *oauth.Failure {
				t.Helper()
				chain := token.NewChain()
				began := make(chan struct{})
				s := &token.Session{Path: "crm", Store: new(memory), Initial: "r", Spend: func(context.Context, string, token.Guard) (*oauth.Response, error) {
					close(began)
					<-time.After(10 * time.Second)
					return &oauth.Response{AccessToken: "a"}, nil
				}}
				go chain.Refresh(t.Context(), token.Occasion{}, func(context.Context) (*token.Session, error) { return s, nil }) //nolint:errcheck // it is in the way, no more
				<-began
				return failureOf(t, chain, token.Occasion{Limit: time.Second}, s)
			},
			advised{as: "earlier refresh", do: []string{"tried again by itself"}, topic: storageTopic},
		},
		"another has the lock": {
			func(t *testing.T) *oauth.Failure {
				t.Helper()
				return shared(t, &memory{neverUnlocked: true}, nil, nil)
			},
			advised{as: "another instance has the lock", do: []string{"hangs with the lock in hand"}, topic: storageTopic},
		},
		"paused with the lock": {
			func(t *testing.T) *oauth.Failure {
				t.Helper()
				var slept time.Duration
				var mu sync.Mutex
				asleep := func() time.Duration {
					mu.Lock()
					defer mu.Unlock()
					return slept
				}
				return shared(t, new(memory), asleep, func(ctx context.Context, on token.Occasion) (*oauth.Response, error) {
					mu.Lock()
					slept = time.Hour
					mu.Unlock()
					return nil, &oauth.Failure{Kind: oauth.Unreachable, Err: on.Lease(ctx)}
				})
			},
			advised{as: "paused with the lock", do: []string{"starved or suspended"}, topic: storageTopic},
		},
		"the storage of a shared token": {
			func(t *testing.T) *oauth.Failure {
				t.Helper()
				return shared(t, &memory{loads: os.ErrDeadlineExceeded}, nil, nil)
			},
			advised{as: "the storage for refresh tokens fails", do: []string{"the storage of Caddy"}, topic: storageTopic},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc.want.facts = crm
				tc.want.failure = tc.fail(t)
				tc.want.check(t)
				<-time.After(time.Minute) // what is under way ends
			})
		})
	}
}
