package interop

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// upstream is a resource server on loopback that believes nobody: it asks the
// provider about each new token (RFC 7662), and judges one that it knows by its
// own clock, so that a provider that forgot its tokens does not mislead it.
type upstream struct {
	*httptest.Server
	provider *provider

	mu     sync.Mutex
	known  map[string]introspection
	counts verdicts
}

// verdicts are the upstream's on the requests that it got.
type verdicts struct {
	requests  int
	missing   int // no bearer token, or more than one
	inactive  int // the provider does not know it (any more)
	expired   int
	unchecked int // new, and the provider did not answer
}

func (v verdicts) bad() int { return v.missing + v.inactive + v.expired + v.unchecked }

func (v verdicts) String() string {
	return fmt.Sprintf("%d requests, %d without a token, %d with an inactive one, %d with an expired one, %d with one that could not be checked",
		v.requests, v.missing, v.inactive, v.expired, v.unchecked)
}

func startUpstream(t *testing.T, p *provider) *upstream {
	t.Helper()
	u := &upstream{provider: p, known: make(map[string]introspection)}
	u.Server = httptest.NewServer(http.HandlerFunc(u.serve))
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) serve(w http.ResponseWriter, r *http.Request) {
	at := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.counts.requests++
	authorization := r.Header.Values("Authorization")
	if len(authorization) != 1 || !strings.HasPrefix(authorization[0], "Bearer ") {
		u.counts.missing++
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "one bearer token, please", http.StatusUnauthorized)
		return
	}
	token := strings.TrimPrefix(authorization[0], "Bearer ")
	in, known := u.known[token]
	if !known {
		var err error
		if in, err = u.provider.introspect(r.Context(), token); err != nil {
			u.counts.unchecked++
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	switch {
	case !in.Active:
		u.counts.inactive++
	case at.Unix() >= in.Exp:
		u.counts.expired++
	default:
		u.known[token] = in
		fmt.Fprintln(w, "welcome")
		return
	}
	w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	http.Error(w, "that token is no good", http.StatusUnauthorized)
}

// seen is the upstream's count, with the tokens that it accepted.
func (u *upstream) seen() (verdicts, map[string]introspection) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.counts, maps.Clone(u.known)
}
