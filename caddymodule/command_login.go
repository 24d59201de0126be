package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/spf13/cobra"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/clientauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/grants"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

func loginCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "login <credential> [--config <path>] [--device] [--no-browser]",
		Short: "Logs in once for a credential with the grant authorization_code",
		Long: `
Prints the address at which a person logs in, waits until that is done, and
stores the refresh token in the storage of the configuration. A Caddy that runs
with it finds the token there by itself within seconds; it need not be reloaded.

Without --device the browser has to run on this machine: it comes back to the
credential's redirect_uri, a loopback address on which this command listens.
With --device a code is shown that can be entered on any other device.`,
		Example: `  caddy upstream-auth login crm --config /etc/caddy/Caddyfile
  caddy upstream-auth login crm --device`,
		Args: cobra.ExactArgs(1),
		RunE: caddycmd.WrapCommandFuncForCobra(runLogin),
	}
	configFlags(cmd)
	f := cmd.Flags()
	f.Bool("device", false, "Log in on another device (RFC 8628)")
	f.Bool("no-browser", false, "Print the address, and open no browser")
	f.Duration("timeout", 10*time.Minute, "How long to wait for the person")
	return cmd
}

func logoutCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "logout <credential> [--config <path>]",
		Short: "Revokes a credential's refresh token and forgets it",
		Long: `
Revokes the refresh token at the authorization server, where its metadata names
an endpoint for that (RFC 7009), and removes it from the storage of the
configuration. A running Caddy uses the access token that it holds to its end,
or until it is refused.`,
		Args: cobra.ExactArgs(1),
		RunE: caddycmd.WrapCommandFuncForCobra(runLogout),
	}
	configFlags(cmd)
	return cmd
}

// interruptible is a context that ends with Ctrl-C.
func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}

func runLogin(fl caddycmd.Flags) (int, error) {
	ctx, stop := interruptible()
	defer stop()
	wait := fl.Duration("timeout")
	if wait <= 0 {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("--timeout: %s is out of range: expected more than 0s", wait)
	}
	c, err := loadCredential(fl, fl.Arg(0))
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	defer c.close()
	l := &login{configured: c, out: os.Stdout, device: fl.Bool("device"), wait: wait}
	if !fl.Bool("no-browser") {
		l.open = openBrowser
	}
	if err := l.run(ctx); err != nil {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("login for credential '%s': %w", c.name, err)
	}
	return caddy.ExitCodeSuccess, nil
}

func runLogout(fl caddycmd.Flags) (int, error) {
	ctx, stop := interruptible()
	defer stop()
	c, err := loadCredential(fl, fl.Arg(0))
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	defer c.close()
	if err := c.logout(ctx, os.Stdout); err != nil {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("logout of credential '%s': %w", c.name, err)
	}
	return caddy.ExitCodeSuccess, nil
}

// login obtains a refresh token with a person's help.
type login struct {
	*configured
	out    io.Writer
	device bool
	wait   time.Duration    // for the person
	open   func(url string) // a browser; nil for none

	grant    *grants.AuthorizationCode
	resolver *resolver
	endpoint *endpoint
	way      http.RoundTripper
	clientID string
}

const (
	// codeTimeout ends a request of a login that nobody retries.
	codeTimeout = time.Minute
	// revokeTimeout ends one of a logout, which goes on without an answer.
	revokeTimeout = 30 * time.Second
	// storeTimeout is for what is done with a refresh token in the storage.
	storeTimeout = 20 * time.Second
)

var errInterrupted = errors.New("interrupted: nothing is stored")

func (l *login) run(ctx context.Context) error {
	c := l.requester.credential
	g, ok := c.grant.(*grants.AuthorizationCode)
	switch {
	case !ok && c.refreshing():
		return fmt.Errorf("its grant is %s, which begins with the refresh token that stands there; a login is for authorization_code", c.grantName)
	case !ok:
		return fmt.Errorf("its grant is %s, which needs no login; that is for authorization_code", c.grantName)
	}
	l.grant, l.resolver = g, newResolver(nil)
	if err := l.find(ctx); err != nil {
		return err
	}
	obtain := l.inBrowser
	if l.device {
		obtain = l.onDevice
	}
	res, nonce, err := obtain(ctx)
	if err == nil {
		err = l.verify(ctx, res.IDToken, nonce)
	}
	if ctx.Err() != nil {
		return errInterrupted
	}
	if err != nil {
		return err
	}
	l.tellMissing(res.Scopes)
	return l.keep(ctx, res.RefreshToken)
}

// find resolves the server.
func (l *login) find(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, codeTimeout)
	defer cancel()
	q := l.requester
	var err error
	if l.way, err = q.connection.open(l.resolver, newProof(l.resolver, nil), q.credential.method); err != nil {
		return err
	}
	if l.endpoint, err = q.find(ctx, l.resolver, l.way); err != nil {
		return err
	}
	if l.clientID, err = l.resolver.resolve(q.credential.ClientID); err != nil {
		return fmt.Errorf("client_id: %w", err)
	}
	if l.clientID == "" { // where client_auth alone names the client
		return errors.New("client_id is missing: a login needs it")
	}
	return nil
}

// alias is an endpoint for one who shows a certificate, as a proof or only to
// have the token bound to it, where the server has another one for that (RFC
// 8705 §5).
func (c *Credential) alias(endpoint, alias string) string {
	_, proof := c.method.(clientauth.CertificateHolder)
	if shown := proof || c.TLS != nil && c.TLS.Cert != ""; shown && alias != "" {
		return alias
	}
	return endpoint
}

// url is a configured endpoint, or that of the metadata.
func (l *login) url(option, configured, known string) (string, error) {
	if configured == "" && known == "" {
		if l.endpoint.metadata != nil {
			return "", fmt.Errorf("the server's metadata names no such endpoint: write %s into the grant, or ask whether the server can do it", option)
		}
		return "", fmt.Errorf("%s is missing: write it into the grant, or issuer in place of token_url", option)
	}
	if configured == "" {
		return known, nil
	}
	u, err := l.resolver.resolve(configured)
	if err == nil {
		err = l.requester.credential.allowedURL(u)
	}
	if err != nil {
		return "", fmt.Errorf("%s %w", option, err)
	}
	return u, nil
}

var errNoRefreshToken = errors.New("the server gave an access token and no refresh token, without which a login would end with the hour: allow refresh tokens for this client at the server, and ask for them where it wants that (scopes offline_access in most, with param prompt consent where that is not enough, OpenID Connect Core §11; at Google, authorization_url https://accounts.google.com/o/oauth2/v2/auth?access_type=offline&prompt=consent)")

// tellMissing names the scopes that a server left out of those that it says it
// granted, if it says so. A refresh asks for none, so nothing tells it later.
func (l *login) tellMissing(granted []string) {
	asked, err := l.scope()
	if err != nil || granted == nil {
		return
	}
	missing := slices.DeleteFunc(strings.Fields(asked), func(s string) bool { return slices.Contains(granted, s) })
	if len(missing) > 0 {
		fmt.Fprintf(l.out, "Of the scopes that were asked for, the server does not name: %s\n", strings.Join(missing, " "))
	}
}

// keep stores what the login brought.
func (l *login) keep(ctx context.Context, refreshToken string) error {
	if refreshToken == "" {
		return errNoRefreshToken
	}
	// it is there, and an interrupt would lose it
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	s, err := l.requester.openSession(ctx)
	if err != nil {
		return err
	}
	_, before := token.Kept(ctx, s.Store)
	err = l.requester.withLock(ctx, func() error { return token.Keep(ctx, s.Store, refreshToken) })
	if err != nil {
		return fmt.Errorf("storing the refresh token in %s: %w", l.place, err)
	}
	l.keptAside(before, s, l.out)
	fmt.Fprintf(l.out, "Logged in. The refresh token is stored in %s; a Caddy that runs with it uses it within seconds.\n", l.place)
	return nil
}

// keptAside tells where that is which was stored and could not be read.
func (c *configured) keptAside(err error, s *token.Session, out io.Writer) {
	if errors.Is(err, token.ErrUnreadable) {
		fmt.Fprintf(out, "What was stored before could not be read (%v). It is kept beside its place, as %s.kept-… in %s.\n", err, s.Path, c.place)
	}
}

// verify checks an ID token (OpenID Connect Core §3.1.3.7), where one came and
// the issuer is known. It came from the token endpoint itself, so one that is
// missing is no attack.
func (l *login) verify(ctx context.Context, idToken, nonce string) error {
	m := l.endpoint.metadata
	if idToken == "" || m == nil {
		return nil
	}
	ctx = oidc.ClientContext(ctx, &http.Client{Transport: l.way, Timeout: codeTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }})
	config := &oidc.ProviderConfig{IssuerURL: m.Issuer, AuthURL: m.AuthorizationEndpoint, TokenURL: m.TokenEndpoint, JWKSURL: m.JWKSURI, Algorithms: m.IDTokenAlgorithms}
	verified, err := config.NewProvider(ctx).Verifier(&oidc.Config{
		ClientID: l.clientID, InsecureSkipSignatureCheck: m.JWKSURI == "", // no keys are published; TLS tells who sent it
	}).Verify(ctx, idToken)
	if err != nil {
		return fmt.Errorf("the ID token that came with the access token cannot be trusted, so nothing is stored: %s", printed(err.Error()))
	}
	if nonce != "" && verified.Nonce != nonce {
		return errors.New("the ID token that came with the access token is not of this login (its nonce is another), so nothing is stored")
	}
	return nil
}

// logout revokes the stored refresh token and forgets it.
func (c *configured) logout(ctx context.Context, out io.Writer) error {
	q := c.requester
	if q.keeper == nil {
		return fmt.Errorf("its grant is %s, which keeps no refresh token", q.credential.grantName)
	}
	s, err := q.openSession(ctx)
	if err != nil {
		return err
	}
	refreshToken, unreadable := token.Kept(ctx, s.Store)
	switch {
	case errors.Is(unreadable, token.ErrUnreadable):
		fmt.Fprintln(out, "The refresh token cannot be read, and so not be revoked at the server.")
	case unreadable != nil:
		return fmt.Errorf("looking for the refresh token in %s: %w", c.place, unreadable)
	case refreshToken == "":
		fmt.Fprintf(out, "No refresh token is stored in %s.\n", c.place)
		if s.Initial == "" {
			return nil
		}
		q.revoke(ctx, s.Initial, out) // that of the config, which nobody has used yet
	default:
		q.revoke(ctx, refreshToken, out)
	}
	if ctx.Err() != nil {
		return errors.New("interrupted: the refresh token is still stored")
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err = q.withLock(ctx, func() error { return token.Forget(ctx, s.Store, s.Initial) })
	if err != nil {
		return fmt.Errorf("forgetting the refresh token in %s: %w", c.place, err)
	}
	c.keptAside(unreadable, s, out)
	fmt.Fprintln(out, "Logged out. A running Caddy uses the access token that it holds to its end, or until it is refused.")
	return nil
}

// revoke asks the server to end a refresh token (RFC 7009), and says what came
// of it.
func (q *requester) revoke(ctx context.Context, refreshToken string, out io.Writer) {
	ctx, cancel := context.WithTimeout(ctx, revokeTimeout)
	defer cancel()
	r := newResolver(nil)
	way, err := q.connection.open(r, newProof(r, nil), q.credential.method)
	var at *endpoint
	if err == nil {
		at, err = q.find(ctx, r, way)
	}
	var known string
	if err == nil && at.metadata != nil {
		known = q.credential.alias(at.metadata.RevocationEndpoint, at.metadata.MTLS.RevocationEndpoint)
	}
	if err == nil && known == "" {
		fmt.Fprintln(out, "The server names no endpoint for revocation (issuer in place of token_url finds it, where there is one), so the refresh token is forgotten here and stays valid there.")
		return
	}
	if err == nil {
		err = q.send(ctx, ask{at: known, params: url.Values{
			"token": {refreshToken}, "token_type_hint": {"refresh_token"},
		}}, func(p *prepared) error { return p.request.Revoke(ctx, p.way) })
	}
	if err != nil {
		fmt.Fprintf(out, "The server did not revoke the refresh token, which is forgotten here all the same: %v\n", inWords(err))
		return
	}
	fmt.Fprintln(out, "The server has revoked the refresh token.")
}

// send makes a request that is no token request. A server's own words are for
// those: here they could put a refresh token into a URL.
func (q *requester) send(ctx context.Context, a ask, send func(*prepared) error) error {
	p, err := q.ready(ctx, a, nil)
	if err != nil {
		return err
	}
	p.request.Params.Del("grant_type")
	p.request.Method, p.request.Encoding = "", ""
	return send(p)
}
