package clientauth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/guest"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/signing"
)

func init() {
	caddy.RegisterModule(JWTFile{})
}

// JWTFile proves the client by a JWT that something else signs and keeps in a
// file (RFC 7523 §2.2): a projected service account token of Kubernetes, as for
// Entra's workload identity, or a JWT-SVID of SPIFFE. No secret is needed.
type JWTFile struct {
	// File is the path of the JWT. It is read at each token request, and its
	// path may hold placeholders. Required.
	File string `json:"file,omitempty"`

	// AllowAnyAudience sends a JWT that has no audience, or one that is meant
	// for the Kubernetes API: whoever gets it can use the cluster in the name
	// of the service account. Default: such a JWT is refused.
	AllowAnyAudience bool `json:"allow_any_audience,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (JWTFile) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  Namespace + ".jwt_file",
		New: func() caddy.Module { return new(JWTFile) },
	}
}

var errNoFile = errors.New("the path of a JWT is required, such as /var/run/secrets/tokens/idp")

// Validate checks the options. It reads no file.
func (m *JWTFile) Validate() error {
	if m.File == "" {
		return fmt.Errorf("jwt_file: %w", errNoFile)
	}
	if err := signing.CheckPath(m.File); err != nil {
		return fmt.Errorf("jwt_file: its argument %w", err)
	}
	return nil
}

// Parameters implements Method.
func (*JWTFile) Parameters() []string { return assertionParameters() }

// ClientIDOptional implements Identifying: the JWT's sub names the client (RFC
// 7523 §3).
func (*JWTFile) ClientIDOptional() bool { return true }

// RegisteredNames implements Registered. To the server it makes no difference
// who has signed.
func (*JWTFile) RegisteredNames() []string { return []string{"private_key_jwt"} }

// Authenticate implements Method.
func (m *JWTFile) Authenticate(_ context.Context, r *Request) error {
	content, err := signing.ReadFile(m.File, r.Resolve, r.ReadFile)
	if err != nil {
		return fmt.Errorf("jwt_file: %w", err)
	}
	token := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	claims, err := signing.Unverified(token)
	if err != nil {
		return fmt.Errorf("jwt_file: %s holds %w", m.File, err)
	}
	if err := m.checkClaims(claims, time.Now()); err != nil {
		return fmt.Errorf("jwt_file: the JWT in %s %w", m.File, err)
	}
	return send(r, token)
}

// expirySkew is how far the clocks of this machine and of the issuer may differ.
const expirySkew = time.Minute

// checkClaims refuses what a server would refuse, with a reason that helps more,
// and what no server but Kubernetes should get.
func (m *JWTFile) checkClaims(c *signing.Claims, now time.Time) error {
	switch {
	case !c.Expires.IsZero() && now.After(c.Expires.Add(expirySkew)):
		return fmt.Errorf("ended at %s: look at what should renew it (the kubelet, the SPIFFE agent), and at this machine's clock", c.Expires.UTC().Format(time.RFC3339))
	case m.AllowAnyAudience:
		return nil
	case len(c.Audience) == 0:
		return errors.New("has no audience (aud), so whoever gets it could use it anywhere: mount a projected token with an audience of its own (serviceAccountToken: audience), or write allow_any_audience")
	case slices.ContainsFunc(c.Audience, func(aud string) bool { return isKubernetes(aud, c.Issuer) }):
		return errors.New("is meant for the Kubernetes API, so whoever gets it could use the cluster: mount a projected token with an audience of its own (serviceAccountToken: audience), or write allow_any_audience")
	}
	return nil
}

// isKubernetes tells whether an audience is that of the Kubernetes API. By
// default it is the issuer of the cluster's tokens, whatever its name is.
func isKubernetes(audience, issuer string) bool {
	if audience == "api" || audience == issuer && issuer != "" {
		return true
	}
	host := strings.ToLower(audience)
	if _, after, ok := strings.Cut(host, "://"); ok {
		host = after
	}
	host, _, _ = strings.Cut(host, "/")
	host, _, _ = strings.Cut(host, ":")
	return host == "kubernetes.default" || host == "kubernetes.default.svc" || strings.HasPrefix(host, "kubernetes.default.svc.")
}

// UnmarshalCaddyfile reads:
//
//	client_auth jwt_file <path> {
//		allow_any_audience
//	}
func (m *JWTFile) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the method's name
	if !d.NextArg() || d.Val() == "" {
		return d.Errf("client_auth jwt_file: %w", errNoFile)
	}
	m.File = d.Val()
	if d.NextArg() {
		return d.Err("client_auth jwt_file takes one argument, the path of a JWT; there is a second one (quote a path that holds blanks)")
	}
	return guest.Block(d, "jwt_file", guest.Options{
		"allow_any_audience": guest.Flag(&m.AllowAnyAudience),
	}, m.Validate)
}

// Interface guards
var (
	_ Method                = (*JWTFile)(nil)
	_ Identifying           = (*JWTFile)(nil)
	_ Registered            = (*JWTFile)(nil)
	_ caddy.Validator       = (*JWTFile)(nil)
	_ caddyfile.Unmarshaler = (*JWTFile)(nil)
)
