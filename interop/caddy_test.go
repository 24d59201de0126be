package interop

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// binary is this repository's Caddy, built once.
var binary string

// buildCaddy builds the binary into dir, with the race detector where
// INTEROP_RACE is set.
func buildCaddy(dir string) error {
	binary = filepath.Join(dir, "caddy")
	args := []string{"build", "-pgo=off", "-o", binary} // a profile would have all compiled once more
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

// All sites listen on one unix socket, so that no two tests ever want the same
// port.
const globalOptions = `{
	debug
	admin unix/%[1]s/admin.sock
	persist_config off
	auto_https off
	grace_period 5s
	storage file_system %[1]s/storage
	upstream_auth {
%[2]s	}
}
`

// sites are the two forms of use, each with the options of Caddy's own transport
// to the upstream.
var sites = map[string]string{
	"handler": `
http://handler.%[2]s {
	bind unix/%[1]s/sites.sock
	log
	upstream_auth %[2]s
	reverse_proxy %[3]s {
		%[5]s
		transport http {
			%[4]s
		}
	}
}
`,
	"transport": `
http://transport.%[2]s {
	bind unix/%[1]s/sites.sock
	log
	reverse_proxy %[3]s {
		%[5]s
		transport upstream_auth %[2]s {
			http {
				%[4]s
			}
		}
	}
}
`,
}

// credential is a client at a server, and what its Caddyfile says of it.
type credential struct {
	clientID string   // "" for none
	secret   string   // in the Caddyfile as {env.SECRET}
	auth     string   // the line client_auth, "" for none
	lines    []string // further lines
}

// site is a credential in use: by a handler and by a transport, both before an
// upstream of its own.
type site struct {
	*caddy
	credential
	name     string            // of the credential
	issuer   string            // written in place of a token_url where it is not ""
	tokenURL string            // where it is not that of the upstream's authority
	env      map[string]string // more secrets, in the Caddyfile as {env.NAME}
	jwtFile  jwtFiles          // in the Caddyfile as {env.JWT_FILE}
	http     []string          // options of Caddy's own transport to the upstream
	ways     []string          // both where it is nil
	upstream *upstream
	number   int           // of the site, whose environment variables are its own
	bearer   func() string // the token that a client of the proxy sends; nil for one that says nothing

	secrets secrets // that have come up since
	leaked  bool    // one of them stands in the log
}

// block is the credential in the Caddyfile.
func (s *site) block() string {
	lines := []string{"token_url " + s.tokenURL}
	switch {
	case s.issuer != "":
		lines[0] = "issuer " + s.issuer
	case s.tokenURL == "":
		lines[0] = "token_url " + s.upstream.tokenURL()
	}
	if s.clientID != "" {
		lines = append(lines, "client_id "+s.clientID)
	}
	if s.auth != "" {
		lines = append(lines, "client_auth "+s.auth)
	}
	text := strings.Join(append(lines, s.lines...), "\n")
	for _, name := range append(slices.Collect(maps.Keys(s.variables())), jwtFileVariable) {
		text = strings.ReplaceAll(text, "{env."+name+"}", "{env."+s.variable(name)+"}")
	}
	return fmt.Sprintf("\t\tcredential %s {\n\t\t\t%s\n\t\t}\n", s.name, strings.ReplaceAll(text, "\n", "\n\t\t\t"))
}

// variables are those of its environment, which no log may show.
func (s *site) variables() map[string]string {
	all := map[string]string{"SECRET": s.secret}
	maps.Copy(all, s.env)
	return all
}

// jwtFiles are two, for each JWT is good once: one for the Caddy that runs, and
// one for the commands.
type jwtFiles struct{ running, commands string }

const jwtFileVariable = "JWT_FILE"

// variable is one of the site's own.
func (s *site) variable(name string) string { return fmt.Sprintf("SITE_%d_%s", s.number, name) }

// caddy is a running Caddy.
type caddy struct {
	*process
	dir     string
	config  string // the file
	environ []string
	client  *http.Client
	admin   *http.Client
	sites   []*site
	end     func() // stops it and checks its log, once; the end of the test does as well
}

// startCaddy starts one with a single credential, before the upstream.
func startCaddy(t *testing.T, u *upstream, cr credential) *site {
	t.Helper()
	s := &site{credential: cr, name: "crm", upstream: u}
	startSites(t, []*site{s})
	return s
}

// startSites starts one with many. At the end its log must be clean: no race,
// no panic, no secret, no token.
func startSites(t *testing.T, sites []*site) *caddy {
	t.Helper()
	// a unix socket's path has about 100 characters
	dir, err := os.MkdirTemp("", "interop") //nolint:usetesting // t.TempDir is too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &caddy{dir: dir, config: filepath.Join(dir, "Caddyfile"), sites: sites}
	c.client, c.admin = clientOf(filepath.Join(dir, "sites.sock")), clientOf(filepath.Join(dir, "admin.sock"))
	c.environ = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	for n, s := range sites {
		s.caddy, s.number = c, n
		c.environ = append(c.environ, s.variable(jwtFileVariable)+"="+s.jwtFile.running)
		for name, value := range s.variables() {
			c.environ = append(c.environ, s.variable(name)+"="+value)
		}
	}
	text := c.caddyfile()
	if err := os.WriteFile(c.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	cmd := exec.Command(binary, "run", "--config", c.config)
	cmd.Env = c.environ
	c.process = start(t, "caddy", cmd)
	c.end = sync.OnceFunc(func() {
		c.client.CloseIdleConnections()
		c.admin.CloseIdleConnections()
		c.stop(t, syscall.SIGTERM)
		c.checkLog(t)
	})
	t.Cleanup(func() {
		c.end()
		if t.Failed() {
			t.Logf("Caddyfile:\n%s\nits log:\n%s", text, c.withoutAccessLog())
		}
	})
	poll(t, startDeadline, "the sites", func(ctx context.Context) error {
		select {
		case <-c.ended:
			t.Fatalf("caddy ended: %s", c.cmd.ProcessState)
		default:
		}
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", filepath.Join(dir, "sites.sock"))
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return c
}

func (c *caddy) caddyfile() string {
	var credentials, blocks strings.Builder
	for _, s := range c.sites {
		credentials.WriteString(s.block())
		for _, way := range s.usedBy() {
			host := "header_up Host {upstream_hostport}" // which Caddy does by itself before HTTPS
			if s.upstream.TLS != nil {
				host = ""
			}
			fmt.Fprintf(&blocks, sites[way], c.dir, s.name, s.upstream.URL, strings.Join(s.http, "\n"), host)
		}
	}
	return fmt.Sprintf(globalOptions, c.dir, credentials.String()) + blocks.String()
}

func (s *site) usedBy() []string {
	if s.ways == nil {
		return ways
	}
	return s.ways
}

// clientOf sends all requests to a unix socket.
func clientOf(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		MaxIdleConnsPerHost: rate,
	}}
}

// answer is what a client of the proxy got.
type answer struct {
	status int
	header http.Header
	body   string
}

// get sends a request that carries a token of the client's own, which must not
// get through.
func (s *site) get(ctx context.Context, way string) (answer, error) {
	bearer := "of-the-client"
	if s.bearer != nil {
		bearer = s.bearer()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+way+"."+s.name+"/", nil)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	return do(s.client, req)
}

func do(client *http.Client, req *http.Request) (answer, error) {
	resp, err := client.Do(req)
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

// ends are how many token requests ended well, and how many the server refused,
// by Caddy's own metrics.
type ends struct{ granted, refused, other int }

var tokenRequests = regexp.MustCompile(`(?m)^caddy_upstream_auth_token_requests_total\{credential="([^"]+)",grant="[^"]+",reason="[^"]+",result="([^"]+)"\} (\d+)$`)

// counts are those of all credentials.
func (c *caddy) counts(t *testing.T) map[string]ends {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := do(c.admin, req)
	if err != nil || a.status != http.StatusOK {
		t.Fatalf("caddy's metrics: %d, %v", a.status, err)
	}
	counts := make(map[string]ends)
	for _, found := range tokenRequests.FindAllStringSubmatch(a.body, -1) {
		n, err := strconv.Atoi(found[3])
		if err != nil {
			t.Fatal(err)
		}
		e := counts[found[1]]
		switch found[2] {
		case "success":
			e.granted += n
		case "refused":
			e.refused += n
		default:
			e.other += n
		}
		counts[found[1]] = e
	}
	return counts
}
