package caddymodule

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

func adapt(t *testing.T, caddyfile string) []byte {
	t.Helper()
	raw, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), nil)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestReloads: twenty reloads under load cost no token request and no request.
func TestReloads(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.run(p.credential(), "upstream_auth crm\nreverse_proxy $API")
	p.want(p.get("/"), 200)
	var answered atomic.Int32
	stop := p.underLoad(func(a answer, err error) {
		// An error is of the connection: where Caddy's old socket closes, what
		// is queued on it is reset, with this plugin or without.
		switch {
		case err == nil && a.status != 200:
			t.Errorf("got %v", a)
		case err == nil:
			answered.Add(1)
		}
	})
	for i := range 20 {
		if err := p.load(p.caddyfile(p.credential(), fmt.Sprintf("header X-Reload %d\nupstream_auth crm\nreverse_proxy $API", i))); err != nil {
			t.Fatal(err)
		}
		before := answered.Load()
		eventually(t, "requests on the new config", func() bool { return answered.Load() > before+10 })
	}
	stop()
	if p.auth.Requests() != 1 {
		t.Errorf("%d token requests", p.auth.Requests())
	}
	if n := p.lines(`"msg":"access token obtained"`); n != 1 {
		t.Errorf("told %d times of one token", n)
	}
}

// TestChangedCredential: one that changed starts anew, and the old one's
// request in flight publishes no token any more.
func TestChangedCredential(t *testing.T) {
	p := newParts(t, authserver.Config{Issue: func(n int) string { return fmt.Sprintf("tok-%d", n) }})
	release := make(chan struct{})
	p.auth.FailNext(1, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		<-release
		next.ServeHTTP(w, r)
	})
	p.run(p.credential("scopes a"), "upstream_auth crm\nreverse_proxy $API")
	eventually(t, "the first token request", func() bool { return p.auth.Requests() == 1 })
	if err := p.load(p.caddyfile(p.credential("scopes b"), "upstream_auth crm\nreverse_proxy $API")); err != nil {
		t.Fatal(err)
	}
	p.want(p.get("/"), 200)
	t.Log(p.logged())
	close(release)
	p.want(p.get("/"), 200)
	log := p.auth.Log()
	if len(log) != 2 || log[0].Form.Get("scope") != "a" || log[1].Form.Get("scope") != "b" {
		t.Errorf("the token requests were %v", log)
	}
	// in JSON the guests' keys may stand in any order
	raw := string(adapt(t, p.caddyfile(p.credential("scopes b"), "upstream_auth crm\nreverse_proxy $API")))
	swapped := strings.Replace(raw, `"method":"client_secret_basic","secret":"{env.`+secretEnv+`}"`, `"secret":"{env.`+secretEnv+`}","method":"client_secret_basic"`, 1)
	if raw == swapped {
		t.Fatal("nothing was swapped")
	}
	if err := caddy.Load([]byte(swapped), true); err != nil {
		t.Fatal(err)
	}
	p.want(p.get("/"), 200)
	if p.auth.Requests() != 2 {
		t.Error("another order of keys made another credential")
	}
}

// TestRunningConfigStays: a bad config is refused, and the running one goes on
// with its token.
func TestRunningConfigStays(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.run(p.credential(), "upstream_auth crm\nreverse_proxy $API")
	p.want(p.get("/"), 200)
	raw := string(adapt(t, p.caddyfile(p.credential(), "upstream_auth crm\nreverse_proxy $API")))
	for _, change := range [][2]string{
		{`"credential":"crm"`, `"credential":"erp"`},
		{`"method":"client_secret_basic"`, `"method":"client_secret_magic"`},
		{`"client_id":"app"`, `"client_id":""`},
		{`"127.0.0.1:`, `"256.0.0.1:`}, // what is not ours: the listener fails after we started
	} {
		bad := strings.Replace(raw, change[0], change[1], 1)
		if bad == raw {
			t.Fatalf("%s is not in the config", change[0])
		}
		if err := caddy.Load([]byte(bad), true); err == nil {
			t.Errorf("%s was taken", change[1])
		}
		p.want(p.get("/"), 200)
	}
	if p.auth.Requests() != 1 {
		t.Errorf("%d token requests", p.auth.Requests())
	}
	// and it still renews: the requests are made by a config that runs
	for _, e := range credentials.newest() {
		if len(e.attached) != 1 {
			t.Errorf("%d configs are attached", len(e.attached))
		}
	}
}

// TestReloadWhileWaiting: a request that waits for the first token of a
// credential is not lost when a reload changes that credential.
func TestReloadWhileWaiting(t *testing.T) {
	for name, more := range map[string]string{"one token": "", "a token for each tenant": "audience {http.request.header.X-Tenant}"} {
		t.Run(name, func(t *testing.T) {
			p := newParts(t, authserver.Config{})
			fault, letGo := hangingToken()
			defer letGo()
			p.auth.SetFault(fault)
			site := "upstream_auth crm\nreverse_proxy $API"
			if err := p.load(p.caddyfile(p.credential(more), site)); err != nil {
				t.Fatal(err)
			}
			got := make(chan answer)
			go func() {
				a, err := p.try(http.MethodGet, "/", nil, "X-Tenant", "a")
				if err != nil {
					t.Error(err)
				}
				got <- a
			}()
			eventually(t, "a token request", func() bool { return p.auth.Requests() == 1 })
			if err := p.load(p.caddyfile(p.credential(more, "scopes another"), site)); err != nil {
				t.Fatal(err)
			}
			letGo()
			p.want(<-got, 200)
		})
	}
}

// TestValidateIsQuiet: neither adapt nor validate touches the network.
func TestValidateIsQuiet(t *testing.T) {
	p := newParts(t, authserver.Config{})
	var cfg caddy.Config
	if err := caddy.StrictUnmarshalJSON(adapt(t, p.caddyfile(p.credential(), "upstream_auth crm\nreverse_proxy $API {\ntransport upstream_auth crm\n}")), &cfg); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Validate(&cfg); err != nil {
		t.Fatal(err)
	}
	p.nothingLeft()
	if p.auth.Requests() != 0 {
		t.Error("validate asked for a token")
	}
}

// TestStopWhileHanging: a server that hangs holds up no stop.
func TestStopWhileHanging(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.auth.SetFault(authserver.Hang())
	p.run(p.credential(), "upstream_auth crm\nreverse_proxy $API")
	eventually(t, "a token request", func() bool { return p.auth.Requests() == 1 })
	began := time.Now()
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the stop took %v", took)
	}
}

// TestAdminWarning: an admin API that others can reach is warned about. The
// test also holds the look at Caddy's config, which is from outside.
func TestAdminWarning(t *testing.T) {
	for admin, warned := range map[string]bool{
		"off":              false,
		"unix/$DIR/a.sock": false,
		"127.0.0.1:$PORT":  true,
		"localhost:$PORT":  true,
	} {
		t.Run(admin, func(t *testing.T) {
			p := newParts(t, authserver.Config{})
			at := strings.NewReplacer("$DIR", t.TempDir(), "$PORT", freePort(t)).Replace(admin)
			if err := p.load(strings.Replace(p.caddyfile(p.credential(), "upstream_auth crm\nreverse_proxy $API"), "admin off", "admin "+at, 1)); err != nil {
				t.Fatal(err)
			}
			if got := p.lines("whoever reaches the admin API") > 0; got != warned {
				t.Errorf("warned: %v", got)
			}
		})
	}
}

// TestLiteralSecret: it works, and is warned about.
func TestLiteralSecret(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.run(fmt.Sprintf("token_url %s%s\nclient_id %s\nclient_auth client_secret_post `%s`", p.server.URL(), authserver.TokenPath, appClient, oddSecret), "upstream_auth crm\nreverse_proxy $API")
	p.want(p.get("/"), 200)
	if p.lines("write {file./path/to/secret} or {env.NAME} instead") != 1 || strings.Contains(p.logged(), oddSecret) {
		t.Error("a secret in the config is not warned about, or is in the log")
	}
}
