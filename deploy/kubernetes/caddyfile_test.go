package kubernetes

import (
	"encoding/json"
	"path/filepath"
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

	_ "github.com/caddy-upstream-auth/caddy-upstream-auth"
)

// TestCaddyfiles: those of the examples are configurations, they listen on
// loopback, and the status where the kubelet finds it.
func TestCaddyfiles(t *testing.T) {
	files, err := filepath.Glob("examples/*/Caddyfile")
	if err != nil || len(files) < 3 {
		t.Fatal("where are the Caddyfiles?", files, err)
	}
	files = append(files, "component/caddyfile/Caddyfile")
	key := filepath.Join(t.TempDir(), "key")
	write(t, key, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	t.Setenv("UPSTREAM", "https://api.example.com")
	for _, address := range []string{"10.1.2.3", "fd00::5"} {
		t.Setenv("STATUS_BIND", address)
		for _, file := range files {
			text := read(t, file)
			if string(caddyfile.Format([]byte(text))) != text {
				t.Errorf("caddy fmt would change %s", file)
			}
			text = strings.ReplaceAll(text, "/run/secrets/upstream-auth/store_key", key)
			listeners := adapt(t, file, text)
			status := slices.DeleteFunc(slices.Clone(listeners), func(l string) bool { return strings.HasPrefix(l, "127.0.0.1:") })
			want := address + ":9180"
			if strings.Contains(address, ":") {
				want = "[" + address + "]:9180"
			}
			if !slices.Equal(status, []string{want}) || len(listeners) < 2 {
				t.Errorf("%s listens on %v", file, listeners)
			}
		}
	}
}

// adapt has Caddy take a Caddyfile, and returns where its servers would listen.
func adapt(t *testing.T, file, text string) []string {
	t.Helper()
	adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": file})
	if err != nil || len(warnings) != 0 {
		t.Fatalf("%s: %v, %v", file, err, warnings)
	}
	var config caddy.Config
	if err := json.Unmarshal(adapted, &config); err != nil {
		t.Fatal(err)
	}
	if config.Admin.Listen != "unix//run/caddy-upstream-auth/admin.sock|0600" {
		t.Errorf("%s: the admin API is at %s", file, config.Admin.Listen)
	}
	var http struct {
		Servers map[string]struct {
			Listen []string `json:"listen"`
		} `json:"servers"`
	}
	if err := json.Unmarshal(config.AppsRaw["http"], &http); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Validate(&config); err != nil {
		t.Errorf("%s: %v", file, err)
	}
	var listeners []string
	for _, server := range http.Servers {
		listeners = append(listeners, server.Listen...)
	}
	return listeners
}
