// Package clientauth holds the client authentication methods: how the client
// proves to the authorization server who it is (RFC 6749 §2.3, and the IANA
// registry of token endpoint authentication methods).
//
// A third party adds one as a Caddy module in the namespace
// upstream_auth.client_auth that implements Method, and caddyfile.Unmarshaler
// to be written in a Caddyfile.
package clientauth

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Namespace is where Caddy finds the methods; the inline key is "method".
const Namespace = "upstream_auth.client_auth"

// Method is a way in which a client authenticates.
type Method interface {
	// Parameters are the names of the parameters that Authenticate sets. A
	// user's own parameter of that name is refused when the config is loaded.
	Parameters() []string
	// Authenticate adds the proof to a request. It is called for each attempt,
	// by one goroutine at a time. An error means that no request can be made;
	// it must not hold a secret.
	Authenticate(ctx context.Context, r *Request) error
}

// SecretHolder is a Method with a secret in its configuration, which is then
// looked at: one that stands there as plain text is warned about.
type SecretHolder interface {
	// ConfiguredSecret is the secret as it was written, placeholders and all.
	ConfiguredSecret() string
}

// HeaderSetter is a Method that sets header fields, which a user's own field of
// that name would replace, and is therefore refused.
type HeaderSetter interface {
	// HeaderFields are the canonical names of the fields.
	HeaderFields() []string
}

// Request is a token request while it is being made.
type Request struct {
	// ClientID and TokenURL are resolved already.
	ClientID, TokenURL string
	// Params and Header are those of the request, to be added to.
	Params url.Values
	Header http.Header
	// Resolve replaces the placeholders in a configured value. A placeholder
	// that is unknown, unreadable or empty is an error that names it.
	Resolve func(value string) (string, error)
	// Secret is Resolve for a value that must not be seen: the result is
	// masked in whatever is logged.
	Secret func(value string) (string, error)
}

var errNoSecret = errors.New("a secret is required: write {file./path/to/secret} or {env.NAME}")

// unmarshalSecret reads a method's name and its one argument, the secret.
func unmarshalSecret(d *caddyfile.Dispenser, secret *string) error {
	d.Next()
	method := d.Val()
	if !d.NextArg() || d.Val() == "" {
		return d.Errf("client_auth %s: %w", method, errNoSecret)
	}
	*secret = d.Val()
	if d.NextArg() {
		return d.Errf("client_auth %s takes one argument, the secret; there is a second one (quote a secret that holds blanks)", method)
	}
	return nil
}
