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
	"strconv"
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
	turn     sync.Mutex    // held by the one request that the server has

	mu      sync.Mutex
	grown   chan struct{} // closed, and replaced, when a token request has come
	gate    chan struct{} // answers are kept back until it is closed; nil lets them pass
	dead    int           // the last life of Caddy that has ended, of those from 1 on
	spends  []*spend
	tokens  map[string]*spend // by access token
	secrets []string          // refresh tokens, which no log may show
	strange []string          // what the upstream got and should not have
}

// spend is one refresh, of which the tokens are told by their hashes.
type spend struct {
	spent, next string
	life        int    // of the Caddy that asks
	status      int    // 0 where the server's answer was not read
	code        string // of what was refused
	ttl         time.Duration

	begun, passed, read, answered time.Time // zero for what did not happen
	over                          bool      // its client has what it will ever get
	used                          bool      // the upstream got the access token
}

func (s *spend) granted() bool { return s.next != "" }

// underWay: its client waits, and nothing has been sent to it.
func (s *spend) underWay() bool { return !s.over && s.answered.IsZero() }

func startWitness(t *testing.T, tokenURL string, there, back time.Duration) *witness {
	t.Helper()
	w := &witness{
		// a connection that the server closes at that moment would lose a request
		way: &http.Transport{DisableKeepAlives: true}, behind: tokenURL, there: there, back: back,
		grown: make(chan struct{}), tokens: make(map[string]*spend),
	}
	w.token = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.serveToken(t.Context(), rw, r)
	}))
	w.upstream = httptest.NewServer(http.HandlerFunc(w.serveUpstream))
	t.Cleanup(w.token.Close)
	t.Cleanup(w.upstream.Close)
	return w
}

// serveToken passes a request on, unless its client has gone by then. What has
// been passed on is answered, whoever waits for it, before the next one is: a
// server that took a request of a client that was killed after one of the next
// life would see a spent refresh token come again, and end the chain.
func (w *witness) serveToken(ctx context.Context, rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	life, err := strconv.Atoi(form.Get("life"))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	form.Del("life") // which is for the witness alone
	body = []byte(form.Encode())
	s := w.begin(form.Get("refresh_token"), life)
	defer w.note(func() { s.over = true })
	travel(r.Context(), w.there)
	header, text := w.pass(ctx, r, s, body)
	travel(r.Context(), w.back)
	for gate := w.answer(s); gate != nil; gate = w.answer(s) {
		select {
		case <-gate:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	maps.Copy(rw.Header(), header)
	rw.WriteHeader(s.status)
	_, _ = rw.Write(text) // whether it arrives is what the tests are about
}

// pass has the server answer one request.
func (w *witness) pass(ctx context.Context, r *http.Request, s *spend, body []byte) (http.Header, []byte) {
	w.turn.Lock()
	defer w.turn.Unlock()
	w.note(func() {
		if s.over {
			panic(http.ErrAbortHandler)
		}
		s.passed = time.Now()
	})
	req, err := http.NewRequestWithContext(ctx, r.Method, w.behind, bytes.NewReader(body))
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
	return resp.Header, text
}

// answer notes that an answer goes to its client, unless that has gone or the
// answer is kept back: until the gate that it returns is open.
func (w *witness) answer(s *spend) (gate <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case s.over:
		panic(http.ErrAbortHandler)
	case w.gate != nil:
		return w.gate
	}
	s.answered = time.Now()
	return nil
}

// bury notes that a life of Caddy has ended. What it has sent may come later.
func (w *witness) bury(life int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = life
	for _, s := range w.spends {
		s.over = true
	}
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

func (w *witness) begin(refreshToken string, life int) *spend {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &spend{spent: fingerprint(refreshToken), life: life, begun: time.Now(), over: life <= w.dead}
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
		w.note(func() {
			if w.gate == gate {
				w.gate = nil
			}
		})
		close(gate)
	})
}

// beganHeader tells when a request began. A token that had ended by then must
// not be on it; one that ends on the way is nobody's fault.
const beganHeader = "Interop-Began"

// epoch is what those times are counted from, on a clock that nobody sets.
var epoch = time.Now()

func stamp(at time.Time) string { return at.Sub(epoch).String() }

func stamped(h http.Header) (time.Time, error) {
	since, err := time.ParseDuration(h.Get(beganHeader))
	return epoch.Add(since), err
}

// serveUpstream takes the tokens that the server gave, until they end.
func (w *witness) serveUpstream(rw http.ResponseWriter, r *http.Request) {
	bearer := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	at, err := stamped(r.Header)
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.tokens[bearer]
	switch {
	case s == nil:
		w.strange = append(w.strange, "a token that the server did not give, or none")
	case err != nil:
		w.strange = append(w.strange, err.Error())
	case at.After(s.read.Add(s.ttl)):
		w.strange = append(w.strange, "a token that had ended")
	default:
		s.used = true
		fmt.Fprintln(rw, "welcome")
		return
	}
	rw.Header().Set("WWW-Authenticate", "Bearer")
	http.Error(rw, "that token is no good", http.StatusUnauthorized)
}

// next is the token request that is under way, or else the one that comes.
func (w *witness) next(ctx context.Context) (*spend, error) {
	w.mu.Lock()
	grown := w.grown
	if n := len(w.spends); n > 0 && w.spends[n-1].underWay() {
		defer w.mu.Unlock()
		return w.spends[n-1], nil
	}
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
	return n > 0 && s.underWay()
}

// answers are how many tokens the server gave, and how often it refused one.
func (w *witness) answers() (granted, refused int) {
	for _, s := range w.seen() {
		switch {
		case s.granted():
			granted++
		case s.code != "":
			refused++
		}
	}
	return granted, refused
}

// told returns what no log may show, and what the upstream should not have got.
func (w *witness) told() (secrets, strange []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.secrets), slices.Clone(w.strange)
}
