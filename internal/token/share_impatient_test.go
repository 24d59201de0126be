package token

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// TestShareImpatient: a request that waits in place of a token that an upstream
// refused waits no longer for the storage than one that has no token at all.
func TestShareImpatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour)}
		shelf := newShelf()
		i := fleet(t, 1, shelf, srv)[0]
		pass(time.Minute)
		shelf.set(func() { shelf.held = true })
		defer shelf.set(func() { shelf.held = false })
		tok := i.Token()
		i.Reject(t.Context(), tok, true)
		began := time.Now()
		got, err := i.Wait(t.Context(), 5*time.Second)
		if err != nil || got.Value == tok.Value {
			t.Errorf("got %v, %v", got, err)
		}
		if took := time.Since(began); took > 1500*time.Millisecond {
			t.Errorf("it waited %s", took)
		}
		pass(time.Minute)
		tok = i.Token()
		i.Reject(t.Context(), tok, false)
		began = time.Now()
		if other := i.Other(t.Context(), tok, 5*time.Second); other == nil || time.Since(began) > 1500*time.Millisecond {
			t.Errorf("for a replay: %v after %s", other, time.Since(began))
		}
	})
}

// TestShareImpatientAgain: a request that waits through a failure waits no longer
// for the storage after it.
func TestShareImpatientAgain(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			shelf := newShelf()
			srv := &server{}
			srv.answer = func(n int) (*oauth.Response, error) {
				if n == 1 {
					shelf.set(func() { shelf.latency = 900 * time.Millisecond })
					return nil, &down
				}
				return lives(time.Hour)(n)
			}
			i := fleet(t, 1, shelf, srv)[0]
			began := time.Now()
			if _, err := i.Wait(t.Context(), 20*time.Second); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 2500*time.Millisecond { // a second of backoff, and one of patience
				t.Errorf("it waited %s", took)
			}
		})
	}
}
