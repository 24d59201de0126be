package token

import (
	"math/rand/v2"
	"strings"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// Defaults of a Policy.
const (
	DefaultRefreshAt    = 75.0
	DefaultExpiryMargin = 10 * time.Second
	DefaultLifetime     = 5 * time.Minute
	DefaultTimeout      = 10 * time.Second
)

const (
	longestWait   = 24 * time.Hour         // a token is renewed at least this often
	assumedUse    = 24 * time.Hour         // how long one with no known end is used while the server fails
	successGap    = 500 * time.Millisecond // between two successes
	maxRetryAfter = 10 * time.Minute       // however long the server asks for
	leastBackoff  = 100 * time.Millisecond // so that no run of luck makes a storm
	rounding      = time.Second            // lifetimes are whole seconds, so an end is known to one
	storageWait   = 5 * time.Second        // at most, while the storage for refresh tokens fails
	filePoll      = time.Second            // how often a failing credential looks at its files
)

// Policy says when a token is renewed and when it stops being used.
type Policy struct {
	// RefreshAt is the percentage of its lifetime after which a token is
	// renewed, 10 to 95.
	RefreshAt float64
	// ExpiryMargin is the last part of its life in which a token counts as
	// expired, never more than a tenth of it.
	ExpiryMargin time.Duration
	// DefaultLifetime sets the renewal of a token without a usable lifetime.
	DefaultLifetime time.Duration
	// Timeout ends one token request.
	Timeout time.Duration
}

// random is a number in [0, 1).
type random func() float64

// plan is what is made of a token when it arrives.
type plan struct {
	until instant // when it stops being used
	due   instant // when the next request is made
}

// take makes a token of an answer, of which it keeps nothing else alive, and
// tells when it is due. before is the newest one so far, nil if there was none.
func (p *Policy) take(res *oauth.Response, before *Token, sent, arrived instant, rnd random) (*Token, instant) {
	t := &Token{Value: strings.Clone(res.AccessToken), Binding: res.Binding, sent: sent, took: arrived.sub(sent)}
	if res.Scopes != nil {
		t.granted = &granted{res.Scopes, res.Missing}
	}
	if res.Adopted {
		t.took = res.Took
	}
	same := before != nil && before.Value == t.Value

	life := res.ExpiresIn
	switch {
	case life > 0:
		t.end = sent.add(life)
	case same && !before.assumed:
		t.end = before.end // nothing new is known of it
	default:
		t.assumed = true
		t.end = sent.add(p.DefaultLifetime)
	}

	var made plan
	if same && !t.assumed && t.end.sub(before.end) <= sameEnd+before.took {
		t.first = before.first
		made = p.running(t, arrived, rnd)
	} else {
		t.first = t.end.sub(sent)
		made = p.fresh(t, res.RefreshIn, arrived, rnd)
	}
	t.until = made.until
	return t, made.due
}

// sameEnd is by how much two answers about one token may differ and still
// mean the same end.
const sameEnd = 2 * rounding

// fresh plans a token that was not held before. All spans count from the
// moment its request was sent.
func (p *Policy) fresh(t *Token, refreshIn time.Duration, arrived instant, rnd random) plan {
	life := t.end.sub(t.sent)
	margin := p.margin(life)
	until := t.end.add(-margin)
	if t.assumed {
		until = t.sent.add(assumedUse)
	}

	span := min(life, longestWait)
	at := time.Duration(p.RefreshAt / 100 * float64(span))
	if refreshIn > 0 {
		at = min(max(refreshIn, span/10), span*95/100)
	}
	lead := max(min(life/20, 30*time.Second), 2*t.took)
	at = min(at, life-margin-lead)
	at -= time.Duration(rnd() * float64(span) / 10)
	at = max(at, span/10)
	return plan{until: until, due: max(t.sent.add(at), arrived.add(successGap))}
}

// running plans a token that the server has handed out again with what is left
// of it (OneAccess, WSO2): it is asked at half of what is left, not too often,
// and once more just before the margin; one that is confirmed then serves to a
// second before its end.
func (p *Policy) running(t *Token, arrived instant, rnd random) plan {
	margin := p.margin(t.first)
	until := t.end.add(-margin)
	lead := max(2*t.took, successGap/2)
	last := until.add(-lead)
	if arrived >= last {
		return plan{until: max(until, t.end.add(-rounding)), due: max(t.end.add(rounding), arrived.add(successGap))}
	}
	half := time.Duration(float64(t.end.sub(arrived)) / 2 * (1 - rnd()/10))
	due := arrived.add(max(half, t.first/20))
	return plan{until: until, due: max(min(due, last), arrived.add(successGap))}
}

func (p *Policy) margin(life time.Duration) time.Duration {
	return min(p.ExpiryMargin, life/10)
}

// backoff is how long to wait after the nth failure in a row: exponential with
// full jitter. The steps of one that is refused are longer, for only a person
// can help; but not while requests are being turned away.
func backoff(kind oauth.Kind, n int, tokenHeld bool, rnd random) time.Duration {
	first, most := time.Second, time.Minute
	if kind == oauth.Refused {
		first = 5 * time.Second
		if tokenHeld {
			most = 5 * time.Minute
		}
	}
	step := most
	if n < 16 { // beyond that the shift would overflow, and most is long reached
		step = min(first<<(n-1), most)
	}
	return max(time.Duration(rnd()*float64(step)), leastBackoff)
}

// lastChance is when to ask once more at the latest, while a failing server's
// token is held: a long step must not reach past its end, or requests are turned
// away though the server is well again. A fleet may have one token, so it is
// spread, and not done in its last minute.
func (t *Token) lastChance(at instant, rnd random) instant {
	left := t.until.sub(at)
	if left < time.Minute {
		return never
	}
	return t.until.add(-time.Duration((0.1 + 0.9*rnd()) / 4 * float64(left)))
}

// retryAfter is the floor that a server sets under the next attempt, with a
// random half on top so that a fleet does not return at once.
func retryAfter(d time.Duration, rnd random) time.Duration {
	return min(time.Duration(float64(d)*(1+rnd()/2)), maxRetryAfter)
}

func defaultRandom() float64 { return rand.Float64() }
