package clientauth

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// certificate is one for a test key that is valid for an hour.
func certificate(t *testing.T, name string, from time.Time) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: from.Add(time.Hour)}
	key := testKeys()[name]
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestTLSClientAuth(t *testing.T) {
	keys := testKeys() // not in the bubble: others use them, too
	if len(keys) == 0 {
		t.Fatal("no keys")
	}
	synctest.Test(t, func(t *testing.T) {
		files := map[string][]byte{
			"/run/cert.pem": certificate(t, "P-256", time.Now()), "/run/key.pem": keyPEM(t, "P-256"), "/run/rsa.pem": keyPEM(t, "RSA"),
			"/run/old.pem": certificate(t, "P-256", time.Now().Add(-2*time.Hour)), "/run/new.pem": certificate(t, "P-256", time.Now().Add(time.Hour)),
			"/run/encrypted.pem": pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{0x30, 0}}),
		}
		values := map[string]string{"{env.CERT}": "/run/cert.pem", "{env.KEY}": string(keyPEM(t, "P-256"))}
		for _, test := range []struct {
			cert, key, id string
			want          []string // in the error; none where it is right
		}{
			{"/run/cert.pem", "/run/key.pem", "app", nil},
			{"{env.CERT}", "/run/key.pem", "app", nil},
			{"/run/cert.pem", "/run/key.pem", "", []string{"client_id is missing"}},
			{"/run/missing.pem", "/run/key.pem", "app", []string{"cert:", "/run/missing.pem", "no such file"}},
			{"/run/cert.pem", "/run/missing.pem", "app", []string{"key:", "/run/missing.pem", "no such file"}},
			{"{env.NOT_SET}", "/run/key.pem", "app", []string{"cert:", "{env.NOT_SET}"}},
			{"/run/cert.pem", "{env.KEY}", "app", []string{"key:", "{env.KEY}", "path"}},
			{"/run/cert.pem", "/run/rsa.pem", "app", []string{"do not fit"}},
			{"/run/key.pem", "/run/cert.pem", "app", []string{"cert", "wrong order"}},
			{"/run/cert.pem", "/run/encrypted.pem", "app", []string{"key", "encrypted", "openssl pkey"}},
			{"/run/old.pem", "/run/key.pem", "app", []string{"ended on 1999-12-31T23:00:00Z", "new one"}},
			{"/run/new.pem", "/run/key.pem", "app", []string{"valid from 2000-01-01T01:00:00Z"}},
		} {
			r, _ := requestWithFiles(test.id, values, files)
			err := (&TLSClientAuth{Cert: test.cert, Key: test.key}).Authenticate(t.Context(), r)
			want := url.Values{"grant_type": {"client_credentials"}}
			if test.want == nil {
				want.Set("client_id", "app")
			}
			if (err != nil) != (test.want != nil) || !reflect.DeepEqual(r.Params, want) || len(r.Header) != 1 {
				t.Errorf("%s, %s: error is %v, parameters are %v", test.cert, test.key, err, r.Params)
				continue
			}
			checkError(t, err, test.want, "PRIVATE KEY-----")
			if err != nil && !strings.HasPrefix(err.Error(), "tls_client_auth: ") {
				t.Errorf("the error does not say whose it is: %v", err)
			}
		}
	})
}

func TestCertificateFiles(t *testing.T) {
	cert, key := CertificateHolder(&TLSClientAuth{Cert: "/run/cert.pem", Key: "{env.KEY}"}).CertificateFiles()
	if cert != "/run/cert.pem" || key != "{env.KEY}" {
		t.Errorf("got %s and %s", cert, key)
	}
}
