package caddymodule

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

const (
	plainChallenge   = `Bearer realm="api"`
	invalidChallenge = `Bearer realm="api", error="invalid_token"`
	replaying        = "reverse_proxy $API {\ntransport upstream_auth crm\n}"
)

// strict is an API that refuses the first token that it is shown, or everything.
type strict struct {
	t          *testing.T
	status     int
	challenge  string
	early      bool // it refuses without reading the body
	reads      int  // of it, all the same
	everything bool
	accept     http.HandlerFunc // what follows a token that is taken
	auth       *authserver.Server

	mu    sync.Mutex
	first string
	seen  []arrival
}

// arrival is a request as it reached an API.
type arrival struct {
	method, token, proto, hash, expect string
	size                               int64
	header, trailer                    http.Header
	err                                error
}

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func newStrict(t *testing.T, challenge string) *strict {
	t.Helper()
	return &strict{t: t, status: http.StatusUnauthorized, challenge: challenge}
}

const refusalBody = "no, not with this one\n"

// refuse answers with all that an answer may have.
func (s *strict) refuse(w http.ResponseWriter) {
	if s.challenge != "" {
		w.Header().Set("WWW-Authenticate", s.challenge)
	}
	w.Header().Add("X-Answer", "one")
	w.Header().Add("X-Answer", "two")
	w.Header().Set("Trailer", "X-Sum")
	w.WriteHeader(s.status)
	_, _ = io.WriteString(w, refusalBody)
	_ = http.NewResponseController(w).Flush() // over HTTP/2 it would have a length, and then no trailers by HTTP/1.1
	w.Header().Set("X-Sum", "42")
}

func (s *strict) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token := r.Header.Get("Authorization")
	if s.auth != nil {
		_, text, _ := strings.Cut(token, " ")
		if _, err := s.auth.Verify(text); errors.Is(err, authserver.ErrUnknown) {
			http.NotFound(w, r) // of another test, for which the port was another's
			return
		}
	}
	s.mu.Lock()
	if s.first == "" {
		s.first = token
	}
	refused := s.everything || token == s.first
	s.mu.Unlock()
	a := arrival{method: r.Method, token: token, proto: r.Proto, header: r.Header.Clone(), expect: r.Header.Get("Expect")}
	if refused && s.early {
		_ = http.NewResponseController(w).EnableFullDuplex() // else it reads all of the body first, by HTTP/1.1
		_, _ = io.ReadFull(r.Body, make([]byte, s.reads))
		s.note(a)
		s.refuse(w)
		return
	}
	h := sha256.New()
	a.size, a.err = io.Copy(h, r.Body)
	a.hash, a.trailer = hex.EncodeToString(h.Sum(nil)), r.Trailer
	s.note(a)
	switch {
	case refused:
		s.refuse(w)
	case s.accept != nil:
		s.accept(w, r)
	default:
		fmt.Fprint(w, a.hash)
	}
}

func (s *strict) note(a arrival) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, a)
}

func (s *strict) arrivals() []arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]arrival(nil), s.seen...)
}

// whole checks that a client got the API's refusal as it was sent.
func (s *strict) whole(res *http.Response) {
	s.t.Helper()
	body, err := io.ReadAll(res.Body)
	if res.StatusCode != s.status || string(body) != refusalBody || err != nil {
		s.t.Errorf("got %d %q %v, want the API's own answer", res.StatusCode, body, err)
	}
	if got := fmt.Sprint(res.Header["X-Answer"], res.Header["Www-Authenticate"], res.Trailer); got != fmt.Sprint([]string{"one", "two"}, []string{s.challenge}, http.Header{"X-Sum": {"42"}}) {
		s.t.Errorf("got %s", got)
	}
}

// over serves an API by a version of HTTP, and returns a site that puts the
// transport before it.
func (p *parts) over(version string, api http.Handler, options ...string) (site string) {
	p.t.Helper()
	server := httptest.NewUnstartedServer(api)
	if s, ok := api.(*strict); ok {
		s.auth = p.auth
	}
	site = "reverse_proxy %s {\ntransport upstream_auth " + p.name + " {\n" + strings.Join(options, "\n") + "\nhttp {\nversions %s\n}\n}\n}"
	switch version {
	case "2":
		server.EnableHTTP2 = true
		conf, ca := certificate(p.t)
		server.TLS = conf
		server.StartTLS()
		site = strings.Replace(site, "versions", "tls_trust_pool file "+writeFile(p.t, "ca.pem", ca)+"\nversions", 1)
	case "h2c":
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetUnencryptedHTTP2(true)
		server.Start()
		version = "h2c 2"
	default:
		server.Start()
	}
	p.t.Cleanup(server.Close)
	return fmt.Sprintf(site, server.URL, version)
}

var httpVersions = []string{"1.1", "2", "h2c"}

// aged waits until the token held is old enough to be replaced: another one is
// not asked for within half a second of its arrival.
func (p *parts) aged() {
	p.t.Helper()
	eventually(p.t, "a token that may be replaced", func() bool {
		e := credentials.newest()[p.name]
		if e == nil {
			return false
		}
		s := e.source.Snapshot()
		return s.Held && time.Since(s.Obtained) > 600*time.Millisecond
	})
}

// refusals is the metric, by its action.
func (p *parts) refusals() map[string]int {
	p.t.Helper()
	out := make(map[string]int)
	for _, action := range actions {
		out[action] = int(testutil.ToFloat64(upstreamUnauthorized.WithLabelValues(p.name, action)))
	}
	return out
}

// wantRefusals checks what was counted since before.
func (p *parts) wantRefusals(replayed, refreshed, ignored int) {
	p.t.Helper()
	if got, want := fmt.Sprint(p.refusals()), fmt.Sprint(map[string]int{"replayed": replayed, "refreshed": refreshed, "ignored": ignored}); got != want {
		p.t.Errorf("counted %s, want %s", got, want)
	}
}

// send makes a request through Caddy, and leaves the answer open.
func (p *parts) send(req *http.Request) *http.Response {
	p.t.Helper()
	req.URL.Scheme, req.URL.Host = "http", p.proxy
	res, err := p.client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { res.Body.Close() })
	return res
}

func (p *parts) request(method string, body io.Reader, fields ...string) *http.Request {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, "http://"+p.proxy+p.below+"/", body)
	if err != nil {
		p.t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		req.Header.Add(fields[i], fields[i+1])
	}
	return req
}

// hanging has the token endpoint not answer until it is let go.
func hangingToken() (fault authserver.Fault, letGo func()) {
	gate := make(chan struct{})
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		select {
		case <-gate:
			next.ServeHTTP(w, r)
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}, sync.OnceFunc(func() { close(gate) })
}
