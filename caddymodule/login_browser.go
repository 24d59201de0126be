package caddymodule

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/grants"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// inBrowser logs in with the authorization code grant and PKCE (RFC 6749 §4.1,
// RFC 7636): the browser comes back to this machine with a code.
func (l *login) inBrowser(ctx context.Context) (*oauth.Response, string, error) {
	var known string
	if m := l.endpoint.metadata; m != nil {
		known = m.AuthorizationEndpoint
	}
	at, err := l.url("authorization_url", l.grant.AuthorizationURL, known)
	if err != nil {
		return nil, "", err
	}
	redirectURI, err := l.redirectURI()
	if err != nil {
		return nil, "", fmt.Errorf("redirect_uri %w", err)
	}
	verifier := oauth2.GenerateVerifier()
	address, state, nonce, err := l.address(at, redirectURI, verifier)
	if err != nil {
		return nil, "", err
	}
	b := newCallback(state, l.endpoint.metadata)
	stop, err := b.listen(redirectURI)
	if err != nil {
		return nil, "", err
	}
	defer stop()
	fmt.Fprintf(l.out, "Log in at:\n\n%s\n\nWaiting for the browser to come back to %s …\n", address, redirectURI)
	if l.open != nil {
		l.open(address)
	}
	code, err := l.await(ctx, b, redirectURI)
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, codeTimeout)
	defer cancel()
	res, err := l.requester.request(ctx, ask{params: url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirectURI}, "code_verifier": {verifier},
	}})
	if err != nil {
		return nil, "", fmt.Errorf("exchanging the code for a token: %w", inWords(err))
	}
	return res, nonce, nil
}

// redirectURI is where the browser is to come back to.
func (l *login) redirectURI() (string, error) {
	uri, err := l.resolver.resolve(l.grant.RedirectURI)
	switch {
	case err != nil:
		return "", err
	case uri == "":
		return "", errors.New("is missing: write an address of this machine into the grant, as it is registered at the server: redirect_uri http://127.0.0.1:8400/callback; or log in with --device")
	}
	return uri, grants.CheckRedirectURI(uri)
}

// await waits for the browser.
func (l *login) await(ctx context.Context, b *callback, redirectURI string) (code string, err error) {
	late := time.NewTimer(l.wait)
	defer late.Stop()
	for {
		select {
		case r := <-b.done:
			return r.code, r.err
		case <-b.stray:
			fmt.Fprintln(l.out, "The browser brought an answer that is not of this login (its state is another); still waiting.")
		case <-late.C:
			return "", fmt.Errorf("the browser did not come back in time: was the login finished, is %s registered at the server exactly so, and does the browser run on this machine? If it does not, use --device", redirectURI)
		case <-ctx.Done():
			return "", errInterrupted
		}
	}
}

// address is where the person logs in, with what tells the answer to this login
// from others.
func (l *login) address(at, redirectURI, verifier string) (address, state, nonce string, err error) {
	u, err := url.Parse(at)
	if err != nil {
		return "", "", "", errors.New("authorization_url is not a URL")
	}
	if m := l.endpoint.metadata; m != nil && len(m.CodeChallengeMethods) > 0 && !slices.Contains(m.CodeChallengeMethods, "S256") {
		return "", "", "", fmt.Errorf("a login is made with code_challenge_method S256 (RFC 7636), and the server's metadata has %s alone: write token_url and authorization_url in place of issuer, if it is wrong", printed(strings.Join(m.CodeChallengeMethods, ", ")))
	}
	q := u.Query() // authorization_url may have one
	if err := l.want(q); err != nil {
		return "", "", "", err
	}
	if slices.Contains(strings.Fields(q.Get("scope")), "openid") {
		nonce = rand.Text()
		q.Set("nonce", nonce)
	}
	state = rand.Text()
	for name, value := range map[string]string{
		"response_type": "code", "client_id": l.clientID, "redirect_uri": redirectURI, "state": state,
		"code_challenge": oauth2.S256ChallengeFromVerifier(verifier), "code_challenge_method": "S256",
	} {
		q.Set(name, value)
	}
	u.RawQuery = q.Encode()
	return u.String(), state, nonce, nil
}

// want adds what the token is for.
func (l *login) want(q url.Values) error {
	c := l.requester.credential
	own := map[string][]string{"resource": c.Resource}
	if c.Audience != "" {
		own["audience"] = []string{c.Audience}
	}
	for name, values := range c.Param {
		// a placeholder may stand for a secret, and the address is for all to see
		own[name] = slices.DeleteFunc(slices.Clone(values), hasPlaceholder)
	}
	for name, values := range own {
		for i, value := range values {
			value, err := l.resolver.resolve(value)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if i == 0 {
				q.Del(name)
			}
			q.Add(name, value)
		}
	}
	scope, err := l.scope()
	if scope != "" {
		q.Set("scope", scope)
	}
	return err
}

// scope is what is asked for: with the login, and not with its refreshes.
func (l *login) scope() (string, error) {
	scope, err := l.resolver.resolve(strings.Join(l.requester.credential.Scopes, " "))
	if err != nil {
		return "", fmt.Errorf("scopes: %w", err)
	}
	return scope, nil
}

// openBrowser asks the desktop to show an address, where there is one.
func openBrowser(address string) {
	name, args := "xdg-open", []string{address}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", address}
	}
	cmd := exec.Command(name, args...)
	if cmd.Start() == nil {
		go func() { _ = cmd.Wait() }()
	}
}
