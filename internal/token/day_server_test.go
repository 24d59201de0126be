//go:build !race

package token

import (
	"math/rand/v2"
	"sync"
	"time"
)

// What the authorization server of the simulated day is like.
const (
	dayLength  = 24 * time.Hour
	fastAnswer = 20 * time.Millisecond
	slowAnswer = 80 * time.Millisecond
	rateLimit  = 100             // requests in a second of its clock; those above get a 429
	retryLater = 5 * time.Second // the Retry-After of that
)

// trouble is a part of the day in which the server gives no token.
type trouble struct {
	name     string
	from, to time.Duration
	status   int // 0: it takes the request and never answers
}

// authority is a model of an authorization server, and of an API that takes its
// tokens by the same clock. Its time is counted from the beginning of the day.
type authority struct {
	mu       sync.Mutex
	rnd      *rand.Rand
	troubles []trouble
	received []int // in each second
	serial   int
}

func newAuthority(troubles []trouble) *authority {
	return &authority{rnd: seeded(0), troubles: troubles, received: make([]int, dayLength/time.Second+1)}
}

// answer is what came of a token request, and how long that took.
type answer struct {
	took   time.Duration
	status int           // 0 if none came in time
	end    time.Duration // of the token, 0 if there is none
	serial int           // of the token
}

// ask makes a token request.
func (a *authority) ask(at, life, timeout time.Duration) answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	second := min(int(at/time.Second), len(a.received)-1)
	a.received[second]++
	took := between(a.rnd, fastAnswer, slowAnswer)
	if t := a.troubleAt(at, 0); t != nil {
		if t.status == 0 {
			took = timeout
		}
		return answer{took: took, status: t.status}
	}
	if a.received[second] > rateLimit {
		return answer{took: took, status: 429}
	}
	// as in a JWT, an end of whole seconds
	a.serial++
	return answer{took, 200, (at + took/2).Truncate(time.Second) + life, a.serial}
}

// troubleAt is the trouble of a moment or one that is over since not too long,
// nil if there is none.
func (a *authority) troubleAt(at, since time.Duration) *trouble {
	for i := range a.troubles {
		if t := &a.troubles[i]; at >= t.from && at < t.to+since {
			return t
		}
	}
	return nil
}

// seeded are random numbers that are the same in each run.
func seeded(n int) *rand.Rand { return rand.New(rand.NewPCG(20261121, uint64(n))) }

// between is a random span.
func between(rnd *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(rnd.Int64N(int64(most-least)))
}

// What the requests to the API are like.
const (
	patience  = 5 * time.Second        // how long one waits for a token
	travel    = 500 * time.Millisecond // how long one is on its way, at most
	usualGap  = 3 * time.Minute        // on average, between two of one instance
	denseGap  = 500 * time.Millisecond // around the end of a token, and at the start
	hungryGap = 30 * time.Second       // while there has been no token for long
	around    = 15 * time.Second       // before the end of a token and behind it
)

// gap is how long it is to the next request of an instance whose token ends, or
// ended, at a moment. The end of one that is not renewed is never passed over.
func gap(rnd *rand.Rand, at, end time.Duration) time.Duration {
	random := rnd.ExpFloat64()
	span := func(mean time.Duration) time.Duration { return time.Duration(random * float64(mean)) }
	switch left := end - at; {
	case left > around:
		return min(span(usualGap), left-around)
	case left > -around:
		return span(denseGap)
	}
	return span(hungryGap)
}
