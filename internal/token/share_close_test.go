package token

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// TestShareClose: an instance that ends, whatever it is doing, does so in a few
// seconds, and leaves nothing behind.
func TestShareClose(t *testing.T) {
	for name, change := range map[string]func(*shelfModel, *server){
		"all is well":       func(*shelfModel, *server) {},
		"a slow storage":    func(m *shelfModel, _ *server) { m.latency = 700 * time.Millisecond },
		"a hanging storage": func(m *shelfModel, _ *server) { m.latency = time.Hour },
		"a lock elsewhere":  func(m *shelfModel, _ *server) { m.held = true },
		"a slow server":     func(_ *shelfModel, srv *server) { srv.delay = 3 * time.Second },
		"a hanging server":  func(_ *shelfModel, srv *server) { srv.delay = time.Hour },
		"a failing server":  func(_ *shelfModel, srv *server) { srv.answer = fails(down) },
		"all is slow": func(m *shelfModel, srv *server) {
			m.latency, srv.delay = 700*time.Millisecond, 3*time.Second
		},
	} {
		for _, hold := range []bool{false, true} {
			for _, waits := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, hold %t, a request waits %t", name, hold, waits), func(t *testing.T) {
					for after := time.Duration(0); after < 9*time.Second; after += 150 * time.Millisecond {
						synctest.Test(t, func(t *testing.T) { closedAfter(t, after, hold, waits, change) })
					}
				})
			}
		}
	}
}

func closedAfter(t *testing.T, after time.Duration, hold, waits bool, change func(*shelfModel, *server)) {
	t.Helper()
	srv := &server{answer: lives(10 * time.Second)}
	shelf := newShelf()
	change(shelf, srv)
	elsewhere := shelf.held
	i := &instance{Source: NewSource(defaults, new(Scheduler), silent{}), share: NewShare(defaults, hold, nil), shelf: shelf, server: srv}
	i.Use(i)
	i.Start()
	if waits {
		go func() { _, _ = i.Wait(t.Context(), 20*time.Second) }()
	}
	pass(after)
	i.Close()
	began := time.Now()
	i.share.Close()
	if took := time.Since(began); took > 7*time.Second {
		t.Errorf("closed after %s, it took %s to end", after, took)
	}
	synctest.Wait()
	if shelf.taken() != elsewhere {
		t.Errorf("closed after %s: the lock is held %t", after, shelf.taken())
	}
	if shelf.record().Asking != nil && shelf.latency == 0 {
		t.Errorf("closed after %s, it seems to be asking still", after)
	}
	before := srv.count()
	pass(time.Minute)
	if n := srv.count() - before; n != 0 {
		t.Errorf("closed after %s: %d requests afterwards", after, n)
	}
}

// FuzzSharedRecord: whatever a storage holds is no token, or one that can be
// used and lives no longer than any.
func FuzzSharedRecord(f *testing.F) {
	r := new(sharedRecord)
	r.put(&oauth.Response{AccessToken: "tok", ExpiresIn: time.Hour, Scopes: []string{"a"}, Bearer: true}, time.Now(), time.Second)
	r.refuse("other")
	r.Forced, r.Asking = &forced{At: time.Now(), Spacing: time.Second}, &asking{By: "me", At: time.Now()}
	f.Add(r.bytes())
	f.Add([]byte(`{"access_token": "a\r\nb", "expires_in": -1}`))
	f.Add([]byte(`{"access_token": "a", "obtained": "9999-12-31T23:59:59.999999999-23:59", "expires_in": 9223372036854775807}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := parseShared(raw)
		if strings.ContainsFunc(r.AccessToken, func(c rune) bool { return c <= ' ' || c > '~' }) {
			t.Fatalf("a token that splits a header: %q", r.AccessToken)
		}
		if !json.Valid(r.bytes()) {
			t.Fatal("it cannot be stored")
		}
		if left := r.left(&defaults); left <= 0 {
			return
		}
		at := now()
		res := r.response(nil)
		tok, due := defaults.take(res, nil, at.add(-res.Age), at, func() float64 { return 0 })
		if !tok.valid() || due < at || tok.until.sub(at) > mostLife {
			t.Fatalf("used for %s, due in %s", tok.until.sub(at), due.sub(at))
		}
	})
}
