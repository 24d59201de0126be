package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/prometheus/client_golang/prometheus"
)

var update = flag.Bool("update", false, "rewrite the expected JSON in testdata/adapt")

const (
	goldenFiles = "testdata/adapt/*.caddyfiletest"
	// goldenCut stands between a Caddyfile and its JSON, as in Caddy's own.
	goldenCut = "----------\n"
	// configName is what adapted text is called in messages.
	configName = "etc/caddy/site.conf"
)

// TestAdapt adapts each Caddyfile in testdata/adapt and compares the JSON with
// the one that stands below it: the JSON is a contract.
func TestAdapt(t *testing.T) {
	// what a config with encryption_key needs to load
	t.Setenv("TOKEN_STORE_KEY", sealingKey)
	t.Setenv("OLDER_TOKEN_STORE_KEY", olderKey)
	for _, path := range goldenPaths(t) {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".caddyfiletest"), func(t *testing.T) {
			input, want := readGolden(t, path)
			adapted, warnings, err := adaptText(input)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range warnings {
				t.Errorf("warning: %s", w)
			}
			got := indentJSON(t, adapted)
			if *update {
				if err := os.WriteFile(path, []byte(input+goldenCut+got), 0o644); err != nil {
					t.Fatal(err)
				}
				want = got
			}
			if got != want {
				t.Errorf("the adapted JSON differs (go test -run TestAdapt -update rewrites it, then read git diff):\n%s", firstDifference(want, got))
			}
			if n, err := roundTrip(adapted); err != nil {
				t.Error(err)
			} else if n == 0 {
				t.Error("the JSON holds no module of this plugin")
			}
			again, _, err := adaptText(input)
			if err != nil || !bytes.Equal(again, adapted) {
				t.Errorf("adapting once more gives other JSON (%v):\n%s", err, again)
			}
			if log, err := validateJSON(t, adapted); err != nil {
				t.Errorf("what adapts is refused at load: %v\n%s", err, log)
			}
		})
	}
}

// TestAdaptTouchesNothing adapts and validates a config whose files do not
// exist and whose servers must not be asked: caddy adapt and caddy validate
// run on machines that have neither.
func TestAdaptTouchesNothing(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 10)
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			asked <- conn.RemoteAddr().String()
			conn.Close()
		}
	}()

	missing := filepath.Join(t.TempDir(), "missing")
	options := fmt.Sprintf(`
		token_url http://%[1]s/{file.%[2]s/path}
		client_id {file.%[2]s/id}
		client_auth client_secret_basic {file.%[2]s/secret}
		scopes {file.%[2]s/scope} {env.NOT_SET_ANYWHERE}
		param key {file.%[2]s/param}
		request {
			header X-Key {file.%[2]s/header}
		}
		tls {
			ca %[2]s/ca.pem
			cert %[2]s/cert.pem
			key %[2]s/key.pem
		}
		proxy http://%[1]s
		insecure_token_url
`, server.Addr(), missing)
	found := strings.Replace(options, "token_url http://"+server.Addr().String()+"/{file."+missing+"/path}", "issuer http://"+server.Addr().String(), 1)
	config := "{\n\tupstream_auth {\n\t\tcredential crm {\n" + options + "}\ncredential found {\n" + found + "}\n}\n}\n" +
		"http://127.0.0.1:8080 {\n\tupstream_auth crm\n}\n" +
		"http://127.0.0.1:8081 {\n\tupstream_auth {\n" + options + "}\n}\n" +
		"http://127.0.0.1:8082 {\n\treverse_proxy http://" + server.Addr().String() + " {\n\ttransport upstream_auth {\n" + options + "}\n}\n}\n"

	adapted, _, err := adaptText(config)
	if err != nil {
		t.Fatalf("adapting: %v", err)
	}
	if !strings.Contains(string(adapted), "{env.NOT_SET_ANYWHERE}") {
		t.Errorf("a placeholder was resolved:\n%s", adapted)
	}
	if log, err := validateJSON(t, adapted); err != nil {
		t.Errorf("validating: %v\n%s", err, log)
	}

	server.Close()
	<-accepting // whoever was accepted is in asked by now
	close(asked)
	for who := range asked {
		t.Errorf("the server was asked, by %s", who)
	}
}

// TestAdaptReadsNoKey adapts and validates configs whose keys, certificates and
// tokens do not exist: they are read at the token request. An encryption key has
// to be there when the config is loaded, and not when it is adapted.
func TestAdaptReadsNoKey(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	const client = "issuer http://127.0.0.1:9\nclient_id app\n"
	for name, options := range map[string]string{
		"private_key_jwt": client + "client_auth private_key_jwt {\nkey_file $\n}",
		"jwt_file":        client + "client_auth jwt_file $",
		"tls_client_auth": client + "client_auth tls_client_auth {\ncert $\nkey $\n}",
		"jwt_bearer":      client + "grant jwt_bearer {\nkey_file $\n}",
		"assertion":       client + "grant jwt_bearer {\nassertion {file.$}\n}",
		"token_exchange":  client + "grant token_exchange {\nsubject_token {file.$}\nactor_token {file.$}\n}",
		"dpop":            client + "client_auth none\ndpop {\nkey_file $\n}",
		"refresh_token":   client + "grant refresh_token {file.$}",
	} {
		t.Run(name, func(t *testing.T) {
			loads(t, "{\nupstream_auth {\ncredential crm {\n"+strings.ReplaceAll(options, "$", missing)+"\n}\n}\n}\n")
		})
	}
	t.Run("encryption_key", func(t *testing.T) {
		adapted, _, err := adaptText("{\nupstream_auth {\nencryption_key {file." + missing + "} {env.NOT_SET_ANYWHERE}\n}\n}\n")
		if err != nil {
			t.Fatal(err)
		}
		if want := `"encryption_keys":["{file.` + missing + `}","{env.NOT_SET_ANYWHERE}"]`; !strings.Contains(string(adapted), want) {
			t.Errorf("adapted to %s, want %s", adapted, want)
		}
		if _, refused := validateJSON(t, adapted); refused == nil || !strings.Contains(refused.Error(), missing) {
			t.Errorf("loading without the key gives %v, want an error that names its file", refused)
		}
	})
}

// TestAdaptKeepsShorthands pins that short placeholders are made long in the
// global block as they are in a site: {host} there is no unknown word.
func TestAdaptKeepsShorthands(t *testing.T) {
	for _, place := range credentialPlaces {
		_, _, err := adaptText(place.config("token_url https://idp.example.com/token\nclient_id {header.X-Tenant}\nclient_auth none"))
		if err == nil || !strings.Contains(err.Error(), "{http.request.header.X-Tenant}") {
			t.Errorf("%s: %v", place.name, err)
		}
	}
}

// --- helpers of this file, badinput_test.go and caddyfile_fuzz_test.go

// adapt makes JSON of a Caddyfile.
func adaptText(text string) ([]byte, []caddyconfig.Warning, error) {
	return caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": configName})
}

func goldenPaths(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob(goldenFiles)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	return paths
}

func readGolden(t testing.TB, path string) (input, want string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	input, want, _ = strings.Cut(string(content), goldenCut)
	return input, want
}

func indentJSON(t testing.TB, raw []byte) string {
	t.Helper()
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "\t"); err != nil {
		t.Fatal(err)
	}
	out.WriteByte('\n')
	return out.String()
}

// firstDifference shows where two texts part.
func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d\nwant %s\ngot  %s", i+1, w[i], g[i])
		}
	}
	return fmt.Sprintf("want %d lines, got %d:\n%s", len(w), len(g), got)
}

// roundTrip reads each of our modules in a config as Caddy would, and tells
// which comes out another than it went in. It counts what it found.
func roundTrip(config []byte) (modules int, err error) {
	var tree any
	if err := json.Unmarshal(config, &tree); err != nil {
		return 0, err
	}
	return roundTripIn(tree, "")
}

func roundTripIn(node any, path string) (modules int, err error) {
	switch node := node.(type) {
	case []any:
		for i, child := range node {
			n, err := roundTripIn(child, fmt.Sprintf("%s[%d]", path, i))
			if modules += n; err != nil {
				return modules, err
			}
		}
	case map[string]any:
		for key, id := range map[string]string{"handler": "http.handlers.", "protocol": "http.reverse_proxy.transport."} {
			if node[key] == appName {
				if err := roundTripModule(id+appName, key, node); err != nil {
					return modules, fmt.Errorf("%s: %w", path, err)
				}
				modules++
			}
		}
		for _, key := range sorted(node) {
			child, ok := node[key].(map[string]any)
			id, inline := "", ""
			switch {
			case key == appName && path == ".apps":
				id = appName
			case key == "grant" && ok:
				id, inline = fmt.Sprint("upstream_auth.grants.", child["type"]), "type"
			case key == "client_auth" && ok:
				id, inline = fmt.Sprint("upstream_auth.client_auth.", child["method"]), "method"
			}
			if id != "" {
				if err := roundTripModule(id, inline, child); err != nil {
					return modules, fmt.Errorf("%s.%s: %w", path, key, err)
				}
				modules++
			}
			n, err := roundTripIn(node[key], path+"."+key)
			if modules += n; err != nil {
				return modules, err
			}
		}
	}
	return modules, nil
}

func roundTripModule(id, inlineKey string, value map[string]any) error {
	info, err := caddy.GetModule(id)
	if err != nil {
		return err
	}
	bare := make(map[string]any)
	for k, v := range value {
		if k != inlineKey || inlineKey == "" {
			bare[k] = v
		}
	}
	before, err := json.Marshal(bare)
	if err != nil {
		return err
	}
	module := info.New()
	if err := caddy.StrictUnmarshalJSON(before, &module); err != nil {
		return fmt.Errorf("%s is not read: %w", id, err)
	}
	raw, err := json.Marshal(module)
	if err != nil {
		return err
	}
	var tree map[string]any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return err
	}
	after, err := json.Marshal(tree)
	if err != nil {
		return err
	}
	if !bytes.Equal(before, after) {
		return fmt.Errorf("%s goes in as\n%s\nand comes out as\n%s", id, before, after)
	}
	return nil
}

// validate does what caddy validate does, and returns what was logged. It
// fails the test if anything of the plugin is left behind.
func validateJSON(t testing.TB, config []byte) (log string, refused error) {
	t.Helper()
	before := leftBehind()
	cfg := new(caddy.Config)
	if err := caddy.StrictUnmarshalJSON(config, cfg); err != nil {
		t.Fatalf("the config is no JSON: %v\n%s", err, config)
	}
	writer := newTestLog()
	defer writer.forget()
	if cfg.StorageRaw == nil {
		cfg.StorageRaw = caddyconfig.JSON(map[string]string{"module": "file_system", "root": t.TempDir()}, nil)
	}
	cfg.Logging = &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: caddy.BaseLog{
		Level:     "DEBUG",
		WriterRaw: caddyconfig.JSON(map[string]string{"output": testLogName, "key": writer.key}, nil),
	}}}}
	refused = caddy.Validate(cfg)
	if after := leftBehind(); after != before {
		t.Errorf("validating has left something behind (%v):\nbefore %s\nafter  %s", refused, before, after)
	}
	return writer.String(), refused
}

// leftBehind is what the plugin keeps through configs: credentials,
// connections, refresh tokens, series.
func leftBehind() string {
	var kept []string
	for name, p := range map[string]*caddy.UsagePool{"pool": pool, "transports": transports, "chains": chains} {
		p.Range(func(key, _ any) bool {
			n, _ := p.References(key)
			kept = append(kept, fmt.Sprintf("%s %v x%d", name, key, n))
			return true
		})
	}
	credentials.mu.Lock()
	for name, entries := range credentials.byName {
		kept = append(kept, fmt.Sprintf("credential %s x%d", name, len(entries)))
	}
	credentials.mu.Unlock()
	for _, name := range seriesCredentials() {
		kept = append(kept, "series of "+name)
	}
	slices.Sort(kept)
	return fmt.Sprint(kept)
}

// seriesCredentials are the credentials that metrics speak of.
func seriesCredentials() []string {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{})
	families, err := registry.Gather()
	if err != nil {
		return []string{err.Error()}
	}
	var names []string
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				if label.GetName() == "credential" {
					names = append(names, family.GetName()+" "+label.GetValue())
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// testLog is a Caddy log writer that keeps what is written.
type testLog struct {
	Key string `json:"key"`
	key string
	mu  sync.Mutex
	buf bytes.Buffer
}

const testLogName = "upstream_auth_adapt_test"

var testLogs sync.Map // key to *testLog

func init() { caddy.RegisterModule(new(testLog)) }

var testLogCount int

func newTestLog() *testLog {
	testLogCount++
	l := &testLog{key: fmt.Sprint(testLogCount)}
	testLogs.Store(l.key, l)
	return l
}

func (l *testLog) forget() { testLogs.Delete(l.key) }

func (*testLog) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.logging.writers." + testLogName, New: func() caddy.Module { return new(testLog) }}
}

func (l *testLog) WriterKey() string { return testLogName + l.Key }

func (l *testLog) OpenWriter() (io.WriteCloser, error) {
	to, ok := testLogs.Load(l.Key)
	if !ok {
		return nil, errors.New("no such test log")
	}
	return to.(*testLog), nil
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *testLog) Close() error { return nil }

func (l *testLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Interface guard
var _ caddy.WriterOpener = (*testLog)(nil)
