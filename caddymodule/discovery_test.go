package caddymodule

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// found is a credential that is found by its issuer.
func (p *parts) found(more string) string {
	return strings.Replace(p.credential(more), "token_url "+p.server.URL()+authserver.TokenPath, "issuer "+p.server.URL(), 1)
}

// TestIssuer: the endpoint is found, and once it is, no renewal depends on the
// metadata.
func TestIssuer(t *testing.T) {
	for name, config := range map[string]authserver.Config{
		"OpenID": {Lifetime: 2 * time.Second, NoOAuthMetadata: true},
		"OAuth":  {Lifetime: 2 * time.Second, NoOpenIDMetadata: true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParts(t, config)
			p.run(p.found(often), injecting)
			p.want(p.get("/"), http.StatusOK)
			asked := p.auth.MetadataRequests()
			issued := p.auth.Issued()
			eventually(t, "three renewals", func() bool { return p.auth.Issued() >= issued+3 })
			p.want(p.get("/"), http.StatusOK)
			if n := p.auth.MetadataRequests(); n != asked {
				t.Errorf("the metadata was read %d times for renewals, want 0", n-asked)
			}
			// a reload that changes nothing asks for nothing
			if err := p.load(p.caddyfile(p.found(often), injecting+"\nheader X 1")); err != nil {
				t.Fatal(err)
			}
			p.want(p.get("/"), http.StatusOK)
			if n := p.auth.MetadataRequests(); n != asked {
				t.Errorf("the metadata was read %d times for a reload, want 0", n-asked)
			}
		})
	}
}

// TestIssuerUnsupported: what the server says that it cannot do is not tried.
func TestIssuerUnsupported(t *testing.T) {
	p := newParts(t, authserver.Config{Methods: []string{authserver.Post}})
	p.run(p.found(""), injecting)
	p.want(p.get("/"), http.StatusBadGateway)
	if p.auth.Requests() != 0 {
		t.Errorf("%d token requests, want 0", p.auth.Requests())
	}
	for _, side := range []string{"client_secret_basic", "client_secret_post"} {
		if !strings.Contains(p.logged(), side) {
			t.Errorf("the log does not name %s", side)
		}
	}
}
