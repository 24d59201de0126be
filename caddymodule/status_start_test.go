package caddymodule

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// TestStatusBeforeStart: Caddy starts apps in no order. A server that listens
// before the credentials have begun is not ready.
func TestStatusBeforeStart(t *testing.T) {
	p := newParts(t, authserver.Config{})
	var config caddy.Config
	raw := adapt(t, p.caddyfile(p.credential(), "handle /status {\nupstream_auth_status\n}\nhandle {\n"+injecting+"\n}"))
	if err := json.Unmarshal(raw, &config); err != nil {
		t.Fatal(err)
	}
	ctx, err := caddy.ProvisionContext(&config)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := ctx.App(appName)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ours.(*App).Cleanup(); err != nil {
			t.Error(err)
		}
		p.nothingLeft()
	})
	app, err := ctx.App("http")
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	app.(*caddyhttp.App).Servers["srv0"].ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "http://"+p.proxy+"/status", nil))
	if rec.Code != http.StatusServiceUnavailable {
		t.Errorf("before the start: %d\n%s", rec.Code, rec.Body)
	}
}
