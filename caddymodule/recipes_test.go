package caddymodule

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

// recipe is a block of docs/recipes.md, and the copy of the server that it is
// for.
type recipe struct {
	heading string
	vendor  authserver.Vendor
	config  authserver.Config
	hosts   string // those of the server, as a regular expression
	login   bool   // a person has to log in
	query   bool   // the API takes the token in the query
}

const oneAccess authserver.Vendor = "" // the copy that is no Vendor

// recipes are in the order of the page.
var recipes = []recipe{
	{heading: "Huawei Cloud OneAccess", vendor: oneAccess, hosts: `https://oneaccess\.example\.com`},
	{heading: "Huawei Cloud OneAccess", vendor: authserver.OneAccessOAuth, hosts: `https://oneaccess\.example\.com`},
	{heading: "Huawei Cloud OneAccess", vendor: authserver.OneAccessOIDC, hosts: `https://oneaccess\.example\.com`, login: true},
	{heading: "Tencent Cloud CIAM", vendor: authserver.TencentCIAM, hosts: `https://sample\.portal\.tencentciam\.com`},
	{heading: "Microsoft Entra ID, with workload identity", vendor: authserver.Entra, hosts: `https://login\.microsoftonline\.com`},
	{heading: "Keycloak", vendor: authserver.Keycloak, hosts: `https://keycloak\.example\.com`, config: authserver.Config{
		IssuerPath: "/realms/demo", Methods: []string{authserver.PrivateKeyJWT}}},
	{heading: "Okta", vendor: authserver.Okta, hosts: `https://example\.okta\.com`, config: authserver.Config{
		IssuerPath: "/oauth2/default", Methods: []string{authserver.PrivateKeyJWT}, DPoP: authserver.DPoPRequired, DPoPNonce: true}},
	{heading: "Auth0", vendor: authserver.Auth0, hosts: `https://example\.eu\.auth0\.com`},
	{heading: "Amazon Cognito", vendor: authserver.Cognito, hosts: `https://example\.auth\.eu-central-1\.amazoncognito\.com`},
	{heading: "Google service account", vendor: authserver.Google, hosts: `https://oauth2\.googleapis\.com`},
	{heading: "Salesforce", vendor: authserver.Salesforce, hosts: `https://example\.my\.salesforce\.com`},
	{heading: "Salesforce", vendor: authserver.Salesforce, hosts: `https://example\.my\.salesforce\.com`, config: authserver.Config{
		AssertionAudiences: []string{"https://login.salesforce.com"}}},
	{heading: "Zoom, server-to-server", vendor: authserver.Zoom, hosts: `https://zoom\.us`},
	{heading: "WeChat", vendor: authserver.WeChat, hosts: `https://api\.weixin\.qq\.com`, query: true},
	{heading: "Any other", vendor: authserver.Enveloped, hosts: `https://api\.example\.com`},
	{heading: "Any other", vendor: authserver.Milliseconds, hosts: `https://api\.example\.com`},
}

// TestRecipes runs each block of the page, with the hosts exchanged and its
// files in another folder, and nothing else.
func TestRecipes(t *testing.T) {
	page, err := os.ReadFile("../docs/recipes.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks [][2]string // heading and text
	heading := ""
	for part := range strings.SplitSeq(string(page), "\n## ") {
		heading, _, _ = strings.Cut(part, "\n")
		for _, block := range regexp.MustCompile("(?s)```caddyfile\n(.*?)```").FindAllStringSubmatch(part, -1) {
			blocks = append(blocks, [2]string{heading, block[1]})
		}
	}
	if len(blocks) != len(recipes) {
		t.Fatalf("the page has %d blocks, and %d are tested", len(blocks), len(recipes))
	}
	for i, r := range recipes {
		if blocks[i][0] != r.heading {
			t.Errorf("block %d stands under %q, want %q", i, blocks[i][0], r.heading)
		}
		t.Run(fmt.Sprintf("%d %s", i, r.heading), func(t *testing.T) { r.run(t, blocks[i][1]) })
	}
}

func (r *recipe) run(t *testing.T, text string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	addr := freeport.Addr(t)
	config := r.config
	config.ClientID, config.ClientSecret, config.RefreshTokens = appClient, oddSecret, true
	config.ClientKeys = authserver.PublicKeys(key.Public())
	config.AssertionKeys = config.ClientKeys
	if id := regexp.MustCompile(`(?m)^\s*client_id ([a-z]+)`).FindStringSubmatch(text); id != nil {
		config.ClientID = id[1]
	}
	if r.vendor == authserver.Google {
		config.ClientID, config.AssertionAudiences = "robot@example.iam.gserviceaccount.com", []string{"http://" + addr + "/token"}
	}
	signer := newFederation(t, &config)
	auth := authserver.NewOneAccess(config)
	if r.vendor != oneAccess {
		auth = authserver.NewVendor(r.vendor, config)
	}
	p := assemble(t, auth)
	p.server = listen(t, addr, auth)
	if r.query {
		p.upstream = listen(t, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if _, err := auth.Verify(req.URL.Query().Get("access_token")); err != nil || req.Header.Get("X-Access-Token") != "" {
				http.Error(w, fmt.Sprint(err), http.StatusUnauthorized)
			}
		}))
	}

	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	keyText := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	account, err := json.Marshal(map[string]string{"type": "service_account", "client_email": config.ClientID, "private_key": string(keyText), "private_key_id": "1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range regexp.MustCompile(`/run/secrets/([a-z0-9.-]+)`).FindAllStringSubmatch(text, -1) {
		content := []byte(oddSecret)
		switch name := path[1]; {
		case name == "store-key":
			content = []byte("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n")
		case name == "first-refresh-token":
			content = []byte(auth.IssueRefreshToken())
		case name == "service-account.json":
			content = account
		case strings.HasSuffix(name, "-key"):
			content = keyText
		}
		file(path[1], content)
	}
	for _, name := range regexp.MustCompile(`\{env\.([A-Z0-9_]+)\}`).FindAllStringSubmatch(text, -1) {
		value := appClient
		switch name[1] {
		case "AZURE_TENANT_ID":
			value = "00000000-0000-0000-0000-000000000000"
		case "AZURE_FEDERATED_TOKEN_FILE":
			value = file("federated", []byte(signer()))
		case "OKTA_KEY_ID":
			value = "1"
		case "APP_ID":
			value = config.ClientID
		}
		t.Setenv(name[1], value)
	}
	// the upstream first: it may be a host of the server's
	text = regexp.MustCompile(`reverse_proxy https://[^ \n]+`).ReplaceAllString(text, "reverse_proxy "+p.upstream.URL())
	text = regexp.MustCompile(r.hosts).ReplaceAllString(text, p.server.URL())
	redirect := strings.TrimSuffix(strings.TrimPrefix(callbackOn(t, "127.0.0.1"), "redirect_uri http://"), "/callback")
	text = strings.NewReplacer(
		"/run/secrets/", dir+"/", "localhost:8080", p.proxy, "127.0.0.1:8400", redirect,
		"persist_config off", "persist_config off\nstorage file_system "+p.storage+"\nlog {\noutput file "+p.log+"\nlevel DEBUG\n}",
	).Replace(text)
	if err := p.load(text); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if r.login {
		p.want(p.get("/"), http.StatusBadGateway)
		p.logIn(text, "oneaccess")
		eventually(t, "a token after the login", func() bool { return p.get("/").status == http.StatusOK })
	}
	a := p.get("/")
	p.want(a, http.StatusOK)
	if t.Failed() {
		t.Logf("%s\n%s", text, p.logged())
	}
}

// logIn runs the command login in a browser's place.
func (p *parts) logIn(caddyfile, credential string) {
	p.t.Helper()
	raw, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	c, err := provisionCredential(raw, credential)
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.close()
	l := &login{configured: c, out: io.Discard, wait: time.Minute, open: func(address string) {
		go func() {
			if res, err := http.Get(address); err == nil {
				_ = res.Body.Close()
			}
		}()
	}}
	if err := l.run(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}
