package interop

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// cellTTL is the life of access tokens, renewed after a tenth of it.
	cellTTL = 30 * time.Second
	// cellPause is between two requests of a cell: each token has to come to the
	// upstream before the next one ends it.
	cellPause = 300 * time.Millisecond
	// cellDeadline is for a whole cell.
	cellDeadline = 2 * time.Minute
)

// cell is one line of the table: a grant by a client authentication, at a server.
type cell struct {
	site
	grant  string
	method string // client authentication
	as     string // what the server counts it as, where that is another one
	what   string
	scope  string // that its tokens have; "" for one that is not looked at

	tokens int  // that have to come to the upstream
	least  int  // requests, even if the tokens have come by then
	logins int  // token requests that are none of the running Caddy's
	static bool // its refresh token stays the same
	ends   bool // a refresh ends the access token before it

	code     string         // with which the server refuses it; "" for one that it grants
	status   int            // likewise, where there is no code
	cause    string         // that the log gives for what the server is not even asked for
	refusals map[string]int // that the server may count besides, by code; any number where it is 0

	prepare func(*testing.T, *cell)                              // before Caddy starts
	begin   func(*testing.T, *cell)                              // before the first request
	send    func(*testing.T, *cell, *tally)                      // in place of a request by each way in turn
	seen    func(t *testing.T, all map[string]fullIntrospection) // with all tokens
	check   func(t *testing.T, c *cell, token string)            // with the newest one
	end     func(*testing.T, *cell)                              // when all is counted

	overtaken int // requests whose token a refresh ended on their way
	result    row
}

// behind is a server with all that the cells need of it.
type behind struct {
	authority
	name    string
	issuer  string   // "" where it has no metadata
	authURL string   // with the query that a login needs
	device  string   // device_authorization_url, "" for none
	params  []string // that a login needs where the authURL is found
	lines   []string // of each credential whose client has none of its own
	scopes  string   // of each credential
	login   string   // scopes of one that is logged in
	ends    bool     // a refresh ends the access token before it
	ports   []string // of redirect URIs, to be taken one by one

	initial func(t *testing.T, clientID string) string
	browse  func(t *testing.T, address string) (*url.URL, error)
	confirm func(t *testing.T, userCode string)
	stats   func(t *testing.T) serverStats // nil where nobody counts

	cells []*cell
}

// found are the two ways in which a credential names its server.
func (b *behind) found() []string {
	if b.issuer == "" {
		return []string{"token_url"}
	}
	return []string{"token_url", "issuer"}
}

// add puts a cell of a client into the list.
func (b *behind) add(cl client, grant, found string, lines ...string) *cell {
	what := strings.Join(slices.DeleteFunc([]string{cl.what, found}, func(s string) bool { return s == "" }), ", ")
	c := &cell{grant: grant, method: cl.method, as: cl.as, what: what, scope: b.scopes, tokens: 2}
	c.site = site{
		credential: cl.credential,
		name:       fmt.Sprintf("%s-%d", strings.ReplaceAll(grant, "_", "-"), len(b.cells)),
		tokenURL:   cl.tokenURL,
		jwtFile:    cl.jwtFile,
		env:        make(map[string]string),
	}
	if found == "issuer" {
		c.issuer = b.issuer
	}
	c.lines = slices.Concat(cl.lines, lines)
	if len(cl.lines) == 0 {
		c.lines = slices.Concat(b.lines, lines)
	}
	c.unless("refresh_at", "10%")
	switch grant {
	case "refresh_token": // which has those that it began with
		c.ends = b.ends
	case "authorization_code", "device_code":
		c.ends = b.ends
		c.unless("scopes", b.login)
	default:
		c.unless("scopes", b.scopes)
	}
	b.cells = append(b.cells, c)
	return c
}

// unless adds a line of the credential, unless that option is there.
func (c *cell) unless(option, value string) {
	if !slices.ContainsFunc(c.lines, func(line string) bool { return strings.HasPrefix(line, option+" ") }) {
		c.lines = append(c.lines, option+" "+value)
	}
}

func (b *behind) clientCredentials(cl client, found string, lines ...string) *cell {
	return b.add(cl, "client_credentials", found, lines...)
}

// refreshes is how often a refresh token is exchanged for another.
const refreshes = 3

func (b *behind) refreshToken(t *testing.T, cl client, found string, lines ...string) *cell {
	t.Helper()
	c := b.add(cl, "refresh_token", found, append([]string{"grant refresh_token {env.INITIAL}"}, lines...)...)
	c.env["INITIAL"] = b.initial(t, cl.clientID)
	c.tokens = refreshes
	return c
}

// cellsAtOnce is how many cells one Caddy serves.
const cellsAtOnce = 32

// run has one Caddy after the other serve the cells, as many as one can at once.
func (b *behind) run(t *testing.T) {
	t.Helper()
	for cells := range slices.Chunk(b.cells, cellsAtOnce) {
		b.serve(t, cells)
	}
}

func (b *behind) serve(t *testing.T, cells []*cell) {
	t.Helper()
	sites := make([]*site, 0, len(cells))
	for _, c := range cells {
		if c.upstream == nil {
			c.upstream = startUpstream(t, b.authority)
		}
		if c.prepare != nil {
			c.prepare(t, c)
		}
		sites = append(sites, &c.site)
	}
	began := b.settled(t)
	caddy, agreed := startSites(t, sites), false
	defer func() {
		caddy.end()
		for _, c := range cells {
			c.result.ok = c.result.ok && agreed && !c.leaked
			results.put(c.result)
		}
	}()
	var all sync.WaitGroup
	for _, c := range cells {
		all.Go(func() {
			t.Run(strings.Join([]string{c.grant, c.method, c.what}, ", "), func(t *testing.T) { c.run(t, b.name) })
		})
	}
	all.Wait()
	if b.stats != nil {
		b.compare(t, caddy, cells, began)
	}
	agreed = true
}

// run is the test of one cell.
func (c *cell) run(t *testing.T, server string) {
	t.Helper()
	result := &c.result
	result.server, result.grant, result.method, result.what = server, c.grant, c.method, c.what
	t.Cleanup(func() { result.ok = !t.Failed() })
	if c.begin != nil {
		c.begin(t, c)
	}
	// without a login there is a failure in Caddy's books, though no request
	began, before := c.counts(t)[c.name], c.upstream.verdicts()
	var sent tally
	switch {
	case c.fails():
		c.refused(t, &sent)
	case c.send != nil:
		c.send(t, c, &sent)
	default:
		c.use(t, &sent)
	}
	counted := c.counts(t)[c.name]
	counted.refused -= began.refused
	counted.other -= began.other
	result.tokens, result.refused = counted.granted+c.logins, counted.refused
	result.requests, result.failures, result.longest = sent.requests, sent.failed, sent.longest

	counts, tokens := c.upstream.seen()
	if !c.fails() {
		if sent.failed != c.overtaken {
			t.Errorf("%d of %d requests failed: %v", sent.failed, sent.requests, sent.reasons)
		}
		ended, again := 0, 0
		if c.ends { // the transport sends such a request again, the client that of the handler
			ended = min(counts.inactive, counted.granted-1)
			again = counts.inactive - before.inactive - c.overtaken
		}
		if counts.bad() != ended || counts.requests-before.requests != sent.requests+again+counts.nonces-before.nonces {
			t.Errorf("upstream got %s; want %d and all good", counts, sent.requests)
		}
		if counted.refused != 0 || counted.other != 0 || counted.granted < len(tokens) {
			t.Errorf("caddy counts %+v; want %d tokens at least, and no failure", counted, len(tokens))
		}
	}
	for _, in := range tokens {
		c.judge(t, in)
	}
	if c.seen != nil {
		c.seen(t, tokens)
	}
	if c.check != nil {
		c.check(t, c, c.upstream.last())
	}
	if c.end != nil {
		c.end(t, c)
	}
}

// fails tells whether the cell shows a refusal.
func (c *cell) fails() bool { return c.code != "" || c.status != 0 || c.cause != "" }

// judge looks at what the server says of a token, where it says it.
func (c *cell) judge(t *testing.T, in fullIntrospection) {
	t.Helper()
	if in.ClientID != "" && c.clientID != "" && in.ClientID != c.clientID {
		t.Errorf("token of client %q; want %q", in.ClientID, c.clientID)
	}
	for scope := range strings.FieldsSeq(c.scope) {
		if !slices.Contains(strings.Fields(in.Scope), scope) {
			t.Errorf("token with scope %q; want %q: %+v", in.Scope, c.scope, in)
		}
	}
}

// use sends requests by each way in turn until enough tokens have come by.
func (c *cell) use(t *testing.T, sent *tally) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), cellDeadline)
	defer cancel()
	tick := time.NewTicker(cellPause)
	defer tick.Stop()
	ways := c.usedBy()
	for n := 0; ; n++ {
		a, err := sent.send(ctx, &c.site, ways[n%len(ways)], time.Now())
		for err == nil && a.status == http.StatusUnauthorized && c.ends && ways[n%len(ways)] == "handler" {
			// as often as there are other tokens, which is counted behind
			c.overtaken++
			a, err = sent.send(ctx, &c.site, "handler", time.Now())
		}
		if err != nil || a.status != http.StatusOK {
			t.Errorf("%s: status %d %q, error %v; want 200", ways[n%len(ways)], a.status, a.body, err)
			return
		}
		c.refreshToken(t) // which the log may not show
		if _, tokens := c.upstream.seen(); len(tokens) >= c.tokens && n+1 >= max(2, c.least) && (n+1)%len(ways) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			_, tokens := c.upstream.seen()
			t.Errorf("%d tokens within %s; want %d", len(tokens), cellDeadline, c.tokens)
			return
		}
	}
}

// refused sends requests that get no token.
func (c *cell) refused(t *testing.T, sent *tally) {
	t.Helper()
	for _, way := range c.usedBy() {
		a, err := sent.send(t.Context(), &c.site, way, time.Now())
		if err != nil || a.status != http.StatusBadGateway {
			t.Errorf("%s: status %d, error %v; want 502", way, a.status, err)
		}
	}
	poll(t, 30*time.Second, "a refusal in the log", func(context.Context) error {
		failures := c.failures()
		if len(failures) == 0 {
			return errors.New("none")
		}
		if f := failures[0]; f.Kind != "refused" || f.Code != c.code || c.status != 0 && f.Status != c.status || c.cause != "" && f.Cause != c.cause {
			t.Errorf("log says %+v; want it refused with %q %d %q", f, c.code, c.status, c.cause)
		}
		return nil
	})
}
