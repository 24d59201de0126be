package caddymodule

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/challenge"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/dpop"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// carried is the token that a request goes out with, and what it was found by.
type carried struct {
	token *token.Token // nil for none
	claim *claim       // of a template
}

// action is what came of an upstream's refusal of a token.
type action int

const (
	replayed  action = iota // the request was made again
	refreshed               // a token request is under way because of it
	ignored
)

var actions = [...]string{"replayed", "refreshed", "ignored"}

// defaultRejectedOn is what an upstream says of a token that it refuses (RFC
// 6750 §3.1).
var defaultRejectedOn = []int{http.StatusUnauthorized}

// refusedOn are the statuses of an upstream's answers that refuse the token.
func (c *Credential) refusedOn() []int {
	if len(c.RejectedOn) == 0 {
		return defaultRejectedOn
	}
	return c.RejectedOn
}

func (c *Credential) checkRejectedOn() error {
	for n, status := range c.RejectedOn {
		if status < 400 || status > 599 {
			return optionErrorf("rejected_on", "%d is not the status of a refusal: expected 400 to 599", status)
		}
		if slices.Contains(c.RejectedOn[:n], status) {
			return optionErrorf("rejected_on", "%d is given twice", status)
		}
	}
	return nil
}

// refuses tells whether an upstream's answer refuses the token that it was sent.
// That it wants a nonce in the proof says nothing of the token (RFC 9449 §9).
func (i *injector) refuses(res *http.Response) bool {
	if refusesCall(res) {
		return slices.Contains(i.rejectedOn, http.StatusUnauthorized)
	}
	return slices.Contains(i.rejectedOn, res.StatusCode) && !challenges(res.Header, dpop.ErrorCode, "DPoP")
}

// refusesCall tells whether an answer is gRPC's 401: UNAUTHENTICATED, under 200.
// A call that is refused before it begins has it in the header, in an answer
// that is nothing but trailers; one that has begun had a token that was good
// then.
func refusesCall(res *http.Response) bool {
	const unauthenticated = "16"
	status := res.Header["Grpc-Status"] // Get would spell the name anew for each answer
	return res.StatusCode == http.StatusOK && len(status) > 0 && status[0] == unauthenticated &&
		strings.HasPrefix(res.Header.Get("Content-Type"), "application/grpc")
}

// namesToken tells whether an answer gives the token itself as its reason (RFC
// 6750 §3.1, RFC 9449 §7.1).
func namesToken(h http.Header) bool { return challenges(h, "invalid_token", "Bearer", "DPoP") }

// challenges tells whether an answer holds a challenge of one of the schemes;
// with an error code, if that is not "".
func challenges(h http.Header, code string, schemes ...string) bool {
	return slices.ContainsFunc(challenge.Challenges(h["Www-Authenticate"]), func(c challenge.Challenge) bool {
		return slices.ContainsFunc(schemes, c.Is) && (code == "" || c.Params["error"] == code)
	})
}

// rejected has another token asked for in place of one that an upstream refused,
// and tells whether a request for it is under way.
func (i *injector) rejected(ctx context.Context, c carried, invalid bool) bool {
	if i.source != nil {
		return i.source.Reject(ctx, c.token, invalid)
	}
	requester, err := i.entry.asking(c.claim)
	if err != nil {
		return false // the client's own token has ended meanwhile
	}
	return i.entry.tokens.Reject(ctx, c.claim.key, c.token, invalid, requester)
}

// instead is another token than one that was refused, nil if there is none: it
// is waited for only while it is asked for.
func (i *injector) instead(ctx context.Context, c carried) *token.Token {
	if i.source != nil {
		return i.source.Other(ctx, c.token, i.wait)
	}
	return i.entry.tokens.Other(ctx, c.claim.key, c.token, i.wait)
}

// countRefusal counts an upstream's refusal of a token.
func (i *injector) countRefusal(a action) { i.refusals[a].Inc() }

func (i *injector) countUnreplayed(refreshing bool) {
	if refreshing {
		i.countRefusal(refreshed)
	} else {
		i.countRefusal(ignored)
	}
}

// ofTransport is set for a request whose refusal is a transport's affair: what
// it refuses is the token that the transport put in place of the handler's. It
// stands in the replacer, which has a lock: Caddy's variables are read by
// whatever dials in the background meanwhile.
const ofTransport = "http.upstream_auth.refused"

func claimRefusal(ctx context.Context) {
	if repl, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set(ofTransport, true)
	}
}

func refusalClaimed(ctx context.Context) bool {
	repl, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return false
	}
	_, claimed := repl.Get(ofTransport)
	return claimed
}

// watcher looks at the answer that goes by behind the handler, for one that
// refuses the token.
type watcher struct {
	caddyhttp.ResponseWriterWrapper
	answered, refused, invalid bool

	values [1]string // of the field; here it costs no allocation of its own
}

// WriteHeader implements http.ResponseWriter. Whoever answers, an upstream or
// another handler: only one that speaks of bearer tokens speaks of this one.
func (w *watcher) WriteHeader(status int) {
	if !w.answered && status >= 200 {
		w.answered = true
		if status == http.StatusUnauthorized {
			w.refused, w.invalid = challenges(w.Header(), "", "Bearer"), namesToken(w.Header())
		}
	}
	w.ResponseWriterWrapper.WriteHeader(status)
}
