package interop

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startTried starts all of it, with somebody logged in.
func startTried(t *testing.T) *tried {
	t.Helper()
	// a unix socket's path has about 100 characters
	dir, err := os.MkdirTemp("", "interop") //nolint:usetesting // t.TempDir is too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	tr := &tried{
		caddy:    &caddy{dir: dir, config: filepath.Join(dir, "Caddyfile"), client: clientOf(filepath.Join(dir, "sites.sock"))},
		statuses: make(map[string]map[int]int),
		secret:   filepath.Join(dir, "secret"),
		long:     startProvider(t, longLife, 0),
		short:    startProvider(t, shortLife, 0),
		server:   startServer(t, fosite, longLife, 0),
	}
	tr.api, tr.second = startUpstream(t, tr.server), startUpstream(t, tr.server)
	tr.paged = tr.pageBefore(t)
	tr.write(t, tr.secret, "not-the-secret")
	tr.write(t, filepath.Join(dir, "initial"), tr.server.initial(t, "basic"))
	upstreams := map[string]*upstream{"soon": startUpstream(t, tr.long), "crm": startUpstream(t, tr.short), "api": tr.api}
	var text strings.Builder
	fmt.Fprintf(&text, triedSites, dir, tr.long.tokenURL(), tr.short.tokenURL(), tr.server.issuer, tr.paged.URL,
		freePorts(t, 1)[0], tr.api.Listener.Addr())
	for _, name := range []string{"soon", "crm", "paged", "refused", "mail", "kept", "api"} {
		fmt.Fprintf(&text, triedSite, dir, name, cmp.Or(upstreams[name], tr.second).URL)
	}
	tr.write(t, tr.config, text.String())

	tr.environ = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir, "SECRET=secret-of-basic")
	tr.mail = &site{caddy: tr.caddy, credential: credential{clientID: "basic", secret: "secret-of-basic"}, name: "mail", upstream: tr.second}
	tr.mail.inBrowser(t, tr.server.browse)
	tr.run(t)
	t.Cleanup(func() {
		tr.client.CloseIdleConnections()
		tr.caddy.stop(t, syscall.SIGTERM)
		if t.Failed() {
			t.Logf("Caddy's log:\n%s", tr.withoutAccessLog())
		}
	})
	tr.began = time.Now()
	poll(t, startDeadline, "the sites", func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "sites.sock"))
		if err != nil {
			return err
		}
		return conn.Close()
	})
	tr.prometheus = startPrometheus(t, forward(t, filepath.Join(dir, "sites.sock")))
	tr.load(t)
	return tr
}

// run starts Caddy.
func (tr *tried) run(t *testing.T) {
	t.Helper()
	cmd := exec.Command(binary, "run", "--config", tr.config, "--adapter", "caddyfile")
	cmd.Env = tr.environ
	tr.caddy.process = start(t, "caddy", cmd)
}

// pageBefore is what stands before the server, and at times answers for it.
func (tr *tried) pageBefore(t *testing.T) *httptest.Server {
	t.Helper()
	behind, err := url.Parse(tr.server.issuer)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(behind)
	before := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tr.page.Load() {
			fmt.Fprintln(w, "<!DOCTYPE html><title>We are back soon</title>")
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(before.Close)
	return before
}

// load sends ten requests a second for each credential until the test ends.
func (tr *tried) load(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for _, name := range []string{"soon", "crm", "paged", "refused", "mail", "kept", "api", "denied"} {
		all.Go(func() {
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					all.Go(func() { tr.send(ctx, name) })
				case <-ctx.Done():
					return
				}
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		all.Wait()
	})
}

func (tr *tried) send(ctx context.Context, name string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+name+"/", nil)
	if err != nil {
		return
	}
	to := tr.api
	if tr.other.Load() {
		to = tr.second
	}
	req.Header.Set("X-Upstream", to.Listener.Addr().String())
	a, err := do(tr.client, req)
	if ctx.Err() != nil {
		return
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.statuses[name] == nil {
		tr.statuses[name] = make(map[int]int)
	}
	if err != nil {
		a.status = 0
	}
	tr.statuses[name][a.status]++
}

// nobodyNoticed: each request so far was answered with 200.
func (tr *tried) nobodyNoticed(t *testing.T, name string) {
	t.Helper()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if got := tr.statuses[name]; len(got) != 1 || got[http.StatusOK] == 0 {
		t.Errorf("requests for %s were answered with %v; want 200 for all", name, got)
	}
}

// inHealth: while nothing is wrong, nothing fires, but for the one that was
// wrong from the start. A day, as the rules have it, is long enough to compare
// with when the last quarter of an hour is not all that there was.
func (tr *tried) inHealth(t *testing.T) {
	t.Helper()
	poll(t, startDeadline, "scrapes in health", func(ctx context.Context) error {
		tr.prometheus.mu.Lock()
		for a := range tr.fired {
			if a.credential != "refused" {
				tr.prometheus.mu.Unlock()
				t.Fatalf("%v fires in health", a)
			}
		}
		tr.prometheus.mu.Unlock()
		n, err := tr.scraped(ctx)
		if err == nil && n < 22 {
			err = fmt.Errorf("%d so far", n)
		}
		return err
	})
	for _, name := range []string{"soon", "paged", "mail", "kept", "api", "denied"} {
		tr.nobodyNoticed(t, name)
	}
}

// write replaces a file as a whole.
func (tr *tried) write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// revoke has the server end a refresh token (RFC 7009).
func (tr *tried) revoke(t *testing.T, token string) {
	t.Helper()
	req, err := newForm(t.Context(), tr.server.issuer+"/revoke", url.Values{"token": {token}, "token_type_hint": {"refresh_token"}})
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("basic", "secret-of-basic")
	a, err := do(http.DefaultClient, req)
	if err != nil || a.status != http.StatusOK {
		t.Fatalf("/revoke: %d %s, %v", a.status, a.body, err)
	}
}

// logs tells whether a line about the credential holds a text.
func (tr *tried) logs(credential, text string) bool {
	lines, _ := tr.caddy.output.lines()
	return slices.ContainsFunc(lines, func(line string) bool {
		return strings.Contains(line, text) && entryOf(line).Credential == credential
	})
}

// tell checks that each alert was tried, and writes the table where it is wanted.
func (tr *tried) tell(t *testing.T) {
	t.Helper()
	rules, err := os.ReadFile(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range alertName.FindAllStringSubmatch(string(rules), -1) {
		if !slices.ContainsFunc(tr.rows, func(r triedRow) bool { return r.alert == found[1] }) {
			t.Errorf("%s was not tried", found[1])
		}
	}
	if *runbookTable == "" || t.Failed() {
		return
	}
	text, err := os.ReadFile(*runbookTable)
	if err != nil {
		t.Fatal(err)
	}
	mark := []byte("<!-- written by ")
	head, _, found := bytes.Cut(text, mark)
	if !found {
		t.Fatalf("%s: there is no %s", *runbookTable, mark)
	}
	_, line, _ := bytes.Cut(text, mark)
	line, _, _ = bytes.Cut(line, []byte("\n"))
	out := bytes.NewBuffer(slices.Concat(head, mark, line, []byte("\n\n")))
	slices.SortFunc(tr.rows, func(a, b triedRow) int { return strings.Compare(a.alert, b.alert) })
	fmt.Fprintf(out, "Under a real Prometheus, with a scrape and an evaluation each second and each duration of the rules divided by %d. Tokens and attempts were no faster than ever: tokens lived for %.0f seconds, where one had to end for %.0f, and after a refusal Caddy waits for up to 5 seconds, then longer.\n\n", hurry, longLife.Seconds(), shortLife.Seconds())
	out.WriteString("| alert | what was wrong | fired after | what was done | gone after |\n| --- | --- | --- | --- | --- |\n")
	for _, r := range tr.rows {
		fmt.Fprintf(out, "| %s | %s | %.0f s | %s | %.0f s |\n", r.alert, r.fault, r.fires.Seconds(), r.advice, r.ends.Seconds())
	}
	if err := os.WriteFile(*runbookTable, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

var (
	alertName  = regexp.MustCompile(`(?m)^ *- alert: (\w+)$`)
	runbookURL = regexp.MustCompile(`(?m)^ *runbook_url: https://github\.com/caddy-upstream-auth/caddy-upstream-auth/blob/main/docs/runbook\.md#([a-z-]+)$`)
	heading    = regexp.MustCompile(`(?m)^## (.+)$`)
	inText     = regexp.MustCompile(`\]\(#([a-z-]+)\)`)
)

// topics are the sections that the program's own advice leads to.
var topics = []string{
	"unreachable", "tls", "wrong-answer", "client-refused", "scope-refused", "login-required", "storage", "clock",
	"token-refused-upstream", "short-lifetime", "too-many-requests", "files",
}

// TestRunbookSections: whatever leads into the runbook leads to a section.
func TestRunbookSections(t *testing.T) {
	t.Parallel()
	rules, err := os.ReadFile(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	runbook, err := os.ReadFile(runbookFile)
	if err != nil {
		t.Fatal(err)
	}
	var sections []string
	for _, found := range heading.FindAllSubmatch(runbook, -1) {
		sections = append(sections, strings.ReplaceAll(strings.ToLower(string(found[1])), " ", "-"))
	}
	wanted := slices.Clone(topics)
	urls := runbookURL.FindAllSubmatch(rules, -1)
	alerts := alertName.FindAllSubmatch(rules, -1)
	if len(urls) != len(alerts) || len(alerts) == 0 {
		t.Errorf("%d alerts have %d addresses in the runbook", len(alerts), len(urls))
	}
	for _, alert := range alerts {
		if !bytes.Contains(runbook, alert[1]) {
			t.Errorf("the runbook has no %s", alert[1])
		}
	}
	for _, found := range slices.Concat(urls, inText.FindAllSubmatch(runbook, -1)) {
		wanted = append(wanted, string(found[1]))
	}
	for _, section := range wanted {
		if !slices.Contains(sections, section) {
			t.Errorf("the runbook has no section #%s", section)
		}
	}
}
