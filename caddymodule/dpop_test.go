package caddymodule

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// newKeyFile writes a new private key into a file.
func newKeyFile(t *testing.T, path string) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return key
}

// proving is what a test of DPoP is made of: nonces are demanded on both sides,
// and replaced after so many uses.
func proving(t *testing.T, life time.Duration, uses int) (p *parts, key string) {
	t.Helper()
	p = newParts(t, authserver.Config{
		Lifetime: life, DPoP: authserver.DPoPRequired, DPoPNonce: true, DPoPNonceUses: uses, DPoPNonceQuiet: true,
	})
	p.api.Nonces, p.api.NonceUses, p.api.NonceQuiet = true, uses, true
	key = filepath.Join(t.TempDir(), "key")
	newKeyFile(t, key)
	p.run(p.credential("dpop {\nkey_file "+key+"\n}", often), "reverse_proxy $API {\ntransport upstream_auth crm\n}")
	return p, key
}

// TestDPoP: a thousand requests with bodies, the nonces replaced all the while,
// the tokens too, and the key once.
func TestDPoP(t *testing.T) {
	p, key := proving(t, 2*time.Second, 7)
	body := bytes.Repeat([]byte("x"), 10_000)
	send := func(n int) {
		method, content := http.MethodPost, io.Reader(bytes.NewReader(body))
		if n%2 == 0 {
			method, content = http.MethodGet, nil
		}
		a, err := p.try(method, "/a%2Fb?q=1", content, "DPoP", "the client's own")
		if err != nil || a.status != http.StatusOK {
			t.Errorf("request %d: %d %s %v", n, a.status, a.body, err)
		}
		if method == http.MethodPost && !strings.Contains(a.body, `"body_bytes":10000`) {
			t.Errorf("request %d: the body did not arrive whole: %s", n, a.body)
		}
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := range 250 {
				if w == 0 && n == 100 {
					newKeyFile(t, key)
				}
				send(n)
			}
		})
	}
	wg.Wait()
	issued := p.auth.Issued()
	eventually(t, "two tokens with the new key", func() bool { return p.auth.Issued() >= issued+2 })
	send(1)
	// one that a busy machine kept on its way for too long is made again
	if p.api.OK() != 1001 || p.api.BadProof()+p.api.Missing()+p.api.Unknown() > 0 {
		t.Errorf("the API took %d requests of 1001; bad proofs %d, missing %d, unknown %d",
			p.api.OK(), p.api.BadProof(), p.api.Missing(), p.api.Unknown())
	}
	if p.api.Challenged() < 1000/7 {
		t.Errorf("the API demanded a nonce %d times, so this test shows little", p.api.Challenged())
	}
	for _, r := range p.auth.Log() {
		if strings.Contains(p.logged(), r.Header.Get("DPoP")) {
			t.Fatal("a proof stands in the log")
		}
	}
}

// TestDPoPLargeBody: what has gone by cannot be sent again; the client gets the
// API's own answer, and the next request is good.
func TestDPoPLargeBody(t *testing.T) {
	p, _ := proving(t, time.Hour, 0)
	a, err := p.try(http.MethodPost, "/", bytes.NewReader(make([]byte, 1<<20)))
	if err != nil || a.status != http.StatusUnauthorized || !strings.Contains(a.header.Get("WWW-Authenticate"), "use_dpop_nonce") {
		t.Errorf("got %d %v %v, want the API's 401", a.status, a.header, err)
	}
	a, err = p.try(http.MethodPost, "/", bytes.NewReader(make([]byte, 1<<20)))
	if err != nil || a.status != http.StatusOK {
		t.Errorf("got %d %s %v", a.status, a.body, err)
	}
}

// TestDPoPDowngrade: a bearer token in place of a bound one is refused.
func TestDPoPDowngrade(t *testing.T) {
	p := newParts(t, authserver.Config{DPoP: authserver.DPoPAllowed})
	key := filepath.Join(t.TempDir(), "key")
	newKeyFile(t, key)
	p.auth.SetFault(authserver.Downgrade())
	p.run(p.credential("dpop {\nkey_file "+key+"\n}"), "reverse_proxy $API {\ntransport upstream_auth crm\n}")
	p.want(p.get("/"), http.StatusServiceUnavailable)
	if n := p.api.OK() + p.api.Missing(); n > 0 || p.lines("token_type is not DPoP") == 0 {
		t.Errorf("%d requests reached the API; the log tells it in %d lines", n, p.lines("token_type is not DPoP"))
	}
}

// TestDPoPEarlyChallenge: an upstream that demands a nonce before the body has
// come gets it whole or not at all, by HTTP/2 as well, where a transport may
// still read when it has closed.
func TestDPoPEarlyChallenge(t *testing.T) {
	for _, version := range []string{"1.1", "2"} {
		t.Run("HTTP "+version, func(t *testing.T) {
			p := newParts(t, authserver.Config{DPoP: authserver.DPoPRequired})
			key := filepath.Join(t.TempDir(), "key")
			newKeyFile(t, key)
			challenged, bodies := make(chan struct{}, 1), make(chan string, 10)
			api := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				select {
				case challenged <- struct{}{}:
					w.Header().Set("DPoP-Nonce", "first")
					w.Header().Set("WWW-Authenticate", `DPoP error="use_dpop_nonce"`)
					w.WriteHeader(http.StatusUnauthorized)
				default:
					body, err := io.ReadAll(r.Body)
					bodies <- fmt.Sprint(string(body), err)
				}
			}))
			api.EnableHTTP2 = true
			cert, ca := selfSigned(t, "127.0.0.1")
			api.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
			api.StartTLS()
			t.Cleanup(api.Close)
			caFile := filepath.Join(t.TempDir(), "ca")
			if err := os.WriteFile(caFile, ca, 0o600); err != nil {
				t.Fatal(err)
			}
			p.run(p.credential("dpop {\nkey_file "+key+"\n}"),
				"reverse_proxy "+api.URL+" {\ntransport upstream_auth crm {\nhttp {\nversions "+version+"\ntls_trust_pool file "+caFile+"\n}\n}\n}")
			r, w := io.Pipe()
			var wg sync.WaitGroup
			wg.Go(func() {
				defer w.Close()
				for i, part := range []string{"one,", "two,", "three,", "four"} {
					if i == 1 {
						eventually(t, "the challenge", func() bool { return len(challenged) == 1 })
					}
					if _, err := w.Write([]byte(part)); err != nil {
						return // the client was answered before
					}
				}
			})
			a, err := p.try(http.MethodPost, "/", r)
			_ = r.Close()
			wg.Wait()
			switch {
			case err != nil:
				t.Fatal(err)
			case a.status == http.StatusOK:
				if got := <-bodies; got != "one,two,three,four<nil>" {
					t.Errorf("the API got %q", got)
				}
			case a.status != http.StatusUnauthorized:
				t.Errorf("got %d %s", a.status, a.body)
			}
		})
	}
}
