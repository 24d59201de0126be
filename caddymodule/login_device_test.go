package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// deviceConfig is a whole Caddyfile for a login on another device.
func (p *parts) deviceConfig(more ...string) string {
	return p.caddyfile(p.loginBlock("", more...), injecting)
}

var shownCode = regexp.MustCompile(`enter the code ([A-Z]{4}-[A-Z]{4})\n`)

// deviceLogin logs in on another device, where a person does something with the
// code that is shown.
func (p *parts) deviceLogin(caddyfile string, person func(code string)) (string, error) {
	p.t.Helper()
	l, out := p.begin(caddyfile)
	defer l.close()
	l.device, l.open = true, func(string) { p.t.Error("a browser is opened") }
	done := make(chan error)
	go func() { done <- l.run(p.t.Context()) }()
	var err error
	over := false
	if person != nil {
		var shown []string
		eventually(p.t, "a code", func() bool {
			select {
			case err = <-done:
				over = true
			default:
			}
			shown = shownCode.FindStringSubmatch(out.String())
			return over || shown != nil
		})
		if shown != nil {
			person(shown[1])
		}
	}
	if !over {
		err = <-done
	}
	if problem := p.tellsNothing(out.String() + inText(err)); problem != nil {
		p.t.Error(problem)
	}
	return out.String(), err
}

func inText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// hasty has a server let a device ask ten times a second.
func hasty(fault authserver.Fault) authserver.Fault {
	return authserver.Chain(fault, authserver.Answer(func(m map[string]any) { m["interval"] = json.RawMessage("0.1") }))
}

// TestDeviceLogin: a code is shown, and what comes once it is entered is kept.
func TestDeviceLogin(t *testing.T) {
	t.Setenv("TEST_SCOPES", "openid read")
	for name, tc := range map[string]struct {
		config authserver.Config
		fault  authserver.Fault
		edit   []string
		scope  string
		shows  []string
		hides  []string
	}{
		"issuer": {shows: []string{"Open http://", "/device and enter the code ", "or open http://", "/device?user_code=", " and compare the code.", "The code is good for 10m0s."}},
		"openid": {edit: []string{"client_id app", "client_id app\nscopes {env.TEST_SCOPES}"}, scope: "openid read"},
		"token_url": {
			edit: []string{"issuer $SERVER", "token_url $SERVER/token", "authorization_code {", "authorization_code {\ndevice_authorization_url $SERVER/device_authorization"},
		},
		"none": {
			config: authserver.Config{Methods: []string{authserver.None}, ClientID: appClient},
			edit:   []string{"client_auth client_secret_basic {env." + secretEnv + "}", "client_auth none"},
		},
		"post": {edit: []string{"client_secret_basic", "client_secret_post"}},
		"no complete address": {
			fault: authserver.Answer(func(m map[string]any) { delete(m, "verification_uri_complete") }), hides: []string{"or open"},
		},
		"a complete address that is none": {
			fault: authserver.Answer(func(m map[string]any) { m["verification_uri_complete"] = "javascript:alert(1)" }), hides: []string{"or open", "javascript"},
		},
		"the older name": {
			fault: authserver.Answer(func(m map[string]any) {
				m["verification_url"] = m["verification_uri"]
				delete(m, "verification_uri")
			}),
		},
		"no end": {
			fault: authserver.Answer(func(m map[string]any) { delete(m, "expires_in") }), hides: []string{"good for"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := loginServer(t, tc.config)
			p.auth.DeviceAuthorization.SetFault(hasty(tc.fault))
			edit := slices.Clone(tc.edit)
			for i := range edit {
				edit[i] = strings.ReplaceAll(edit[i], "$SERVER", p.server.URL())
			}
			caddyfile := strings.NewReplacer(edit...).Replace(p.deviceConfig())
			out, err := p.deviceLogin(caddyfile, func(code string) {
				if !p.auth.ApproveDevice(code) {
					t.Errorf("the server does not know the code %s", code)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, shows := range append(tc.shows, "Logged in. The refresh token is stored in the folder "+p.storage) {
				if !strings.Contains(out, shows) {
					t.Errorf("got %s, want %q", out, shows)
				}
			}
			for _, hides := range tc.hides {
				if strings.Contains(out, hides) {
					t.Errorf("got %s, with %q", out, hides)
				}
			}
			if asked := p.asked(authserver.DeviceAuthorizationPath); asked.Get("scope") != tc.scope || asked.Get("client_id") != appClient || asked.Has("grant_type") {
				t.Errorf("asked with %v", asked)
			}
			if err := p.load(caddyfile); err != nil {
				t.Fatal(err)
			}
			p.want(p.get("/"), http.StatusOK)
		})
	}
}

// TestDeviceLoginPolls: what a server may say until the code is entered.
func TestDeviceLoginPolls(t *testing.T) {
	for name, tc := range map[string]struct {
		config   authserver.Config
		faults   []authserver.Fault // of the token requests, in turn
		approve  bool
		requests int
		says     string
	}{
		"pending": {
			faults:  []authserver.Fault{authserver.Invalid("authorization_pending", ""), authserver.Invalid("authorization_pending", "")},
			approve: true, requests: 3,
		},
		"a blip": {faults: []authserver.Fault{authserver.Reset()}, approve: true, requests: 2},
		"down":   {faults: []authserver.Fault{authserver.Down()}, approve: true, requests: 2},
		"down in words": {
			faults:  []authserver.Fault{authserver.Invalid("temporarily_unavailable", "")},
			approve: true, requests: 2,
		},
		"denied":  {requests: 1, says: "the person at the other device said no"},
		"expired": {faults: []authserver.Fault{authserver.Invalid("expired_token", "")}, requests: 1, says: "the code has expired: start again"},
		"in time": {config: authserver.Config{DeviceLifetime: time.Second}, says: "nobody has entered the code in time: start again"},
		"refused": {
			faults:   []authserver.Fault{authserver.Invalid("invalid_grant", "no\x1bsuch code")},
			requests: 1, says: "refused: HTTP 400, invalid_grant: no such code",
		},
		"a page": {faults: []authserver.Fault{authserver.Raw(http.StatusOK, "text/html", "<html>")}, requests: 1, says: "the answer is a page"},
		"no refresh token": {
			config: authserver.Config{NoRefreshToken: true}, approve: true, requests: 1, says: "allow refresh tokens for this client at the server",
		},
		"an ID token for another": {
			config:  authserver.Config{IDTokenEdit: func(c map[string]any) { c["aud"] = "other" }},
			approve: true, requests: 1, says: "cannot be trusted, so nothing is stored",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := loginServer(t, tc.config)
			p.auth.DeviceAuthorization.SetFault(hasty(nil))
			for _, fault := range tc.faults {
				p.auth.FailNext(1, fault)
			}
			_, err := p.deviceLogin(p.deviceConfig("scopes openid"), func(code string) {
				switch {
				case tc.approve:
					p.auth.ApproveDevice(code)
				case name == "denied":
					p.auth.DenyDevice(code)
				}
			})
			if n := p.auth.Requests(); tc.requests != 0 && n != tc.requests {
				t.Errorf("%d polls, want %d", n, tc.requests)
			}
			if tc.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want an error that says %q", err, tc.says)
			}
			p.nothingStored()
		})
	}
}

// TestDeviceLoginNotBegun: what is wrong before a code is shown.
func TestDeviceLoginNotBegun(t *testing.T) {
	for name, tc := range map[string]struct {
		config authserver.Config
		fault  authserver.Fault
		edit   []string
		says   string
	}{
		"no endpoint": {
			config: authserver.Config{MetadataEdit: func(m map[string]any) { delete(m, "device_authorization_endpoint") }},
			says:   "the server's metadata names no such endpoint: write device_authorization_url into the grant, or ask whether the server can do it",
		},
		"no device_authorization_url": {
			edit: []string{"issuer $SERVER", "token_url $SERVER/token", "authorization_code {", "authorization_code {\nauthorization_url $SERVER/authorize"},
			says: "device_authorization_url is missing: write it into the grant, or issuer in place of token_url",
		},
		"refused":      {fault: authserver.Invalid("unauthorized_client", "not\x1ballowed"), says: "asking for a code: refused: HTTP 400, unauthorized_client: not allowed"},
		"down":         {fault: authserver.Down(), says: "asking for a code: unreachable: HTTP 503"},
		"a page":       {fault: authserver.Raw(http.StatusOK, "text/html", "<html>"), says: "the answer is a page"},
		"a redirect":   {fault: authserver.Redirect(http.StatusFound, "https://evil.example.com/"), says: "a redirect, which is never followed"},
		"empty":        {fault: authserver.Raw(http.StatusOK, "application/json", "{}"), says: "lacks a usable device_code, user_code or verification_uri"},
		"no code":      {fault: authserver.Answer(func(m map[string]any) { delete(m, "device_code") }), says: "lacks a usable device_code"},
		"an odd code":  {fault: authserver.Answer(func(m map[string]any) { m["user_code"] = "A\x1b[2J" }), says: "lacks a usable device_code"},
		"no page":      {fault: authserver.Answer(func(m map[string]any) { m["verification_uri"] = "javascript:alert(1)" }), says: "lacks a usable device_code"},
		"an odd page":  {fault: authserver.Answer(func(m map[string]any) { m["verification_uri"] = "https://idp.example.com/\x1b[2J" }), says: "lacks a usable device_code"},
		"wrong secret": {edit: []string{"{env." + secretEnv + "}", "wrong"}, says: "asking for a code: refused: HTTP 401, invalid_client"},
	} {
		t.Run(name, func(t *testing.T) {
			p := loginServer(t, tc.config)
			p.auth.DeviceAuthorization.SetFault(tc.fault)
			edit := slices.Clone(tc.edit)
			for i := range edit {
				edit[i] = strings.ReplaceAll(edit[i], "$SERVER", p.server.URL())
			}
			out, err := p.deviceLogin(strings.NewReplacer(edit...).Replace(p.deviceConfig()), nil)
			if err == nil || !strings.Contains(err.Error(), tc.says) || out != "" {
				t.Errorf("got %v, want an error that says %q\n%s", err, tc.says, out)
			}
			if strings.ContainsAny(inText(err), "\x1b\n") || p.auth.Requests() != 0 {
				t.Errorf("got %q; %d token requests", err, p.auth.Requests())
			}
			p.nothingStored()
		})
	}
}

// TestDeviceLoginShape: a server's own words are for its token endpoint alone.
func TestDeviceLoginShape(t *testing.T) {
	p := loginServer(t, authserver.Config{})
	p.auth.DeviceAuthorization.SetFault(hasty(nil))
	_, err := p.deviceLogin(p.deviceConfig("request {\nmethod GET\nrename client_id appid\n}"), func(string) {})
	if err == nil {
		t.Error("the token endpoint, which takes no GET, gave a token")
	}
	var methods []string
	for _, r := range p.auth.Log() {
		if r.Path == authserver.DeviceAuthorizationPath || r.Path == authserver.TokenPath {
			methods = append(methods, r.Method+" "+r.Path)
		}
	}
	if want := []string{"POST " + authserver.DeviceAuthorizationPath, "GET " + authserver.TokenPath}; !slices.Equal(methods, want) {
		t.Errorf("asked with %v, want %v", methods, want)
	}
}

// TestDeviceLoginInterrupted: the person at the terminal gives up, before or
// while the code is waited for.
func TestDeviceLoginInterrupted(t *testing.T) {
	p := loginServer(t, authserver.Config{DeviceInterval: time.Hour})
	l, out := p.begin(p.deviceConfig())
	defer l.close()
	l.device, l.wait = true, time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	waiting := &told{text: "enter the code", done: make(chan struct{})}
	l.out = io.MultiWriter(out, waiting)
	go func() {
		<-waiting.done
		cancel()
	}()
	if err := l.run(ctx); !errors.Is(err, errInterrupted) {
		t.Errorf("got %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	p.auth.DeviceAuthorization.SetFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		cancel()
		next.ServeHTTP(w, r)
	})
	if err := l.run(ctx); !errors.Is(err, errInterrupted) {
		t.Errorf("got %v", err)
	}
	p.nothingStored()
}

// TestDeviceLoginInterval: what the server asks for is waited for.
func TestDeviceLoginInterval(t *testing.T) {
	p := loginServer(t, authserver.Config{DeviceInterval: time.Second, SlowDown: true})
	p.auth.FailNext(1, authserver.Invalid("authorization_pending", ""))
	if _, err := p.deviceLogin(p.deviceConfig(), func(code string) { p.auth.ApproveDevice(code) }); err != nil {
		t.Fatal(err)
	}
	var times []time.Time
	for _, r := range p.auth.Log() {
		if r.Path == authserver.DeviceAuthorizationPath || r.Path == authserver.TokenPath {
			times = append(times, r.Time)
		}
	}
	if len(times) != 3 || times[1].Sub(times[0]) < time.Second || times[2].Sub(times[1]) < time.Second {
		t.Errorf("asked at %v", times)
	}
}

// TestPace: how often a server is asked (RFC 8628 §3.5).
func TestPace(t *testing.T) {
	const s = time.Second
	for name, tc := range map[string]struct {
		from    time.Duration
		answers []*oauth.Failure
		want    []time.Duration
		ends    error
	}{
		"pending":    {5 * s, []*oauth.Failure{{Code: "authorization_pending"}, {Code: "authorization_pending"}}, []time.Duration{5 * s, 5 * s}, nil},
		"slow_down":  {s, []*oauth.Failure{{Code: "slow_down"}, {Code: "authorization_pending"}, {Code: "slow_down"}}, []time.Duration{6 * s, 6 * s, 11 * s}, nil},
		"too many":   {5 * s, []*oauth.Failure{{Status: 429, Kind: oauth.Unreachable, RetryAfter: 30 * s}, {Code: "authorization_pending"}}, []time.Duration{30 * s, 10 * s}, nil},
		"timeouts":   {5 * s, []*oauth.Failure{{Kind: oauth.Unreachable}, {Kind: oauth.Unreachable}, {Code: "authorization_pending"}}, []time.Duration{10 * s, 20 * s, 20 * s}, nil},
		"an outage":  {20 * s, []*oauth.Failure{{Kind: oauth.Unreachable}, {Kind: oauth.Unreachable}, {Kind: oauth.Unreachable}}, []time.Duration{40 * s, 60 * s, 60 * s}, nil},
		"a slow one": {90 * s, []*oauth.Failure{{Kind: oauth.Unreachable}}, []time.Duration{90 * s}, nil},
		"server_error": {
			5 * s, []*oauth.Failure{{Kind: oauth.Unreachable, Status: 500, Code: "server_error", RetryAfter: 25 * s}}, []time.Duration{25 * s}, nil,
		},
		"denied":  {5 * s, []*oauth.Failure{{Kind: oauth.Refused, Status: 400, Code: "access_denied"}}, nil, errSaidNo},
		"expired": {5 * s, []*oauth.Failure{{Kind: oauth.Refused, Status: 400, Code: "expired_token"}}, nil, errCodeExpired},
	} {
		p := pace{interval: tc.from}
		var got []time.Duration
		var err error
		for _, f := range tc.answers {
			var pause time.Duration
			if pause, err = p.after(f); err == nil {
				got = append(got, pause)
			}
		}
		if !slices.Equal(got, tc.want) || !errors.Is(err, tc.ends) {
			t.Errorf("%s: got %v, %v; want %v, %v", name, got, err, tc.want, tc.ends)
		}
	}
	p := pace{interval: s}
	if _, err := p.after(errHanging); !errors.Is(err, errHanging) {
		t.Errorf("got %v", err)
	}
}
