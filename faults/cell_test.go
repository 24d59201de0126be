package faults

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// patience is how long anything may take. It decides nothing: it ends a test
// that has failed.
const patience = 2 * time.Minute

// cell is a line in a column: a credential, its server, and what was seen.
type cell struct {
	line
	column *column
	name   string // of the credential
	way    string // in which requests are given its token
	secret string
	auth   *authserver.Server
	server *server
	api    *authserver.Upstream
	guise  guise
	tape   *tape

	refresh string      // the refresh token to begin with, "" for none
	breaks  atomic.Bool // the fault is there
	since   time.Time   // from then on
	before  string      // the token that was held then
	settled atomic.Bool // the tokens are no longer due soon
	done    chan struct{}
	swaps   struct {
		stop chan struct{}
		wg   sync.WaitGroup
	}

	mu       sync.Mutex
	rang     chan struct{} // closed, and replaced, when something has happened
	entries  []entry       // of the log
	problems []string
	sum      string // what the table says of it
	finally  []func()
}

// slug is a line's name as a credential may be called.
func slug(name string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
		} else if s := b.String(); s != "" && !strings.HasSuffix(s, "-") {
			b.WriteByte('-')
		}
	}
	return strings.Trim(b.String()[:min(b.Len(), 60)], "-")
}

func newCell(col *column, l line, way string, g guise) (*cell, error) {
	c := &cell{line: l, column: col, name: slug(l.name), way: way, guise: g, done: make(chan struct{}), rang: make(chan struct{})}
	c.guise.dpop = c.guise.dpop && way == byTransport
	c.tape = newTape(col.canary)
	c.secret = c.made(ofSecret) + "/p+a%s w=d&!~:x"
	config := authserver.Config{
		ClientID: "app", Lifetime: time.Hour, BasicEncoding: "form",
		Issue: func(n int) string {
			text := col.canary.mark(ofAccess, fmt.Sprintf("%s-%d", c.name, n))
			if l.text != nil && c.breaks.Load() {
				return l.text(text)
			}
			return text
		},
	}
	c.configure(&config)
	if l.config != nil {
		l.config(&config)
	}
	c.auth = authserver.New(config)
	if config.RefreshTokens {
		c.refresh = c.auth.IssueRefreshToken()
		c.guise.grant = refreshToken
		col.canary.learn(ofRefresh, c.refresh)
	}
	c.auth.SetFault(c.healthy())
	c.api = authserver.NewUpstream(c.auth)
	var err error
	if c.server, err = newServer(c.auth, c.tape, c.ring, c.breaks.Load); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.path(""), 0o700); err != nil {
		return nil, err
	}
	switch l.how.(type) {
	case certificate, overTLS:
		c.server.secure(col.authority.good(), false)
	case noName:
		err = c.write("url", c.tokenURL())
	case secretFile, secretSwapped:
		err = c.write("secret", c.secret)
	}
	return c, errors.Join(err, c.server.listen())
}

// path is a file of the cell's own.
func (c *cell) path(name string) string { return filepath.Join(c.column.dir, "cells", c.name, name) }

func (c *cell) write(name, content string) error { return replaceFile(c.path(name), content) }

func (c *cell) tokenURL() string {
	scheme := "http://"
	switch c.how.(type) {
	case certificate, overTLS:
		scheme = "https://"
	}
	return scheme + c.server.addr + authserver.TokenPath
}

// block is the credential in the Caddyfile.
func (c *cell) block() string {
	lines := []string{"token_url " + c.tokenURL()}
	secret := "{env." + c.variable("SECRET") + "}"
	switch c.how.(type) {
	case noName:
		lines[0] = "token_url {file." + c.path("url") + "}"
	case secretFile, secretSwapped:
		secret = "{file." + c.path("secret") + "}"
	case certificate, overTLS:
		lines = append(lines, "tls {\n\t\t\t\tca "+filepath.Join(c.column.dir, "ca.pem")+"\n\t\t\t}")
	}
	lines = append(append(lines, "client_id app", c.proves(secret)), c.asks()...)
	if c.slow {
		lines = append(lines, "timeout "+slowTimeout.String())
	} else {
		lines = append(lines, "timeout 5m")
	}
	if c.column.due || c.due {
		lines = append(lines, "default_lifetime 40s", "refresh_at 10")
	}
	lines = append(lines, c.options)
	return fmt.Sprintf("\t\tcredential %s {\n\t\t\t%s\n\t\t}\n", c.name, strings.Join(lines, "\n\t\t\t"))
}

func (c *cell) variable(name string) string {
	return name + "_" + strings.ToUpper(strings.ReplaceAll(c.name, "-", "_"))
}

// set breaks, or mends.
func (c *cell) set(broken bool) {
	if !broken {
		c.breaks.Store(false)
	}
	if broken {
		c.since = time.Now()
	}
	if !broken || c.comesTo(c.column.when) == used {
		c.settled.Store(true)
		c.auth.SetFault(c.healthy())
	}
	if err := c.how.set(c, broken); err != nil {
		c.fail("setting the fault to %v: %v", broken, err)
	}
	if broken {
		c.breaks.Store(true)
	}
}

// healthy is a good answer. One that has to be renewed soon says nothing of its
// lifetime, for it is used on for a day while it cannot be: no test has to be
// done before a token ends.
func (c *cell) healthy() authserver.Fault {
	seconds := 3600
	if (c.column.due || c.due) && !c.settled.Load() {
		seconds = 0
	}
	if c.health != nil {
		return authserver.Chain(c.health(seconds), c.beside())
	}
	return authserver.Chain(lives(seconds), c.beside())
}

// beside puts more that is secret into a good answer than the token.
func (c *cell) beside() authserver.Fault {
	return authserver.Answer(func(a map[string]any) {
		a["trace"] = c.made(ofBody)
		a["id_token"] = c.made(ofID)
		if c.guise.grant != refreshToken {
			a["refresh_token"] = c.made(ofRefresh)
		}
	})
}

// lives has a token live for so long; 0 does not say.
func lives(seconds int) authserver.Fault {
	return authserver.Answer(func(a map[string]any) {
		if a["expires_in"] = seconds; seconds == 0 {
			delete(a, "expires_in")
		}
	})
}

// fail notes what is wrong; the cell goes on.
func (c *cell) fail(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// say is what the table says of the cell.
func (c *cell) say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sum = fmt.Sprintf(format, args...)
}

// atEnd is checked when all cells of the column are through.
func (c *cell) atEnd(check func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finally = append(c.finally, check)
}

// ring wakes await.
func (c *cell) ring() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.rang)
	c.rang = make(chan struct{})
}

// await waits for something that the log or the server tells.
func (c *cell) await(what string, reached func() bool) bool {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		c.mu.Lock()
		rang := c.rang
		c.mu.Unlock()
		if reached() {
			return true
		}
		select {
		case <-rang:
		case <-c.column.ended:
			c.fail("Caddy ended before this came: %s", what)
			return false
		case <-limit.C:
			c.fail("it did not come to pass: %s", what)
			return false
		}
	}
}

// entry is a line of Caddy's log about the credential.
type entry struct {
	Level      string
	Msg        string
	Credential string
	Kind       string
	Lifetime   float64 // seconds
	Took       float64 // likewise
	text       string
}

func (c *cell) note(e entry) {
	c.mu.Lock()
	c.entries = append(c.entries, e)
	c.mu.Unlock()
	c.ring()
}

// told are the log's lines about the credential that begin so.
func (c *cell) told(begins ...string) []entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []entry
	for _, e := range c.entries {
		if slices.ContainsFunc(begins, func(b string) bool { return strings.HasPrefix(e.Msg, b) }) {
			found = append(found, e)
		}
	}
	return found
}

// obtained and failed are the token requests that have ended.
func (c *cell) obtained() []entry { return c.told("access token obtained", "access token renewed") }
func (c *cell) failed() []entry   { return c.told("token request failed") }

// reply is what a client of the proxy gets.
type reply struct {
	status int
	header http.Header
	body   string
	err    error
	ended  time.Time
}

func (r reply) String() string {
	if r.err != nil {
		return r.err.Error()
	}
	return fmt.Sprintf("%d %v %.200q", r.status, r.header, r.body)
}

// The two ways in which a request is given a token.
const (
	byHandler   = "handler"
	byTransport = "transport"
)

// ask sends a request through Caddy. Nothing secret may be in its answer.
func (c *cell) ask() (r reply) {
	defer func() { r.ended = time.Now() }()
	req, err := http.NewRequest(http.MethodGet, "http://faults/"+c.way+"/"+c.name+"/", nil)
	if err != nil {
		return reply{err: err}
	}
	req.Header.Set("Authorization", "Bearer "+c.made(ofClient)) // is replaced
	c.column.canary.pass(req.Header.Get("Authorization"))
	res, err := c.column.client.Do(req)
	for n := 0; n < 5 && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)); n++ {
		// where Caddy's old socket closes in a reload, what is queued on it is cut
		// off unread, with this plugin or without
		res, err = c.column.client.Do(req)
	}
	if err != nil {
		return reply{err: err}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	r = reply{status: res.StatusCode, header: res.Header, body: string(body), err: err}
	for _, problem := range c.column.canary.clean("the answers to clients", fmt.Sprint(r.header)+"\n"+r.body) {
		c.fail("%s", problem)
	}
	return r
}
