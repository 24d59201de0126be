package authserver

import (
	"slices"
	"time"
)

// The ways in which a client may prove itself, by their names in the IANA
// registry of token endpoint authentication methods.
const (
	Basic = "client_secret_basic"
	Post  = "client_secret_post"
	None  = "none"
)

// Config is how a Server behaves while it is healthy.
type Config struct {
	// ClientID is the one client that is known. An empty one matches nobody.
	ClientID string
	// ClientSecret is that client's secret. An empty one matches nothing, so
	// that only None can succeed.
	ClientSecret string
	// Methods are the ways of client authentication that are accepted: Basic,
	// Post, None. Default: Basic and Post.
	Methods []string
	// BasicEncoding is how id and secret must be written inside Basic: "form"
	// (RFC 6749 §2.3.1) or "raw" (what many servers take instead). Default: "",
	// which takes both.
	BasicEncoding string
	// Scopes are those that may be asked for; another one is answered with
	// invalid_scope. A request without a scope is given all of them. Default:
	// none, which allows any.
	Scopes []string
	// Lifetime is how long a token lives. expires_in gives it in whole seconds,
	// rounded down. Default: 1h.
	Lifetime time.Duration
	// RunningToken hands out the token that is running, with what is left of
	// its life, until it ends (Huawei OneAccess, WSO2). Default: false, a new
	// token for each request.
	RunningToken bool
	// OneAtATime ends the older tokens as soon as a new one is issued (WeChat).
	// Default: false.
	OneAtATime bool
	// Issue makes the text of the n-th token; the first is 1. A text that was
	// issued before gives that token a new life. Calls come one at a time, and
	// must not call the Server. Default: 256 random bits after "at-".
	Issue func(n int) string
	// OnIssue is told of each new token, after it is valid and before it is
	// answered. Calls may overlap.
	OnIssue func(n int, lifetime time.Duration)
}

func (c *Config) setDefaults() {
	if len(c.Methods) == 0 {
		c.Methods = []string{Basic, Post}
	}
	if c.Lifetime <= 0 {
		c.Lifetime = time.Hour
	}
	if c.Issue == nil {
		c.Issue = randomToken
	}
	c.Methods = slices.Clone(c.Methods)
	c.Scopes = slices.Clone(c.Scopes)
}
