package caddymodule

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// What is wrong while Caddy runs: files that are not what they should be, and
// servers that say odd things of themselves. All of a test's credentials are in
// one Caddy, beside a good one, so that each stands for itself.

// The keys of the client, one of each kind, and one that the server does not
// know.
var (
	ecKey      = sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	rsaKey     = sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	edKey      = sync.OnceValue(func() crypto.Signer { return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) })
	unknownKey = sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
)

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

// inPEM is a private key in PKCS#8.
func inPEM(key crypto.Signer) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))}))
}

func publicPEM(key crypto.Signer) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(key.Public()))}))
}

// encryptedPEM looks like a key that a password protects.
func encryptedPEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte(rand.Text() + rand.Text() + rand.Text())}))
}

// clientCertificate is one for a key that ends after so long.
func clientCertificate(key crypto.Signer, life time.Duration) string {
	until := time.Now().Add(life)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: appClient},
		NotBefore: until.Add(-2 * time.Hour), NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

const (
	cluster        = "https://cluster.example.com"
	serviceAccount = "system:serviceaccount:shop:crm"
)

// accountJWT is a service account's token, for an hour; more are claims in
// place of its own, nil takes one away.
func accountJWT(more map[string]any) string {
	claims := map[string]any{"iss": cluster, "sub": serviceAccount, "aud": "idp", "exp": time.Now().Add(time.Hour).Unix()}
	for name, value := range more {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	return must(jwt.Signed(must(jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: ecKey()}, nil))).Claims(claims).Serialize())
}

// badCase is one credential that has no token until something is put right.
type badCase struct {
	name       string // of the credential
	credential string // in it $DIR is the folder of its files, $TOKEN the token endpoint, and $TLS that with TLS
	bad, good  map[string]string
	says       []string // the one log line
	status     int      // 502 if it is 0
}

// directory stands for one in place of a file.
const directory = "a directory"

// lay puts files into a folder, in place of what is there, at one moment.
func lay(t *testing.T, root, name string, files map[string]string) {
	t.Helper()
	data, err := os.MkdirTemp(root, "..") //nolint:usetesting // as a kubelet names it, in the folder that is mounted
	for name, content := range files {
		path := filepath.Join(data, name)
		if err == nil && content == directory {
			err = os.Mkdir(path, 0o700)
		} else if err == nil {
			err = os.WriteFile(path, []byte(content), 0o600)
		}
	}
	if err == nil {
		err = os.Symlink(data, data+".next")
	}
	if err == nil {
		err = os.Rename(data+".next", filepath.Join(root, name))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// runCases runs a Caddy with a credential for each case, beside the good one
// that is called crm: it is found below the path of its name.
func (p *parts) runCases(cases []badCase, replace func(badCase) *strings.Replacer, route func(badCase) string) {
	p.t.Helper()
	credential, site := p.credential(), "handle / {\nupstream_auth crm\nreverse_proxy $API\n}\n"
	for _, c := range cases {
		credential += "}\ncredential " + c.name + " {\n" + replace(c).Replace(c.credential) + "\n"
		site += "handle_path /" + c.name + "/* {\n" + route(c) + "\n}\n"
	}
	p.run(credential, site)
}

// turnedAway checks what a client gets, and what the log says, while a
// credential has no token.
func (p *parts) turnedAway(c badCase) {
	p.t.Helper()
	status, kind := http.StatusBadGateway, "refused"
	if c.status != 0 {
		status, kind = c.status, "malformed"
	}
	for range 2 {
		a := p.get("/" + c.name + "/")
		p.want(a, status)
		if a.body != "" && a.body != "no access token: "+kind+"\n" {
			p.t.Errorf("the client is told %q", a.body)
		}
		for _, word := range c.says {
			if strings.Contains(fmt.Sprint(a.header), word) {
				p.t.Errorf("the client is told of %q: %v", word, a.header)
			}
		}
	}
	p.want(p.get("/"), http.StatusOK) // the others go on
	lines := p.linesOf(c.name)
	if len(lines) != 1 {
		p.t.Errorf("%d log lines, want 1:\n%s", len(lines), strings.Join(lines, ""))
		return
	}
	for _, word := range c.says {
		if !strings.Contains(lines[0], word) {
			p.t.Errorf("the log line lacks %q:\n%s", word, lines[0])
		}
	}
}

// linesOf are the log lines of a credential that somebody has to look at.
func (p *parts) linesOf(credential string) []string {
	p.t.Helper()
	var out []string
	for line := range strings.Lines(p.logged()) {
		var entry struct{ Level, Logger, Credential string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			p.t.Fatal(err)
		}
		if entry.Credential == credential && entry.Logger == appName && slices.Contains([]string{"warn", "error"}, entry.Level) {
			out = append(out, line)
		}
	}
	return out
}

// keepsSecret checks that nothing of a file is in the log but its name.
func (p *parts) keepsSecret(log, content string) {
	p.t.Helper()
	for line := range strings.Lines(content) {
		for part := range strings.SplitSeq(strings.TrimSpace(line), ".") {
			if len(part) >= 16 && !strings.HasPrefix(part, "-----") && strings.Contains(log, part) {
				p.t.Errorf("the log holds %q", part)
			}
		}
	}
}

// TestBadFiles: a file that is not what it should be is told once, with what to
// do; nothing of it leaks; and when it is put right, the token is there within
// two seconds, without a reload.
func TestBadFiles(t *testing.T) {
	const (
		withKey   = "token_url $TOKEN\nclient_id app\nclient_auth private_key_jwt {\nkey_file $DIR/key\n%s\n}"
		withJWT   = "token_url $TOKEN\nclient_auth jwt_file $DIR/jwt"
		withCert  = "token_url $TLS\nclient_id app\nclient_auth tls_client_auth {\ncert $DIR/cert\nkey $DIR/key\n}\ntls {\nca $DIR/ca\n}"
		withBound = "token_url $TOKEN\nclient_id app\nclient_auth client_secret_basic {env." + secretEnv + "}\ndpop {\nkey_file $DIR/key\n}"
	)
	server, ca := selfSigned(t, "127.0.0.1")
	one := func(name, content string) map[string]string { return map[string]string{name: content} }
	none := map[string]string{}
	pair := func(cert, key string) map[string]string {
		return map[string]string{"ca": string(ca), "cert": cert, "key": key}
	}
	goodKey, goodJWT := one("key", inPEM(ecKey())), one("jwt", accountJWT(nil))
	cert := clientCertificate(ecKey(), time.Hour)
	goodPair := pair(cert, inPEM(ecKey()))
	cases := []badCase{
		{"key-of-another-type", fmt.Sprintf(withKey, "alg RS256"), goodKey, one("key", inPEM(rsaKey())), []string{"private_key_jwt", "alg is RS256", "EC on P-256", "expected ES256"}, 0},
		{"key-encrypted", fmt.Sprintf(withKey, ""), one("key", encryptedPEM()), goodKey, []string{"private_key_jwt", "key_file", "$DIR/key", "encrypted private key", "openssl pkey -in"}, 0},
		{"key-public", fmt.Sprintf(withKey, ""), one("key", publicPEM(ecKey())), goodKey, []string{"key_file", "$DIR/key", "a public key in place of a private key", "BEGIN PRIVATE KEY"}, 0},
		{"key-cut", fmt.Sprintf(withKey, ""), one("key", inPEM(ecKey())[:100]), goodKey, []string{"key_file", "$DIR/key", "cut off or damaged"}, 0},
		{"key-is-a-certificate", fmt.Sprintf(withKey, ""), one("key", cert), goodKey, []string{"key_file", "$DIR/key", "a certificate in place of a private key"}, 0},
		{"key-empty", fmt.Sprintf(withKey, ""), one("key", ""), goodKey, []string{"key_file", "$DIR/key is empty"}, 0},
		{"key-missing", fmt.Sprintf(withKey, ""), none, goodKey, []string{"key_file", "$DIR/key", "no such file"}, 0},
		{"key-directory", fmt.Sprintf(withKey, ""), one("key", directory), goodKey, []string{"key_file", "$DIR/key", "a directory", "expected a file"}, 0},
		{"key-unknown-to-the-server", fmt.Sprintf(withKey, ""), one("key", inPEM(unknownKey())), goodKey, []string{`"code":"invalid_client"`, "not that of a known key"}, 0},

		{"jwt-empty", withJWT, one("jwt", ""), goodJWT, []string{"jwt_file", "$DIR/jwt is empty"}, 0},
		{"jwt-directory", withJWT, one("jwt", directory), goodJWT, []string{"jwt_file", "$DIR/jwt", "a directory", "expected a file"}, 0},
		{"jwt-missing", withJWT, none, goodJWT, []string{"jwt_file", "$DIR/jwt", "no such file"}, 0},
		{"jwt-expired", withJWT, one("jwt", accountJWT(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()})), goodJWT, []string{"jwt_file", "$DIR/jwt", "ended at", "renew"}, 0},
		{"jwt-for-kubernetes", withJWT, one("jwt", accountJWT(map[string]any{"aud": []string{"https://kubernetes.default.svc.cluster.local"}})), goodJWT, []string{"jwt_file", "$DIR/jwt", "Kubernetes API", "audience of its own", "allow_any_audience"}, 0},
		{"jwt-for-its-issuer", withJWT, one("jwt", accountJWT(map[string]any{"aud": cluster})), goodJWT, []string{"jwt_file", "Kubernetes API", "allow_any_audience"}, 0},
		{"jwt-for-anybody", withJWT, one("jwt", accountJWT(map[string]any{"aud": nil})), goodJWT, []string{"jwt_file", "$DIR/jwt", "no audience", "allow_any_audience"}, 0},
		{"jwt-that-is-none", withJWT, one("jwt", "a password, perhaps: "+testSecret), goodJWT, []string{"jwt_file", "$DIR/jwt", "not a JWT"}, 0},
		{"jwt-that-is-a-key", withJWT, one("jwt", inPEM(ecKey())), goodJWT, []string{"jwt_file", "$DIR/jwt", "not a JWT"}, 0},
		{"jwt-of-another", withJWT, one("jwt", accountJWT(map[string]any{"sub": "system:serviceaccount:other:crm"})), goodJWT, []string{`"code":"invalid_client"`}, 0},

		{"cert-expired", withCert, pair(clientCertificate(ecKey(), -time.Hour), inPEM(ecKey())), goodPair, []string{"client_auth", "cert", "ended on", "new one"}, 0},
		{"cert-of-another-key", withCert, pair(cert, inPEM(unknownKey())), goodPair, []string{"client_auth", "cert and key", "do not fit"}, 0},
		{"cert-and-key-swapped", withCert, pair(inPEM(ecKey()), cert), goodPair, []string{"client_auth", "cert", "wrong order"}, 0},
		{"cert-with-an-encrypted-key", withCert, pair(cert, encryptedPEM()), goodPair, []string{"client_auth", "key", "encrypted private key", "openssl pkey -in"}, 0},
		{"cert-missing", withCert, map[string]string{"ca": string(ca)}, goodPair, []string{"client_auth", "cert", "$DIR/cert", "no such file"}, 0},

		{"bound-key-encrypted", withBound, one("key", encryptedPEM()), goodKey, []string{"dpop", "key_file", "encrypted private key", "openssl pkey -in"}, 0},
		{"bound-key-missing", withBound, none, goodKey, []string{"dpop", "key_file", "$DIR/key", "no such file"}, 0},

		{
			"bearer-key-of-another-type", "token_url $TOKEN\ngrant jwt_bearer {\nkey_file $DIR/key\nalg EdDSA\nissuer app\nsubject somebody\n}",
			goodKey, one("key", inPEM(edKey())), []string{"jwt_bearer", "alg is EdDSA", "EC on P-256", "expected ES256"}, 0,
		},
		{
			"bearer-without-an-issuer", "token_url $TOKEN\ngrant jwt_bearer {\nkey_file $DIR/key\nissuer {file.$DIR/issuer}\nsubject somebody\n}",
			goodKey, map[string]string{"key": inPEM(ecKey()), "issuer": appClient}, []string{"jwt_bearer", "issuer", "{file.$DIR/issuer}", "no such file"}, 0,
		},
		{
			"bearer-assertion-missing", "token_url $TOKEN\ngrant jwt_bearer {\nassertion {file.$DIR/jwt}\n}",
			none, one("jwt", "the-assertion-of-the-test"), []string{"jwt_bearer", "assertion", "{file.$DIR/jwt}", "no such file"}, 0,
		},
		{
			"subject-token-empty", "token_url $TOKEN\nclient_id app\nclient_auth client_secret_basic {env." + secretEnv + "}\ngrant token_exchange {\nsubject_token {file.$DIR/token}\n}",
			one("token", ""), one("token", "a-subject-token-of-somebody"), []string{"token_exchange", "subject_token", "{file.$DIR/token}", "is empty"}, 0,
		},
		{
			"hmac-secret-missing", "token_url $TOKEN\nclient_id app\nclient_auth client_secret_jwt {file.$DIR/secret}",
			none, one("secret", oddSecret), []string{"client secret", "{file.$DIR/secret}", "no such file"}, 0,
		},
	}

	p := newParts(t, authserver.Config{
		Methods:       []string{authserver.Basic, authserver.SecretJWT, authserver.PrivateKeyJWT, authserver.TLSClientAuth},
		ClientKeys:    authserver.PublicKeys(ecKey().Public(), rsaKey().Public(), edKey().Public()),
		ClientSubject: "CN=" + appClient, DPoP: authserver.DPoPAllowed,
		FederatedKeys: authserver.PublicKeys(ecKey().Public()), FederatedIssuer: cluster, FederatedSubject: serviceAccount, FederatedAudience: "idp",
		AssertionKeys: authserver.PublicKeys(ecKey().Public(), edKey().Public()), Assertion: "the-assertion-of-the-test",
		SubjectTokens: func(token string) (string, bool) { return "somebody", token == "a-subject-token-of-somebody" },
	})
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM([]byte(cert))
	overTLS, err := authserver.ListenTLS("127.0.0.1:0", p.auth, &tls.Config{
		Certificates: []tls.Certificate{server}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = overTLS.Close() })

	root := t.TempDir()
	replace := func(c badCase) *strings.Replacer {
		return strings.NewReplacer("$DIR", filepath.Join(root, c.name), "$TOKEN", p.server.URL()+authserver.TokenPath, "$TLS", overTLS.URL()+authserver.TokenPath)
	}
	for _, c := range cases {
		lay(t, root, c.name, c.bad)
	}
	p.runCases(cases, replace, func(c badCase) string {
		if strings.Contains(c.credential, "dpop") || strings.HasPrefix(c.name, "jwt") {
			return "reverse_proxy $API {\ntransport upstream_auth " + c.name + "\n}"
		}
		return "upstream_auth " + c.name + "\nreverse_proxy $API"
	})
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := p.of(t)
			for i, word := range c.says {
				c.says[i] = replace(c).Replace(word)
			}
			p.turnedAway(c)
		})
	}
	if n := p.api.Missing() + p.api.Unknown() + p.api.Malformed(); n != 0 {
		t.Errorf("the API was asked %d times without a good token", n)
	}

	eventually(t, "a second failure of some, which is not told again", func() bool {
		again := 0
		for _, e := range credentials.newest() {
			if e.source.Snapshot().Failures > 1 {
				again++
			}
		}
		return again >= len(cases)/5
	})
	for _, c := range cases {
		lay(t, root, c.name, c.good)
	}
	mended := time.Now()
	for _, c := range cases {
		t.Run(c.name+"/put right", func(t *testing.T) {
			p := p.of(t)
			eventually(t, "a token", func() bool { return p.get("/"+c.name+"/").status == http.StatusOK })
			if took := credentials.newest()[c.name].source.Snapshot().Obtained.Sub(mended); took > 2*time.Second {
				t.Errorf("it took %s to see that the file was put right, want 2s at most", took)
			}
			if lines := p.linesOf(c.name); len(lines) != 1 {
				t.Errorf("%d log lines, want 1:\n%s", len(lines), strings.Join(lines, ""))
			}
		})
	}
	log := p.logged()
	for _, c := range cases {
		for _, files := range []map[string]string{c.bad, c.good} {
			for name, content := range files {
				if name != "ca" && name != "cert" && content != directory {
					p.keepsSecret(log, content)
				}
			}
		}
	}
	for _, r := range p.auth.Log() {
		for _, name := range []string{"client_assertion", "assertion", "subject_token"} {
			if v := r.Form.Get(name); v != "" {
				p.keepsSecret(log, v)
			}
		}
	}
}

// of has a subtest fail by itself.
func (p *parts) of(t *testing.T) *parts {
	t.Helper()
	own := *p
	own.t = t
	return &own
}

// TestReadableFile: a key or a JWT that everybody on the machine can read is
// warned about once, and used.
func TestReadableFile(t *testing.T) {
	p := newParts(t, authserver.Config{
		Methods: []string{authserver.Basic, authserver.PrivateKeyJWT}, ClientKeys: authserver.PublicKeys(ecKey().Public()), Lifetime: 2 * time.Second,
		FederatedKeys: authserver.PublicKeys(ecKey().Public()), FederatedIssuer: cluster, FederatedSubject: serviceAccount, FederatedAudience: "idp",
	})
	cases := []badCase{
		{name: "jwt", credential: "token_url $TOKEN\nclient_auth jwt_file $DIR/jwt\n" + often},
		{name: "key", credential: "token_url $TOKEN\nclient_id app\nclient_auth private_key_jwt {\nkey_file $DIR/key\n}\n" + often},
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"jwt": accountJWT(nil), "key": inPEM(ecKey())} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o644); err != nil { // whatever the umask is
			t.Fatal(err)
		}
	}
	p.runCases(cases, func(badCase) *strings.Replacer {
		return strings.NewReplacer("$DIR", dir, "$TOKEN", p.server.URL()+authserver.TokenPath)
	}, func(c badCase) string { return "upstream_auth " + c.name + "\nreverse_proxy $API" })
	for _, c := range cases {
		p.want(p.get("/"+c.name+"/"), http.StatusOK)
	}
	issued := p.auth.Issued()
	eventually(t, "more tokens", func() bool { return p.auth.Issued() >= issued+6 })
	for _, c := range cases {
		lines := p.linesOf(c.name)
		if len(lines) != 1 || !strings.Contains(lines[0], filepath.Join(dir, c.name)) || !strings.Contains(lines[0], "chmod o-r") {
			t.Errorf("%s: want one line that names the file and what to do, got %d:\n%s", c.name, len(lines), strings.Join(lines, ""))
		}
	}
}

// TestBadMetadata: what a server says of itself is believed as far as it goes,
// and what cannot be used is told with both sides and what to write.
func TestBadMetadata(t *testing.T) {
	var followed atomic.Int32
	elsewhere := listen(t, "127.0.0.1:0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Add(1) }))
	const basic = "issuer $ISSUER\nclient_id app\nclient_auth client_secret_basic {env." + secretEnv + "}"
	set := func(pairs ...any) func(map[string]any) {
		return func(members map[string]any) {
			for i := 0; i < len(pairs); i += 2 {
				if members[pairs[i].(string)] = pairs[i+1]; pairs[i+1] == nil {
					delete(members, pairs[i].(string))
				}
			}
		}
	}
	keyFile := writeFile(t, "key", []byte(inPEM(ecKey())))
	type metadataCase struct {
		badCase
		edit  func(map[string]any)
		fault authserver.Fault
	}
	odd := []metadataCase{
		{badCase{"another-issuer", basic, nil, nil, []string{"metadata at $ISSUER/.well-known/openid-configuration", "for the issuer https://other.example.com", "configured is $ISSUER", "write issuer https://other.example.com"}, 0}, set("issuer", "https://other.example.com"), nil},
		{badCase{"no-token-endpoint", basic, nil, nil, []string{"metadata at $ISSUER", "no token_endpoint", "write token_url in place of issuer"}, 0}, set("token_endpoint", nil), nil},
		{badCase{"no-issuer", basic, nil, nil, []string{"metadata at $ISSUER", "no issuer", "write token_url in place of issuer"}, 0}, set("issuer", nil), nil},
		{badCase{"http-endpoint", basic, nil, nil, []string{"token_endpoint", "idp.example.com", "http", "https", "insecure_token_url"}, 0}, set("token_endpoint", "http://idp.example.com/token"), nil},
		{badCase{"http-alias", basic, nil, nil, []string{"mtls_endpoint_aliases.token_endpoint", "idp.example.com", "http", "insecure_token_url"}, 0}, set("mtls_endpoint_aliases", map[string]any{"token_endpoint": "http://idp.example.com/token"}), nil},
		{badCase{"endpoint-that-is-no-text", basic, nil, nil, []string{"token_endpoint is not a string"}, 0}, set("token_endpoint", []string{"x"}), nil},
		{badCase{"method-that-is-not-listed", basic, nil, nil, []string{"client_auth", "client_secret_basic is not among", "client_secret_post, tls_client_auth", "token_url in place of issuer"}, 0}, set("token_endpoint_auth_methods_supported", []string{"client_secret_post", "tls_client_auth"}), nil},
		{
			badCase{"alg-that-is-not-listed", "issuer $ISSUER\nclient_id app\nclient_auth private_key_jwt {\nkey_file " + keyFile + "\n}", nil, nil, []string{"private_key_jwt", "EC on P-256", "ES256", "RS256, PS256"}, 0},
			set("token_endpoint_auth_signing_alg_values_supported", []string{"RS256", "PS256"}), nil,
		},
		{badCase{"nothing-there", basic, nil, nil, []string{"no metadata found", "$ISSUER/.well-known/openid-configuration gave HTTP 404", "oauth-authorization-server gave HTTP 404", "token_url in place of issuer"}, 0}, nil, authserver.Status(http.StatusNotFound)},
		{badCase{"redirect", basic, nil, nil, []string{"no metadata found", "HTTP 302", "redirect to the host " + elsewhere.Addr(), "not followed"}, http.StatusServiceUnavailable}, nil, authserver.Redirect(http.StatusFound, elsewhere.URL()+"/.well-known/openid-configuration")},
		{badCase{"permanent-redirect", basic, nil, nil, []string{"no metadata found", "HTTP 308", "redirect to the host " + elsewhere.Addr(), "not followed"}, http.StatusServiceUnavailable}, nil, authserver.Redirect(http.StatusPermanentRedirect, elsewhere.URL())},
		{badCase{"page", basic, nil, nil, []string{"no metadata found", "a page (HTML or XML)"}, http.StatusServiceUnavailable}, nil, authserver.Raw(http.StatusOK, "text/html", "<html>log in")},
		{badCase{"cut-in-half", basic, nil, nil, []string{"no metadata found", "cut short"}, http.StatusServiceUnavailable}, nil, authserver.Raw(http.StatusOK, "application/json", `{"issuer":"https://idp.exam`)},
		{badCase{"other-json", basic, nil, nil, []string{"no metadata found", "without issuer and token_endpoint"}, http.StatusServiceUnavailable}, nil, authserver.Raw(http.StatusOK, "application/json", `{"status":"UP"}`)},
	}
	p := newParts(t, authserver.Config{})
	var mended atomic.Bool
	issuers := make(map[string]string)
	var servers []*authserver.Server
	var cases []badCase
	for _, c := range odd {
		auth := authserver.New(authserver.Config{
			ClientID: appClient, ClientSecret: oddSecret, Methods: []string{authserver.Basic, authserver.PrivateKeyJWT}, ClientKeys: authserver.PublicKeys(ecKey().Public()),
			MetadataEdit: func(members map[string]any) {
				if c.edit != nil && !mended.Load() {
					c.edit(members)
				}
			},
		})
		auth.Metadata.SetFault(c.fault)
		issuers[c.name] = listen(t, "127.0.0.1:0", auth).URL()
		servers, cases = append(servers, auth), append(cases, c.badCase)
	}
	replace := func(c badCase) *strings.Replacer { return strings.NewReplacer("$ISSUER", issuers[c.name]) }
	p.runCases(cases, replace, func(c badCase) string { return "upstream_auth " + c.name + "\nrespond ok" })
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := p.of(t)
			for i, word := range c.says {
				c.says[i] = replace(c).Replace(word)
			}
			p.turnedAway(c)
			if n := servers[i].Requests(); n != 0 {
				t.Errorf("%d token requests were made, want 0", n)
			}
		})
	}
	mended.Store(true)
	for _, auth := range servers {
		auth.Metadata.SetFault(nil)
	}
	works := func(c badCase) bool { return p.get("/"+c.name+"/").status == http.StatusOK }
	eventually(t, "half of them work by themselves", func() bool {
		n := 0
		for _, c := range cases {
			if works(c) {
				n++
			}
		}
		return n >= len(cases)/2
	})
	// behind a refusal the next attempt may be far: the rest are hurried
	hurry := func(c badCase) { _, _ = credentials.newest()[c.name].source.Refresh(t.Context()) }
	for _, c := range cases {
		hurry(c)
	}
	for _, c := range cases {
		t.Run(c.name+"/mended", func(t *testing.T) {
			eventually(t, "a token", func() bool {
				hurry(c)
				return works(c)
			})
		})
	}
	if followed.Load() != 0 {
		t.Error("a redirect was followed")
	}
	p.keepsSecret(p.logged(), inPEM(ecKey()))
}
