package faults

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// column is one Caddy with a credential for each line.
type column struct {
	process
	when
	course    func(*cell)
	ways      []string // of the cells, by turns
	held      bool     // a token is held when the fault comes
	due       bool     // and is due soon
	global    string   // option
	authority *authority
	cells     map[string]*cell // by the credential's name
	order     []*cell
	bubbles   map[string]bool // the lines that passed without a process
	api       *authserver.Listener
	thief     *authserver.Listener // where redirects lead
	ready     sync.WaitGroup       // for what is done to all at once
	together  func(*column)        // is done when all are ready
	reached   chan struct{}        // closed when it has been
	leaving   sync.WaitGroup       // after a SIGTERM

	mu       sync.Mutex
	problems []string
}

// caddyfile is its config; revision makes one differ from another.
func (col *column) caddyfile(revision int) string {
	var credentials, handlers, transports strings.Builder
	for n, c := range col.order {
		credentials.WriteString(c.block())
		if c.way == byHandler {
			fmt.Fprintf(&handlers, `
		@%[1]d path /handler/%[2]s/*
		upstream_auth @%[1]d %[2]s {
			wait 5m
		}
`, n, c.name)
			continue
		}
		fmt.Fprintf(&transports, `
	handle /transport/%[1]s/* {
		reverse_proxy %[2]s {
			transport upstream_auth %[1]s {
				wait 5m
				http {
					dial_timeout 5m
				}
			}
		}
	}
`, c.name, col.api.Addr())
	}
	return fmt.Sprintf(`{
	admin unix/%[1]s/admin.sock|0600
	persist_config off
	auto_https off
	storage faulty %[1]s/storage %[1]s/%[2]s
	log {
		output stderr
		format json
		level DEBUG
	}
	%[3]s
	upstream_auth {
		encryption_key {env.TOKEN_STORE_KEY}
%[4]s	}
}
http://faults {
	bind unix/%[1]s/sites.sock
	header X-Revision %[5]d
	handle /handler/* {
%[6]s
		reverse_proxy %[8]s {
			transport http {
				dial_timeout 5m
			}
		}
	}
%[7]s}
`, col.dir, storageFaults, col.global, credentials.String(), revision, handlers.String(), transports.String(), col.api.Addr())
}

// route leads a request to the API of its cell.
func (col *column) route(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.URL.Path, "/")
	if len(parts) > 2 && col.cells[parts[2]] != nil {
		col.cells[parts[2]].api.ServeHTTP(w, r)
		return
	}
	http.NotFound(w, r)
}

// heard is a line of the log.
func (col *column) heard(line []byte) {
	if e, ok := credentialOf(line); ok && col.cells[e.Credential] != nil {
		col.cells[e.Credential].note(e)
	}
}

func (col *column) fail(format string, args ...any) {
	col.mu.Lock()
	defer col.mu.Unlock()
	col.problems = append(col.problems, fmt.Sprintf(format, args...))
}

// prepare makes the cells.
func (col *column) prepare(dir string, lines []line) error {
	col.dir, col.cells, col.reached = dir, make(map[string]*cell), make(chan struct{})
	col.bubbles = make(map[string]bool)
	col.line = col.heard
	for _, sub := range []string{"cells", storageFaults} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return err
		}
	}
	var err error
	if col.authority, err = newAuthority("faults"); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), []byte(col.authority.pem), 0o600); err != nil {
		return err
	}
	for _, l := range lines {
		c, err := newCell(col, l)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		if col.cells[c.name] != nil {
			return fmt.Errorf("%s: another line is called %s, too", l.name, c.name)
		}
		col.cells[c.name] = c
		if c.way = col.ways[len(col.order)%len(col.ways)]; l.alone != nil {
			c.way = byTransport
		}
		col.order = append(col.order, c)
	}
	col.api, err = authserver.Listen("127.0.0.1:0", http.HandlerFunc(col.route))
	return err
}

// run has all cells take their course.
func (col *column) run() {
	defer func() {
		for _, c := range col.order {
			c.stopSwapping()
			c.server.close()
			close(c.done)
		}
		_ = col.api.Close()
	}()
	environ := []string{"TOKEN_STORE_KEY=" + base64.StdEncoding.EncodeToString(make([]byte, 32))}
	for _, c := range col.order {
		environ = append(environ, c.variable("SECRET")+"="+c.secret, c.variable("REFRESH")+"="+c.refresh)
		if !col.held && c.alone == nil {
			c.set(true)
		}
	}
	if col.when == atStop {
		for _, c := range col.order {
			if c.alone[col.when] == nil {
				c.server.hold()
			}
		}
	}
	if err := col.start(col.caddyfile(0), environ); err != nil {
		col.fail("Caddy did not start: %v\n%.3000s", err, col.logged())
		close(col.reached)
		return
	}
	var courses sync.WaitGroup
	for _, c := range col.order {
		course := col.course
		if own := c.alone[col.when]; own != nil {
			course = own
		}
		if col.together != nil {
			col.ready.Add(1)
		}
		courses.Go(func() { course(c) })
	}
	if col.together != nil {
		col.ready.Wait()
		col.together(col)
	}
	courses.Wait()
	col.leaving.Wait()
	for _, c := range col.order {
		for _, check := range c.finally {
			check()
		}
		c.pureAPI()
	}
	col.end()
	col.secrets()
}

// end takes all credentials out of the config, wants nothing of them to be left,
// and stops Caddy, unless it has been stopped.
func (col *column) end() {
	defer col.client.CloseIdleConnections()
	defer col.admin.CloseIdleConnections()
	select {
	case <-col.ended:
		return
	default:
	}
	config := fmt.Sprintf(`{"admin":{"listen":"unix/%s/admin.sock|0600","config":{"persist":false}}}`, col.dir)
	if err := col.load("application/json", config); err != nil {
		col.fail("the credentials cannot be taken out: %v", err)
	}
	if err := col.poll("nothing to be left of the credentials", func(ctx context.Context) error {
		dump, err := col.adminGet(ctx, "/debug/pprof/goroutine?debug=2")
		if err != nil {
			return err
		}
		for goroutine := range strings.SplitSeq(dump, "\n\n") {
			if ours.MatchString(goroutine) {
				return errors.New("a goroutine is left: " + goroutine)
			}
		}
		return nil
	}); err != nil {
		col.fail("%v", err)
	}
	if err := col.stop(); err != nil {
		col.fail("the stop: %v", err)
	}
}

// ours is a frame of this module's.
var ours = regexp.MustCompile(`caddy-upstream-auth/(internal|caddymodule)`)

// secrets wants none in the log, and no crash or race.
func (col *column) secrets() {
	log := col.logged()
	wanted := map[string]string{marker: "a secret or a token", "WARNING: DATA RACE": "a data race", "panic": "a panic"}
	for _, c := range col.order {
		basic := url.QueryEscape("app") + ":" + url.QueryEscape(c.secret)
		wanted[base64.StdEncoding.EncodeToString([]byte(basic))] = "the secret of " + c.name + " in base64"
		for _, r := range c.auth.Log() {
			if t := r.Form.Get("refresh_token"); t != "" {
				wanted[t] = "a refresh token of " + c.name
			}
		}
	}
	for text, what := range wanted {
		if at := strings.Index(log, text); at >= 0 {
			begins, ends := strings.LastIndexByte(log[:at], '\n')+1, strings.IndexByte(log[at:], '\n')
			if ends < 0 || what == "a data race" {
				ends = min(len(log)-at, 6000)
			}
			col.fail("the log shows %s: %s", what, log[begins:at+ends])
		}
	}
}

// inFlight is how many requests are on their way through Caddy.
func (col *column) inFlight(ctx context.Context) (int, error) {
	metrics, err := col.adminGet(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	most := 0
	for _, found := range inFlightMetric.FindAllStringSubmatch(metrics, -1) {
		n, err := strconv.Atoi(found[1])
		if err != nil {
			return 0, err
		}
		most = max(most, n)
	}
	return most, nil
}

var inFlightMetric = regexp.MustCompile(`(?m)^caddy_http_requests_in_flight\{[^}]*\} (\d+)$`)
