// Package grants holds the grants: what is asked for in a token request.
//
// A third party adds one as a Caddy module in the namespace
// upstream_auth.grants that implements Grant, and caddyfile.Unmarshaler to be
// written in a Caddyfile.
package grants

import (
	"context"
	"net/url"
)

// Namespace is where Caddy finds the grants; the inline key is "type".
const Namespace = "upstream_auth.grants"

// Grant is what a token request asks for (RFC 6749 §1.3).
type Grant interface {
	// GrantType is the value of the parameter grant_type.
	GrantType() string
	// Parameters are the names of the parameters that Prepare sets. A user's
	// own parameter of that name is refused when the config is loaded.
	Parameters() []string
	// Prepare adds the grant's parameters to a request. It is called for each
	// attempt, by one goroutine at a time. An error means that no request can
	// be made; it must not hold a secret.
	Prepare(ctx context.Context, r *Request) error
}

// ClientAuthenticated is a Grant that is of no use without the client proving
// who it is, so that a credential without a client_auth is an error.
type ClientAuthenticated interface {
	// RequiresClientAuth tells whether client_auth has to be configured.
	RequiresClientAuth() bool
}

// Request is a token request while it is being made.
type Request struct {
	// Params are the parameters of the request, to be added to.
	Params url.Values
	// Resolve replaces the placeholders in a configured value. A placeholder
	// that is unknown, unreadable or empty is an error that names it.
	Resolve func(value string) (string, error)
	// Secret is Resolve for a value that must not be seen: the result is
	// masked in whatever is logged.
	Secret func(value string) (string, error)
}
