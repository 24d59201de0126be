package caddymodule

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/advice"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// ended waits for the end of a program with an exit code, and checks that it
// shows no secret and sends nothing to a terminal but text.
func (p *parts) ended(c *program, code int) (out string) {
	p.t.Helper()
	_ = c.cmd.Wait()
	if got := c.cmd.ProcessState.ExitCode(); got != code {
		p.t.Errorf("%q ended with %d, want %d\n%s", c.cmd.Args[1:], got, code, c.all())
	}
	if err := p.tellsNothing(c.all()); err != nil {
		p.t.Error(err)
	}
	onlyText(p.t, c.out.String())
	return c.out.String()
}

func onlyText(t *testing.T, out string) {
	t.Helper()
	if i := strings.IndexFunc(out, func(r rune) bool { return r != '\n' && (r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0) }); i >= 0 {
		t.Errorf("control characters at %d: %q", i, out)
	}
}

// says checks that a text has each of some lines or words in it.
func says(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%q is not said:\n%s", w, text)
		}
	}
}

// quiet is a program that had nothing to log.
func (c *program) quiet() {
	c.t.Helper()
	if text := c.errors.String(); text != "" {
		c.t.Errorf("logged: %s", text)
	}
}

// TestStatus: a table for people, the API's document for programs, and an exit
// code for scripts.
func TestStatus(t *testing.T) {
	p := newParts(t, authserver.Config{})
	a := p.runAdmin(p.credential("scopes read")+credentialToo("tenants", p.credential(tenant)), "handle /tenants {\nupstream_auth tenants\nreverse_proxy $API\n}\nhandle {\n"+injecting+"\n}")
	p.held()
	p.want(p.get("/"), 200)
	run := func(code int, args ...string) string {
		t.Helper()
		c := p.caddy(append([]string{"upstream-auth", "status", "--address", a.address}, args...)...)
		out := p.ended(c, code)
		if code < exitUnasked {
			c.quiet()
		}
		return out + c.errors.String()
	}
	out := run(0)
	says(t, out, "CREDENTIAL  STATE  TOKEN ", "\ncrm         ok     valid for ", " 1 requests, 0 failed\n", "\ntenants     ok     0 of 1000 at most  on demand", "\nReady: ")
	if strings.Contains(out, "what to do") {
		t.Errorf("all is well, and got\n%s", out)
	}
	says(t, run(0, "crm"), "crm  ok\n  the token is valid for 59 minutes", "\n  grant          client_credentials\n", "\n  client auth    client_secret_basic\n",
		"\n  server         "+p.server.URL()+"/token\n", "\n  lifetime       1h\n")
	says(t, run(0, "tenants"), "tenants  ok\n")

	// for programs, what the API answers
	for _, args := range [][]string{{"--json"}, {"--json", "crm"}} {
		document := run(0, args...)
		path := credentialsPath
		if len(args) > 1 {
			path += "/crm"
		}
		var got, want map[string]any
		if err := json.Unmarshal([]byte(document), &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(a.call(http.MethodGet, path).body), &want); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(sorted(got)) != fmt.Sprint(sorted(want)) {
			t.Errorf("got %s", document)
		}
	}

	says(t, run(2, "hr"), "credential 'hr' is not defined; defined are: crm, tenants")
	says(t, run(2, "hr", "--json"), "credential 'hr' is not defined")
	says(t, run(2, "../config"), "is not a credential's name")
	says(t, run(2, "crm", "tenants"), "expected one credential")
	says(t, run(2, "--nonsense"), "unknown flag: --nonsense")
}

// TestStatusNotReady: what is wrong, since when, and what to do; and nothing in
// the log, for all is said.
func TestStatusNotReady(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.auth.SetFault(authserver.Invalid("invalid_client\x1b[31m", "no \x1b]0;x\x07"))
	a := p.runAdmin(p.credential()+credentialToo("spare", p.credential()), injecting)
	p.want(p.get("/"), 502)
	eventually(t, "a failure", func() bool { return credentials.newest()["spare"].source.Snapshot().Failure != nil })
	for _, args := range [][]string{nil, {"crm"}, {"spare"}} {
		c := p.caddy(append([]string{"upstream-auth", "status", "--address", a.address}, args...)...)
		out := p.ended(c, 1)
		c.quiet()
		says(t, out, " unavailable", "\n  failure        refused: HTTP 400, ", "\n  what is wrong  ", "\n  what to do     ", "\n  more           https://github.com/")
		if args == nil {
			says(t, out, "\nNot ready: no valid token is held for crm.\n")
		}
	}
	c := p.caddy("upstream-auth", "status", "--address", a.address, "--json")
	p.ended(c, 1)
	c.quiet()
	if o := parsed[overview](t, answer{body: c.out.String()}); o.Ready {
		t.Errorf("got %s", c.out.String())
	}
}

// TestStatusFinds: the process is found as caddy reload finds it.
func TestStatusFinds(t *testing.T) {
	p := newParts(t, authserver.Config{})
	dir := t.TempDir()
	socket := filepath.Join(dir, "admin.sock")
	at := "unix/" + socket + "|0600"
	caddyfile := p.administered(at, p.credential(), injecting)
	if err := p.load(caddyfile); err != nil {
		t.Fatal(err)
	}
	p.held()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file := write("Caddyfile", caddyfile)
	for name, tc := range map[string]struct {
		args, env []string
		dir       string
	}{
		"by its address":              {args: []string{"--address", at}},
		"by its address, no mode":     {args: []string{"--address", "unix/" + socket}},
		"by its config":               {args: []string{"--config", file}},
		"by its config, elsewhere":    {args: []string{"--config", write("config.txt", caddyfile), "--adapter", "caddyfile"}},
		"by its config in JSON":       {args: []string{"--config", write("caddy.json", string(adapt(t, caddyfile)))}},
		"by that of the folder":       {dir: dir},
		"by CADDY_ADMIN":              {env: []string{"CADDY_ADMIN=" + at}},
		"by CADDY_ADMIN, with a file": {args: []string{"--config", write("other", "{\n}\n"), "--adapter", "caddyfile"}, env: []string{"CADDY_ADMIN=" + at}},
		"by a placeholder": {
			args: []string{"--config", write("placeholder.json", `{"admin":{"listen":"unix/{env.TEST_ADMIN}|0600"}}`)},
			env:  []string{"TEST_ADMIN=" + socket},
		},
		"the address counts": {args: []string{"--address", at, "--config", "/nonexistent"}, env: []string{"CADDY_ADMIN=127.0.0.1:1"}},
		"the config counts":  {args: []string{"--config", file}, env: []string{"CADDY_ADMIN=127.0.0.1:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := p.prepare(append([]string{"upstream-auth", "status"}, tc.args...)...)
			c.cmd.Env = append(c.cmd.Env, tc.env...)
			if tc.dir != "" {
				c.cmd.Dir = tc.dir
			}
			c.start()
			says(t, p.ended(c, 0), "\ncrm         ok")
		})
	}
}

// TestStatusEnforced: where an origin is demanded, the command has one.
func TestStatusEnforced(t *testing.T) {
	p := newParts(t, authserver.Config{})
	a := p.runAdmin(p.credential(), injecting, "enforce_origin")
	p.held()
	says(t, a.command(0, "status"), "\ncrm         ok")
	says(t, a.command(0, "refresh", "crm"), "crm: new token")
}

// TestStatusFindsNobody: each reason for which there is no answer, and what to
// do.
func TestStatusFindsNobody(t *testing.T) {
	p := newParts(t, authserver.Config{})
	dir := t.TempDir()
	config := func(admin string) string { return writeFile(t, "caddy.json", []byte(`{"admin":`+admin+`}`)) }
	serve := func(h http.HandlerFunc) string {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return s.Listener.Addr().String()
	}
	for name, tc := range map[string]struct {
		args []string
		says []string
	}{
		"nobody":           {[]string{"--address", deadAddr(t)}, []string{"nothing listens at 127.0.0.1:", "--address or --config tells where"}},
		"no socket":        {[]string{"--address", "unix/" + dir + "/no.sock"}, []string{"nothing listens at " + dir + "/no.sock: "}},
		"off":              {[]string{"--config", config(`{"disabled":true}`)}, []string{"turns the admin API off", "write admin unix//path/to/socket|0600"}},
		"no file":          {[]string{"--config", dir + "/no.json"}, []string{"looking for the admin API's address", "no such file"}},
		"no JSON":          {[]string{"--config", writeFile(t, "bad.json", []byte("{"))}, []string{"looking for the admin API's address in "}},
		"an adapter alone": {[]string{"--adapter", "caddyfile"}, []string{"cannot adapt config without config file"}},
		"no address":       {[]string{"--address", "localhost"}, []string{"--address: 'localhost': expected an address such as localhost:2019"}},
		"no port":          {[]string{"--address", ":x"}, []string{"--address: ':x': "}},
		"ports":            {[]string{"--address", "localhost:1-2"}, []string{"expected an address such as"}},
		"a bad mode":       {[]string{"--address", "unix//run/caddy.sock|abc"}, []string{"could not parse octal permission bits"}},
		"no path":          {[]string{"--address", "unix/"}, []string{"expected an address such as"}},
		"given":            {[]string{"--config", config(`{"listen":"fd/3"}`)}, []string{"the admin API's address in ", "name with --address what the socket listens on"}},
		"no variable":      {[]string{"--config", config(`{"listen":"{env.NO_SUCH_ADDRESS}"}`)}, []string{"the admin API's address in ", "NO_SUCH_ADDRESS"}},
		"without this": {
			[]string{"--address", serve(http.NotFound)}, []string{"does not have this plugin", "caddy list-modules"},
		},
		"a page": {[]string{"--address", serve(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<p>hello") })}, []string{"is not Caddy's admin API (HTTP 200)"}},
		"broken": {[]string{"--address", serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })}, []string{"is not Caddy's admin API (HTTP 500)"}},
		"led away": {[]string{"--address", serve(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://idp.example.com/", http.StatusFound)
		})}, []string{"(HTTP 302)"}},
		"another JSON": {[]string{"--address", serve(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `[1]`) })}, []string{"may be of another version"}},
		"cut off":      {[]string{"--address", serve(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })}, []string{"asking the admin API at 127.0.0.1:", "EOF"}},
		"not let in": {[]string{"--address", serve(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(403)
			_, _ = io.WriteString(w, `{"error":"host not allowed: x\u001b[31m"}`)
		})}, []string{"does not let this command in (host not allowed: x [31m)", "among its origins"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := p.caddy(append([]string{"upstream-auth", "status"}, tc.args...)...)
			if out := p.ended(c, 2); out != "" {
				t.Errorf("printed %s", out)
			}
			says(t, c.errors.String(), tc.says...)
			if n := strings.Count(c.errors.String(), "ERROR"); n > 1 || strings.Contains(c.errors.String(), "Usage:") {
				t.Errorf("it says more than once what is wrong: %s", c.errors.String())
			}
		})
	}
}

// TestStatusSidecars: where nothing listens, those that the command proxy runs
// are named.
func TestStatusSidecars(t *testing.T) {
	p := newParts(t, authserver.Config{})
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "caddy-upstream-auth-17.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := p.prepare("upstream-auth", "status", "--address", deadAddr(t))
	c.cmd.Env = append(c.cmd.Env, "XDG_RUNTIME_DIR="+dir)
	c.start()
	p.ended(c, 2)
	says(t, c.errors.String(), "; for what caddy upstream-auth proxy runs: --address unix/"+dir+"/caddy-upstream-auth-17.sock")
}

// TestUnreached: what a test cannot bring about as any user.
func TestUnreached(t *testing.T) {
	p, err := newProcess("unix//run/caddy/admin.sock|0660")
	if err != nil {
		t.Fatal(err)
	}
	dial := func(no syscall.Errno) error {
		return &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", no)}
	}
	for want, cause := range map[string]error{
		"is another user's: run this command as the user": dial(syscall.EACCES),
		"nothing listens at /run/caddy/admin.sock: ":      dial(syscall.ENOENT),
		"dial unix: connect: too many open files":         dial(syscall.EMFILE),
	} {
		says(t, p.unreached(cause, time.Second).Error(), want)
	}
}

// TestStatusHangs: one that takes the connection and does not answer.
func TestStatusHangs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p, err := newProcess(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.ask(t.Context(), 50*time.Millisecond, http.MethodGet, credentialsPath)
	says(t, fmt.Sprint(err), "does not answer within 50ms")
}

// ansi is a colour.
var ansi = regexp.MustCompile(`\x1b\[\d+m`)

var tableTime = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// eachState is an overview with a credential in each state.
func eachState() *overview {
	now := tableTime
	h := &hour{Until: now, Requests: []uint64{1000, 204}, Failures: []uint64{0, 3}, Rejected: []uint64{2}, TokenRequests: []uint64{1, 1}, TokenFailures: []uint64{1}}
	valid := func(d time.Duration) *tokenReport {
		return &tokenReport{Valid: true, Sent: now.Add(d - time.Hour), Expires: now.Add(d), Ends: now.Add(d + 10*time.Second), Lifetime: 3610, Scopes: []string{"read", "write"}}
	}
	o := &overview{Time: now, Credentials: []*report{
		{Name: "crm", State: stateOK, Ready: true, Counts: true, Used: true, Summary: "fine", Token: valid(42 * time.Minute), NextRequest: now.Add(20 * time.Minute), LastHour: h},
		{
			Name: "erp-of-the-house", State: stateUnavailable, Counts: true, Used: true, Summary: "it failed", NextRequest: now.Add(90 * time.Second), LastHour: h,
			Failures: 3, FailingSince: now.Add(-2 * time.Hour), Failure: &failureReport{Kind: "refused", Status: 401, Code: "invalid_client", Message: "refused: HTTP 401, invalid_client"},
			Advice: &advice.Advice{Wrong: "the server refuses the client", Do: "have a new secret issued", Topic: "client-refused"},
		},
		{Name: "hr", State: stateStarting, Summary: "not yet", Requesting: true, LastHour: h},
		{Name: "login", State: stateLogin, Summary: "log in", LastHour: h, Token: &tokenReport{Expires: now.Add(-3 * time.Minute)}, RefreshToken: &refreshTokenReport{}, NextRequest: now.Add(10000 * time.Hour)},
		{Name: "tenants", State: stateOK, Ready: true, Summary: "many", Template: &templateReport{Tokens: 3, MaxTokens: 1000}, LastHour: h},
	}}
	o.Credentials[0].Token.Missing = []string{"admin"}
	return o
}

const wholeTable = `CREDENTIAL        STATE           TOKEN              NEXT REQUEST  LAST HOUR
crm               ok              valid for 42m      in 20m        1204 requests, 3 failed
erp-of-the-house  unavailable     none               in 1m30s      1204 requests, 3 failed
hr                starting        none               under way     1204 requests, 3 failed
login             login required  expired 3m ago     none planned  1204 requests, 3 failed
tenants           ok              3 of 1000 at most  on demand     1204 requests, 3 failed

crm: fine
  not granted    admin

erp-of-the-house: it failed
  failure        refused: HTTP 401, invalid_client
  what is wrong  the server refuses the client
  what to do     have a new secret issued
  more           https://github.com/caddy-upstream-auth/caddy-upstream-auth/blob/main/docs/runbook.md#client-refused

hr: not yet

login: log in

Not ready: no valid token is held for erp-of-the-house.
`

func TestStatusTable(t *testing.T) {
	var out bytes.Buffer
	if err := (&statusTable{out: &out}).all(eachState()); err != nil {
		t.Fatal(err)
	}
	if out.String() != wholeTable {
		t.Errorf("got\n%s", &out)
	}
	var inColour bytes.Buffer
	if err := (&statusTable{out: &inColour, colour: true}).all(eachState()); err != nil {
		t.Fatal(err)
	}
	says(t, inColour.String(), "\ncrm               \x1b[32mok\x1b[0m              valid", " \x1b[31munavailable\x1b[0m ", " \x1b[33mstarting\x1b[0m ", " \x1b[31mlogin required\x1b[0m ")
	if plain := ansi.ReplaceAllString(inColour.String(), ""); plain != wholeTable {
		t.Errorf("got\n%s", plain)
	}
	out.Reset()
	if err := (&statusTable{out: &out}).all(new(overview)); err != nil || out.String() != "This process has no credentials.\n" {
		t.Errorf("got %s, %v", &out, err)
	}
}

// TestStatusBlock: all that is known of one credential.
func TestStatusBlock(t *testing.T) {
	o := eachState()
	for i, want := range []string{`crm  ok
  fine
  token          valid for 42m
  lifetime       1h
  asked for      2026-05-04 11:42:00 UTC (18m ago)
  ends           2026-05-04 12:42:10 UTC (in 42m)
  scopes         read write
  next request   in 20m
  last hour      1204 requests, 3 failed, 2 tokens refused by upstreams; 2 token requests, 1 failed
  not granted    admin
`, `erp-of-the-house  unavailable
  it failed
  token          none
  next request   in 1m30s
  failing        3 in a row, since 2026-05-04 10:00:00 UTC (2h ago)
  last hour      1204 requests, 3 failed, 2 tokens refused by upstreams; 2 token requests, 1 failed
  failure        refused: HTTP 401, invalid_client
  what is wrong  the server refuses the client
  what to do     have a new secret issued
  more           https://github.com/caddy-upstream-auth/caddy-upstream-auth/blob/main/docs/runbook.md#client-refused
`} {
		var out bytes.Buffer
		if err := (&statusTable{out: &out, now: tableTime}).one(o.Credentials[i]); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("got\n%s\nwant\n%s", &out, want)
		}
	}
	var out bytes.Buffer
	if err := (&statusTable{out: &out, now: tableTime}).one(o.Credentials[3]); err != nil {
		t.Fatal(err)
	}
	says(t, out.String(), "\n  refresh token  none that the server takes\n", "\n  used           by no route of the configuration\n")
}

// TestStatusOfStrangers: whatever a process at an address says, a terminal gets
// text.
func TestStatusOfStrangers(t *testing.T) {
	const evil = "\x1b]0;x\x07\r\n\x9b31m\u202eabc\xff"
	r := &report{
		Name: evil, Grant: evil, ClientAuth: evil, Endpoint: evil, State: evil, Summary: evil, Advice: &advice.Advice{Wrong: evil, Do: evil, Topic: evil},
		Token: &tokenReport{Scopes: []string{evil}, Missing: []string{evil}}, Failure: &failureReport{Message: evil}, Failures: 1, Counts: true,
	}
	var out bytes.Buffer
	for _, show := range []func(*statusTable) error{
		func(s *statusTable) error { return s.all(&overview{Credentials: []*report{r}}) },
		func(s *statusTable) error { return s.one(r) },
		func(s *statusTable) error { return s.failed(r) },
	} {
		if err := show(&statusTable{out: &out}); err != nil {
			t.Fatal(err)
		}
	}
	onlyText(t, out.String())
	if strings.ContainsRune(out.String(), '\u202e') || !strings.Contains(out.String(), "abc") {
		t.Errorf("got %q", &out)
	}
}

func TestShortSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 0: "0s", 499 * time.Millisecond: "0s", 42 * time.Second: "42s", 59*time.Second + 600*time.Millisecond: "59s", time.Minute: "1m",
		90 * time.Second: "1m30s", 9*time.Minute + 59*time.Second: "9m59s", 10*time.Minute + 59*time.Second: "10m", 42 * time.Minute: "42m",
		59*time.Minute + 50*time.Second: "59m", time.Hour: "1h", 65 * time.Minute: "1h5m", 23*time.Hour + 59*time.Minute + 40*time.Second: "23h59m",
		24 * time.Hour: "1d", 76*time.Hour + 20*time.Minute: "3d4h",
	} {
		if got := shortSpan(d); got != want {
			t.Errorf("%s is %s, want %s", d, got, want)
		}
	}
}

// TestColoured: only for a person who looks at it.
func TestColoured(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	device, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0) // a character device, as a terminal is
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	if coloured(new(bytes.Buffer)) || coloured(file) || !coloured(device) {
		t.Error("colours are not for a terminal alone")
	}
	t.Setenv("TERM", "dumb")
	if coloured(device) {
		t.Error("colours in spite of TERM")
	}
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "1")
	if coloured(device) {
		t.Error("colours in spite of NO_COLOR")
	}
}
