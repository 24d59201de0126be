package signing

import (
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"testing"
	"time"
)

// issue makes a certificate for a test key that is valid for an hour from a
// moment on.
func issue(t *testing.T, name string, from time.Time) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: from.Add(time.Hour)}
	key := testKeys()[name]
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return block("CERTIFICATE", der)
}

func TestCertificate(t *testing.T) {
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	good := func(name string) []byte { return issue(t, name, now.Add(-time.Minute)) }
	encrypted := block("ENCRYPTED PRIVATE KEY", []byte{0x30, 0})
	for name, test := range map[string]struct {
		cert, key []byte
		want      []string // in the error; none where it is right
	}{
		"EC":                    {cert: good("P-256"), key: pkcs8(t, "P-256")},
		"RSA":                   {cert: good("RSA"), key: pkcs1("RSA")},
		"Ed25519":               {cert: good("Ed25519"), key: pkcs8(t, "Ed25519")},
		"with its chain":        {cert: join(good("P-256"), good("RSA")), key: pkcs8(t, "P-256")},
		"both in each file":     {cert: join(pkcs8(t, "P-256"), good("P-256")), key: join(pkcs8(t, "P-256"), good("P-256"))},
		"from this moment on":   {cert: issue(t, "P-256", now), key: pkcs8(t, "P-256")},
		"up to this moment":     {cert: issue(t, "P-256", now.Add(-time.Hour)), key: pkcs8(t, "P-256")},
		"ended":                 {issue(t, "P-256", now.Add(-time.Hour-time.Second)), pkcs8(t, "P-256"), []string{"cert", "ended on 2026-11-21T09:59:59Z", "new one"}},
		"not yet valid":         {issue(t, "P-256", now.Add(time.Second)), pkcs8(t, "P-256"), []string{"cert", "valid from 2026-11-21T10:00:01Z", "clock"}},
		"another key":           {good("P-256"), pkcs8(t, "P-384"), []string{"do not fit", "private key that it was made for"}},
		"a key of another type": {good("P-256"), pkcs8(t, "RSA"), []string{"do not fit"}},
		"the chain first":       {join(good("RSA"), good("P-256")), pkcs8(t, "P-256"), []string{"do not fit", "the certificate first"}},
		"encrypted key":         {good("P-256"), encrypted, []string{"key:", "encrypted", "openssl pkey"}},
		"certificate for key":   {good("P-256"), good("P-256"), []string{"key:", "a certificate in place of a private key"}},
		"key in JWK":            {good("P-256"), jwk(t, "P-256", nil), []string{"key:", "JWK", "PEM"}},
		"no key":                {good("P-256"), []byte("s3cr3t-hunter2-s3cr3t"), []string{"key:", "neither PEM nor JSON"}},
		"key for certificate":   {pkcs8(t, "P-256"), good("P-256"), []string{"cert:", "PEM without a certificate", "wrong order"}},
		"no certificate":        {[]byte("s3cr3t-hunter2-s3cr3t"), pkcs8(t, "P-256"), []string{"cert:", "not PEM", "openssl x509"}},
		"damaged certificate":   {block("CERTIFICATE", []byte{0x30, 0}), pkcs8(t, "P-256"), []string{"cert", "do not fit"}},
	} {
		t.Run(name, func(t *testing.T) {
			pair, err := Certificate(test.cert, test.key, now)
			if test.want != nil {
				checkError(t, err, string(test.cert)+string(test.key), test.want...)
			} else if err != nil || len(pair.Certificate) == 0 || pair.PrivateKey == nil {
				t.Errorf("got %d certificates, %v", len(pair.Certificate), err)
			}
		})
	}
}
