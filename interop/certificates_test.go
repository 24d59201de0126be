package interop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// certAuthority signs what servers and clients show each other.
type certAuthority struct {
	dir  string
	file string // its own certificate, in PEM
	pool *x509.CertPool
	cert *x509.Certificate
	key  *ecdsa.PrivateKey

	issued map[string]certFiles
}

// certFiles are a certificate and its key (PKCS #8), in PEM.
type certFiles struct{ cert, key string }

func newCertAuthority(t *testing.T, dir string) *certAuthority {
	t.Helper()
	ca := &certAuthority{dir: dir, pool: x509.NewCertPool(), issued: make(map[string]certFiles)}
	template := certTemplate("authority")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	files, cert, key := writeCert(t, dir, "authority", template, nil, nil)
	ca.file, ca.cert, ca.key = files.cert, cert, key
	ca.pool.AddCert(cert)
	return ca
}

// issue signs a certificate for "CN=<name>,O=Interop", and for 127.0.0.1 and
// localhost, valid for an hour; change may want it otherwise. The files are
// those of the file name, so that a second one takes the place of the first.
func (ca *certAuthority) issue(t *testing.T, name string, change func(*x509.Certificate)) certFiles {
	t.Helper()
	template := certTemplate(name)
	if change != nil {
		change(template)
	}
	files, _, _ := writeCert(t, ca.dir, name, template, ca.cert, ca.key)
	ca.issued[name] = files
	return files
}

// certOf is what was issued for the name, or is now.
func (ca *certAuthority) certOf(t *testing.T, name string, change func(*x509.Certificate)) certFiles {
	t.Helper()
	if files, is := ca.issued[name]; is {
		return files
	}
	return ca.issue(t, name, change)
}

// httpClient trusts the servers that the authority signed for, and shows them a
// certificate where there is one.
func (ca *certAuthority) httpClient(t *testing.T, files *certFiles) *http.Client {
	t.Helper()
	config := &tls.Config{RootCAs: ca.pool}
	if files != nil {
		// with Certificates, Go would not show one whose issuer is not among
		// those that the server names, and nobody names a self-signed one's
		cert := files.load(t)
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	transport := &http.Transport{TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// selfSigned makes a certificate that nobody vouches for.
func selfSigned(t *testing.T, dir, name string) certFiles {
	t.Helper()
	files, _, _ := writeCert(t, dir, name, certTemplate(name), nil, nil)
	return files
}

func certTemplate(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		Subject:     pkix.Name{CommonName: name, Organization: []string{"Interop"}},
		NotBefore:   now.Add(-time.Hour),
		NotAfter:    now.Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
}

// writeCert makes a certificate and its key; without a parent it signs itself.
func writeCert(t *testing.T, dir, name string, template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (certFiles, *x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		t.Fatal(err)
	}
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := certFiles{filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")}
	writePEM(t, files.cert, "CERTIFICATE", der)
	writePEM(t, files.key, "PRIVATE KEY", secret)
	return files, cert, key
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (f certFiles) load(t *testing.T) tls.Certificate {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// thumbprint is what a token says that is bound to the certificate (RFC 8705
// section 3.1).
func (f certFiles) thumbprint(t *testing.T) string {
	t.Helper()
	sum := sha256.Sum256(f.load(t).Certificate[0])
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
