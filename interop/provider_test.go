package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	providerDir  = "oidc-provider"
	providerName = "oidc-provider 9.13.3"

	// clients of server.mjs that are not clients under test
	upstreamID     = "upstream"
	upstreamSecret = "secret-of-upstream"
)

// installProvider runs npm ci where the installed modules are missing or older
// than the lock file.
func installProvider(string) error {
	for _, name := range []string{"node", "npm"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%s is needed, to run %s: %w", name, providerName, err)
		}
	}
	wanted, err := os.Stat(filepath.Join(providerDir, "package-lock.json"))
	if err != nil {
		return err
	}
	// npm writes this one last
	installed, err := os.Stat(filepath.Join(providerDir, "node_modules", ".package-lock.json"))
	if err == nil && !installed.ModTime().Before(wanted.ModTime()) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	cmd := exec.Command("npm", "ci")
	cmd.Dir = providerDir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci in %s: %w\n%s", providerDir, err, out)
	}
	return nil
}

// provider is an oidc-provider on loopback.
type provider struct {
	*process
	ttl    time.Duration // of its tokens
	delay  time.Duration // of each token request
	issuer string
	port   int
}

// startProvider starts one whose tokens live for ttl, and whose token endpoint
// takes longer by delay.
func startProvider(t *testing.T, ttl, delay time.Duration) *provider {
	t.Helper()
	p := &provider{ttl: ttl, delay: delay, port: freePort(t)}
	p.start(t)
	t.Cleanup(func() {
		p.stop(t, syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s printed:\n%s", p.name, &p.output)
		}
	})
	return p
}

// start runs the server, the first time or again.
func (p *provider) start(t *testing.T) {
	t.Helper()
	cmd := exec.Command("node", "server.mjs",
		"--port="+strconv.Itoa(p.port),
		"--ttl="+strconv.Itoa(int(p.ttl/time.Second)),
		"--delay="+strconv.Itoa(int(p.delay/time.Millisecond)))
	cmd.Dir = providerDir
	p.process = start(t, "oidc-provider", cmd)
	ctx, cancel := context.WithTimeout(t.Context(), startDeadline)
	defer cancel()
	ready, err := p.await(ctx, func(line string) bool { return strings.HasPrefix(line, `{"issuer"`) })
	if err != nil {
		t.Fatalf("%v\n%s", err, &p.output)
	}
	var at struct{ Issuer string }
	if err := json.Unmarshal([]byte(ready), &at); err != nil {
		t.Fatalf("oidc-provider: its ready line %q: %v", ready, err)
	}
	if p.issuer == "" { // it stays the same, and others are reading it
		p.issuer = at.Issuer
	}
}

func (p *provider) tokenURL() string { return p.issuer + "/token" }

// providerStats is what the server counted since it started.
type providerStats struct {
	Granted     int
	Refused     map[string]int // by error code
	Methods     map[string]int // tokens by client authentication method
	MaxInFlight int            `json:"max_in_flight"`
}

func (s providerStats) refused() int {
	n := 0
	for _, count := range s.Refused {
		n += count
	}
	return n
}

func (p *provider) stats(t *testing.T) providerStats {
	t.Helper()
	var s providerStats
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.issuer+"/stats", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := askProvider(req, &s); err != nil {
		t.Fatalf("oidc-provider's counts: %v", err)
	}
	return s
}

// introspection is an answer of RFC 7662.
type introspection struct {
	Active   bool
	Exp      int64
	Scope    string
	ClientID string `json:"client_id"`
}

func (p *provider) introspect(ctx context.Context, token string) (introspection, error) {
	var in introspection
	form := url.Values{"token": {token}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.issuer+"/token/introspection", strings.NewReader(form))
	if err != nil {
		return in, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(upstreamID, upstreamSecret)
	err = askProvider(req, &in)
	return in, err
}

func askProvider(req *http.Request, answer any) error {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", req.URL.Path, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return fmt.Errorf("%s: %w", req.URL.Path, err)
	}
	return nil
}
