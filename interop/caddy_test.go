package interop

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// binary is this repository's Caddy, built once.
var binary string

// buildCaddy builds the binary into dir, with the race detector where
// INTEROP_RACE is set.
func buildCaddy(dir string) error {
	binary = filepath.Join(dir, "caddy")
	args := []string{"build", "-o", binary}
	if os.Getenv("INTEROP_RACE") != "" {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/caddy")...)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build ./cmd/caddy: %w\n%s", err, out)
	}
	return nil
}

// ways are the two places of use, each a site of its own.
var ways = []string{"handler", "transport"}

// One credential serves both sites; all listen on unix sockets, so that no two
// tests ever want the same port.
const caddyfile = `{
	debug
	admin unix/%[1]s/admin.sock
	persist_config off
	auto_https off
	grace_period 5s
	storage file_system %[1]s
	upstream_auth {
		credential crm {
			token_url %[4]s
			%[2]s
		}
	}
}

http://handler {
	bind unix/%[1]s/handler.sock
	log
	upstream_auth crm
	reverse_proxy %[3]s
}

http://transport {
	bind unix/%[1]s/transport.sock
	log
	reverse_proxy %[3]s {
		transport upstream_auth crm
	}
}
`

// caddy is a running Caddy before an upstream.
type caddy struct {
	*process
	client   *http.Client
	upstream *upstream
	cred     credential
}

// credential is a client at the provider, and what its Caddyfile says of it.
type credential struct {
	clientID string
	secret   string   // in the Caddyfile as {env.SECRET}
	auth     string   // the line client_auth
	lines    []string // further lines
}

func (cr credential) caddyfile() string {
	lines := append([]string{"client_id " + cr.clientID, "client_auth " + cr.auth}, cr.lines...)
	return strings.Join(lines, "\n\t\t\t")
}

// startCaddy starts one with the credential, before the upstream. At the end
// its log must be clean: no race, no panic, no secret, no token.
func startCaddy(t *testing.T, u *upstream, cr credential) *caddy {
	t.Helper()
	// a unix socket's path has about 100 characters
	dir, err := os.MkdirTemp("", "interop") //nolint:usetesting // t.TempDir is too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	config := filepath.Join(dir, "Caddyfile")
	text := fmt.Sprintf(caddyfile, dir, cr.caddyfile(), u.Listener.Addr(), u.provider.tokenURL())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	cmd := exec.Command(binary, "run", "--config", config)
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir, "SECRET="+cr.secret)
	c := &caddy{process: start(t, "caddy", cmd), upstream: u, cred: cr}
	c.client = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(dir, host+".sock"))
		},
		MaxIdleConnsPerHost: rate,
	}}
	t.Cleanup(func() {
		c.client.CloseIdleConnections()
		c.stop(t, syscall.SIGTERM)
		c.checkLog(t)
		if t.Failed() {
			t.Logf("Caddyfile:\n%s\nits log:\n%s", text, c.withoutAccessLog())
		}
	})

	for _, way := range ways {
		poll(t, startDeadline, "the "+way+"'s site", func(ctx context.Context) error {
			select {
			case <-c.ended:
				t.Fatalf("caddy ended: %s", c.cmd.ProcessState)
			default:
			}
			var d net.Dialer
			conn, err := d.DialContext(ctx, "unix", filepath.Join(dir, way+".sock"))
			if err != nil {
				return err
			}
			return conn.Close()
		})
	}
	return c
}

// answer is what a client of the proxy got.
type answer struct {
	status int
	header http.Header
	body   string
}

// get sends a request that carries a token of the client's own, which must not
// get through.
func (c *caddy) get(ctx context.Context, way string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+way+"/", nil)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", "Bearer of-the-client")
	resp, err := c.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, fmt.Errorf("body: %w", err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}, nil
}

// entry is one line of Caddy's log, as far as the tests read it.
type entry struct {
	Level      string
	Logger     string
	Msg        string
	Credential string
	Kind       string
	Code       string
	Outcome    string `json:"upstream_auth_outcome"` // in the access log
}

// entryOf reads a line of the log; what is not JSON is an empty entry.
func entryOf(line string) entry {
	var e entry
	if json.Unmarshal([]byte(line), &e) != nil {
		return entry{}
	}
	return e
}

// failures are the lines that name the credential and a kind of failure.
func (c *caddy) failures() []entry {
	var found []entry
	lines, _ := c.output.lines()
	for _, line := range lines {
		// most lines are of the access log, and this is asked often
		if !strings.Contains(line, `"kind"`) {
			continue
		}
		if e := entryOf(line); e.Credential == "crm" && e.Kind != "" {
			found = append(found, e)
		}
	}
	return found
}

// outcomes counts what became of the requests, as the access log has it.
func (c *caddy) outcomes() map[string]int {
	counts := make(map[string]int)
	lines, _ := c.output.lines()
	for _, line := range lines {
		if e := entryOf(line); strings.HasPrefix(e.Logger, "http.log.access") {
			counts[e.Outcome]++
		}
	}
	return counts
}

// withoutAccessLog is the log without a line for each request.
func (c *caddy) withoutAccessLog() string {
	lines, _ := c.output.lines()
	return strings.Join(slices.DeleteFunc(lines, func(line string) bool {
		logger := entryOf(line).Logger
		return strings.HasPrefix(logger, "http.log.access") || strings.HasPrefix(logger, "http.handlers.reverse_proxy")
	}), "\n")
}

func (c *caddy) checkLog(t *testing.T) {
	t.Helper()
	log := c.output.String()
	for _, word := range []string{"DATA RACE", "panic: ", "fatal error: "} {
		if strings.Contains(log, word) {
			t.Errorf("caddy's log says %q", word)
		}
	}
	_, tokens := c.upstream.seen()
	for token := range tokens {
		if strings.Contains(log, token) {
			t.Errorf("an access token stands in caddy's log")
		}
	}
	for _, form := range c.cred.spellings() {
		if strings.Contains(log, form) {
			t.Errorf("the client secret stands in caddy's log, as %s", form)
		}
	}
}

// spellings are the forms in which the secret travels, or may show up.
func (cr credential) spellings() []string {
	encoded := url.QueryEscape(cr.secret)
	forms := []string{
		cr.secret,
		encoded,
		url.PathEscape(cr.secret),
		strings.Trim(strconv.Quote(cr.secret), `"`),
		base64.StdEncoding.EncodeToString([]byte(cr.clientID + ":" + cr.secret)),
		base64.StdEncoding.EncodeToString([]byte(cr.clientID + ":" + encoded)),
	}
	if quoted, err := json.Marshal(cr.secret); err == nil {
		forms = append(forms, strings.Trim(string(quoted), `"`))
	}
	return forms
}
