package faults

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
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
	number    int      // of the column
	plain     bool     // what is stored is not sealed
	checks    bool     // the commands of an operator are run as well
	site      string   // more of the site
	authority *authority
	key       *ecdsa.PrivateKey
	canary    *canary
	watch     watch
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
	storage := "file_system " + col.dir + "/storage"
	if !col.plain {
		storage = "faulty " + col.dir + "/storage " + col.dir + "/" + storageFaults
		credentials.WriteString("\t\tencryption_key {env.TOKEN_STORE_KEY}\n")
	}
	status := "\tupstream_auth_status " + statusPath + "\n"
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
	auto_https off
	storage %[2]s
	events {
		on * faults %[1]s/%[9]s
	}
	log {
		output stderr
		format json
		level DEBUG
	}
	%[3]s
	upstream_auth {
%[4]s	}
}
http://faults {
	bind unix/%[1]s/sites.sock
	header X-Revision %[5]d
	log
%[10]s	handle /handler/* {
%[6]s
		reverse_proxy %[8]s {
			transport http {
				dial_timeout 5m
			}
		}
	}
%[7]s}
`, col.dir, storage, col.global, credentials.String(), revision, handlers.String(), transports.String(), col.api.Addr(), eventsFile, status+col.site)
}

// route leads a request to the API of its cell.
func (col *column) route(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.URL.Path, "/")
	if len(parts) > 2 && col.cells[parts[2]] != nil {
		c := col.cells[parts[2]]
		c.arrived(r)
		c.api.ServeHTTP(withoutProof{w, r.Header.Get("DPoP")}, r)
		return
	}
	http.NotFound(w, r)
}

// withoutProof takes a request's proof out of what the API tells of the request:
// it is the API that tells it, not Caddy.
type withoutProof struct {
	http.ResponseWriter
	proof string
}

func (w withoutProof) Write(b []byte) (int, error) {
	if w.proof == "" {
		return w.ResponseWriter.Write(b)
	}
	_, err := w.ResponseWriter.Write(bytes.ReplaceAll(b, []byte(w.proof), nil))
	return len(b), err
}

// arrived notes what the API is sent.
func (c *cell) arrived(r *http.Request) {
	c.tape.signed(ofDPoP, r.Header.Get("DPoP"))
	var text strings.Builder
	_ = r.Header.Write(&text)
	c.tape.passes(text.String())
	if strings.Contains(text.String(), string(ofClient)) {
		c.fail("what the client sent in Authorization has reached the API")
	}
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
	col.canary = newCanary()
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
	if err := col.newKey(); err != nil {
		return err
	}
	for n, l := range lines {
		way := col.ways[n%len(col.ways)]
		if l.alone != nil {
			way = byTransport
		}
		c, err := newCell(col, l, way, col.guiseOf(l, n))
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		if col.cells[c.name] != nil {
			return fmt.Errorf("%s: another line is called %s, too", l.name, c.name)
		}
		col.cells[c.name] = c
		col.order = append(col.order, c)
	}
	col.api, err = authserver.Listen("127.0.0.1:0", http.HandlerFunc(col.route))
	return err
}

// run has all cells take their course.
func (col *column) run() {
	defer col.close()
	environ := []string{"TOKEN_STORE_KEY=" + col.storeKey()}
	for _, c := range col.order {
		environ = append(environ, c.environ()...)
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
	col.watches()
	var courses sync.WaitGroup
	for _, c := range col.order {
		course := col.course
		if own := c.alone[col.when]; own != nil {
			course = own
		}
		if col.together != nil {
			col.ready.Add(1)
		}
		courses.Go(func() {
			course(c)
			if c.alone[col.when] != nil && col.when != atStop {
				c.look()
			}
		})
	}
	if col.together != nil {
		col.ready.Wait()
		col.together(col)
	}
	courses.Wait()
	col.leaving.Wait()
	close(col.watch.stop)
	col.watch.wg.Wait()
	for _, c := range col.order {
		c.proven()
		for _, check := range c.finally {
			check()
		}
		c.pureAPI()
	}
	col.end()
	if col.checks {
		col.checked(environ)
	}
	col.accidents()
	col.atLast()
}

// close ends the servers.
func (col *column) close() {
	for _, c := range col.order {
		c.stopSwapping()
		c.server.close()
		close(c.done)
	}
	_ = col.api.Close()
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

// storeKey is what is stored is sealed with.
func (col *column) storeKey() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	text := base64.StdEncoding.EncodeToString(key)
	col.canary.learn(ofStoreKey, text)
	col.canary.learn(ofStoreKey, string(key))
	col.canary.pass(text)
	return text
}

// accidents wants no crash or race to stand in the log.
func (col *column) accidents() {
	log := col.logged()
	for text, what := range map[string]string{"WARNING: DATA RACE": "a data race", "panic": "a panic"} {
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
