package caddymodule

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// newFederation has a server take the tokens of a cluster, which it returns one
// after the other.
func newFederation(t *testing.T, config *authserver.Config) (next func() string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	config.FederatedKeys = authserver.PublicKeys(key.Public())
	config.FederatedIssuer, config.FederatedSubject, config.FederatedAudience = "https://cluster.example.com", "system:serviceaccount:shop:crm", "idp"
	return func() string {
		now := time.Now()
		text, err := jwt.Signed(signer).Claims(jwt.Claims{
			Issuer: config.FederatedIssuer, Subject: config.FederatedSubject, Audience: jwt.Audience{"idp"},
			IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(10 * time.Minute)), ID: rand.Text(),
		}).Serialize()
		if err != nil {
			t.Error(err)
		}
		return text
	}
}

// projected is a token as a kubelet mounts it: a link to a folder that is
// replaced as a whole.
type projected struct {
	t     *testing.T
	dir   string
	token func() string
	n     int
}

func (p *projected) path() string { return filepath.Join(p.dir, "token") }

// swap mounts another one.
func (p *projected) swap() {
	p.n++
	data, next := filepath.Join(p.dir, fmt.Sprintf("..%d", p.n)), filepath.Join(p.dir, "..next")
	for _, err := range []error{
		os.Mkdir(data, 0o700),
		os.WriteFile(filepath.Join(data, "token"), []byte(p.token()), 0o600),
		os.Symlink(data, next),
		os.Rename(next, filepath.Join(p.dir, "..data")),
	} {
		if err != nil {
			p.t.Error(err)
		}
	}
	if p.n == 1 {
		if err := os.Symlink(filepath.Join("..data", "token"), p.path()); err != nil {
			p.t.Error(err)
		}
	}
	_ = os.RemoveAll(filepath.Join(p.dir, fmt.Sprintf("..%d", p.n-1)))
}

// TestJWTFileSwapped: a projected service-account token that is replaced all
// the while, under load.
func TestJWTFileSwapped(t *testing.T) {
	config := authserver.Config{Lifetime: 2 * time.Second, Methods: []string{authserver.PrivateKeyJWT}}
	mount := &projected{t: t, dir: t.TempDir(), token: newFederation(t, &config)}
	mount.swap()
	p := newParts(t, config)
	p.run(fmt.Sprintf("token_url %s%s\nclient_auth jwt_file %s\n%s\n", p.server.URL(), authserver.TokenPath, mount.path(), often), injecting)
	var bad, good atomic.Int64
	stop := p.underLoad(func(a answer, err error) {
		if err != nil || a.status != http.StatusOK {
			bad.Add(1)
			return
		}
		good.Add(1)
	})
	issued := p.auth.Issued()
	eventually(t, "four tokens", func() bool { mount.swap(); return p.auth.Issued() >= issued+4 })
	stop()
	if bad.Load() > 0 || good.Load() == 0 {
		t.Errorf("%d of %d requests failed", bad.Load(), bad.Load()+good.Load())
	}
	used := make(map[string]bool)
	for _, r := range p.auth.Log() {
		assertion := r.Form.Get("client_assertion")
		used[assertion] = true
		if strings.Contains(p.logged(), assertion) {
			t.Fatal("an assertion stands in the log")
		}
	}
	if len(used) < 4 {
		t.Errorf("%d different tokens were used, want one for each request", len(used))
	}
}
