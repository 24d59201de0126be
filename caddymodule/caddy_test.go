package caddymodule

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

// The parts of a test: a real authorization server, a real API that demands
// its tokens, and a real Caddy between, all on loopback sockets.
type parts struct {
	t        *testing.T
	auth     *authserver.Server
	server   *authserver.Listener
	api      *authserver.Upstream
	upstream *authserver.Listener
	name     string // of the credential
	below    string // the path that its routes are below, if there are others beside it
	proxy    string // Caddy's address
	log      string // the file of Caddy's log, at debug level
	storage  string // Caddy's storage
	client   *http.Client
}

const (
	appClient = "app"
	oddSecret = "p+a%s/w=d &!~:x"
	secretEnv = "UPSTREAM_AUTH_TEST_SECRET"
)

func newParts(t *testing.T, config authserver.Config) *parts {
	t.Helper()
	t.Setenv(secretEnv, oddSecret)
	if config.ClientID == "" {
		config.ClientID, config.ClientSecret = appClient, oddSecret
	}
	return assemble(t, authserver.New(config))
}

func assemble(t *testing.T, auth *authserver.Server) *parts {
	t.Helper()
	p := &parts{
		t: t, auth: auth, name: "crm", proxy: freeport.Addr(t), log: filepath.Join(t.TempDir(), "caddy.log"), storage: filepath.Join(t.TempDir(), "storage"),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}, Timeout: 30 * time.Second},
	}
	// addresses that nobody else gets when a test closes them
	p.server = listen(t, freeport.Addr(t), auth)
	p.api = authserver.NewUpstream(auth)
	p.upstream = listen(t, freeport.Addr(t), p.api)
	t.Cleanup(p.client.CloseIdleConnections)
	return p
}

func listen(t *testing.T, addr string, h http.Handler) *authserver.Listener {
	t.Helper()
	l, err := authserver.Listen(addr, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// credential is a credential's block for the parts' server; more are options.
func (p *parts) credential(more ...string) string {
	return fmt.Sprintf("token_url %s%s\nclient_id %s\nclient_auth client_secret_basic {env.%s}\n%s\n",
		p.server.URL(), authserver.TokenPath, appClient, secretEnv, strings.Join(more, "\n"))
}

// caddyfile puts a site's directives, and a credential called crm, into a whole
// Caddyfile. In it $API is the API's address.
func (p *parts) caddyfile(credential, site string) string {
	return strings.NewReplacer("$API", p.upstream.Addr()).Replace(fmt.Sprintf(`{
	admin off
	persist_config off
	storage file_system %s
	log {
		output file %s
		level DEBUG
	}
	upstream_auth {
		credential crm {
			%s
		}
	}
}
http://%s {
	bind 127.0.0.1
	%s
}
`, p.storage, p.log, credential, p.proxy, site))
}

// beside is a credential, and a server and an API of its own for it, in the same
// Caddy: what takes time is then waited for once for all of them.
func (p *parts) beside(name string, config authserver.Config) *parts {
	p.t.Helper()
	own := p.of(p.t)
	own.name, own.below = name, "/"+name
	config.ClientID, config.ClientSecret = appClient, oddSecret
	own.auth = authserver.New(config)
	own.api = authserver.NewUpstream(own.auth)
	own.server, own.upstream = listen(p.t, "127.0.0.1:0", own.auth), listen(p.t, "127.0.0.1:0", own.api)
	return own
}

// block is its credential, behind another one in a Caddyfile.
func (p *parts) block(more ...string) string {
	return "}\ncredential " + p.name + " {\n" + p.credential(more...)
}

// route is the part of a site that has to do with it, below its name.
func (p *parts) route(directives string) string {
	return "handle_path " + p.below + "/* {\n" + directives + "\n}\n"
}

// several runs one Caddy for n cases, each beside the others; of gives the
// options of a case's credential, and the directives of its route.
func several(t *testing.T, n int, config authserver.Config, of func(n int, p *parts) (options, route string)) []*parts {
	t.Helper()
	all := newParts(t, config)
	credential, site := all.credential(), ""
	own := make([]*parts, n)
	for i := range own {
		own[i] = all.beside(fmt.Sprintf("case-%d", i), config)
		options, route := of(i, own[i])
		credential += own[i].block(options)
		site += own[i].route(strings.ReplaceAll(route, "$API", own[i].upstream.Addr()))
	}
	all.run(credential, site)
	return own
}

// load has Caddy run a Caddyfile until the test ends.
func (p *parts) load(caddyfile string) error {
	p.t.Helper()
	raw, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), nil)
	if err != nil {
		return err
	}
	p.t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			p.t.Error(err)
		}
		p.nothingLeft()
	})
	return caddy.Load(raw, true)
}

// nothingLeft checks that a stopped Caddy leaves nothing of ours behind.
func (p *parts) nothingLeft() {
	pool.Range(func(key, _ any) bool {
		p.t.Errorf("left in the pool: %v", key)
		return true
	})
	chains.Range(func(key, _ any) bool {
		p.t.Errorf("a refresh token is left in its pool: %q", key)
		return true
	})
	transports.Range(func(any, any) bool {
		p.t.Error("a connection to an authorization server is left in its pool")
		return true
	})
	for name := range credentials.newest() {
		p.t.Errorf("left running: %s", name)
	}
}

// often has tokens that live for a few seconds renewed as often as can be,
// where a test waits for renewals.
const often = "refresh_at 25%"

// run is load for a Caddyfile that is right.
func (p *parts) run(credential, site string) {
	p.t.Helper()
	if err := p.load(p.caddyfile(credential, site)); err != nil {
		p.t.Fatal(err)
	}
}

// answer is what a client gets.
type answer struct {
	status int
	header http.Header
	body   string
}

// get sends a request through Caddy; fields are names and values of its header.
func (p *parts) get(path string, fields ...string) answer {
	p.t.Helper()
	a, err := p.try(http.MethodGet, path, nil, fields...)
	for errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) {
		// where Caddy's old socket closes in a reload, what is queued on it is
		// reset, with this plugin or without
		a, err = p.try(http.MethodGet, path, nil, fields...)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

func (p *parts) try(method, path string, body io.Reader, fields ...string) (answer, error) {
	req, err := http.NewRequest(method, "http://"+p.proxy+path, body)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i < len(fields); i += 2 {
		req.Header.Add(fields[i], fields[i+1])
	}
	res, err := p.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(content)}, err
}

// underLoad sends requests without a pause, four at a time, until it is told to
// stop.
func (p *parts) underLoad(check func(answer, error)) (stop func()) {
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					check(p.try(http.MethodGet, "/", nil))
				}
			}
		})
	}
	return func() {
		close(done)
		wg.Wait()
	}
}

// want checks an answer's status.
func (p *parts) want(a answer, status int) {
	p.t.Helper()
	if a.status != status {
		p.t.Errorf("got %d %q, want %d", a.status, a.body, status)
	}
}

// eventually waits for a state that other goroutines bring about.
func eventually(t *testing.T, what string, reached func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !reached() {
		select {
		case <-deadline:
			t.Fatalf("it did not come to pass: %s", what)
		case <-tick.C:
		}
	}
}

// logged is Caddy's log so far.
func (p *parts) logged() string {
	p.t.Helper()
	content, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(content)
}

// lines counts the log lines that hold a text.
func (p *parts) lines(text string) int {
	n := 0
	for line := range bytes.Lines([]byte(p.logged())) {
		if bytes.Contains(line, []byte(text)) {
			n++
		}
	}
	return n
}

// told counts the log lines of its credential that hold a text.
func (p *parts) told(text string) int {
	p.t.Helper()
	n := 0
	for line := range strings.Lines(p.logged()) {
		if strings.Contains(line, text) && strings.Contains(line, `"credential":"`+p.name+`"`) {
			n++
		}
	}
	return n
}

// stop ends Caddy, so that another one can go on where it was.
func (p *parts) stop() {
	p.t.Helper()
	if err := caddy.Stop(); err != nil {
		p.t.Fatal(err)
	}
	p.client.CloseIdleConnections()
}
