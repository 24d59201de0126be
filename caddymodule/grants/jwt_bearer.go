package grants

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/guest"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/signing"
)

func init() {
	caddy.RegisterModule(JWTBearer{})
}

// JWTBearer exchanges a JWT for an access token (RFC 7523 §2.1): one that comes
// from elsewhere, or one that is signed here, for each attempt anew. The JWT
// says who asks, so that no client_auth is needed, and with assertion or the key
// of a Google service account no client_id either.
type JWTBearer struct {
	// Assertion is the JWT. Placeholders are resolved at each token request:
	// {file./path/to/jwt} for one that something else renews. Either this or
	// KeyFile.
	Assertion string `json:"assertion,omitempty"`

	// KeyFile is the path of the private key that signs the JWT: RSA of 2048
	// bits or more, EC on P-256, P-384 or P-521, or Ed25519; in PEM (PKCS#8,
	// PKCS#1, SEC 1), as a JWK, or as the JSON file of a Google service account.
	// It is read at each token request, and its path may hold placeholders.
	// Either this or Assertion.
	KeyFile string `json:"key_file,omitempty"`

	// KeyID is the kid by which the server knows the key, which may hold
	// placeholders. Default: that of the JWK or of the service account.
	KeyID string `json:"key_id,omitempty"`

	// Alg is what the JWT is signed with. Default: what fits the key (RS256;
	// ES256, ES384 or ES512 by the curve; EdDSA).
	Alg string `json:"alg,omitempty"`

	// Issuer is who the JWT is from (iss), which may hold placeholders. Default:
	// client_email of the service account, else client_id.
	Issuer string `json:"issuer,omitempty"`

	// Subject is whom the token is asked for (sub), which may hold placeholders.
	// Default: the issuer, and none with a service account's key.
	Subject string `json:"subject,omitempty"`

	// Audience is whom the JWT is for (aud): "issuer", "token_endpoint", or the
	// value itself, which may hold placeholders. Default: issuer where the
	// credential has one, else token_endpoint.
	Audience string `json:"audience,omitempty"`

	// Lifetime is how long the JWT can be used. From 1s to 1h. Default: 60s.
	Lifetime caddy.Duration `json:"lifetime,omitempty"`

	// Claims are further claims, which are strings. They may hold placeholders,
	// those of a request as well. Default: none.
	Claims map[string]string `json:"claims,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (JWTBearer) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  Namespace + ".jwt_bearer",
		New: func() caddy.Module { return new(JWTBearer) },
	}
}

// Validate checks the options. It reads no file.
func (g *JWTBearer) Validate() error {
	if err := g.check(); err != nil {
		return fmt.Errorf("jwt_bearer: %w", err)
	}
	return nil
}

func (g *JWTBearer) check() error {
	switch {
	case g.Assertion == "" && g.KeyFile == "":
		return errors.New("expected assertion, a JWT, or key_file, the path of the private key that signs one")
	case g.Assertion != "" && g.KeyFile != "":
		return guest.Mistakef("key_file", "stands beside assertion: expected one of the two")
	case g.Assertion != "":
		return g.checkAlone()
	}
	if err := signing.CheckPath(g.KeyFile); err != nil {
		return &guest.Mistake{Option: "key_file", Err: err}
	}
	if err := signing.CheckAlgorithm(g.Alg); err != nil {
		return &guest.Mistake{Option: "alg", Err: err}
	}
	if err := checkLifetime(g.Lifetime); g.Lifetime != 0 && err != nil {
		return &guest.Mistake{Option: "lifetime", Err: err}
	}
	for _, name := range slices.Sorted(maps.Keys(g.Claims)) {
		if err := signing.CheckClaim(name); err != nil {
			return guest.Mistakef("claim", "%s %w", name, err)
		}
	}
	return nil
}

// checkAlone refuses what says something about a JWT that is signed here.
func (g *JWTBearer) checkAlone() error {
	for _, option := range []struct {
		name string
		set  bool
	}{
		{"key_id", g.KeyID != ""}, {"alg", g.Alg != ""}, {"issuer", g.Issuer != ""}, {"subject", g.Subject != ""},
		{"audience", g.Audience != ""}, {"lifetime", g.Lifetime != 0}, {"claim", len(g.Claims) > 0},
	} {
		if option.set {
			return guest.Mistakef(option.name, "stands beside assertion, a JWT that is signed already: expected it with key_file alone")
		}
	}
	return nil
}

func checkLifetime(d caddy.Duration) error {
	if v := time.Duration(d); v < time.Second || v > time.Hour {
		return fmt.Errorf("is %s, which is out of range: expected %s to %s", v, time.Second, time.Hour)
	}
	return nil
}

// GrantType implements Grant.
func (*JWTBearer) GrantType() string { return "urn:ietf:params:oauth:grant-type:jwt-bearer" }

// Parameters implements Grant.
func (*JWTBearer) Parameters() []string { return []string{"assertion"} }

// ClientIDOptional implements Identifying: the JWT names who asks (RFC 7523
// §2.1).
func (*JWTBearer) ClientIDOptional() bool { return true }

// ConfiguredSecrets implements SecretHolder.
func (g *JWTBearer) ConfiguredSecrets() []string { return []string{g.Assertion} }

// TemplateOptions implements Templated.
func (*JWTBearer) TemplateOptions() []string { return []string{"claims"} }

// Prepare implements Grant.
func (g *JWTBearer) Prepare(_ context.Context, r *Request) error {
	assertion := g.Assertion
	if g.KeyFile != "" {
		var err error
		if assertion, err = g.sign(r); err != nil {
			return err
		}
	}
	// masked; what was signed here holds no braces, so nothing in it is replaced
	assertion, err := r.Secret(assertion)
	if err != nil {
		return fmt.Errorf("assertion: %w", err)
	}
	r.Params.Set("assertion", assertion)
	return nil
}

func (g *JWTBearer) sign(r *Request) (string, error) {
	key, err := signing.LoadKey(g.KeyFile, r.Resolve, r.ReadFile)
	if err != nil {
		return "", fmt.Errorf("key_file: %w", err)
	}
	alg, err := key.Algorithm(g.Alg, nil) // no metadata names those of a grant
	if err != nil {
		return "", err
	}
	kid, err := r.Resolve(g.KeyID)
	if err != nil {
		return "", fmt.Errorf("key_id: %w", err)
	}
	claims, err := g.claims(r, key)
	if err != nil {
		return "", err
	}
	return key.Sign(claims.JWTClaims(time.Now()), signing.Options{Algorithm: alg, KeyID: cmp.Or(kid, key.KeyID()), Type: signing.TypeJWT})
}

// claims resolves what the JWT says.
func (g *JWTBearer) claims(r *Request, key *signing.Key) (*signing.Assertion, error) {
	a := &signing.Assertion{Lifetime: time.Duration(g.Lifetime), Claims: make(map[string]string, len(g.Claims))}
	var err error
	if a.Issuer, err = r.Resolve(g.Issuer); err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	if a.Issuer = cmp.Or(a.Issuer, key.Issuer(), r.ClientID); a.Issuer == "" {
		return nil, errors.New("issuer is missing, who the JWT is from (iss): write issuer in the grant, or client_id in the credential")
	}
	if a.Subject, err = r.Resolve(g.Subject); err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	if a.Subject == "" && key.Issuer() == "" {
		a.Subject = a.Issuer // RFC 7523 §3 wants one; a service account's would ask for a user
	}
	if a.Audience, err = signing.Audience(g.Audience, r.Issuer, r.TokenURL, r.Resolve); err != nil {
		return nil, err
	}
	for name, value := range g.Claims {
		if a.Claims[name], err = r.Resolve(value); err != nil {
			return nil, fmt.Errorf("claim %s: %w", name, err)
		}
	}
	return a, nil
}

// UnmarshalCaddyfile reads:
//
//	grant jwt_bearer {
//		assertion <jwt>
//	}
//
// or
//
//	grant jwt_bearer {
//		key_file <path>
//		key_id <kid>
//		alg <alg>
//		issuer <value>
//		subject <value>
//		audience issuer|token_endpoint|<value>
//		lifetime <duration>
//		claim <name> <value>
//	}
func (g *JWTBearer) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the grant's name
	if err := guest.NoArgument(d, "grant jwt_bearer"); err != nil {
		return err
	}
	return guest.Block(d, "jwt_bearer", guest.Options{
		"assertion": guest.Text(&g.Assertion),
		"key_file":  guest.Text(&g.KeyFile),
		"key_id":    guest.Text(&g.KeyID),
		"alg":       guest.Text(&g.Alg),
		"issuer":    guest.Text(&g.Issuer),
		"subject":   guest.Text(&g.Subject),
		"audience":  guest.Text(&g.Audience),
		"lifetime":  guest.Duration(&g.Lifetime, checkLifetime),
		"claim":     guest.Pair(&g.Claims, signing.CheckClaim),
	}, g.Validate, "claim")
}

// Interface guards
var (
	_ Grant                 = (*JWTBearer)(nil)
	_ Templated             = (*JWTBearer)(nil)
	_ Identifying           = (*JWTBearer)(nil)
	_ caddy.Validator       = (*JWTBearer)(nil)
	_ caddyfile.Unmarshaler = (*JWTBearer)(nil)
)
