package token

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// TestHanded: for how long a token is handed out to other programs.
func TestHanded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Policy{RefreshAt: 75, ExpiryMargin: 10 * time.Second, DefaultLifetime: 5 * time.Minute, Timeout: time.Second}
		at := now()
		known, _ := p.take(&oauth.Response{AccessToken: "a", ExpiresIn: time.Hour, Scopes: []string{"read"}}, nil, at, at, defaultRandom)
		assumed, _ := p.take(&oauth.Response{AccessToken: "b"}, nil, at, at, defaultRandom)
		if known.Left() != time.Hour-10*time.Second || known.Promised() != time.Hour || known.Assumed() || len(known.Scopes()) != 1 {
			t.Errorf("got %s of %s, assumed %v, scopes %v", known.Left(), known.Promised(), known.Assumed(), known.Scopes())
		}
		if assumed.Left() != 24*time.Hour || assumed.Promised() != 5*time.Minute || !assumed.Assumed() || assumed.Scopes() != nil {
			t.Errorf("got %s of %s, assumed %v, scopes %v", assumed.Left(), assumed.Promised(), assumed.Assumed(), assumed.Scopes())
		}
		time.Sleep(2 * time.Hour) // in the bubble
		if known.Left() != 0 || known.Promised() != 0 || assumed.Promised() != 0 {
			t.Errorf("later there is left %s, %s, %s", known.Left(), known.Promised(), assumed.Promised())
		}
	})
}
