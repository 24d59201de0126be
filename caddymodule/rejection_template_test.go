package caddymodule

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// outlast waits until tokens that were obtained before may be replaced.
func outlast(t *testing.T) {
	t.Helper()
	began := time.Now()
	eventually(t, "half a second", func() bool { return time.Since(began) > 600*time.Millisecond })
}

// TestRejectionOfTemplate: each value's token is replaced by itself, once.
func TestRejectionOfTemplate(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.run(p.credential(tenant), replaying)
	for _, value := range []string{"acme", "zenith"} {
		p.want(p.get("/", "X-Tenant", value), http.StatusOK)
	}
	outlast(t)
	p.auth.RevokeAll()
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			a, err := p.try(http.MethodPost, "/", strings.NewReader("x"), "X-Tenant", "acme")
			if err != nil || a.status != http.StatusOK {
				t.Errorf("got %d %s %v", a.status, a.body, err)
			}
		})
	}
	wg.Wait()
	if n := p.auth.Requests(); n != 3 {
		t.Errorf("%d token requests, want 3", n)
	}
	p.want(p.get("/", "X-Tenant", "zenith"), http.StatusOK)
	if n := p.auth.Requests(); n != 4 {
		t.Errorf("%d token requests, want 4", n)
	}
}

// TestRejectionOfExchange: the client's token is exchanged once more; by the
// handler for the next request, for which the client's own must not be lost.
func TestRejectionOfExchange(t *testing.T) {
	for site, first := range map[string]int{replaying: http.StatusOK, injecting: http.StatusUnauthorized} {
		p := exchangingParts(t)
		p.run(p.credential(exchange), site)
		client := []string{"Authorization", "Bearer client-1"}
		p.want(p.get("/", client...), http.StatusOK)
		outlast(t)
		p.auth.RevokeAll()
		p.want(p.get("/", client...), first)
		eventually(t, "another token", func() bool { return p.auth.Issued() == 2 })
		p.want(p.get("/", client...), http.StatusOK)
		if n := p.auth.Requests(); n != 2 {
			t.Errorf("%s: %d token requests, want 2", site, n)
		}
		p.stop()
	}
}
