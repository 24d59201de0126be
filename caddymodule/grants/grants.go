// Package grants holds the grants: what is asked for in a token request.
//
// A third party adds one as a Caddy module in the namespace
// upstream_auth.grants that implements Grant, and caddyfile.Unmarshaler to be
// written in a Caddyfile.
package grants

import (
	"context"
	"net/url"
	"time"
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
	// attempt; calls may overlap. An error means that no request can be made;
	// it must not hold a secret.
	Prepare(ctx context.Context, r *Request) error
}

// ClientAuthenticated is a Grant that is of no use without the client proving
// who it is, so that a credential without a client_auth is an error.
type ClientAuthenticated interface {
	// RequiresClientAuth tells whether client_auth has to be configured.
	RequiresClientAuth() bool
}

// Templated is a Grant some of whose options may hold placeholders of a request
// ({http.request.*}): each distinct value then has a token of its own.
type Templated interface {
	// TemplateOptions are the JSON names of those options.
	TemplateOptions() []string
}

// Refreshing is a Grant that spends a refresh token (RFC 6749 §6), which is
// kept in Caddy's storage from one request to the next.
type Refreshing interface {
	// InitialRefreshToken is the one to begin with, as it was written,
	// placeholders and all; "" where one is obtained by a login.
	InitialRefreshToken() string
	// RetryGrace is how long after an answer was lost the server takes the
	// same refresh token again; 0 for not at all.
	RetryGrace() time.Duration
}

// Exchanging is a Grant that may exchange the bearer token that a request
// brings (RFC 8693): each such token then has one of its own.
type Exchanging interface {
	// FromRequest tells whether it does.
	FromRequest() bool
	// SubjectAudience is what that token has to be meant for, "" for anything.
	SubjectAudience() string
}

// SecretHolder is a Grant with secrets in its configuration, which are then
// looked at: those that stand there as plain text are warned about.
type SecretHolder interface {
	// ConfiguredSecrets are the secrets as they were written, placeholders and
	// all; "" counts for none.
	ConfiguredSecrets() []string
}

// Identifying is a Grant that names the client by itself, so that client_id may
// be left out.
type Identifying interface {
	// ClientIDOptional tells whether client_id need not be configured.
	ClientIDOptional() bool
}

// Request is a token request while it is being made.
type Request struct {
	// ClientID and TokenURL are resolved already; ClientID is "" where none is
	// configured.
	ClientID, TokenURL string
	// Issuer is the server's issuer identifier, "" where a token_url is
	// configured in its place.
	Issuer string
	// RefreshToken is the one to be spent, for a Refreshing grant.
	RefreshToken string
	// SubjectToken is the bearer token that the client sent, for a grant that
	// exchanges it.
	SubjectToken string
	// Params are the parameters of the request, to be added to.
	Params url.Values
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
