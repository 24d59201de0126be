package helm

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	// no more of Caddy than cmd/sidecar has
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	_ "github.com/caddyserver/caddy/v2/modules/metrics"
	corev1 "k8s.io/api/core/v1"

	_ "github.com/caddy-upstream-auth/caddy-upstream-auth"
)

// methods are settings, and the credential that Caddy has to make of them.
var methods = []struct{ name, values, want string }{
	{"default", ``, `{"token_url": "{env.TOKEN_URL}", "client_id": "{env.CLIENT_ID}", "client_auth": {"method": "client_secret_basic", "secret": "{file./run/secrets/upstream-auth/client_secret}"}}`},
	{"post", `{clientAuth: client_secret_post, secret: {key: password}}`, `{"token_url": "{env.TOKEN_URL}", "client_id": "{env.CLIENT_ID}", "client_auth": {"method": "client_secret_post", "secret": "{file./run/secrets/upstream-auth/password}"}}`},
	{"raw", `clientAuthOptions: encoding raw`, `{"token_url": "{env.TOKEN_URL}", "client_id": "{env.CLIENT_ID}", "client_auth": {"encoding": "raw", "method": "client_secret_basic", "secret": "{file./run/secrets/upstream-auth/client_secret}"}}`},
	{"signed with the secret", `clientAuth: client_secret_jwt`, `{"token_url": "{env.TOKEN_URL}", "client_id": "{env.CLIENT_ID}", "client_auth": {"method": "client_secret_jwt", "secret": "{file./run/secrets/upstream-auth/client_secret}"}}`},
	{"signed with a key", "clientAuth: private_key_jwt\nsecret: {key: key.pem}\nclientAuthOptions: |\n  key_id 2026\n  alg ES256\n", `{"token_url": "{env.TOKEN_URL}", "client_id": "{env.CLIENT_ID}", "client_auth": {"alg": "ES256", "key_file": "/run/secrets/upstream-auth/key.pem", "key_id": "2026", "method": "private_key_jwt"}}`},
	{"certificate", `clientAuth: tls_client_auth`, `{"token_url": "{env.TOKEN_URL}", "client_id": "{env.CLIENT_ID}", "client_auth": {"cert": "/run/secrets/upstream-auth/tls.crt", "key": "/run/secrets/upstream-auth/tls.key", "method": "tls_client_auth"}}`},
	{"service account", `{clientId: "", clientAuth: jwt_file, secret: {name: ""}, serviceAccountToken: {audience: x}}`, `{"token_url": "{env.TOKEN_URL}", "client_auth": {"method": "jwt_file", "file": "/var/run/secrets/tokens/idp"}}`},
	{"service account with a client", `{clientAuth: jwt_file, secret: {name: ""}, serviceAccountToken: {audience: x}}`, `{"token_url": "{env.TOKEN_URL}", "client_id": "{env.CLIENT_ID}", "client_auth": {"method": "jwt_file", "file": "/var/run/secrets/tokens/idp"}}`},
	{"no proof", `{clientAuth: none, secret: {name: ""}}`, `{"token_url": "{env.TOKEN_URL}", "client_id": "{env.CLIENT_ID}", "client_auth": {"method": "none"}}`},
	{"issuer", `{tokenUrl: "", issuer: https://idp.example.com}`, `{"issuer": "{env.ISSUER}", "client_id": "{env.CLIENT_ID}", "client_auth": {"method": "client_secret_basic", "secret": "{file./run/secrets/upstream-auth/client_secret}"}}`},
	{"options", "scopes: [read, '#write', \"a'b\"]\naudience: https://api.example.com/#x\ncredentialOptions: |\n  resource https://a.example.com\n  refresh_at 60%\n  request {\n    body json\n  }\ntokenFile: {enabled: true, containers: [legacy]}\n",
		`{"token_url": "{env.TOKEN_URL}", "client_id": "{env.CLIENT_ID}", "client_auth": {"method": "client_secret_basic", "secret": "{file./run/secrets/upstream-auth/client_secret}"}, "scopes": ["read", "#write", "a'b"], "audience": "https://api.example.com/#x", "resource": ["https://a.example.com"], "refresh_at": 60, "request": {"body": "json"}, "token_file": {"path": "/run/upstream-auth-token/token", "mode": "0440"}}`},
}

// TestCaddyfiles: with the environment that the chart gives it, Caddy makes of
// each Caddyfile the credential that the values tell of, the proxy listens on
// loopback, and the status where the kubelet looks for it.
func TestCaddyfiles(t *testing.T) {
	for _, m := range methods {
		for _, pod := range []struct{ version, address, status string }{{current, "10.1.2.3", "10.1.2.3:9180"}, {older, "fd00::5", "[fd00::5]:9180"}} {
			t.Run(m.name+" "+pod.version, func(t *testing.T) {
				r := install(t, pod.version, with(t, minimal, m.values))
				c, _ := r.sidecar(t)
				environment(t, c, pod.address)
				config := adapt(t, one[*corev1.ConfigMap](t, r).Data["Caddyfile"])
				var app struct{ Credentials map[string]any }
				unmarshal(t, config.AppsRaw["upstream_auth"], &app)
				var want any
				unmarshal(t, []byte(m.want), &want)
				equal(t, "credential", app.Credentials["upstream"], want)
				listeners := listeners(t, config)
				slices.Sort(listeners)
				wanted := []string{"127.0.0.1:8080", pod.status}
				slices.Sort(wanted)
				equal(t, "listeners", listeners, wanted)
			})
		}
	}
}

// TestCaddyfileAsItIs: with a client secret it is the one of deploy/sidecar, and
// one in the values is taken as it stands.
func TestCaddyfileAsItIs(t *testing.T) {
	t.Parallel()
	r := install(t, current, with(t, minimal, ""))
	equal(t, "Caddyfile", one[*corev1.ConfigMap](t, r).Data["Caddyfile"], read(t, "../sidecar/Caddyfile"))

	own := "{\n\tadmin off\n}\n\nhttp://localhost:8080 {\n\trespond \"{{ .Values }}\"\n}\n"
	values := parse(t, minimal)
	values["caddyfile"] = own
	for _, key := range []string{"upstream", "tokenUrl", "clientId"} {
		delete(values, key)
	}
	delete(values, "secret")
	r = install(t, current, values)
	equal(t, "Caddyfile", one[*corev1.ConfigMap](t, r).Data["Caddyfile"], own)
	for _, name := range []string{"UPSTREAM", "TOKEN_URL", "CLIENT_ID", "CLIENT_AUTH", "CLIENT_SECRET_FILE", "CREDENTIAL_OPTIONS"} {
		equal(t, name, r.env(t, name), "")
	}
}

// environment gives this process that of the container, as a kubelet does.
func environment(t *testing.T, c corev1.Container, address string) {
	t.Helper()
	for _, name := range []string{"UPSTREAM", "CLIENT_AUTH", "CLIENT_SECRET_FILE", "CREDENTIAL_OPTIONS", "LISTEN_PORT", "STATUS_PORT", "SHUTDOWN_DELAY"} {
		t.Setenv(name, "") // so that it is put back
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range c.Env {
		value := strings.ReplaceAll(e.Value, "$$", "$")
		if e.ValueFrom != nil {
			if e.ValueFrom.FieldRef.FieldPath != "status.podIP" {
				t.Fatal(e.ValueFrom)
			}
			value = address
		}
		t.Setenv(e.Name, value)
	}
}

func adapt(t *testing.T, text string) *caddy.Config {
	t.Helper()
	if formatted := string(caddyfile.Format([]byte(text))); formatted != text {
		t.Errorf("caddy fmt would change\n%s", text)
	}
	adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil || len(warnings) != 0 {
		t.Fatalf("%v, %v", err, warnings)
	}
	var config, spent caddy.Config // Validate takes apart what it is given
	unmarshal(t, adapted, &config)
	unmarshal(t, adapted, &spent)
	if config.Admin.Listen != "unix//run/caddy-upstream-auth/admin.sock|0600" {
		t.Errorf("the admin API is at %s", config.Admin.Listen)
	}
	if err := caddy.Validate(&spent); err != nil {
		t.Error(err)
	}
	return &config
}

func listeners(t *testing.T, config *caddy.Config) []string {
	t.Helper()
	var http struct {
		Servers map[string]struct{ Listen []string }
	}
	unmarshal(t, config.AppsRaw["http"], &http)
	var all []string
	for _, server := range http.Servers {
		all = append(all, server.Listen...)
	}
	return all
}

func unmarshal(t *testing.T, text []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}
