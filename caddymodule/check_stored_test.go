package caddymodule

import (
	"encoding/base64"
	"maps"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// TestCheckInspects: a refresh token is told of, and neither spent nor marked.
func TestCheckInspects(t *testing.T) {
	p := rotating(t, time.Hour)
	initial := p.auth.IssueRefreshToken()
	config := p.caddyfile(p.refreshing(initial), injecting)
	all, text := p.check(config, nil, initial)
	holds(t, text, "crm         inspected  ", "--spend", "the refresh token in the configuration was never taken")
	if k := all[0].RefreshToken; k == nil || !k.Usable || !k.Configured || k.Stored {
		t.Errorf("got %+v", k)
	}
	if err := p.load(config); err != nil {
		t.Fatal(err)
	}
	p.want(p.get("/"), http.StatusOK)
	p.stop()
	before, asked := p.files(), p.auth.Requests()
	all, text = p.check(config, nil, initial)
	holds(t, text, "inspected", "a refresh token of 20", "unsealed in the folder "+p.storage, "No credential failed.")
	if k := all[0].RefreshToken; k == nil || !k.Usable || !k.Stored || k.Sealed || time.Since(k.Obtained) > time.Minute || all[0].Took <= 0 {
		t.Errorf("got %+v", k)
	}
	if !maps.Equal(p.files(), before) || p.auth.Requests() != asked || !p.auth.ChainAlive(initial) {
		t.Error("an inspection has changed something")
	}
	if err := p.server.Close(); err != nil {
		t.Fatal(err)
	}
	all, text = p.check(config, nil, initial)
	holds(t, text, "a refresh token of 20", "nothing listens at", "Failed: crm.")
	if all[0].Result != checkedFailed {
		t.Errorf("got %s", all[0].Result)
	}
}

// TestCheckSpends: what a refresh brings is stored, and a Caddy goes on with it.
func TestCheckSpends(t *testing.T) {
	for _, share := range []string{"", "share"} {
		t.Run(share, func(t *testing.T) {
			p := rotating(t, time.Hour)
			initial := p.auth.IssueRefreshToken()
			config := p.caddyfile(p.refreshing(initial, share), injecting)
			for n := range 3 {
				all, text := p.check(config, spending, initial)
				if all[0].Result != checkedOK || p.auth.Rotations() != n+1 || !p.auth.ChainAlive(initial) {
					t.Fatalf("%d rotations, %v\n%s", p.auth.Rotations(), p.auth.ChainEnd(initial), text)
				}
			}
			if err := p.load(config); err != nil {
				t.Fatal(err)
			}
			p.want(p.get("/"), http.StatusOK)
			p.stopped()
			want := 4
			if share != "" {
				want = 3 // the token of the last check is adopted
			}
			if p.auth.Rotations() != want || !p.auth.ChainAlive(initial) {
				t.Errorf("%d rotations, want %d; %v", p.auth.Rotations(), want, p.auth.ChainEnd(initial))
			}
		})
	}
}

// TestCheckEnded: what is stored and of no use is a failure, with what mends it.
func TestCheckEnded(t *testing.T) {
	t.Run("no login", func(t *testing.T) {
		p := loginServer(t, authserver.Config{})
		all, text := p.check(p.loginConfig(), nil)
		holds(t, text, "no refresh token is stored", "run: caddy upstream-auth login crm", "#login-required")
		if all[0].Result != checkedFailed || p.auth.Requests() > 0 {
			t.Errorf("got %s, after %d token requests", all[0].Result, p.auth.Requests())
		}
	})
	t.Run("no file", func(t *testing.T) {
		p := rotating(t, time.Hour)
		_, text := p.check(p.crm(p.refreshing("{file./nonexistent/token}")), nil)
		holds(t, text, "/nonexistent/token", "no such file")
	})
	t.Run("refused", func(t *testing.T) {
		p := rotating(t, time.Hour)
		initial := p.auth.IssueRefreshToken()
		config := p.crm(p.refreshing(initial))
		p.auth.RevokeChain(initial)
		_, text := p.check(config, spending, initial)
		holds(t, text, "the server takes the refresh token no more", "write a new one into the grant refresh_token")
		all, text := p.check(config, nil, initial)
		holds(t, text, "that the server has refused since", "(invalid_grant)", "Failed: crm.")
		if p.auth.Requests() != 1 || all[0].RefreshToken.Usable {
			t.Errorf("%d token requests, %+v", p.auth.Requests(), all[0].RefreshToken)
		}
	})
	t.Run("lost", func(t *testing.T) {
		p := rotating(t, time.Hour)
		initial := p.auth.IssueRefreshToken()
		config := p.crm(p.refreshing(initial))
		p.auth.FailNext(1, authserver.CutBody())
		_, text := p.check(config, spending, initial)
		holds(t, text, "cut short", "Failed: crm.")
		all, text := p.check(config, nil, initial)
		holds(t, text, "a request with the refresh token was begun on 20", "its answer was lost", "No credential failed.")
		if k := all[0].RefreshToken; k.Asked.IsZero() || all[0].Result != checkedInspected {
			t.Errorf("got %s, %+v", all[0].Result, k)
		}
	})
	t.Run("unreadable", func(t *testing.T) {
		p := rotating(t, time.Hour)
		initial := p.auth.IssueRefreshToken()
		config := p.crm(p.refreshing(initial))
		p.check(config, spending, initial)
		path, content := p.file()
		if err := os.WriteFile(path, []byte(content[:len(content)/2]), 0o600); err != nil {
			t.Fatal(err)
		}
		all, text := p.check(config, nil, initial)
		holds(t, text, "cut short", "#storage", "Failed: crm.")
		if len(p.files()) != 1 || all[0].Result != checkedFailed {
			t.Errorf("%d files; %s", len(p.files()), all[0].Result)
		}
	})
	t.Run("sealed", func(t *testing.T) {
		p := rotating(t, time.Hour)
		initial := p.auth.IssueRefreshToken()
		key := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))
		config := p.crm(p.refreshing(initial))
		sealed := strings.Replace(config, "upstream_auth {", "upstream_auth {\nencryption_key "+key, 1)
		p.check(sealed, spending, initial, key)
		_, text := p.check(sealed, nil, initial, key)
		holds(t, text, "a refresh token of 20", ", sealed in the folder ")
		_, text = p.check(config, nil, initial, key)
		holds(t, text, "encryption_key", "Failed: crm.")
	})
}

// TestCheckProbeSpends: the way that is found by trying has spent the refresh
// token, and what it brought is stored.
func TestCheckProbeSpends(t *testing.T) {
	p := newParts(t, authserver.Config{RefreshTokens: true, Rotate: authserver.RotateAlways, ReuseDetection: true, BasicEncoding: "raw"})
	initial := p.auth.IssueRefreshToken()
	config := p.crm(p.refreshing(initial))
	both := func(k *checkup) { k.spend, k.probe = true, true }
	_, text := p.check(config, both, initial)
	holds(t, text, "encoding raw", "Failed: crm.")
	if p.auth.Rotations() != 1 || !p.auth.ChainAlive(initial) {
		t.Fatalf("%d rotations, %v", p.auth.Rotations(), p.auth.ChainEnd(initial))
	}
	mended := strings.Replace(config, "{env."+secretEnv+"}", "{env."+secretEnv+"} {\nencoding raw\n}", 1)
	_, text = p.check(mended, spending, initial)
	holds(t, text, "crm         ok ", "No credential failed.")
	if p.auth.Rotations() != 2 || !p.auth.ChainAlive(initial) {
		t.Errorf("%d rotations, %v", p.auth.Rotations(), p.auth.ChainEnd(initial))
	}
}

// TestCheckTemplate: what depends on a request is checked with a value for it,
// and inspected without.
func TestCheckTemplate(t *testing.T) {
	const tenant = "http.request.header.X-Tenant"
	with := func(values ...string) func(*checkup) {
		return func(k *checkup) {
			if err := k.takeValues(values); err != nil {
				t.Fatal(err)
			}
		}
	}
	subject := "subject-" + strings.Repeat("s", 20)
	file := writeFile(t, "subject", []byte(subject+"\n"))
	const exchanging = "grant token_exchange {\nsubject_token request\n}"
	for name, tc := range map[string]struct {
		more   string
		values []string
		unset  bool // the secret
		result string
		asked  int
		says   []string
	}{
		"no value":        {more: "scopes tenant:{" + tenant + "}", result: checkedInspected, says: []string{"--value " + tenant + "=<value>"}},
		"a value":         {more: "scopes tenant:{" + tenant + "}", values: []string{tenant + "=acme"}, result: checkedOK, asked: 1, says: []string{"tenant:acme"}},
		"in braces":       {more: "param tenant {" + tenant + "}", values: []string{"{" + tenant + "}=acme"}, result: checkedOK, asked: 1},
		"a bad value":     {more: "scopes {" + tenant + "}", values: []string{tenant + "=a b"}, result: checkedFailed, says: []string{"{" + tenant + "}", "1 to 256 visible ASCII"}},
		"no secret":       {more: "scopes {" + tenant + "}", unset: true, result: checkedFailed, says: []string{"{env." + secretEnv + "}", "set the variable"}},
		"no client token": {more: exchanging, result: checkedInspected, says: []string{"--value subject_token=@<file>"}},
		"a client token":  {more: exchanging, values: []string{"subject_token=@" + file}, result: checkedOK, asked: 1},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParts(t, authserver.Config{SubjectTokens: func(token string) (string, bool) { return "user", token == subject }})
			if tc.unset {
				t.Setenv(secretEnv, "")
			}
			all, text := p.check(p.crm(p.credential(tc.more)), with(tc.values...), subject)
			holds(t, text, tc.says...)
			if all[0].Result != tc.result || p.auth.Requests() != tc.asked {
				t.Errorf("%d token requests, %s\n%s", p.auth.Requests(), all[0].Result, text)
			}
		})
	}
}
