package caddymodule

import (
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// TestBadTokenFile: what adapt finds, where it stands.
func TestBadTokenFile(t *testing.T) {
	rows := []badConfig{
		{"no path", good + "token_file " + mark, []string{"'token_file'", "argument", "absolute path"}},
		{"an empty path", good + "token_file \"\" " + mark, []string{"'token_file'", "argument"}},
		{"two paths", good + "token_file /run/a /run/b " + mark, []string{"'token_file'", "argument too many"}},
		{"unknown option", good + "token_file /run/a {\nbogus 1 " + mark + "\n}", []string{"'bogus'", "token_file", "mode", "owner"}},
		{"repeated option", good + "token_file /run/a {\nmode 0600\nmode 0640 " + mark + "\n}", []string{"'mode'", "twice"}},
		{"no mode", good + "token_file /run/a {\nmode " + mark + "\n}", []string{"'mode'", "argument"}},
		{"two owners", good + "token_file /run/a {\nowner 1 2 " + mark + "\n}", []string{"'owner'", "argument"}},
		{"relative", good + "token_file run/token " + mark, []string{"token_file", "'run/token'", "absolute", "/run/app/token"}},
		{"a directory", good + "token_file /run/app/ " + mark, []string{"token_file", "'/run/app/'", "directory"}},
		{"the root", good + "token_file / " + mark, []string{"token_file", "directory"}},
		{"the parent", good + "token_file /run/.. " + mark, []string{"token_file", "directory"}},
		{"from a file", good + "token_file {file./etc/path} " + mark, []string{"token_file", "{file./etc/path}", "{env.*}"}},
		{"from a request", good + "token_file /run/{http.request.host} " + mark, []string{"token_file", "{http.request.host}", "{env.*}"}},
		{"an unknown placeholder", good + "token_file /run/{bogus} " + mark, []string{"token_file", "{bogus}", "{env.*}"}},
		{"its secret's file", tokenURL + clientID + "client_auth client_secret_basic {file./run/secrets/crm}\ntoken_file /run/secrets/crm " + mark, []string{"token_file", "/run/secrets/crm", "overwritten"}},
		{"its key", tokenURL + clientID + "client_auth private_key_jwt {\nkey_file /run/key.pem\n}\ntoken_file /run/../run/key.pem " + mark, []string{"token_file", "overwritten"}},
		{"its CA", good + "tls {\nca /run/ca.pem\n}\ntoken_file /run/ca.pem " + mark, []string{"token_file", "overwritten"}},
		{"a template", good + "scopes t-{header.X-Tenant}\ntoken_file /run/a " + mark, []string{"token_file", "single token"}},
		{"a token for each client", tokenURL + clientID + clientAuth + "grant token_exchange {\nsubject_token request\n}\ntoken_file /run/a " + mark, []string{"token_file", "single token"}},
		{"dpop", good + "dpop {\nkey_file /run/key.pem\n}\ntoken_file /run/a " + mark, []string{"token_file", "dpop", "without that key"}},
	}
	for mode, want := range map[string]string{
		"rw": "such as 0600", "0o600": "such as 0600", "-600": "such as 0600", "0800": "such as 0600", "01600": "such as 0600", "u=r": "such as 0600", "{env.MODE}": "such as 0600",
		"0000": "nobody may read", "0200": "nobody may read", "0622": "others than the owner", "0620": "others than the owner", "0602": "others than the owner", "0700": "run it", "0777": "others than the owner",
	} {
		rows = append(rows, badConfig{"mode " + mode, good + "token_file /run/a {\nmode " + mode + " " + mark + "\n}", []string{"token_file mode", mode, want}})
	}
	for _, owner := range []string{":", "app:", ":app:", "app:app:app", "-1", "4294967296", "1.5:/", "a/b", "{env.OWNER}", "a b"} {
		quoted := owner
		if strings.Contains(owner, " ") {
			quoted = `"` + owner + `"`
		}
		rows = append(rows, badConfig{"owner " + strings.ReplaceAll(owner, "/", "|"), good + "token_file /run/a {\nowner " + quoted + " " + mark + "\n}", []string{"token_file owner", "'" + owner + "'", "<user>:<group>"}})
	}
	runCredentialRows(t, rows)

	for _, place := range credentialPlaces[1:] {
		t.Run("in place/"+place.name, func(t *testing.T) {
			adaptFails(t, place.config(good+"token_file /run/a "+mark), "token_file", "a name", "global options")
		})
	}
	t.Run("of two", func(t *testing.T) {
		adaptFails(t, "{\nupstream_auth {\ncredential crm {\n"+good+"token_file /run/a\n}\ncredential erp {\n"+good+"token_file /run/./a "+mark+"\n}\n}\n}\n", "token_file", "'crm'", "a file of its own")
	})
	for _, fine := range []string{"token_file /run/a", "token_file /run/a {\n}", "token_file {env.HOME}/a {\nmode 640\nowner app:1000\n}", "token_file /run/a-b {\nmode 0440\nowner :users\n}", "token_file /run/a {\nowner 0\n}"} {
		loads(t, credentialPlaces[0].config(good+fine))
	}
}

// TestBadTokenFileAtLoad: what only the load can see names credential and option.
func TestBadTokenFileAtLoad(t *testing.T) {
	t.Setenv("RELATIVE", "run/token")
	t.Setenv("ALIKE", "/run")
	two := func(path string) string {
		return "{\nupstream_auth {\ncredential crm {\n" + good + "token_file /run/a\n}\ncredential erp {\n" + good + "token_file " + path + "\n}\n}\n}\n"
	}
	for name, tc := range map[string]struct {
		config string
		want   []string
	}{
		"not set":     {credentialPlaces[0].config(good + "token_file {env.NOT_SET_ANYWHERE}"), []string{"'crm'", "token_file", "NOT_SET_ANYWHERE"}},
		"relative":    {credentialPlaces[0].config(good + "token_file {env.RELATIVE}"), []string{"'crm'", "token_file", "'run/token'", "absolute"}},
		"a directory": {credentialPlaces[0].config(good + "token_file {env.ALIKE}/"), []string{"'crm'", "token_file", "directory"}},
		"of two":      {two("{env.ALIKE}/a"), []string{"'erp'", "token_file", "'crm'", "/run/a", "a file of its own"}},
	} {
		t.Run(name, func(t *testing.T) {
			adapted, _, err := adaptText(tc.config)
			if err != nil {
				t.Fatal(err)
			}
			_, refused := validateJSON(t, adapted)
			if refused == nil {
				t.Fatal("it was taken")
			}
			checkMessage(t, refused, tc.want...)
		})
	}
	raw, _, err := adaptText(credentialPlaces[0].config(good + "token_file /run/a"))
	if err != nil {
		t.Fatal(err)
	}
	for was, tc := range map[string][2]string{
		`"path":"/run/a"`: {`"path":"a"`, "absolute"}, `{"path":"/run/a"}`: {`{}`, "absolute path"}, `"/run/a"}`: {`"/run/a","mode":"7"}`, "token_file mode"},
	} {
		bad := strings.Replace(string(raw), was, tc[0], 1)
		if _, refused := validateJSON(t, []byte(bad)); refused == nil || !strings.Contains(refused.Error(), "'crm'") || !strings.Contains(refused.Error(), tc[1]) {
			t.Errorf("%s gives %v", tc[0], refused)
		}
	}
	if _, refused := validateJSON(t, []byte(strings.Replace(string(raw), `"/run/a"}`, `"/run/a","bogus":"7"}`, 1))); refused == nil {
		t.Error("an unknown member was taken")
	}
}

// TestBadTokenEndpoint: likewise of the directive.
func TestBadTokenEndpoint(t *testing.T) {
	site := func(line string) string { return "http://127.0.0.1:8080 {\n" + line + "\n}\n" }
	tenants := strings.Replace(definesCRM, good, good+"scopes t-{header.X-Tenant}\n", 1)
	bound := strings.Replace(definesCRM, good, good+"dpop {\nkey_file /run/key.pem\n}\n", 1)
	for name, tc := range map[string]struct {
		config string
		want   []string
	}{
		"no credential":         {definesCRM + site("upstream_auth_token "+mark), []string{"credential", "missing"}},
		"two":                   {definesCRM + site("upstream_auth_token crm erp "+mark), []string{"'upstream_auth_token'", "one argument", "'erp'"}},
		"an unknown one":        {definesCRM + site("upstream_auth_token erp "+mark), []string{"'erp'", "not defined", "crm"}},
		"no name":               {definesCRM + site("upstream_auth_token a/b "+mark), []string{"a/b", "name"}},
		"none is defined":       {site("upstream_auth_token crm " + mark), []string{"'crm'", "not defined", "global options"}},
		"unknown option":        {definesCRM + site("upstream_auth_token crm {\nbogus 1 "+mark+"\n}"), []string{"'bogus'", "upstream_auth_token", "wait"}},
		"of the handler":        {definesCRM + site("upstream_auth_token crm {\nheader X-A "+mark+"\n}"), []string{"'header'", "wait"}},
		"no wait":               {definesCRM + site("upstream_auth_token crm {\nwait "+mark+"\n}"), []string{"'wait'", "argument"}},
		"a wait of no duration": {definesCRM + site("upstream_auth_token crm {\nwait soon "+mark+"\n}"), []string{"wait", "'soon'", "5m"}},
		"too long a wait":       {definesCRM + site("upstream_auth_token crm {\nwait 1h "+mark+"\n}"), []string{"wait", "1h", "10m"}},
		"two waits":             {definesCRM + site("upstream_auth_token crm {\nwait 1s\nwait 2s "+mark+"\n}"), []string{"'wait'", "twice"}},
		"options of another":    {definesCRM + site("upstream_auth_token crm {\nscopes a "+mark+"\n}"), []string{"'scopes'", "'crm'", "leave out the name"}},
		"a bad one in place":    {site("upstream_auth_token { " + mark + "\n" + tokenURL + clientID + "\n}"), []string{"client_auth", "missing"}},
		"a login in place":      {site("upstream_auth_token {\n" + good + "grant refresh_token abc " + mark + "\n}"), []string{"grant", "global options"}},
		"a template":            {tenants + site("upstream_auth_token crm "+mark), []string{"credential", "a token for each value"}},
		"a template in place":   {site("upstream_auth_token { " + mark + "\n" + good + "scopes t-{header.X-Tenant}\n}"), []string{"a token for each value"}},
		"dpop":                  {bound + site("upstream_auth_token crm "+mark), []string{"credential", "dpop"}},
		"dpop in place":         {site("upstream_auth_token { " + mark + "\n" + good + "dpop {\nkey_file /run/key.pem\n}\n}"), []string{"dpop"}},
	} {
		t.Run(name, func(t *testing.T) { adaptFails(t, tc.config, tc.want...) })
	}
	for _, fine := range []string{"upstream_auth_token crm", "upstream_auth_token /token crm {\nwait 0\n}", "upstream_auth_token {\nwait 1m\n" + good + "}"} {
		loads(t, definesCRM+site(fine))
	}
}

// TestBadTokenEndpointAtLoad: in JSON, and what the Caddyfile does not show.
func TestBadTokenEndpointAtLoad(t *testing.T) {
	site := "http://127.0.0.1:8080 {\nupstream_auth_token crm\n}\n"
	exchanging := strings.Replace(definesCRM, good, good+"grant token_exchange {\nsubject_token request\n}\n", 1)
	for name, tc := range map[string]struct {
		config, was, is string
		want            []string
	}{
		"a token for each client": {exchanging + site, "", "", []string{"upstream_auth_token with credential 'crm'", "a token for each value"}},
		"dpop":                    {definesCRM + site, `"client_id":"app"`, `"client_id":"app","dpop":{"key_file":"/run/key.pem"}`, []string{"upstream_auth_token with credential 'crm'", "dpop"}},
		"a template":              {definesCRM + site, `"client_id":"app"`, `"client_id":"app","scopes":["{http.request.host}"]`, []string{"upstream_auth_token with credential 'crm'", "a token for each value"}},
		"an unknown one":          {definesCRM + site, `"credential":"crm"`, `"credential":"erp"`, []string{"'erp'", "not defined", "crm"}},
		"none":                    {definesCRM + site, `"credential":"crm",`, ``, []string{"upstream_auth_token", "missing"}},
		"too long a wait":         {definesCRM + site, `"credential":"crm"`, `"credential":"crm","wait":"1h"`, []string{"upstream_auth_token with credential 'crm'", "wait", "10m"}},
	} {
		t.Run(name, func(t *testing.T) {
			raw, _, err := adaptText(tc.config)
			if err != nil {
				t.Fatal(err)
			}
			bad := strings.Replace(string(raw), tc.was, tc.is, 1)
			if tc.was != "" && bad == string(raw) {
				t.Fatal("nothing was replaced")
			}
			_, refused := validateJSON(t, []byte(bad))
			if refused == nil {
				t.Fatal("it was taken")
			}
			checkMessage(t, refused, tc.want...)
		})
	}
	if _, err := caddy.GetModule("http.handlers.upstream_auth_token"); err != nil {
		t.Error(err)
	}
}
