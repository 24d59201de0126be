// Package token is the engine: a Source holds one credential's access token,
// renews it in the background, and gives it to whoever asks for the price of
// an atomic load; a Table does so for each distinct value of a credential. They
// know neither Caddy nor the wire: they are given what makes one token request.
package token

import (
	"math"
	"sync/atomic"
	"time"
)

// instant is a moment on the monotonic clock, counted from epoch. Comparing
// two costs one reading of the clock, where a time.Time costs two.
type instant time.Duration

// epoch lies so far back that every instant is positive and the zero instant is
// in the past: the clock of a testing/synctest bubble begins in the year 2000.
var epoch = time.Now().Add(-50 * 365 * 24 * time.Hour)

// never is a moment that does not come.
const never = instant(math.MaxInt64)

func now() instant { return instant(time.Since(epoch)) }

func (i instant) add(d time.Duration) instant { return i + instant(d) }

func (i instant) sub(j instant) time.Duration { return time.Duration(i - j) }

// wall is the moment on the wall clock, for people and gauges.
func (i instant) wall() time.Time { return time.Now().Add(i.sub(now())) }

// Token is an access token that is held. It does not change once published.
type Token struct {
	// Value is the access token, visible ASCII.
	Value string
	// Binding is what the token is bound to, nil for a bearer token. It is for
	// whoever made the request.
	Binding any

	sent    instant       // when its request was sent: life counts from here
	end     instant       // when the server says that it ends
	until   instant       // when it stops being used
	first   time.Duration // its life when it was first seen
	took    time.Duration // how long its request took
	assumed bool          // the server gave no usable lifetime
	granted *granted      // nil if the server says nothing of scopes
}

// granted is what a server says of a token's scopes. Tokens may share it.
type granted struct{ scopes, missing []string }

// valid is the one comparison of the hot path.
func (t *Token) valid() bool { return t != nil && now() < t.until }

// earlier is the token as if all had happened that much earlier: the time that
// the machine has slept since.
func (t *Token) earlier(by time.Duration) *Token {
	e := *t
	e.sent, e.end, e.until = e.sent.add(-by), e.end.add(-by), e.until.add(-by)
	return &e
}

// held is where requests find the token.
type held struct{ p atomic.Pointer[Token] }

func (h *held) load() *Token {
	if t := h.p.Load(); t.valid() {
		return t
	}
	return nil
}
