package caddymodule

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

// check checks a Caddyfile's credentials in this process, and returns what came
// of each and what is printed. Neither may hold a secret.
func (p *parts) check(caddyfile string, edit func(*checkup), hidden ...string) ([]*checked, string) {
	p.t.Helper()
	roster, err := provisionAll(adapt(p.t, caddyfile))
	if err != nil {
		p.t.Fatal(err)
	}
	told := new(output)
	k := &checkup{roster: roster, values: make(map[string]string), progress: newProgress(told, false, len(roster.candidates))}
	if edit != nil {
		edit(k)
	}
	all := k.run(p.t.Context())
	k.close()
	p.nothingLeft()
	var table, object bytes.Buffer
	if err := (&checkTable{statusTable{out: &table}}).all(all); err != nil {
		p.t.Fatal(err)
	}
	if err := printJSON(&object, all); err != nil {
		p.t.Fatal(err)
	}
	text := table.String()
	if err := p.tellsNothing(text + object.String() + told.String()); err != nil {
		p.t.Error(err)
	}
	for _, secret := range hidden {
		if strings.Contains(text+object.String()+told.String(), secret) {
			p.t.Errorf("%q is shown: %s", secret, text)
		}
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\n' }) {
		p.t.Errorf("a control character is printed: %q", text)
	}
	return all, text
}

// holds checks what is printed.
func holds(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("want %q in\n%s", w, text)
		}
	}
}

// crm is a whole Caddyfile with one credential.
func (p *parts) crm(credential string) string { return p.caddyfile(credential, "respond ok") }

func spending(k *checkup) { k.spend = true }

// secretFile is a credential's block whose secret is in a file.
func (p *parts) secretFile(content string, more ...string) string {
	return strings.Replace(p.credential(more...), "{env."+secretEnv+"}", "{file."+writeFile(p.t, "secret", []byte(content))+"}", 1)
}

// issued is a certificate of a server at 127.0.0.1, or as it is edited.
func issued(t *testing.T, edit func(*x509.Certificate)) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "app"}, DNSNames: []string{"idp.example.com"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	edit(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func pemKey(t *testing.T) (crypto.Signer, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// TestCheck: one credential that is well, in the table and for a program.
func TestCheck(t *testing.T) {
	p := newParts(t, authserver.Config{Lifetime: time.Hour})
	all, text := p.check(p.crm(p.credential("scopes read write")), nil)
	holds(t, text, "CREDENTIAL  RESULT  LIFETIME  TYPE    SCOPES      TOOK\ncrm         ok      1h        Bearer  read write  ", "No credential failed.")
	if lines := strings.Count(text, "\n"); lines != 4 {
		t.Errorf("%d lines for what is well:\n%s", lines, text)
	}
	if n := p.auth.Requests(); n != 1 || all[0].Took <= 0 {
		t.Errorf("%d token requests, which took %gs", n, all[0].Took)
	}
	raw, err := json.Marshal(all[0])
	if err != nil {
		t.Fatal(err)
	}
	all[0].Took = 0
	want := `{"credential":"crm","grant":"client_credentials","client_auth":"client_secret_basic","result":"ok",` +
		`"token":{"type":"Bearer","lifetime_seconds":3600,"lifetime_assumed":false,"scopes":["read","write"],"length":46},"took_seconds":`
	if !strings.HasPrefix(string(raw), want) || !strings.HasSuffix(string(raw), `,"findings":[]}`) {
		t.Errorf("got %s, want %s…", raw, want)
	}
}

// TestCheckRefusal: of each refusal the cause is found.
func TestCheckRefusal(t *testing.T) {
	const plain = "correct-horse"
	raw := authserver.Config{BasicEncoding: "raw"}
	key, _ := pemKey(t)
	_, otherPEM := pemKey(t)
	withKey := authserver.Config{Methods: []string{authserver.PrivateKeyJWT}, ClientKeys: authserver.PublicKeys(key.Public())}
	jwt := "client_auth private_key_jwt {\nkey_file " + writeFile(t, "other.pem", otherPEM) + "\n}"
	quiet := func(m map[string]any) { delete(m, "token_endpoint_auth_methods_supported") }
	for name, tc := range map[string]struct {
		config authserver.Config
		secret string   // in a file, oddSecret unless set
		edit   []string // of the credential's block, old and new in turn
		first  authserver.Fault
		fault  authserver.Fault
		probe  bool
		asked  int // token requests, 1 unless set
		says   []string
		not    string
	}{
		"a blank":           {secret: oddSecret + " \n", says: []string{"the client secret begins or ends with a blank or a line end", "printf %s", "#client-refused"}},
		"two line ends":     {secret: oddSecret + "\r\n\r\n", says: []string{"begins or ends with a blank or a line end"}},
		"a byte order mark": {secret: "\ufeff" + oddSecret, says: []string{"byte order mark"}},
		"quotation marks":   {secret: `"` + oddSecret + `"`, says: []string{"stands in quotation marks"}},
		"base64 twice":      {secret: base64.StdEncoding.EncodeToString([]byte(oddSecret + "=")), says: []string{"is base64 of readable text", "stringData"}},
		"a template":        {secret: "${CRM_SECRET}", says: []string{"looks like a placeholder"}},
		"another":           {secret: "correct-horse", says: []string{"the server refuses the client (invalid_client, HTTP 401)", "the secret looks in order", "expired or was rotated", `“unknown client, wrong secret, or a method not accepted here”`, "--probe"}},
		"raw":               {config: raw, says: []string{"most likely this server wants the other encoding: in the block client_auth client_secret_basic of the credential crm write: encoding raw", "caddy upstream-auth check crm --probe"}},
		"raw, probed":       {config: raw, probe: true, asked: 2, says: []string{"takes it by client_secret_basic raw", "in the block client_auth client_secret_basic of the credential crm write: encoding raw\n"}, not: "--probe"},
		"form, probed": {
			config: authserver.Config{BasicEncoding: "form"}, edit: []string{"\n\n", "\n", "secret}", "secret} {\nencoding raw\n}"}, probe: true, asked: 2,
			says: []string{"write: encoding form\n"},
		},
		"post, by the metadata": {config: authserver.Config{Methods: []string{authserver.Post}}, says: []string{"the server does not take client_secret_basic, by its metadata: it takes client_secret_post", "client_auth client_secret_post"}},
		"post, with an issuer": {
			config: authserver.Config{Methods: []string{authserver.Post}}, edit: []string{"token_url", "issuer", "/token", ""}, asked: -1,
			says: []string{"client_secret_basic is not among the methods that the server's metadata has: client_secret_post"},
		},
		"post, probed": {
			config: authserver.Config{Methods: []string{authserver.Post}, MetadataEdit: quiet}, probe: true, asked: 3,
			says: []string{"client_auth client_secret_post {file.", "takes it by client_secret_post"}, not: "as now",
		},
		"basic, probed": {
			config: authserver.Config{Methods: []string{authserver.Basic}, BasicEncoding: "raw", MetadataEdit: quiet}, probe: true, asked: 3,
			edit: []string{"client_secret_basic", "client_secret_post"},
			says: []string{"client_auth client_secret_basic {file.", "in its block: encoding raw"},
		},
		"nothing helps": {secret: plain, probe: true, asked: 2, says: []string{"refuses it in every way that was tried"}},
		"the server gives up": {
			probe: true, asked: 2, first: authserver.Invalid("invalid_client", "no"), fault: authserver.TooMany("60"),
			says: []string{"invalid_client", "encoding raw"},
		},
		"a wrong key": {config: withKey, edit: []string{"client_auth client_secret_basic {file.SECRET}", jwt}, says: []string{"the server refuses the client's signed assertion", "the public key is not registered"}},
		"a clock": {
			config: withKey, edit: []string{"client_auth client_secret_basic {file.SECRET}", jwt}, fault: authserver.AnswerHeader("Date", time.Now().Add(10*time.Minute).UTC().Format(http.TimeFormat)),
			says: []string{"behind the server's", "refuses the client's assertion, which holds the time", "#clock"},
		},
		"no way is surer than one that works": {
			first: authserver.Invalid("invalid_client", "AADSTS7000215: Invalid client secret provided."), probe: true, asked: 2, config: raw,
			says: []string{"encoding raw", "AADSTS7000215"},
		},
		"an unknown scope": {
			config: authserver.Config{Scopes: []string{"read", "write"}}, edit: []string{"client_id", "scopes read wrte\nclient_id"},
			says: []string{"the server's metadata does not have the scope wrte", "scopes read; the server knows read, write", "#scope-refused"},
		},
		"an unknown scope, with an issuer": {
			config: authserver.Config{Scopes: []string{"read", "write"}}, edit: []string{"client_id", "scopes read wrte\nclient_id", "token_url", "issuer", "/token", ""},
			says: []string{"does not have the scope wrte"},
		},
		"an unknown scope, no metadata": {
			config: authserver.Config{Scopes: []string{"read"}, NoOpenIDMetadata: true, NoOAuthMetadata: true}, edit: []string{"client_id", "scopes read wrte\nclient_id"},
			says: []string{"one of the scopes read, wrte"},
		},
		"another issuer": {
			config: authserver.Config{Issuer: "https://idp.example.com"}, edit: []string{"token_url", "issuer", "/token", ""}, asked: -1,
			says: []string{"it is for the issuer https://idp.example.com, and configured is http://127.0.0.1:", "#wrong-answer"},
		},
		"no token endpoint": {
			config: authserver.Config{MetadataEdit: func(m map[string]any) { delete(m, "token_endpoint") }}, edit: []string{"token_url", "issuer", "/token", ""}, asked: -1,
			says: []string{"token_endpoint", "#wrong-answer"},
		},
		"words for a terminal": {
			fault: authserver.Raw(400, "application/json", `{"error":"invalid_request","error_description":"\u001b[2Jcleared\u202e"}`),
			says:  []string{"“[2Jcleared”", "HTTP 400 invalid_request"},
		},
		"a page": {fault: authserver.Raw(200, "text/html", "<html>Log in</html>"), says: []string{"page", "#wrong-answer"}},
		"down":   {fault: authserver.Down(), says: []string{"503", "#unreachable"}},
		"an echo": {
			secret: plain, fault: authserver.Raw(401, "application/json", `{"error":"invalid_client","error_description":"wrong: `+plain+`"}`), says: []string{"wrong: ***"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParts(t, tc.config)
			p.auth.SetFault(tc.fault)
			if tc.first != nil {
				p.auth.FailNext(1, tc.first)
			}
			if tc.secret == "" {
				tc.secret = oddSecret
			}
			block := p.secretFile(tc.secret)
			start := strings.Index(block, "{file.")
			path := block[start : start+strings.Index(block[start:], "}")+1]
			edits := slices.Clone(tc.edit)
			for i := range edits {
				edits[i] = strings.ReplaceAll(edits[i], "{file.SECRET}", path)
			}
			block = strings.NewReplacer(edits...).Replace(block)
			all, text := p.check(p.crm(block), func(k *checkup) { k.probe = tc.probe }, strings.TrimSpace(tc.secret))
			holds(t, text, tc.says...)
			if all[0].Result != checkedFailed || tc.not != "" && strings.Contains(text, tc.not) {
				t.Errorf("got %s\n%s", all[0].Result, text)
			}
			if want := max(tc.asked, 0); tc.asked == 0 && p.auth.Requests() != 1 || tc.asked != 0 && p.auth.Requests() != want {
				t.Errorf("%d token requests, want %d", p.auth.Requests(), max(want, tc.asked))
			}
		})
	}
}

// TestCheckConnection: what stands between here and the server is told.
func TestCheckConnection(t *testing.T) {
	good, goodCA := selfSigned(t, "127.0.0.1")
	named, namedCA := issued(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Hour) })
	ended, endedCA := issued(t, func(c *x509.Certificate) { c.IPAddresses = append(c.IPAddresses, []byte{127, 0, 0, 1}) })
	client, clientPEM := issued(t, func(*x509.Certificate) {})
	soon, soonPEM := issued(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(50 * time.Hour) })
	trusts := func(ca []byte) string { return "tls {\nca " + writeFile(t, "ca.pem", ca) + "\n}" }
	shows := func(cert tls.Certificate, certPEM []byte) []string {
		return []string{"client_secret_basic {env." + secretEnv + "}", fmt.Sprintf("tls_client_auth {\ncert %s\nkey %s\n}", writeFile(t, "cert.pem", certPEM), writeFile(t, "key.pem", keyPEM(t, cert)))}
	}
	gateway := func(status int, body string) string {
		l := listen(t, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}))
		return "proxy " + l.URL()
	}
	closed := freeport.Addr(t)
	for name, tc := range map[string]struct {
		server tls.Certificate
		more   string
		edit   []string
		warns  bool
		says   []string
	}{
		"a CA that is not known": {server: good, says: []string{"unknown", "ca ", "#tls"}},
		"another name":           {server: named, more: trusts(namedCA), says: []string{"127.0.0.1", "idp.example.com", "#tls"}},
		"ended":                  {server: ended, more: trusts(endedCA), says: []string{"ended", "#tls"}},
		"a client's that ended":  {server: good, more: trusts(goodCA), edit: shows(client, clientPEM), says: []string{"the certificate ended on"}},
		"a client's that ends soon": {
			server: good, more: trusts(goodCA), edit: shows(soon, soonPEM), says: []string{"the client's certificate ends on"},
		},
		"no such name":    {edit: []string{"$SERVER", "https://no-such-host.invalid/token"}, says: []string{"the name no-such-host.invalid does not exist in DNS"}},
		"nobody there":    {edit: []string{"$SERVER", "https://" + closed + "/token"}, says: []string{"nothing listens at " + closed}},
		"a proxy's page":  {more: gateway(200, "<html>Please log in</html>") + "\ninsecure_token_url", edit: []string{"$SERVER", "http://idp.example.com/token"}, says: []string{"page", "proxy"}},
		"a proxy's login": {server: good, more: gateway(407, "<html>who are you</html>"), says: []string{"refuses to connect to", "407", "proxy http://<user>:<password>@"}},
		"no proxy there":  {server: good, more: "proxy http://" + closed, says: []string{"no connection to the proxy " + closed}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParts(t, authserver.Config{})
			block := strings.ReplaceAll(p.credential(tc.more), p.server.URL()+authserver.TokenPath, "$SERVER")
			block = strings.NewReplacer(tc.edit...).Replace(block)
			if tc.server.Certificate != nil {
				l, err := authserver.ListenTLS("127.0.0.1:0", p.auth, &tls.Config{Certificates: []tls.Certificate{tc.server}})
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				block = strings.ReplaceAll(block, "$SERVER", l.URL()+authserver.TokenPath)
			}
			all, text := p.check(p.crm(block), nil)
			holds(t, text, tc.says...)
			if all[0].Result != checkedFailed {
				t.Errorf("got %s\n%s", all[0].Result, text)
			}
		})
	}
}

// TestCheckWarnings: a token came, and something may yet go wrong.
func TestCheckWarnings(t *testing.T) {
	_, keyPEM := pemKey(t)
	exposed := writeFile(t, "key.pem", keyPEM)
	if err := os.Chmod(exposed, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		config authserver.Config
		fault  authserver.Fault
		more   string
		says   []string
	}{
		"a clock": {
			fault: authserver.AnswerHeader("Date", time.Now().Add(-10*time.Minute).UTC().Format(http.TimeFormat)),
			says:  []string{"this machine's clock is 10m", "ahead of the server's", "#clock"},
		},
		"a large token":  {config: authserver.Config{Issue: func(int) string { return strings.Repeat("t", 20<<10) }}, says: []string{"the token has 20.0 KiB", "large_client_header_buffers 4 32k"}},
		"a short life":   {config: authserver.Config{Lifetime: 5 * time.Second}, says: []string{"5s", "the token lives 5s", "#short-lifetime"}},
		"no lifetime":    {fault: authserver.Answer(func(m map[string]any) { delete(m, "expires_in") }), says: []string{"5m (assumed)", "default_lifetime"}},
		"a scope less":   {more: "scopes read write", fault: authserver.Answer(func(m map[string]any) { m["scope"] = "read" }), says: []string{"missing: write"}},
		"an exposed key": {config: authserver.Config{DPoP: authserver.DPoPAllowed}, more: "dpop {\nkey_file " + exposed + "\n}", says: []string{"DPoP", "everybody on this machine can read", exposed, "chmod o-r"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParts(t, tc.config)
			p.auth.SetFault(tc.fault)
			all, text := p.check(p.crm(p.credential(tc.more)), nil, strings.Repeat("t", 60))
			holds(t, text, append(tc.says, "warning", "No credential failed.")...)
			if all[0].Result != checkedWarning {
				t.Errorf("got %s\n%s", all[0].Result, text)
			}
		})
	}
}

// TestCheckReaches: a server that is only looked at sees a connection, and not a
// byte of a request on it.
func TestCheckReaches(t *testing.T) {
	cert, ca := selfSigned(t, "127.0.0.1")
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	read := make(chan string, 10)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if err := conn.(*tls.Conn).Handshake(); err != nil {
				read <- "no handshake"
			} else {
				content, _ := io.ReadAll(conn)
				read <- string(content)
			}
			_ = conn.Close()
		}
	}()
	seen := func() string {
		select {
		case content := <-read:
			return content
		case <-time.After(20 * time.Second):
			return "no connection"
		}
	}
	p := newParts(t, authserver.Config{})
	block := strings.Replace(p.refreshing("initial-refresh-token"), p.server.URL()+authserver.TokenPath, "https://"+l.Addr().String()+"/token", 1)
	all, text := p.check(p.crm(block+"tls {\nca "+writeFile(t, "ca.pem", ca)+"\n}"), nil, "initial-refresh-token")
	if got := seen(); got != "" || all[0].Result != checkedInspected || all[0].Took <= 0 {
		t.Errorf("the server has read %q\n%s", got, text)
	}
	_, text = p.check(p.crm(block), nil, "initial-refresh-token")
	holds(t, text, "#tls", "Failed: crm.")
	if got := seen(); got != "no handshake" {
		t.Errorf("the server has read %q", got)
	}
}
