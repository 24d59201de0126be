package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// witness stands between a Caddy and a server's token endpoint, and is the
// upstream as well: it knows of each refresh token when it was spent, what came
// of it, and whether the access token that came with it was ever used.
type witness struct {
	token    *httptest.Server
	upstream *httptest.Server
	way      http.RoundTripper
	behind   string        // the server's token endpoint
	there    time.Duration // a token request's way to the server
	back     time.Duration // and that of the answer

	mu      sync.Mutex
	grown   chan struct{} // closed, and replaced, when a token request has come
	gate    chan struct{} // answers are kept back until it is closed; nil lets them pass
	spends  []*spend
	tokens  map[string]*spend // by access token
	secrets []string          // refresh tokens, which no log may show
	strange []string          // what the upstream got and should not have
}

// spend is one refresh, of which the tokens are told by their hashes.
type spend struct {
	spent, next string
	status      int    // 0 where the server's answer was not read
	code        string // of what was refused
	ttl         time.Duration

	begun, passed, read, answered time.Time // zero for what did not happen
	over                          bool      // answered, or its client has gone
	used                          bool      // the upstream got the access token
}

func (s *spend) granted() bool { return s.next != "" }

func startWitness(t *testing.T, tokenURL string, there, back time.Duration) *witness {
	t.Helper()
	w := &witness{
		way: &http.Transport{}, behind: tokenURL, there: there, back: back,
		grown: make(chan struct{}), tokens: make(map[string]*spend),
	}
	w.token = httptest.NewServer(http.HandlerFunc(w.serveToken))
	w.upstream = httptest.NewServer(http.HandlerFunc(w.serveUpstream))
	t.Cleanup(w.token.Close)
	t.Cleanup(w.upstream.Close)
	return w
}

// serveToken passes a request on, unless its client has gone by then, and goes
// away when the client does.
func (w *witness) serveToken(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	s := w.begin(form.Get("refresh_token"))
	defer w.note(func() { s.over = true })
	travel(r.Context(), w.there)
	w.note(func() { s.passed = time.Now() })
	req, err := http.NewRequestWithContext(r.Context(), r.Method, w.behind, bytes.NewReader(body))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	req.Header = r.Header.Clone()
	resp, err := w.way.RoundTrip(req)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.keep(s, resp.StatusCode, text)

	travel(r.Context(), w.back)
	select {
	case <-w.opening():
	case <-r.Context().Done():
		panic(http.ErrAbortHandler)
	}
	w.note(func() { s.answered = time.Now() })
	maps.Copy(rw.Header(), resp.Header)
	rw.WriteHeader(resp.StatusCode)
	_, _ = rw.Write(text) // whether it arrives is what the tests are about
}

// travel takes a time, and ends a request whose client has gone by then.
func travel(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
		panic(http.ErrAbortHandler)
	}
}

func (w *witness) note(of func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	of()
}

func (w *witness) begin(refreshToken string) *spend {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &spend{spent: fingerprint(refreshToken), begun: time.Now()}
	w.spends = append(w.spends, s)
	w.secrets = append(w.secrets, refreshToken)
	close(w.grown)
	w.grown = make(chan struct{})
	return s
}

func (w *witness) keep(s *spend, status int, text []byte) {
	var got tokens
	err := json.Unmarshal(text, &got)
	w.mu.Lock()
	defer w.mu.Unlock()
	s.read, s.status = time.Now(), status
	if err != nil || status != http.StatusOK {
		s.code = strings.TrimSpace(fmt.Sprint(got.Error, " ", status))
		return
	}
	s.next, s.ttl = fingerprint(got.RefreshToken), time.Duration(got.ExpiresIn)*time.Second
	w.tokens[got.AccessToken] = s
	w.secrets = append(w.secrets, got.RefreshToken, got.AccessToken)
}

// hold keeps the answers back from now on, until release is called.
func (w *witness) hold() (release func()) {
	gate := make(chan struct{})
	w.note(func() { w.gate = gate })
	return sync.OnceFunc(func() {
		w.note(func() { w.gate = nil })
		close(gate)
	})
}

var open = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

func (w *witness) opening() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gate == nil {
		return open
	}
	return w.gate
}

// serveUpstream takes the tokens that the server gave, until they end.
func (w *witness) serveUpstream(rw http.ResponseWriter, r *http.Request) {
	bearer := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.tokens[bearer]
	switch {
	case s == nil:
		w.strange = append(w.strange, "a token that the server did not give, or none")
	case time.Now().After(s.read.Add(s.ttl)):
		w.strange = append(w.strange, "a token that had ended")
	default:
		s.used = true
		fmt.Fprintln(rw, "welcome")
		return
	}
	rw.Header().Set("WWW-Authenticate", "Bearer")
	http.Error(rw, "that token is no good", http.StatusUnauthorized)
}

// next waits for a token request that begins after the call.
func (w *witness) next(ctx context.Context) (*spend, error) {
	w.mu.Lock()
	grown := w.grown
	w.mu.Unlock()
	select {
	case <-grown:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.spends[len(w.spends)-1], nil
}

// seen is a copy of all so far.
func (w *witness) seen() []spend {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]spend, 0, len(w.spends))
	for _, s := range w.spends {
		all = append(all, *s)
	}
	return all
}

// last is the newest token request, and how many there were.
func (w *witness) last() (spend, int) {
	all := w.seen()
	if len(all) == 0 {
		return spend{}, 0
	}
	return all[len(all)-1], len(all)
}

// refusal is the newest refresh that the server refused.
func (w *witness) refusal() spend {
	for _, s := range slices.Backward(w.seen()) {
		if s.code != "" {
			return s
		}
	}
	return spend{}
}

// inFlight tells whether a token request is under way.
func (w *witness) inFlight() bool {
	s, n := w.last()
	return n > 0 && !s.over
}

// told returns what no log may show, and what the upstream should not have got.
func (w *witness) told() (secrets, strange []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.secrets), slices.Clone(w.strange)
}
