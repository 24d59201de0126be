package interop

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The clients of server.mjs. What form-encoding changes is in oddSecret;
// plusSecret has no "%", so that sent raw it decodes, but to another.
const (
	oddSecret  = "p+a%s/w=d &!~:x"
	plusSecret = "p+a/s=w+d"
)

const (
	basic    = "client_secret_basic {env.SECRET}"
	basicRaw = "client_secret_basic {env.SECRET} {\n\t\t\t\tencoding raw\n\t\t\t}"
	post     = "client_secret_post {env.SECRET}"
)

// TestClientCredentials: a token by each method, in use by handler and
// transport alike.
func TestClientCredentials(t *testing.T) {
	tests := []struct {
		name string
		credential
		method string // by which the server got the secret
	}{
		{"basic", credential{"basic", "secret-of-basic", basic, nil}, "client_secret_basic"},
		{"post", credential{"post", "secret-of-post", post, nil}, "client_secret_post"},
		{"basic, odd secret", credential{"basic-odd", oddSecret, basic, nil}, "client_secret_basic"},
		{"post, odd secret", credential{"post-odd", oddSecret, post, nil}, "client_secret_post"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			result := row{server: providerName, grant: "client_credentials", method: tt.method, what: tt.name}
			results.add(t, &result)
			p := startProvider(t, time.Minute, 0)
			u := startUpstream(t, p)
			tt.lines = []string{"scopes read write"}
			c := startCaddy(t, u, tt.credential)

			var sent tally
			for _, way := range ways {
				a, err := sent.send(t.Context(), c, way, time.Now())
				if err != nil || a.status != http.StatusOK {
					t.Errorf("%s: status %d, error %v; want 200", way, a.status, err)
				}
			}
			result.requests, result.failures, result.longest = sent.requests, sent.failed, sent.longest

			counts, tokens := u.seen()
			if counts.requests != len(ways) || counts.bad() != 0 {
				t.Errorf("upstream got %s; want %d requests, all good", counts, len(ways))
			}
			for _, in := range tokens {
				if in.ClientID != tt.clientID || in.Scope != "read write" {
					t.Errorf("token of client %q with scope %q; want %q, %q", in.ClientID, in.Scope, tt.clientID, "read write")
				}
			}
			s := p.stats(t)
			result.tokens, result.refused = s.Granted, s.refused()
			if s.Granted != 1 || s.refused() != 0 || s.Methods[tt.method] != 1 {
				t.Errorf("server counted %+v; want one token, by %s, for both ways", s, tt.method)
			}
		})
	}
}

// TestRefused: what the server refuses is a 502 at once, explained in the log,
// with none of its words for the client.
func TestRefused(t *testing.T) {
	const attempts = 10 // by each way
	tests := []struct {
		name   string
		method string
		credential
		code  string
		words string // of the server's description
	}{
		// "%s/" is no percent-encoding: oidc-provider calls that a bad request
		{"basic raw, odd secret", "client_secret_basic", credential{"basic-odd", oddSecret, basicRaw, nil}, "invalid_request", "not properly encoded"},
		{"basic raw, secret with +", "client_secret_basic", credential{"basic-plus", plusSecret, basicRaw, nil}, "invalid_client", "authentication failed"},
		{"basic, wrong secret", "client_secret_basic", credential{"basic", "p4ssw0rd of another & more", basic, nil}, "invalid_client", "authentication failed"},
		{"post, wrong secret", "client_secret_post", credential{"post", "p4ssw0rd of another & more", post, nil}, "invalid_client", "authentication failed"},
		{"refused scope", "client_secret_basic", credential{"basic", "secret-of-basic", basic, []string{"scopes read admin"}}, "invalid_scope", "scope is not allowed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			result := row{server: providerName, grant: "client_credentials", method: tt.method, what: tt.name}
			results.add(t, &result)
			p := startProvider(t, time.Minute, 0)
			u := startUpstream(t, p)
			c := startCaddy(t, u, tt.credential)

			var sent tally
			for _, way := range ways {
				t.Run(way, func(t *testing.T) {
					for range attempts {
						a, err := sent.send(t.Context(), c, way, time.Now())
						if err != nil || a.status != http.StatusBadGateway {
							t.Fatalf("status %d, error %v; want 502", a.status, err)
						}
						if a.header.Get("Proxy-Status") == "" {
							t.Fatalf("no Proxy-Status in %v", a.header)
						}
						for _, word := range append(tt.spellings(), tt.code, tt.words) {
							if strings.Contains(a.body, word) {
								t.Fatalf("%q stands in the body: %s", word, a.body)
							}
						}
					}
				})
			}
			result.requests, result.failures, result.longest = sent.requests, sent.failed, sent.longest
			if sent.longest > time.Second {
				t.Errorf("longest request %s; want each to fail at once", sent.longest)
			}

			if counts, _ := u.seen(); counts.requests != 0 {
				t.Errorf("upstream got %s; want none", counts)
			}
			s := p.stats(t)
			result.tokens, result.refused = s.Granted, s.refused()
			if s.Granted != 0 || s.Refused[tt.code] == 0 || s.Refused[tt.code] != s.refused() {
				t.Errorf("server counted %+v; want refusals with %s alone", s, tt.code)
			}
			// a first one, and what full jitter from 5s on makes likely in this second or two
			if s.refused() > 4 {
				t.Errorf("%d token requests for %d requests; want backoff", s.refused(), sent.requests)
			}
			awaitFailure(t, c)
			failures := c.failures()
			if len(failures) != 1 {
				t.Errorf("%d lines in the log about one refusal: %+v", len(failures), failures)
			}
			if f := failures[0]; f.Level != "error" || f.Kind != "refused" || f.Code != tt.code {
				t.Errorf("log says %+v; want an error, refused, %s", f, tt.code)
			}
		})
	}
}

// TestRefreshUnderLoad: tokens of ten seconds, renewed before each ends by a
// server that takes its time, and no request that notices.
func TestRefreshUnderLoad(t *testing.T) {
	result := row{server: providerName, grant: "client_credentials", method: "client_secret_basic", what: "tokens of 10s under load"}
	results.add(t, &result)
	p := startProvider(t, 10*time.Second, 500*time.Millisecond)
	u := startUpstream(t, p)
	c := startCaddy(t, u, credential{"basic", "secret-of-basic", basic, nil})
	awaitToken(t, c)

	before := p.stats(t)
	began := time.Now()
	l := startLoad(t, c)
	select {
	case <-time.After(*load):
	case <-c.ended:
		t.Fatal("caddy ended under load")
	}
	sent := l.stop()
	lifetimes := time.Since(began).Seconds() / p.ttl.Seconds()
	after := p.stats(t)
	result.requests, result.failures, result.longest = sent.requests, sent.failed, sent.longest
	result.tokens, result.refused = after.Granted, after.refused()

	checkLoad(t, c, sent)
	if sent.longest >= p.delay {
		t.Errorf("longest request %s; want none to wait for a token request of %s", sent.longest, p.delay)
	}
	if want := int(load.Seconds() * rate * 0.9); sent.requests < want {
		t.Errorf("%d requests sent in %s; want %d at least", sent.requests, *load, want)
	}
	// whole requests: a run need not end on a renewal
	if n, limit := after.Granted-before.Granted, int(math.Ceil(1.5*lifetimes)); n > limit {
		t.Errorf("%d token requests in %.1f lifetimes; want %d at most", n, lifetimes, limit)
	}
	if after.refused() != 0 || after.MaxInFlight > 1 {
		t.Errorf("server counted %+v; want no refusal and one request at a time", after)
	}
	// the last may have come too late to be used
	if _, tokens := u.seen(); len(tokens) < after.Granted-1 {
		t.Errorf("upstream saw %d tokens, the server issued %d", len(tokens), after.Granted)
	}
}

// TestProviderRestart: the server dies while a token is valid, a renewal fails,
// the server comes back; no request notices.
func TestProviderRestart(t *testing.T) {
	result := row{server: providerName, grant: "client_credentials", method: "client_secret_basic", what: "server killed and restarted"}
	results.add(t, &result)
	p := startProvider(t, 40*time.Second, 0)
	u := startUpstream(t, p)
	// renewed after four to eight seconds of forty: most of a life is left to
	// notice the outage and to outlast it
	c := startCaddy(t, u, credential{"basic", "secret-of-basic", basic, []string{"refresh_at 20%"}})
	awaitToken(t, c)
	l := startLoad(t, c)
	first := p.stats(t)

	p.stop(t, syscall.SIGKILL)
	killed := time.Now()
	awaitFailure(t, c)
	if f := c.failures()[0]; f.Kind != "unreachable" || f.Level != "warn" {
		t.Errorf("log says %+v; want a warning, unreachable", f)
	}
	down := l.sent()
	poll(t, 30*time.Second, "two more seconds of load", func(context.Context) error {
		if n := l.sent() - down; n < 2*rate {
			return fmt.Errorf("%d requests", n)
		}
		return nil
	})
	p.start(t)
	outage := time.Since(killed)
	poll(t, 30*time.Second, "a token of the restarted server at the upstream", func(context.Context) error {
		if _, tokens := u.seen(); len(tokens) != 2 {
			return fmt.Errorf("%d tokens seen", len(tokens))
		}
		return nil
	})
	sent := l.stop()
	second := p.stats(t)
	result.requests, result.failures, result.longest = sent.requests, sent.failed, sent.longest
	result.tokens = first.Granted + second.Granted

	checkLoad(t, c, sent)
	if result.tokens != 2 {
		t.Errorf("%d tokens issued; want one by each server", result.tokens)
	}
	t.Logf("outage of %s, token renewed %s after the kill", outage.Round(time.Millisecond), time.Since(killed).Round(time.Millisecond))
}

// awaitToken: a load begins with a token in hand, and known to the upstream.
func awaitToken(t *testing.T, c *site) {
	t.Helper()
	poll(t, startDeadline, "a first answer", func(ctx context.Context) error {
		a, err := c.get(ctx, ways[0])
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("status %d", a.status)
		}
		return err
	})
}

// awaitFailure: the log tells of a token request that failed.
func awaitFailure(t *testing.T, c *site) {
	t.Helper()
	poll(t, 30*time.Second, "a failed token request in the log", func(context.Context) error {
		if len(c.failures()) == 0 {
			return errors.New("none")
		}
		return nil
	})
}

// checkLoad: no request failed, each carried a good token, and none but the one
// of awaitToken waited for it.
func checkLoad(t *testing.T, c *site, sent *tally) {
	t.Helper()
	if sent.failed != 0 {
		t.Errorf("%d of %d requests failed: %v", sent.failed, sent.requests, sent.reasons)
	}
	if counts, _ := c.upstream.seen(); counts.bad() != 0 || counts.requests < sent.requests {
		t.Errorf("upstream got %s; want %d and all good", counts, sent.requests)
	}
	poll(t, 5*time.Second, "each request injected at once, says the access log", func(context.Context) error {
		if outcomes := c.outcomes(); outcomes["injected"] < sent.requests {
			return fmt.Errorf("%v of %d", outcomes, sent.requests)
		}
		return nil
	})
}
