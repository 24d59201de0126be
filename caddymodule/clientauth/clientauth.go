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
	// Authenticate adds the proof to a request. It is called for each attempt;
	// calls may overlap. An error means that no request can be made; it must
	// not hold a secret.
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

// Identifying is a Method that names the client by itself, so that client_id
// may be left out.
type Identifying interface {
	// ClientIDOptional tells whether client_id need not be configured.
	ClientIDOptional() bool
}

// CertificateHolder is a Method that proves the client by the certificate of
// its TLS connection (RFC 8705 §2).
type CertificateHolder interface {
	// CertificateFiles are the paths of the certificate and its key, in PEM, as
	// they were written. They are read anew for each token request.
	CertificateFiles() (cert, key string)
}

// Registered is a Method that servers list in their metadata under one name or
// more (RFC 8414 §2, token_endpoint_auth_methods_supported).
type Registered interface {
	// RegisteredNames are those names.
	RegisteredNames() []string
}

// Request is a token request while it is being made.
type Request struct {
	// ClientID and TokenURL are resolved already; ClientID is "" where none is
	// configured.
	ClientID, TokenURL string
	// Issuer is the server's issuer identifier, "" where a token_url is
	// configured in its place.
	Issuer string
	// Algorithms are those of a signed assertion that the server says it
	// takes, nil where it says nothing.
	Algorithms []string
	// Params and Header are those of the request, to be added to.
	Params url.Values
	Header http.Header
	// Resolve replaces the placeholders in a configured value. A placeholder
	// that is unknown, unreadable or empty is an error that names it.
	Resolve func(value string) (string, error)
	// Secret is Resolve for a value that must not be seen: the result is
	// masked in whatever is logged.
	Secret func(value string) (string, error)
	// ReadFile reads a file whose path may hold placeholders. One that is
	// missing, empty, a directory or larger than 1 MiB is an error that names
	// it. When the file changes, a request that failed is made anew at once.
	ReadFile func(path string) ([]byte, error)
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
