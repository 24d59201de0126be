package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/signing"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// The reasons of refusals that the client is to blame for.
const (
	badValue = "invalid_value"
	badToken = "invalid_token"
)

// limits are those of a template, with their defaults.
func (c *Credential) limits() token.Limits {
	l := token.Limits{MaxTokens: 1000, MaxNew: 10, InFlight: 16, Idle: 10 * time.Minute, Remember: 30 * time.Second, OnDemand: c.template.exchanges}
	if c.MaxTokens != 0 {
		l.MaxTokens = c.MaxTokens
	}
	if c.MaxNew != 0 {
		l.MaxNew = c.MaxNew
	}
	if c.IdleTimeout != 0 {
		l.Idle = time.Duration(c.IdleTimeout)
	}
	return l
}

// checkExchange refuses what would let a request pass with the token that is
// to be exchanged, or with none.
func (i *Injection) checkExchange(t *template) error {
	if !t.exchanges {
		return nil
	}
	switch {
	case i.ClientAuthorization == "keep" || i.ClientAuthorization == "reject":
		return optionErrorf("client_authorization", "is %s, but the credential exchanges the client's token: expected replace", i.ClientAuthorization)
	case i.Unavailable == "pass":
		return optionErrorf("unavailable", "is pass, but the credential exchanges the client's token, which the upstream must not get: expected reject")
	}
	return nil
}

// claim is what a request brings for a token of its own.
type claim struct {
	key          token.Key
	values       []string
	subjectToken string // what is exchanged
}

// distinct finds the token for what a request brings.
func (i *injector) distinct(r *http.Request) (carried, outcome, *refusal) {
	e := i.entry
	values, err := e.template.values(r)
	if err != nil {
		return carried{}, 0, i.clientsFault(http.StatusBadRequest, badValue, err)
	}
	var subjectToken string
	if e.template.exchanges {
		if subjectToken, err = bearerToken(r.Header); err != nil {
			return carried{}, 0, i.clientsFault(http.StatusUnauthorized, badToken, err)
		}
	}
	c := &claim{e.template.key(values, subjectToken), values, subjectToken}
	if t := e.tokens.Token(c.key); t != nil {
		return carried{t, c}, injected, nil
	}
	requester, err := e.asking(c)
	if err != nil {
		return carried{}, 0, i.clientsFault(http.StatusUnauthorized, badToken, err)
	}
	start := time.Now()
	defer func() { i.waiting.Observe(time.Since(start).Seconds()) }()
	t, err := e.tokens.Wait(r.Context(), c.key, i.wait, requester)
	i.traceWait(r.Context(), start, err)
	if err != nil {
		if f, ok := errors.AsType[*oauth.Failure](err); ok && e.template.exchanges && f.Kind == oauth.Refused && slices.Contains(tokenRefused, f.Code) {
			return carried{}, 0, i.clientsFault(http.StatusUnauthorized, badToken, f)
		}
		return carried{}, 0, i.refuseFor(err)
	}
	return carried{t, c}, waited, nil
}

// asking makes what asks for a claim's token, if it can be asked for.
func (e *entry) asking(c *claim) (func() token.Requester, error) {
	var s *subject
	if e.template.exchanges {
		var err error
		if s, err = e.template.subject(c.subjectToken); err != nil {
			return nil, err
		}
	}
	return func() token.Requester { return &asker{e, c.values, s} }, nil
}

// tokenRefused are the codes that speak of the token that is to be exchanged
// (RFC 8693 §2.2.2), and not of the client that exchanges it.
var tokenRefused = []string{"invalid_request", "invalid_grant", "invalid_token", "access_denied"}

func (i *injector) clientsFault(status int, reason string, err error) *refusal {
	return &refusal{outcome: clientRejected, status: status, reason: reason, err: fmt.Errorf("credential '%s': %w", i.name, err)}
}

// asker makes the token requests for one value, with what the config in use
// says. There may be very many.
type asker struct {
	entry   *entry
	values  []string
	subject *subject // what is exchanged, nil for nothing
}

// subject is the bearer token that a client sent, and when it ends.
type subject struct {
	token string
	ends  time.Time
}

// Request implements token.Requester.
func (k *asker) Request(ctx context.Context, on token.Occasion) (*oauth.Response, error) {
	ctx, cancel := context.WithTimeout(traced(ctx, on), on.Limit)
	defer cancel()
	q := k.entry.newest()
	if q == nil {
		return nil, token.ErrClosed
	}
	a := ask{client: k.entry.template.client(k.values)}
	if k.subject != nil {
		a.subjectToken = k.subject.token
	}
	res, err := q.request(ctx, a)
	if err == nil && k.subject != nil {
		res.ExpiresIn = shorter(res.ExpiresIn, time.Until(k.subject.ends))
	}
	return res, err
}

// shorter is the shorter of two lifetimes, the first of which may be unknown.
func shorter(given, most time.Duration) time.Duration {
	if given == 0 || given > most {
		return max(most, time.Nanosecond)
	}
	return given
}

// Stale implements token.Requester.
func (k *asker) Stale() bool {
	q := k.entry.newest()
	return q != nil && q.Stale()
}

// opaqueLife is how long the token lives that was given for one whose end is
// not known.
const opaqueLife = 5 * time.Minute

var (
	errNoToken        = errors.New("the request brings no bearer token to exchange")
	errTokenEnded     = errors.New("the token that the request brings has ended")
	errTokenForOthers = errors.New("the token that the request brings is meant for others")
)

// dropExchanged takes a token that was exchanged, or could not be, off the
// request: it is not meant for the upstream.
func (i *injector) dropExchanged(r *http.Request) {
	if i.source == nil && i.entry.template.exchanges {
		delete(r.Header, "Authorization")
		delete(r.Trailer, "Authorization")
	}
}

// longestToken bounds what is read and hashed of a client's token.
const longestToken = 16 << 10

// bearerToken is the bearer token of a request (RFC 6750 §2.1).
func bearerToken(h http.Header) (string, error) {
	values := h["Authorization"]
	if len(values) != 1 || len(values[0]) > longestToken {
		return "", errNoToken
	}
	scheme, text, _ := strings.Cut(values[0], " ")
	text = strings.TrimLeft(text, " ")
	outside := func(c rune) bool { return c < 0x21 || c > 0x7e }
	if !strings.EqualFold(scheme, "Bearer") || text == "" || strings.ContainsFunc(text, outside) {
		return "", errNoToken
	}
	return text, nil
}

// leastLeft is how long a client's token has to be good still: one that has
// ended when its exchange is answered says nothing of the server.
const leastLeft = 2 * time.Second

// subject looks at a client's token. It is not verified: that is for the server
// that exchanges it.
func (t *template) subject(text string) (*subject, error) {
	ends := time.Now().Add(opaqueLife)
	claims, err := signing.Unverified(text)
	if err == nil && !claims.Expires.IsZero() {
		ends = claims.Expires
	}
	switch {
	case time.Until(ends) < leastLeft:
		return nil, errTokenEnded
	case t.audience != "" && (err != nil || !slices.Contains(claims.Audience, t.audience)):
		return nil, errTokenForOthers
	}
	return &subject{strings.Clone(text), ends}, nil // the header is not to be kept
}

// Interface guard
var _ token.Requester = (*asker)(nil)
