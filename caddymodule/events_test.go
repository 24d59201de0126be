package caddymodule

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// listener is an event handler of the tests, since Caddy brings none.
type listener struct{}

var heard struct {
	sync.Mutex
	events []caddy.Event
	hold   chan struct{} // while it is not nil and open, handlers hang
}

func init() { caddy.RegisterModule(listener{}) }

func (listener) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.test_listener", New: func() caddy.Module { return listener{} }}
}

func (listener) UnmarshalCaddyfile(*caddyfile.Dispenser) error { return nil }

func (listener) Handle(_ context.Context, e caddy.Event) error {
	heard.Lock()
	heard.events = append(heard.events, e)
	hold := heard.hold
	heard.Unlock()
	if hold != nil {
		<-hold
	}
	return nil
}

// events are the data of all that were heard of one name.
func events(name string) []map[string]any {
	heard.Lock()
	defer heard.Unlock()
	var out []map[string]any
	for _, e := range heard.events {
		if e.Name() == name {
			out = append(out, e.Data)
		}
	}
	return out
}

// listen begins anew.
func listenAnew(hold chan struct{}) {
	heard.Lock()
	defer heard.Unlock()
	heard.events, heard.hold = nil, hold
}

const listening = "events {\non token_obtained test_listener\non token_failed test_listener\non token_expired test_listener\non token_rejected test_listener\n}\n"

// TestEvents: each of the four is emitted when it happens, with what a handler
// needs and nothing that it must not have.
func TestEvents(t *testing.T) {
	p := newParts(t, authserver.Config{Lifetime: 3 * time.Second})
	listenAnew(nil)
	site := "reverse_proxy $API {\ntransport upstream_auth crm\n}"
	caddyfile := strings.Replace(p.caddyfile(p.credential("refresh_at 30%"), site), "{\n", "{\n"+listening, 1)
	if err := p.load(caddyfile); err != nil {
		t.Fatal(err)
	}
	p.want(p.get("/"), 200)
	eventually(t, "token_obtained", func() bool { return len(events("token_obtained")) > 0 })
	got := events("token_obtained")[0]
	if got["credential"] != "crm" || got["grant"] != "client_credentials" || got["reason"] != "start" || got["adopted"] != false ||
		got["lifetime_seconds"].(float64) != 3 || time.Until(got["expires"].(time.Time)) > 3*time.Second {
		t.Errorf("obtained: %v", got)
	}
	p.auth.RevokeAll() // the upstream refuses it
	p.get("/")
	eventually(t, "token_rejected", func() bool { return len(events("token_rejected")) > 0 })
	if got := events("token_rejected")[0]; got["credential"] != "crm" || got["again"] != false {
		t.Errorf("rejected: %v", got)
	}
	p.auth.SetFault(authserver.Invalid("invalid_client", "the-servers-own-words"))
	eventually(t, "token_failed and token_expired", func() bool { return len(events("token_failed")) > 0 && len(events("token_expired")) > 0 })
	got = events("token_failed")[0]
	if got["kind"] != "refused" || got["code"] != "invalid_client" || got["failures"] != 1 || got["token_held"] != true || got["reason"] != "scheduled" && got["reason"] != "rejected" {
		t.Errorf("failed: %v", got)
	}
	if got := events("token_expired")[0]; got["failures"].(int) < 1 || got["next_request"].(time.Time).IsZero() {
		t.Errorf("expired: %v", got)
	}
	for _, name := range []string{"token_obtained", "token_failed", "token_expired", "token_rejected"} {
		for _, data := range events(name) {
			for _, secret := range []string{"the-servers-own-words", oddSecret} {
				if text := fmt.Sprint(data); strings.Contains(text, secret) {
					t.Errorf("%s tells %s", name, text)
				}
			}
		}
	}
}

// TestEventsHang: a handler that hangs keeps neither tokens nor requests nor a
// reload waiting.
func TestEventsHang(t *testing.T) {
	p := newParts(t, authserver.Config{Lifetime: 2 * time.Second})
	hold := make(chan struct{})
	listenAnew(hold)
	t.Cleanup(func() { listenAnew(nil) })
	t.Cleanup(func() { close(hold) })
	site := "upstream_auth crm\nreverse_proxy $API"
	caddyfile := strings.Replace(p.caddyfile(p.credential(often), site), "{\n", "{\n"+listening, 1)
	if err := p.load(caddyfile); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an event that hangs", func() bool { return len(events("token_obtained")) == 1 })
	eventually(t, "four tokens", func() bool {
		p.want(p.get("/"), 200)
		return p.auth.Issued() >= 4
	})
	if err := p.load(p.caddyfile(p.credential(often), site)); err != nil {
		t.Fatal(err)
	}
	p.want(p.get("/"), 200)
}
