// Package token is the engine: a Source holds one credential's access token,
// renews it in the background, and gives it to whoever asks for the price of
// an atomic load. It knows neither Caddy nor the wire: it is given a function
// that makes one token request.
package token

import (
	"sync/atomic"
	"time"
)

// instant is a moment on the monotonic clock, counted from epoch. Comparing
// two costs one reading of the clock, where a time.Time costs two.
type instant time.Duration

// epoch lies so far back that every instant is positive and the zero instant is
// in the past: the clock of a testing/synctest bubble begins in the year 2000.
var epoch = time.Now().Add(-50 * 365 * 24 * time.Hour)

func now() instant { return instant(time.Since(epoch)) }

func (i instant) add(d time.Duration) instant { return i + instant(d) }

func (i instant) sub(j instant) time.Duration { return time.Duration(i - j) }

// wall is the moment on the wall clock, for people and gauges.
func (i instant) wall() time.Time { return time.Now().Add(i.sub(now())) }

// Token is an access token that is held. It does not change once published.
type Token struct {
	// Value is the access token, visible ASCII.
	Value string

	sent    instant       // when its request was sent: life counts from here
	end     instant       // when the server says that it ends
	until   instant       // when it stops being used
	first   time.Duration // its life when it was first seen
	took    time.Duration // how long its request took
	assumed bool          // the server gave no usable lifetime
	scopes  []string
	missing []string
}

// valid is the one comparison of the hot path.
func (t *Token) valid() bool { return t != nil && now() < t.until }

// held is where requests find the token.
type held struct{ p atomic.Pointer[Token] }

func (h *held) load() *Token {
	if t := h.p.Load(); t.valid() {
		return t
	}
	return nil
}
