package caddymodule

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

func TestDemo(t *testing.T) {
	var out bytes.Buffer
	d := &demo{out: &out, from: "127.0.0.1:0", status: "127.0.0.1:0", lifetime: 4 * time.Second, rate: 50}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error)
	go func() { done <- d.run(ctx) }()
	eventually(t, "a second token", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.tokens >= 2
	})
	if code, body := getAs(t, "http://"+d.status+"/any", "localhost", browsers); code != 200 || !strings.Contains(body, "<h1>") {
		t.Errorf("the status page answers %d %s", code, body)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`authorization server +http://127\.0\.0\.1:\d+/token`,
		`proxy +http://127\.0\.0\.1:\d+`,
		`status +http://127\.0\.0\.1:\d+`,
		`token #2 obtained \d\.\ds before the last one ends; \d+ requests answered, 0 failed`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("the output does not match %s:\n%s", want, &out)
		}
	}
	if d.ok == 0 || strings.Contains(out.String(), "demo-secret") {
		t.Errorf("%d answered; output:\n%s", d.ok, &out)
	}
}

func TestDemoRefuses(t *testing.T) {
	for says, d := range map[string]*demo{
		"--lifetime": {from: "127.0.0.1:0", status: "127.0.0.1:0", lifetime: time.Millisecond},
		"--rate":     {from: "127.0.0.1:0", status: "127.0.0.1:0", lifetime: time.Second, rate: -1},
		"--from":     {from: "0.0.0.0:0", status: "127.0.0.1:0", lifetime: time.Second},
		"--status":   {from: "127.0.0.1:0", status: "0.0.0.0:0", lifetime: time.Second},
	} {
		d.out = io.Discard
		if err := d.run(t.Context()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want an error that names %s", err, says)
		}
	}
}

// getAs asks under a Host name.
func getAs(t *testing.T, url, host, accept string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	req.Header.Set("Accept", accept)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(content)
}

// flags parses a command line of the command proxy.
func flags(t *testing.T, args ...string) caddycmd.Flags {
	t.Helper()
	cmd := proxyCommand()
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return caddycmd.Flags{FlagSet: cmd.Flags()}
}

// TestProxy: a sidecar in one line, which answers to loopback names alone, and
// whose admin API is for its own user.
func TestProxy(t *testing.T) {
	p := newParts(t, authserver.Config{})
	admin, status := filepath.Join(t.TempDir(), "admin.sock"), freeport.Addr(t)
	s, err := proxyFromFlags(flags(t,
		"--from", p.proxy, "--to", p.upstream.URL(), "--token-url", p.server.URL()+authserver.TokenPath, "--client-id", appClient,
		"--client-secret-file", writeFile(t, "secret", []byte(oddSecret+"\n")), "--scope", "read", "--scope", "write", "--audience", "api",
		"--resource", "urn:api", "--param", "tenant=42", "--status", status, "--admin", "unix/"+admin+"|0600"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
		p.nothingLeft()
	})
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
	p.want(p.get("/"), 200)
	asked := p.auth.Log()[0]
	if asked.Form.Encode() != "audience=api&grant_type=client_credentials&resource=urn%3Aapi&scope=read+write&tenant=42" || !asked.Basic {
		t.Errorf("asked with %s, Basic %v", asked.Form.Encode(), asked.Basic)
	}
	_, port, _ := net.SplitHostPort(p.proxy)
	for host, want := range map[string]int{
		"localhost": 200, "LOCALHOST:" + port: 200, "127.0.0.1:" + port: 200, "[::1]:" + port: 200, "app.localhost": 200,
		"evil.example.com": 421, "evil.example.com:" + port: 421, "localhost.example.com": 421, "10.0.0.1": 421,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.proxy, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		res, err := p.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("Host %s: got %d, want %d", host, res.StatusCode, want)
		}
		if got, body := getAs(t, "http://"+status+"/readyz", host, "*/*"); got != want || got == 200 != strings.Contains(body, `"ready": true`) {
			t.Errorf("Host %s: the status answers %d %s", host, got, body)
		}
	}
	info, err := os.Stat(admin)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the admin API's socket: %v, %v", info, err)
	}
}

// TestProxySocket: a unix socket in front, and one behind.
func TestProxySocket(t *testing.T) {
	p := newParts(t, authserver.Config{})
	dir := t.TempDir()
	front, back := filepath.Join(dir, "front.sock"), filepath.Join(dir, "back.sock")
	l, err := net.Listen("unix", back)
	if err != nil {
		t.Fatal(err)
	}
	api := &http.Server{Handler: p.api, ReadHeaderTimeout: time.Minute}
	go func() { _ = api.Serve(l) }()
	t.Cleanup(func() { _ = api.Close() })
	s, err := proxyFromFlags(flags(t, "--from", "unix/"+front, "--to", "unix/"+back, "--token-url", p.server.URL()+authserver.TokenPath,
		"--client-id", appClient, "--client-secret-env", secretEnv, "--client-auth", "client_secret_post", "--admin", "off"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = caddy.Stop() })
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", front)
	}}}
	t.Cleanup(client.CloseIdleConnections)
	res, err := client.Get("http://localhost/")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 || p.api.OK() != 1 {
		t.Errorf("got %d", res.StatusCode)
	}
}

func TestProxyRefuses(t *testing.T) {
	good := map[string]string{
		"--from": "127.0.0.1:0", "--to": "https://api.example.com", "--token-url": "https://idp.example.com/token", "--client-id": "app",
		"--client-secret-env": "SECRET", "--admin": "off",
	}
	for name, tc := range map[string]struct{ flag, value, says string }{
		"every address":     {"--from", ":8080", "can be reached by others"},
		"all of IPv4":       {"--from", "0.0.0.0:8080", "can be reached by others"},
		"another host":      {"--from", "10.0.0.1:8080", "can be reached by others"},
		"status for all":    {"--status", "0.0.0.0:8081", "can be reached by others"},
		"status and proxy":  {"--status", "127.0.0.1:0", "where the proxy listens"},
		"a range":           {"--from", "127.0.0.1:8080-8090", "expected one address"},
		"udp":               {"--from", "udp/127.0.0.1:8080", "expected one address"},
		"no upstream":       {"--to", "-", "--to is missing"},
		"upstream, a name":  {"--to", "api.example.com", "not an upstream"},
		"upstream, a path":  {"--to", "https://api.example.com/v1", "only scheme, host and port"},
		"upstream, a user":  {"--to", "https://u:hunter2@api.example.com", "only scheme, host and port"},
		"two schemes":       {"--to", "https://api.example.com,http://127.0.0.1:1", "same scheme"},
		"upstream in clear": {"--to", "http://api.example.com", "neither TLS nor a loopback address"},
		"no token URL":      {"--token-url", "-", "--token-url is missing"},
		"token URL, clear":  {"--token-url", "http://idp.example.com/token", "in the clear"},
		"no client":         {"--client-id", "-", "--client-id is missing"},
		"no secret":         {"--client-secret-env", "-", "--client-secret-file is missing"},
		"two secrets":       {"--client-secret-file", "secret", "expected one of them"},
		"secret with none":  {"--client-auth", "none", "takes no secret"},
		"unknown method":    {"--client-auth", "magic", "expected client_secret_basic"},
		"encoding":          {"--basic-encoding", "utf8", "expected form or raw"},
		"param":             {"--param", "tenant", "not name=value"},
		"reserved param":    {"--param", "scope=x", "set by scopes"},
		"header":            {"--header", "Connection", "belongs to the connection"},
		"wait":              {"--wait", "1h", "out of range"},
	} {
		t.Run(name, func(t *testing.T) {
			var args []string
			all := map[string]string{tc.flag: tc.value}
			for flag, value := range good {
				if _, ok := all[flag]; !ok {
					all[flag] = value
				}
			}
			for _, flag := range sorted(all) {
				if all[flag] != "-" {
					args = append(args, flag, all[flag])
				}
			}
			s, err := proxyFromFlags(flags(t, args...))
			if err == nil {
				var cfg *caddy.Config
				if cfg, err = s.config(); err == nil {
					err = caddy.Validate(cfg)
				}
			}
			if err == nil || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %v, want an error that says %q", err, tc.says)
			}
		})
	}
}
