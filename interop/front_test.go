package interop

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"
)

// front stands before a server that does not count: it passes on all that comes,
// and counts, delays and loses what is for the token endpoint.
type front struct {
	*httptest.Server
	tokenPath string
	delay     time.Duration // of each token request
	proxy     *httputil.ReverseProxy
	turn      sync.Mutex // held by the one request that the server has

	mu       sync.Mutex
	counts   serverStats
	inFlight int
	losing   int // answers to come
}

// setupHeader marks a token request that only makes ready for a test, and is
// not counted.
const setupHeader = "Interop-Setup"

// startFront starts one; behind is where the server is, or will be.
func startFront(t *testing.T, behind *url.URL, tokenPath string, delay time.Duration) *front {
	t.Helper()
	f := &front{tokenPath: tokenPath, delay: delay}
	f.counts.Refused = make(map[string]int)
	f.counts.Methods = make(map[string]int)
	f.counts.Grants = make(map[string]int)
	f.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(behind)
			r.Out.Host = r.In.Host
		},
		// a server that is gone gives no answer
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != f.tokenPath || r.Header.Get(setupHeader) != "" {
		r.Header.Del(setupHeader)
		f.pass(w, r)
		return
	}
	lost := f.begin()
	defer f.end()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	form, _ := url.ParseQuery(string(body)) // what is no form counts as an empty one
	time.Sleep(f.delay)

	// what has arrived is processed, whether or not the client waits for it
	sent := r.Clone(context.WithoutCancel(r.Context()))
	sent.Body = io.NopCloser(bytes.NewReader(body))
	answer := httptest.NewRecorder()
	f.pass(answer, sent)
	c := f.add(sent, form, answer)
	if lost {
		f.count(func(s *serverStats) { s.Lost = append(s.Lost, c) })
		panic(http.ErrAbortHandler)
	}
	if r.Context().Err() != nil {
		f.count(func(s *serverStats) { s.Gone = append(s.Gone, c) })
	}
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	_, _ = answer.Body.WriteTo(w) // a client that is gone has been counted
}

// pass has the server answer one request after the other: glewlwyd stores the
// scopes of one token with another that it stores at the same moment.
func (f *front) pass(w http.ResponseWriter, r *http.Request) {
	f.turn.Lock()
	defer f.turn.Unlock()
	f.proxy.ServeHTTP(w, r)
}

func (f *front) begin() (lost bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inFlight++
	f.counts.MaxInFlight = max(f.counts.MaxInFlight, f.inFlight)
	if f.losing > 0 {
		f.losing--
		lost = true
	}
	return lost
}

func (f *front) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inFlight--
}

func (f *front) count(add func(*serverStats)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	add(&f.counts)
}

// add counts an answer; one that says nothing is counted by its status.
func (f *front) add(r *http.Request, form url.Values, answer *httptest.ResponseRecorder) cut {
	var got tokens
	err := json.Unmarshal(answer.Body.Bytes(), &got)
	if got.Error == "" && (err != nil || got.AccessToken == "") {
		got.Error = fmt.Sprintf("status %d", answer.Code)
	}
	id, _, basic := r.BasicAuth()
	if !basic {
		id = form.Get("client_id")
	}
	sent := form.Get("refresh_token")
	f.count(func(s *serverStats) {
		if got.Error != "" {
			s.Refused[got.Error]++
			return
		}
		s.Granted++
		s.Methods[methodOf(r, form)]++
		s.Grants[form.Get("grant_type")]++
		if sent != "" && got.RefreshToken != "" && got.RefreshToken != sent {
			s.Rotations++
		}
	})
	return cut{form.Get("grant_type"), id, fingerprint(sent), fingerprint(got.RefreshToken), got.Error}
}

// methodOf is that by which the client proved itself; who signed an assertion,
// a key or a secret, is not told apart.
func methodOf(r *http.Request, form url.Values) string {
	_, _, basic := r.BasicAuth()
	switch {
	case basic:
		return "client_secret_basic"
	case form.Has("client_assertion"):
		return "private_key_jwt"
	case form.Has("client_secret"):
		return "client_secret_post"
	}
	return "none"
}

// lose has the next n token requests processed, and the connections closed
// without an answer.
func (f *front) lose(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.losing = n
}

// stats are a copy.
func (f *front) stats() serverStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.counts
	s.Refused, s.Methods, s.Grants = maps.Clone(s.Refused), maps.Clone(s.Methods), maps.Clone(s.Grants)
	s.Lost, s.Gone = slices.Clone(s.Lost), slices.Clone(s.Gone)
	return s
}

// fingerprint tells tokens apart without showing them.
func fingerprint(token string) string {
	if token == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}
