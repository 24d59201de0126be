package advice

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// ask makes a token request as the program does, and returns its failure.
func ask(t *testing.T, rt http.RoundTripper, at string) *oauth.Failure {
	t.Helper()
	return askFor(t, rt, &oauth.Request{URL: at, Params: url.Values{"grant_type": {"client_credentials"}}})
}

func askFor(t *testing.T, rt http.RoundTripper, r *oauth.Request) *oauth.Failure {
	t.Helper()
	_, err := r.Do(t.Context(), rt)
	f, ok := errors.AsType[*oauth.Failure](err)
	if !ok {
		t.Fatalf("got %v, want a failure", err)
	}
	return f
}

// answers is a server that gives the same answer to everything.
func answers(t *testing.T, status int, contentType, body string, header ...string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil // or net/http guesses one
		if contentType != "" {
			w.Header().Set("Content-Type", contentType)
		}
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/token"
}

// answered is the failure that an answer becomes.
func answered(t *testing.T, status int, contentType, body string, header ...string) *oauth.Failure {
	t.Helper()
	return ask(t, new(http.Transport), answers(t, status, contentType, body, header...))
}

// canned is an answer that comes without a server.
type canned struct {
	status int
	body   string
}

func answering(status int, body string) http.RoundTripper { return canned{status, body} }

func (c canned) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: c.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(c.body)), Request: r}, nil
}

// says is the failure that an error object becomes.
func says(t *testing.T, status int, code string) *oauth.Failure {
	t.Helper()
	return answered(t, status, "application/json", `{"error":"`+code+`"}`)
}

// raw is a server that speaks to each connection by itself.
func raw(t *testing.T, speak func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				speak(c)
			}()
		}
	}()
	return ln.Addr().String()
}

// speaks says one line, once it was spoken to.
func speaks(s string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = io.WriteString(c, s)
	}
}

// quiet is for servers whose clients leave in anger.
var quiet = log.New(io.Discard, "", 0)

var serial atomic.Int64

// authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func certificate(t *testing.T, template *x509.Certificate, by *authority) (*authority, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(serial.Add(1))
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a, _ := certificate(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil)
	return a
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// secure is a server with TLS; its address is that of a token endpoint.
func secure(t *testing.T, conf *tls.Config) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"access_token":"tok"}`)
	}))
	s.TLS = conf
	s.Config.ErrorLog = quiet
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL + "/token"
}

// trusting is a way to a server whose authority is known.
func trusting(pool *x509.CertPool) *http.Transport {
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true, DisableKeepAlives: true}
}

// dialing is a way on which no connection is made.
func dialing(err error) *http.Transport {
	return &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}}
}

// advised is a failure as it is really made, and the advice for it.
type advised struct {
	failure *oauth.Failure
	facts   Facts
	as      string // in the failure's words
	wrong   []string
	do      []string
	not     []string // in neither part
	topic   string
}

func (c advised) check(t *testing.T) {
	t.Helper()
	if !strings.Contains(c.failure.Error(), c.as) {
		t.Errorf("the failure is %q, want %q in it", c.failure, c.as)
	}
	a := For(c.failure, c.facts)
	t.Logf("\n  wrong: %s\n  do:    %s\n  topic: %s", a.Wrong, a.Do, a.Topic)
	contains(t, "wrong", a.Wrong, c.wrong...)
	contains(t, "do", a.Do, c.do...)
	for _, n := range c.not {
		if strings.Contains(a.Wrong+a.Do, n) {
			t.Errorf("got %q and %q, want no %q", a.Wrong, a.Do, n)
		}
	}
	if a.Topic != c.topic {
		t.Errorf("topic: got %q, want %q", a.Topic, c.topic)
	}
	if len([]rune(a.Wrong)) >= longest || len([]rune(a.Do)) >= longest {
		t.Error("the advice is too long and was cut")
	}
	if strings.HasSuffix(a.Wrong, ".") || strings.HasPrefix(a.Do, "; ") || strings.Contains(a.Wrong+a.Do, "; ;") {
		t.Errorf("got %q and %q, want sentences", a.Wrong, a.Do)
	}
}

func contains(t *testing.T, what, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("%s: got %q, want %q in it", what, got, w)
		}
	}
}
