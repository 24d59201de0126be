package caddymodule

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// TestCheckFindsAll: those with names, and those written in place wherever
// handlers and transports stand; equal ones are one, by the name that a running
// Caddy has for them.
func TestCheckFindsAll(t *testing.T) {
	p := newParts(t, authserver.Config{})
	inline := func(scope string) string { return "upstream_auth {\n" + p.credential("scopes "+scope) + "}\n" }
	site := "handle /a/* {\nroute {\n" + inline("deep") + "respond ok\n}\n}\n" +
		"handle /b/* {\n" + inline("deep") + "respond ok\n}\n" +
		"handle {\nreverse_proxy $API {\ntransport " + inline("carried") + "}\n}\n" +
		"handle_errors {\n" + inline("failed") + "respond error\n}\n"
	config := p.caddyfile(p.credential("scopes named"), "upstream_auth crm\n"+site)
	all, text := p.check(config, nil)
	if len(all) != 4 || p.auth.Requests() != 4 {
		t.Fatalf("%d credentials, %d token requests\n%s", len(all), p.auth.Requests(), text)
	}
	scopes := make(map[string]*checked)
	for _, r := range all {
		scopes[strings.Join(r.Token.Scopes, " ")] = r
	}
	if all[0].Credential != "crm" || len(scopes) != 4 || len(scopes["deep"].Places) != 2 || len(scopes["carried"].Places) != 1 || len(scopes["named"].Places) != 0 {
		t.Errorf("got\n%s", text)
	}
	if place := scopes["failed"].Places[0]; !strings.HasPrefix(place, "apps/http/servers/srv0/errors/routes/") {
		t.Errorf("it is at %s", place)
	}
	holds(t, text, "No credential failed.")

	// under the names that a running Caddy has for them
	if err := p.load(config); err != nil {
		t.Fatal(err)
	}
	running := credentials.newest()
	for _, r := range all {
		if _, ok := running[r.Credential]; !ok {
			t.Errorf("a running Caddy has no %s", r.Credential)
		}
	}
	p.stop()
}

// TestCheckBroken: one credential that is broken leaves the others be.
func TestCheckBroken(t *testing.T) {
	p := newParts(t, authserver.Config{})
	good := fmt.Sprintf(`{"token_url":%q,"client_id":"app","client_auth":{"method":"client_secret_basic","secret":"{env.%s}"}}`, p.server.URL()+authserver.TokenPath, secretEnv)
	config := fmt.Sprintf(`{
		"admin":{"listen":"256.0.0.1:x"},
		"logging":{"logs":{"default":{"writer":{"output":"file","filename":"/nonexistent/caddy.log"}}}},
		"storage":{"module":"file_system","root":%q},
		"apps":{
			"nonsense":{},
			"http":{"servers":{"a":{"listen":["256.0.0.1:x"],"routes":[{"handle":[
				{"handler":"nonsense"},
				{"handler":"upstream_auth","inline":{"token_uri":"x"}},
				{"handler":"upstream_auth","inline":{"token_url":"http://idp.example.com/"}},
				{"handler":"upstream_auth","credential":"good"},
				{"handler":"other","inline":{"token_uri":"x"}}]}]}}},
			"upstream_auth":{"credentials":{
				"good":%s,
				"a name":%s,
				"option":{"token_uri":"https://idp.example.com"},
				"kind":{"token_url":7},
				"null":null,
				"mistaken":{"token_url":"http://idp.example.com/token","client_id":"app"},
				"unknown":{"token_url":"https://idp.example.com/token","client_id":"app","grant":{"type":"nonsense"}}
			}}}}`, p.storage, good, good)
	roster, err := provisionAll([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	defer roster.close()
	k := &checkup{roster: roster, progress: newProgress(new(output), false, 1)}
	results := make(map[string]string)
	for _, r := range k.run(t.Context()) {
		results[r.Credential] = r.Result
		for _, f := range r.Findings {
			results[r.Credential] += ": " + f.Wrong
		}
	}
	for name, want := range map[string]string{
		"good": "ok", "a name": "failed: ", "option": "token_uri", "kind": "token_url", "null": "failed: credential 'null' is null",
		"mistaken": "is no loopback host", "unknown": "'nonsense' is unknown, expected authorization_code, ", "inline": "token_uri",
	} {
		if !strings.Contains(results[name], want) {
			t.Errorf("%s: got %q, want %q", name, results[name], want)
		}
	}
	if len(results) != 9 || p.auth.Requests() != 1 {
		t.Errorf("got %v, after %d token requests", results, p.auth.Requests())
	}
}

// TestCheckNotLoaded: what a check cannot begin with.
func TestCheckNotLoaded(t *testing.T) {
	for name, tc := range map[string]struct{ config, says string }{
		"no object":          {`[]`, "decoding the configuration"},
		"no app's":           {`{"apps":{"upstream_auth":{"credential":{}}}}`, "decoding the configuration"},
		"an unknown storage": {`{"storage":{"module":"nonsense"},"apps":{"upstream_auth":{}}}`, "nonsense"},
		"a key that is none": {`{"apps":{"upstream_auth":{"encryption_keys":["c2hvcnQ="]}}}`, "encryption_key"},
		"no credential":      {`{"apps":{"upstream_auth":{}}}`, "has no credential"},
		"nothing":            {`{}`, "has no credential"},
		"null":               {`null`, "has no credential"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := provisionAll([]byte(tc.config))
			if err == nil {
				err = r.only(nil)
				r.close()
			}
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want %q", err, tc.says)
			}
		})
	}
}

// TestCheckValues: a value that cannot be used, or is of no use, is told before
// anything is asked.
func TestCheckValues(t *testing.T) {
	plain := &roster{candidates: []*candidate{{name: "plain", requester: &requester{credential: new(Credential)}}, {name: "broken"}}}
	tenants := &roster{candidates: []*candidate{{name: "tenants", requester: &requester{credential: &Credential{template: template{names: []string{"http.request.header.X-Tenant"}}}}}}}
	exchanging := &roster{candidates: []*candidate{{name: "users", requester: &requester{credential: &Credential{template: template{exchanges: true}}}}}}
	file := writeFile(t, "token", []byte("hunter2hunter2\n"))
	for name, tc := range map[string]struct {
		roster *roster
		values []string
		says   string
	}{
		"good":            {tenants, []string{"http.request.header.X-Tenant=a=b"}, ""},
		"a token":         {exchanging, []string{"subject_token=@" + file}, ""},
		"no name":         {tenants, []string{"=hunter2"}, "expected <name>=<value>"},
		"no value":        {tenants, []string{"hunter2"}, "expected <name>=<value>"},
		"another name":    {tenants, []string{"header.X-Tenant=hunter2"}, "'header.X-Tenant' is of no use; expected one of http.request.header.X-Tenant"},
		"no template":     {plain, []string{"http.request.header.X-Tenant=hunter2"}, "none of the credentials"},
		"in the open":     {exchanging, []string{"subject_token=hunter2"}, "subject_token=@"},
		"no file":         {exchanging, []string{"subject_token=@/nonexistent"}, "/nonexistent"},
		"no token there":  {exchanging, []string{"subject_token=@" + writeFile(t, "bad", []byte("hunter2 hunter2"))}, "holds no bearer token"},
		"nobody takes it": {tenants, []string{"subject_token=@" + file}, "'subject_token' is of no use"},
	} {
		t.Run(name, func(t *testing.T) {
			k := &checkup{roster: tc.roster}
			err := k.takeValues(tc.values)
			if err == nil {
				err = k.checkValues()
			}
			if tc.says == "" && err != nil || tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "hunter2")) {
				t.Errorf("got %v, want %q", err, tc.says)
			}
		})
	}
}

// TestMetadataPlaces: an issuer is looked for from its endpoint upwards, on the
// same server.
func TestMetadataPlaces(t *testing.T) {
	const openID, oauth = "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"
	for tokenURL, want := range map[string][]string{
		"https://idp.example.com/token":   {openID, oauth},
		"https://idp.example.com":         nil,
		"https://idp.example.com/a/token": {"/a" + openID, oauth + "/a", openID, oauth},
		"https://idp.example.com/realms/demo/protocol/openid-connect/token?x=y": {
			"/realms/demo/protocol/openid-connect" + openID, oauth + "/realms/demo/protocol/openid-connect",
			"/realms/demo/protocol" + openID, oauth + "/realms/demo/protocol", "/realms/demo" + openID, oauth + "/realms/demo",
			"/realms" + openID, oauth + "/realms",
		},
		"::": nil,
	} {
		got := metadataPlaces(tokenURL)
		for i := range want {
			want[i] = "https://idp.example.com" + want[i]
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", tokenURL, got, want)
		}
	}
}

// FuzzWrittenInPlace: no configuration is too odd to be looked through.
func FuzzWrittenInPlace(f *testing.F) {
	for _, raw := range []string{
		`{"handler":"upstream_auth","inline":{"client_id":"a"}}`, `[[[{"protocol":"upstream_auth","inline":{}}]]]`,
		`{"handler":"upstream_auth","inline":[]}`, `{"handler":["upstream_auth"],"inline":{"inline":{}}}`, `null`,
	} {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var v any
		if caddy.StrictUnmarshalJSON(raw, &v) != nil {
			return
		}
		for _, found := range writtenInPlace(v, "apps") {
			if !strings.HasPrefix(string(found.raw), "{") || !strings.HasPrefix(found.place, "apps") {
				t.Errorf("found %s at %s", found.raw, found.place)
			}
		}
	})
}
