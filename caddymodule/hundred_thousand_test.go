package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// TestHundredThousand: of 100,000 requests or more none is lost, while the token is
// renewed, revoked and asked for in vain, and the config is reloaded all the
// while; and no goroutine is left of it.
func TestHundredThousand(t *testing.T) {
	const (
		callers, each             = 16, 100_000 / 16
		leastReloads, leastIssued = 1, 3
		patience                  = 2 * time.Minute // for those, where the requests are over sooner
	)
	before := runtime.NumGoroutine()
	t.Run("requests", func(t *testing.T) {
		p := newParts(t, authserver.Config{Lifetime: 12 * time.Second})
		config := func(n int) string {
			// early enough for two failures to pass while the token is held
			whole := p.caddyfile(p.credential("share", "refresh_at 40%"), fmt.Sprintf("header X-Reload %d\nreverse_proxy $API {\ntransport upstream_auth crm\n}", n))
			return strings.Replace(whole, "level DEBUG", "level INFO", 1) // else the log is most of the work
		}
		if err := p.load(config(0)); err != nil {
			t.Fatal(err)
		}
		p.want(p.get("/"), http.StatusOK)

		done := make(chan struct{})
		var trouble sync.WaitGroup
		var reloads atomic.Int64
		var revoked, failed int
		trouble.Go(func() { // reloads, one after the other
			for n := 1; ; n++ {
				select {
				case <-done:
					return
				case <-time.After(2 * time.Second):
				}
				if err := p.load(config(n)); err != nil {
					t.Error(err)
				}
				reloads.Add(1)
			}
		})
		trouble.Go(func() { // the server fails a few times, and then the token is revoked
			for {
				next := p.auth.Issued() + 2 // one that lives to its due point unrefused
				for p.auth.Issued() < next {
					select {
					case <-done:
						return
					case <-time.After(50 * time.Millisecond):
					}
				}
				before := p.auth.Requests()
				p.auth.FailNext(2, authserver.Down())
				failed += 2
				for {
					s := snapshot()
					if p.auth.Requests() > before+2 && s.Held && s.Failures == 0 && time.Since(s.Obtained) > 700*time.Millisecond && time.Until(s.Next) > time.Second {
						break
					}
					select {
					case <-done:
						return
					case <-time.After(50 * time.Millisecond):
					}
				}
				p.auth.RevokeAll()
				revoked++
			}
		})

		deadline := time.Now().Add(patience)
		shown := func() bool {
			return reloads.Load() >= leastReloads && p.auth.Issued() >= leastIssued || time.Now().After(deadline)
		}
		var made, resets, other atomic.Int64
		var work sync.WaitGroup
		for range callers {
			work.Go(func() {
				for n := 0; n < each || !shown(); n++ {
					made.Add(1)
					a, err := p.try(http.MethodGet, "/", nil)
					for err != nil && errors.Is(err, syscall.ECONNRESET) {
						// where Caddy's old socket closes, what is queued on it is
						// reset, with this plugin or without
						resets.Add(1)
						a, err = p.try(http.MethodGet, "/", nil)
					}
					if (err != nil || a.status != http.StatusOK) && other.Add(1) < 10 {
						t.Errorf("lost: %d %q, %v", a.status, a.body, err)
					}
				}
			})
		}
		work.Wait()
		close(done)
		trouble.Wait()
		t.Logf("%d requests lost of %d; %d tokens, %d reloads, %d revocations, %d failures of the server, %d connections reset",
			other.Load(), made.Load(), p.auth.Issued(), reloads.Load(), revoked, failed, resets.Load())
		if reloads.Load() < leastReloads || p.auth.Issued() < leastIssued {
			t.Errorf("%d reloads and %d tokens show little", reloads.Load(), p.auth.Issued())
		}
	})
	http.DefaultClient.CloseIdleConnections()
	left := func() int { return runtime.NumGoroutine() - before }
	eventually(t, "no goroutine is left", func() bool { return left() <= 5 })
}

// snapshot is the state of crm.
func snapshot() token.Snapshot {
	if e := credentials.newest()["crm"]; e != nil {
		return e.source.Snapshot()
	}
	return token.Snapshot{}
}
