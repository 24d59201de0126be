package grants

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/guest"
)

func init() {
	caddy.RegisterModule(TokenExchange{})
}

// TokenExchange exchanges a token for another one (RFC 8693): one that comes
// from elsewhere, or that which the client of the proxy has sent.
type TokenExchange struct {
	// SubjectToken is the token to be exchanged. It may hold placeholders, those
	// of a request as well. "request" is the bearer token of the client's
	// request: each client then gets the token that its own was exchanged for.
	// Required.
	SubjectToken string `json:"subject_token,omitempty"`

	// SubjectTokenType says what it is: a URI, or access_token, refresh_token,
	// id_token, jwt, saml1 or saml2 for those of RFC 8693 §3. Default:
	// access_token.
	SubjectTokenType string `json:"subject_token_type,omitempty"`

	// ActorToken is the token of who acts for the subject. It may hold
	// placeholders. Default: none.
	ActorToken string `json:"actor_token,omitempty"`

	// ActorTokenType says what the actor's token is, as SubjectTokenType does.
	// Default: access_token, where there is an actor's token.
	ActorTokenType string `json:"actor_token_type,omitempty"`

	// RequestedTokenType says what is asked for, as SubjectTokenType does.
	// Default: what the server gives.
	RequestedTokenType string `json:"requested_token_type,omitempty"`

	// Audience is for "request" alone: a client's token that is not a JWT with
	// this audience is refused. Default: the server decides.
	Audience string `json:"subject_audience,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (TokenExchange) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  Namespace + ".token_exchange",
		New: func() caddy.Module { return new(TokenExchange) },
	}
}

// fromRequest is the subject_token that stands for the client's own.
const fromRequest = "request"

// Validate checks the options.
func (g *TokenExchange) Validate() error {
	if err := g.check(); err != nil {
		return fmt.Errorf("token_exchange: %w", err)
	}
	return nil
}

func (g *TokenExchange) check() error {
	switch {
	case g.SubjectToken == "":
		return guest.Mistakef("subject_token", "is missing: write {file./path/to/token}, or request for the bearer token of the client's request")
	case g.ActorTokenType != "" && g.ActorToken == "":
		return guest.Mistakef("actor_token_type", "stands without actor_token")
	case g.Audience != "" && !g.FromRequest():
		return guest.Mistakef("subject_audience", "is for subject_token request alone")
	case strings.Contains(g.Audience, "{"):
		return guest.Mistakef("subject_audience", "is compared with what requests bring, and takes no placeholder")
	}
	for _, option := range []struct{ name, value string }{
		{"subject_token_type", g.SubjectTokenType}, {"actor_token_type", g.ActorTokenType}, {"requested_token_type", g.RequestedTokenType},
	} {
		if strings.Contains(option.value, "{") || option.value == "" {
			continue // a placeholder is looked at in the token request
		}
		if _, err := tokenType(option.value); err != nil {
			return &guest.Mistake{Option: option.name, Err: err}
		}
	}
	return nil
}

// typePrefix begins the types of RFC 8693 §3, and tokenTypes are the short words
// for them.
const typePrefix = "urn:ietf:params:oauth:token-type:"

var tokenTypes = []string{"access_token", "refresh_token", "id_token", "jwt", "saml1", "saml2"}

// tokenType is the URI that a configured type stands for.
func tokenType(configured string) (string, error) {
	if slices.Contains(tokenTypes, configured) {
		return typePrefix + configured, nil
	}
	if u, err := url.Parse(configured); err == nil && u.IsAbs() && u.Opaque+u.Host != "" {
		return configured, nil
	}
	// not the value: it may be a token in the wrong place
	return "", fmt.Errorf("is unknown, expected one of %s, or an absolute URI", strings.Join(tokenTypes, ", "))
}

// GrantType implements Grant.
func (*TokenExchange) GrantType() string { return "urn:ietf:params:oauth:grant-type:token-exchange" }

// ConfiguredSecrets implements SecretHolder.
func (g *TokenExchange) ConfiguredSecrets() []string {
	if g.FromRequest() {
		return []string{g.ActorToken}
	}
	return []string{g.SubjectToken, g.ActorToken}
}

// Parameters implements Grant.
func (*TokenExchange) Parameters() []string {
	return []string{"subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type"}
}

// TemplateOptions implements Templated.
func (*TokenExchange) TemplateOptions() []string { return []string{"subject_token"} }

// FromRequest implements Exchanging.
func (g *TokenExchange) FromRequest() bool { return g.SubjectToken == fromRequest }

// SubjectAudience implements Exchanging.
func (g *TokenExchange) SubjectAudience() string { return g.Audience }

// Prepare implements Grant.
func (g *TokenExchange) Prepare(_ context.Context, r *Request) error {
	params := make(url.Values)
	if err := g.subject(r, params); err != nil {
		return err
	}
	if g.ActorToken != "" {
		token, err := r.Secret(g.ActorToken)
		if err != nil {
			return fmt.Errorf("actor_token: %w", err)
		}
		params.Set("actor_token", token)
		if err := setType(r, params, "actor_token_type", cmp.Or(g.ActorTokenType, "access_token")); err != nil {
			return err
		}
	}
	if g.RequestedTokenType != "" {
		if err := setType(r, params, "requested_token_type", g.RequestedTokenType); err != nil {
			return err
		}
	}
	maps.Copy(r.Params, params)
	return nil
}

func (g *TokenExchange) subject(r *Request, params url.Values) error {
	token := r.SubjectToken
	if g.FromRequest() {
		if token == "" {
			return errors.New("subject_token: the client's request brought no bearer token")
		}
	} else {
		var err error
		if token, err = r.Secret(g.SubjectToken); err != nil {
			return fmt.Errorf("subject_token: %w", err)
		}
	}
	params.Set("subject_token", token)
	return setType(r, params, "subject_token_type", cmp.Or(g.SubjectTokenType, "access_token"))
}

// setType sets a parameter to the URI of a token type.
func setType(r *Request, params url.Values, name, configured string) error {
	value, err := r.Resolve(configured)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	uri, err := tokenType(value)
	if err != nil {
		return fmt.Errorf("%s %w", name, err)
	}
	params.Set(name, uri)
	return nil
}

// UnmarshalCaddyfile reads:
//
//	grant token_exchange {
//		subject_token request|<token>
//		subject_token_type <type>
//		actor_token <token>
//		actor_token_type <type>
//		requested_token_type <type>
//		subject_audience <audience>
//	}
func (g *TokenExchange) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the grant's name
	if err := guest.NoArgument(d, "grant token_exchange"); err != nil {
		return err
	}
	return guest.Block(d, "token_exchange", guest.Options{
		"subject_token":        guest.Text(&g.SubjectToken),
		"subject_token_type":   guest.Text(&g.SubjectTokenType),
		"actor_token":          guest.Text(&g.ActorToken),
		"actor_token_type":     guest.Text(&g.ActorTokenType),
		"requested_token_type": guest.Text(&g.RequestedTokenType),
		"subject_audience":     guest.Text(&g.Audience),
	}, g.Validate)
}

// Interface guards
var (
	_ Grant                 = (*TokenExchange)(nil)
	_ Templated             = (*TokenExchange)(nil)
	_ Exchanging            = (*TokenExchange)(nil)
	_ caddy.Validator       = (*TokenExchange)(nil)
	_ caddyfile.Unmarshaler = (*TokenExchange)(nil)
)
