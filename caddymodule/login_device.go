package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// onDevice logs in with a code that is entered on another device (RFC 8628).
func (l *login) onDevice(ctx context.Context) (*oauth.Response, string, error) {
	var known string
	if m := l.endpoint.metadata; m != nil {
		known = l.requester.credential.alias(m.DeviceAuthorizationEndpoint, m.MTLS.DeviceAuthorizationEndpoint)
	}
	at, err := l.url("device_authorization_url", l.grant.DeviceAuthorizationURL, known)
	if err != nil {
		return nil, "", err
	}
	scope, err := l.scope()
	if err != nil {
		return nil, "", err
	}
	params := url.Values{"client_id": {l.clientID}}
	if scope != "" {
		params.Set("scope", scope)
	}
	d, err := l.codes(ctx, ask{at: at, params: params})
	if err != nil {
		return nil, "", fmt.Errorf("asking for a code: %w", inWords(err))
	}
	fmt.Fprintf(l.out, "Open %s and enter the code %s\n", d.VerificationURI, d.UserCode)
	if d.VerificationURIComplete != "" {
		fmt.Fprintf(l.out, "or open %s and compare the code.\n", d.VerificationURIComplete)
	}
	wait := l.wait
	if d.ExpiresIn > 0 {
		fmt.Fprintf(l.out, "The code is good for %s.\n", d.ExpiresIn)
		wait = min(wait, d.ExpiresIn)
	}
	res, err := l.poll(ctx, d, wait)
	return res, "", err
}

// codes asks for them.
func (l *login) codes(ctx context.Context, a ask) (d *oauth.DeviceAuthorization, err error) {
	ctx, cancel := context.WithTimeout(ctx, codeTimeout)
	defer cancel()
	err = l.requester.send(ctx, a, func(p *prepared) (err error) {
		d, err = p.request.Device(ctx, p.way)
		return err
	})
	return d, err
}

// poll asks for the token until the person has entered the code.
func (l *login) poll(ctx context.Context, d *oauth.DeviceAuthorization, wait time.Duration) (*oauth.Response, error) {
	late := time.NewTimer(wait)
	defer late.Stop()
	p := pace{interval: max(d.Interval, fastest)}
	for pause := p.interval; ; {
		select {
		case <-time.After(pause):
		case <-late.C:
			return nil, errNotEntered
		case <-ctx.Done():
			return nil, errInterrupted
		}
		res, err := l.token(ctx, d.DeviceCode)
		if err == nil {
			return res, nil
		}
		if pause, err = p.after(err); err != nil {
			return nil, err
		}
	}
}

// token asks for it once. An answer on its way is waited for, though the person
// is late: the server may have given all away with it.
func (l *login) token(ctx context.Context, deviceCode string) (*oauth.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, codeTimeout)
	defer cancel()
	return l.requester.request(ctx, ask{params: url.Values{
		"grant_type":  {"urn:ietf:params:oauth:grant-type:device_code"},
		"device_code": {deviceCode},
	}})
}

const (
	// fastest is the least time between two polls, whatever a server says.
	fastest = 100 * time.Millisecond
	// slower is what is added to it where the server asks for that (§3.5).
	slower = 5 * time.Second
	// slowest bounds what a network that fails makes of it.
	slowest = time.Minute
)

var (
	errNotEntered  = errors.New("nobody has entered the code in time: start again")
	errCodeExpired = errors.New("the code has expired: start again")
	errSaidNo      = errors.New("the person at the other device said no")
)

// pace is how often a device may ask (RFC 8628 §3.5).
type pace struct{ interval time.Duration }

// after is how long to wait after a failure, or the error that ends the login.
func (p *pace) after(err error) (time.Duration, error) {
	f, ok := errors.AsType[*oauth.Failure](err)
	if !ok {
		return 0, err
	}
	switch {
	case f.Code == "authorization_pending":
	case f.Code == "slow_down", f.Status == http.StatusTooManyRequests:
		p.interval += slower
	case f.Code == "access_denied":
		return 0, errSaidNo
	case f.Code == "expired_token":
		return 0, errCodeExpired
	case f.Kind == oauth.Unreachable: // §3.5 of a connection that timed out
		p.interval = max(p.interval, min(2*p.interval, slowest))
	default:
		return 0, inWords(err)
	}
	return max(p.interval, f.RetryAfter), nil
}

// inWords adds what the server said, for the person at the terminal.
func inWords(err error) error {
	if f, ok := errors.AsType[*oauth.Failure](err); ok && f.Description != "" {
		return fmt.Errorf("%w: %s", f, f.Description)
	}
	return err
}
