package faults

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

func init() {
	caddy.RegisterModule(panics{})
	httpcaddyfile.RegisterHandlerDirective("faults_panic", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) { return panics{}, nil })
}

// panics is a handler that panics, in another goroutine if it is asked to, where
// nothing recovers.
type panics struct{}

// CaddyModule returns the Caddy module information.
func (panics) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.faults_panic", New: func() caddy.Module { return new(panics) }}
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (panics) ServeHTTP(_ http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	if strings.HasSuffix(r.URL.Path, "/apart") {
		go panic("on purpose, apart")
		<-r.Context().Done()
	}
	panic("on purpose")
}

// UnmarshalCaddyfile implements caddyfile.Unmarshaler.
func (panics) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}

// crashLines are a credential for each guise, and one that shares its token.
func crashLines() []line {
	var lines []line
	for _, method := range methods {
		for _, grant := range grants {
			as := guise{method: method, grant: grant, dpop: method == authserver.PrivateKeyJWT}
			lines = append(lines, line{name: method + " " + grant, how: texts{}, want: used, guise: func(g *guise) { *g = as }})
		}
	}
	return append(lines, line{name: "shared", how: texts{}, want: used, options: "share", guise: func(g *guise) { *g = guise{method: authserver.Basic, grant: clientCredentials} }})
}

// crashes are the ways in which Caddy ends without a goodbye, and what it says
// then.
var crashes = []struct {
	name string
	end  func(col *column) error
	says *regexp.Regexp
}{
	{"SIGABRT", signals(syscall.SIGABRT), regexp.MustCompile(`(?s)SIGABRT: abort.*goroutine \d+ `)},
	{"SIGQUIT", signals(syscall.SIGQUIT), regexp.MustCompile(`quitting process immediately`)},
	{"a panic", func(col *column) error {
		// one that net/http recovers, with a token on the request, and one that nothing does
		for _, path := range []string{"/panic/here", "/panic/apart"} {
			res, err := col.client.Get("http://faults" + path)
			if err == nil {
				res.Body.Close()
				return fmt.Errorf("%s answers %s", path, res.Status)
			}
		}
		return nil
	}, regexp.MustCompile(`(?s)http: panic serving.*on purpose.*panic: on purpose, apart.*goroutine \d+ `)},
}

func signals(s syscall.Signal) func(*column) error {
	return func(col *column) error { return col.cmd.Process.Signal(s) }
}

// TestCrash: what Caddy prints when it crashes while tokens pass holds none of
// them, nor what it leaves behind; in its storage, which is not sealed here,
// refresh tokens and shared access tokens stand in the files that are for them.
func TestCrash(t *testing.T) {
	counts := newCanary()
	t.Run("all", func(t *testing.T) {
		for n, crash := range crashes {
			col := &column{when: when(crash.name), number: n, ways: []string{byTransport}, plain: true, site: `
	handle /panic/* {
		route {
			upstream_auth client-secret-basic-client-credentials
			faults_panic
		}
	}
`}
			t.Run(crash.name, func(t *testing.T) {
				t.Parallel()
				col.crash(t, crash.end, crash.says)
			})
			t.Cleanup(func() { counts.add(col.canary) })
		}
	})
	canaries.add(counts)
}

// crash starts Caddy, has tokens pass, ends it and searches what it has said.
func (col *column) crash(t *testing.T, end func(*column) error, says *regexp.Regexp) {
	t.Helper()
	dir, err := os.MkdirTemp("", "faults") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := col.prepare(dir, crashLines()); err != nil {
		t.Fatal(err)
	}
	defer col.close()
	environ := []string{"GOTRACEBACK=system"}
	for _, c := range col.order {
		environ = append(environ, c.environ()...)
	}
	if err := col.start(col.caddyfile(0), environ); err != nil {
		t.Fatalf("%v\n%.2000s", err, col.logged())
	}
	defer func() {
		_ = col.cmd.Process.Kill()
		<-col.ended
	}()
	var passing []*onTheWay
	for _, c := range col.order {
		c.await("the first token", func() bool { return len(c.obtained()) > 0 })
		c.served(c.ask())
		passing = append(passing, c.send())
	}
	col.readAll()
	if err := end(col); err != nil {
		t.Error(err)
	}
	if _, err := col.waitEnd(); err != nil {
		t.Error(err)
	}
	for _, w := range passing {
		close(w.gate)
		if r := <-w.reply; r.err == nil {
			t.Errorf("a request that was cut off has an answer: %s", r)
		}
	}
	if log := col.logged(); !says.MatchString(log) {
		t.Errorf("it does not say %s:\n%.3000s", says, log[max(0, len(log)-3000):])
	}
	col.clean("crash output", col.logged())
	col.cleanPlain(t)
	for _, c := range col.order {
		c.proven()
		for _, problem := range c.problems {
			t.Errorf("%s: %.700s", c.name, problem)
		}
	}
	for _, problem := range col.problems {
		t.Errorf("%.900s", problem)
	}
}

// kept are the files in which a secret may stand where none is sealed, and whose
// it may be: upstream_auth/<credential>/…. A name of digits is what the storage
// was writing when the process ended.
var kept = regexp.MustCompile(`^upstream_auth/([^/]+)/(?:[^/]+\.json|\d+)$`)

// cleanPlain searches a storage that is not sealed.
func (col *column) cleanPlain(t *testing.T) {
	t.Helper()
	root := filepath.Join(col.dir, "storage")
	holding := make(map[kindOf]int)
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		var allowed []kindOf
		if owner := kept.FindStringSubmatch(filepath.ToSlash(name)); owner != nil && col.cells[owner[1]] != nil {
			switch c := col.cells[owner[1]]; {
			case c.guise.grant == refreshToken:
				allowed = append(allowed, ofRefresh)
			case c.options == "share":
				allowed = append(allowed, ofAccess)
			}
			if info, err := d.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: its mode is %v, %v", name, info.Mode(), err)
			}
		}
		for _, f := range col.canary.search(string(content)) {
			kind := f.kindIn(string(content))
			if kind == "" && slices.ContainsFunc(allowed, func(k kindOf) bool { return strings.Contains(string(content), "."+string(k)+".") }) {
				continue // the end of a mark
			}
			if !slices.Contains(allowed, kind) {
				t.Errorf("%s holds a secret, %s: %s", name, kind, around(string(content), f.at))
			}
			holding[kind]++
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for _, kind := range []kindOf{ofRefresh, ofAccess} {
		if holding[kind] == 0 {
			t.Errorf("no %s is found in the storage, where some are kept in the clear", kind)
		}
	}
}

// TestLoginShowsNothing: a login and a logout print no code, no verifier, no
// token and no secret, nor does the browser see one, and only the refresh token
// is stored.
func TestLoginShowsNothing(t *testing.T) {
	dir := t.TempDir()
	k := newCanary()
	tape := newTape(k)
	auth := authserver.New(authserver.Config{
		ClientID: "app", ClientSecret: k.mark(ofSecret, "login"), RefreshTokens: true, Rotate: authserver.RotateAlways,
		Issue: func(int) string { return k.mark(ofAccess, "login") },
	})
	server, err := authserver.Listen("127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tape.request(r)
		said := &taped{ResponseWriter: w}
		auth.ServeHTTP(said, r)
		tape.answer(said.whole())
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	config := fmt.Sprintf(`{
	storage file_system %s/storage
	log {
		level DEBUG
	}
	upstream_auth {
		credential crm {
			issuer %s
			grant authorization_code {
				redirect_uri http://%s/callback
			}
			client_id app
			client_auth client_secret_post {env.LOGIN_SECRET}
		}
	}
}
`, dir, server.URL(), freeport.Addr(t))
	if err := os.WriteFile(filepath.Join(dir, "Caddyfile"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	out := &process{dir: dir, ended: make(chan struct{})}
	browsed := ""
	out.line = func(line []byte) {
		if address := loginAddress.FindString(string(line)); address != "" {
			browsed = browse(t, address)
		}
	}
	for _, command := range []string{"login", "logout"} {
		args := []string{"upstream-auth", command, "crm", "--config", filepath.Join(dir, "Caddyfile"), "--adapter", "caddyfile"}
		if command == "login" {
			args = append(args, "--no-browser")
		}
		cmd := exec.Command(must(os.Executable()), args...)
		cmd.Env = append(own(os.Environ()), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir, asCaddy+"=1", "LOGIN_SECRET="+mark(ofSecret, "login"))
		cmd.Stdout, cmd.Stderr = out, out
		if _, err := cmd.StdinPipe(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out.logged())
		}
		for place, text := range map[string]string{"what " + command + " prints": out.logged(), "the page that the browser sees": browsed} {
			for _, problem := range k.clean(place, text) {
				t.Error(problem)
			}
		}
	}
	if missing := tape.lacks(ofSecret, ofCode, ofVerifier, ofRefresh, ofAccess); len(missing) > 0 {
		t.Errorf("these have not passed: %v", missing)
	}
	canaries.add(k)
}

var loginAddress = regexp.MustCompile(`http\S+/authorize\?\S+`)

// browse opens an address as a browser does, redirects and all.
func browse(t *testing.T, address string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Error(err)
		return ""
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("the browser gets %s: %s, %v", res.Status, body, err)
	}
	return fmt.Sprint(res.Header) + string(body)
}

// Interface guards
var (
	_ caddyhttp.MiddlewareHandler = panics{}
	_ caddyfile.Unmarshaler       = panics{}
)
