package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

// admin is the admin API of the test's Caddy.
type admin struct {
	*parts
	address string // host:port, or the path of a socket
	client  *http.Client
}

// administered is the Caddyfile of parts with an admin API at an address.
func (p *parts) administered(address, credential, site string) string {
	return strings.Replace(p.caddyfile(credential, site), "admin off", "admin "+address, 1)
}

// runAdmin has Caddy run with an admin API that has these options.
func (p *parts) runAdmin(credential, site string, options ...string) *admin {
	p.t.Helper()
	a := &admin{parts: p, address: freeport.Addr(p.t), client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}}
	block := ""
	if len(options) > 0 {
		block = " {\n" + strings.Join(options, "\n") + "\n}"
	}
	if err := p.load(p.administered(a.address+block, credential, site)); err != nil {
		p.t.Fatal(err)
	}
	return a
}

// call makes a request of the API; fields are names and values of its header.
func (a *admin) call(method, path string, fields ...string) answer {
	a.t.Helper()
	got, err := a.attempt(a.t.Context(), method, path, fields...)
	if err != nil {
		a.t.Fatal(err)
	}
	if err := a.tellsNothing(got.body + fmt.Sprint(got.header)); err != nil {
		a.t.Errorf("%s %s: %v", method, path, err)
	}
	return got
}

func (a *admin) attempt(ctx context.Context, method, path string, fields ...string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+a.address+path, nil)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
		if fields[i] == "Host" {
			req.Host = fields[i+1]
		}
	}
	res, err := a.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(body)}, err
}

// wish asks for another token for crm.
func (a *admin) wish() answer { a.t.Helper(); return a.call(http.MethodPost, refreshPath) }

const refreshPath = credentialsPath + "/crm/refresh"

// forcedRequests is the metric, by its result.
func forcedRequests(result string) int {
	return int(testutil.ToFloat64(tokenRequests.WithLabelValues("crm", "client_credentials", "forced", result)))
}

// wantError checks that an answer is an error as Caddy's, and what it says.
func (a *admin) wantError(got answer, status int, says string) {
	a.t.Helper()
	var document map[string]string
	err := json.Unmarshal([]byte(got.body), &document)
	if got.status != status || err != nil || len(document) != 1 || !strings.Contains(document["error"], says) || got.header.Get("Content-Type") != "application/json" {
		a.t.Errorf("got %d %s (%v), want %d with an error that says %q", got.status, got.body, err, status, says)
	}
}

func parsed[V any](t *testing.T, a answer) *V {
	t.Helper()
	v := new(V)
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	return v
}

// held waits until the credential crm holds a token.
func (p *parts) held() {
	p.t.Helper()
	eventually(p.t, "a token", func() bool {
		e := credentials.newest()["crm"]
		return e != nil && e.source.Snapshot().Held
	})
}

// TestAdminAPI: all credentials, and one of them.
func TestAdminAPI(t *testing.T) {
	p := newParts(t, authserver.Config{RefreshTokens: true})
	refused := listen(t, "127.0.0.1:0", authserver.New(authserver.Config{ClientID: "another", ClientSecret: "x"}))
	a := p.runAdmin(p.credential("scopes read")+
		credentialToo("erp", strings.ReplaceAll(p.credential(), p.server.URL(), refused.URL()))+
		credentialToo("login", p.refreshing(p.auth.IssueRefreshToken()))+
		credentialToo("tenants", p.credential(tenant)),
		"handle /erp {\nupstream_auth erp\nreverse_proxy $API\n}\nhandle /tenants {\nupstream_auth tenants\nreverse_proxy $API\n}\nhandle {\n"+injecting+"\n}")
	p.held()
	eventually(t, "a token and a failure", func() bool {
		live := credentials.newest()
		return live["login"].source.Snapshot().Held && live["erp"].source.Snapshot().Failure != nil
	})
	p.want(p.get("/tenants", "X-Tenant", "acme"), 200)

	list := a.call(http.MethodGet, credentialsPath)
	all := parsed[overview](t, list)
	var told []string
	for _, r := range all.Credentials {
		told = append(told, fmt.Sprint(r.Name, " ", r.State, " ready:", r.Ready, " used:", r.Used, " counts:", r.Counts, " advice:", r.Advice != nil))
	}
	want := []string{
		"crm ok ready:true used:true counts:true advice:false",
		"erp unavailable ready:false used:true counts:true advice:true",
		"login ok ready:true used:false counts:false advice:false",
		"tenants ok ready:true used:true counts:false advice:false",
	}
	if list.status != 200 || all.Ready || !slices.Equal(told, want) || all.Version != version() || time.Since(all.Time) > time.Minute {
		t.Errorf("got %d, %q, want %q", list.status, told, want)
	}
	if h := list.header; h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "no-store" || h.Get("Content-Length") != strconv.Itoa(len(list.body)) {
		t.Errorf("header %v", h)
	}
	if strings.Contains(list.body, "acme") {
		t.Error("a value of a request is shown")
	}
	for _, name := range []string{"crm", "erp", "login", "tenants"} {
		one := a.call(http.MethodGet, credentialsPath+"/"+name)
		r := parsed[report](t, one)
		i := slices.IndexFunc(all.Credentials, func(r *report) bool { return r.Name == name })
		if one.status != 200 || r.Name != name || r.State != all.Credentials[i].State || r.Counts != all.Credentials[i].Counts {
			t.Errorf("%s: got %d %s", name, one.status, one.body)
		}
		head := a.call(http.MethodHead, credentialsPath+"/"+name)
		if head.status != 200 || head.body != "" || head.header.Get("Content-Type") != "application/json" {
			t.Errorf("HEAD: got %v", head)
		}
	}
	if head := a.call(http.MethodHead, credentialsPath); head.status != 200 || head.body != "" {
		t.Errorf("HEAD: got %v", head)
	}
}

// TestAdminAPIRefuses: what is not there, and what is not allowed, is refused as
// Caddy does it.
func TestAdminAPIRefuses(t *testing.T) {
	p := newParts(t, authserver.Config{})
	a := p.runAdmin(p.credential()+credentialToo("erp", p.credential()), injecting)
	p.held()
	const names = "'hr' is not defined; defined are: crm, erp"
	for _, tc := range []struct {
		method, path string
		status       int
		says, allow  string
	}{
		{"GET", "/hr", 404, names, ""},
		{"HEAD", "/hr", 404, "", ""},
		{"POST", "/hr/refresh", 404, names, ""},
		{"GET", "/CRM", 404, "'CRM' is not defined", ""},
		{"GET", "/crm%0a%1b[31m", 404, "is not a credential's name", ""},
		{"GET", "/crm%2frefresh", 404, "is not a credential's name", ""},
		{"GET", "/" + strings.Repeat("a", 65), 404, "is not a credential's name", ""},
		{"POST", "", 405, "expected GET or HEAD", "GET, HEAD"},
		{"DELETE", "", 405, "expected GET or HEAD", "GET, HEAD"},
		{"OPTIONS", "", 405, "expected GET or HEAD", "GET, HEAD"},
		{"PUT", "/crm", 405, "expected GET or HEAD", "GET, HEAD"},
		{"PATCH", "/hr", 405, "expected GET or HEAD", "GET, HEAD"},
		{"GET", "/crm/refresh", 405, "expected POST", "POST"},
		{"HEAD", "/crm/refresh", 405, "", "POST"},
		{"PUT", "/crm/refresh", 405, "expected POST", "POST"},
	} {
		got := a.call(tc.method, credentialsPath+tc.path)
		if tc.method == "HEAD" {
			p.want(got, tc.status)
		} else {
			a.wantError(got, tc.status, tc.says)
		}
		if got.header.Get("Allow") != tc.allow {
			t.Errorf("%s %s: Allow is %q", tc.method, tc.path, got.header.Get("Allow"))
		}
	}
	// below, Caddy has no route, as with any other path that it does not know
	for _, path := range []string{"/", "/crm/", "/crm/refresh/", "/crm/refresh/x", "/crm/token"} {
		p.want(a.call(http.MethodGet, credentialsPath+path), 404)
	}
	if n := p.auth.Requests(); n != 2 {
		t.Errorf("%d token requests", n)
	}
}

// TestAdminAPINames: of very many credentials an error names some.
func TestAdminAPINames(t *testing.T) {
	p := newParts(t, authserver.Config{})
	var more strings.Builder
	for i := range 60 {
		more.WriteString(credentialToo(fmt.Sprintf("many-%02d", i), p.credential()))
	}
	a := p.runAdmin(p.credential()+more.String(), injecting)
	a.wantError(a.call(http.MethodGet, credentialsPath+"/hr"), 404, "many-47, many-48, and 11 more")
}

// TestAdminAPIOrigins: who may ask is checked before, as Caddy does it for its
// own routes; nothing is asked for by those who may not.
func TestAdminAPIOrigins(t *testing.T) {
	for name, tc := range map[string]struct {
		options, fields []string
		status          int
	}{
		"as it is":                  {nil, nil, 200},
		"another host":              {nil, []string{"Host", "evil.example.com"}, 403},
		"another port":              {nil, []string{"Host", "localhost:1"}, 403},
		"another origin":            {nil, []string{"Origin", "https://evil.example.com"}, 403},
		"a form of a page":          {nil, []string{"Origin", "https://evil.example.com", "Sec-Fetch-Mode", "navigate"}, 403},
		"a form without an origin":  {nil, []string{"Sec-Fetch-Mode", "navigate"}, 403},
		"without CORS":              {nil, []string{"Sec-Fetch-Mode", "no-cors"}, 400},
		"an origin that is hidden":  {nil, []string{"Origin", "null"}, 400},
		"enforced, none":            {[]string{"enforce_origin"}, nil, 403},
		"enforced, another":         {[]string{"enforce_origin"}, []string{"Origin", "https://evil.example.com"}, 403},
		"enforced, its own":         {[]string{"enforce_origin"}, []string{"Origin", "$SELF"}, 200},
		"listed":                    {[]string{"origins admin.example.com", "enforce_origin"}, []string{"Host", "admin.example.com", "Origin", "http://admin.example.com"}, 200},
		"not listed":                {[]string{"origins admin.example.com", "enforce_origin"}, []string{"Host", "admin.example.com", "Origin", "http://evil.example.com"}, 403},
		"its own, and another's is": {[]string{"origins admin.example.com"}, nil, 403},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParts(t, authserver.Config{})
			a := p.runAdmin(p.credential(), injecting, tc.options...)
			p.held()
			fields := slices.Clone(tc.fields)
			for i := range fields {
				fields[i] = strings.ReplaceAll(fields[i], "$SELF", "http://"+a.address)
			}
			for _, request := range [][2]string{{"GET", credentialsPath}, {"GET", credentialsPath + "/crm"}, {"POST", refreshPath}} {
				p.want(a.call(request[0], request[1], fields...), tc.status)
			}
			want := 1
			if tc.status == 200 {
				want = 2
			}
			if n := p.auth.Requests(); n != want {
				t.Errorf("%d token requests, want %d", n, want)
			}
		})
	}
}

// TestAdminAPISocket: a socket for its own user is asked as Caddy is.
func TestAdminAPISocket(t *testing.T) {
	p := newParts(t, authserver.Config{})
	socket := filepath.Join(t.TempDir(), "admin.sock")
	if err := p.load(p.administered("unix/"+socket+"|0600", p.credential(), injecting)); err != nil {
		t.Fatal(err)
	}
	p.held()
	a := &admin{parts: p, address: "127.0.0.1", client: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
	p.want(a.call(http.MethodGet, credentialsPath), 200)
	p.want(a.wish(), 200)
}

// TestAdminRefresh: a wish brings another token, and is granted once in 5s.
func TestAdminRefresh(t *testing.T) {
	p := newParts(t, authserver.Config{Issue: func(n int) string { return fmt.Sprintf("at-%020d", n) }})
	a := p.runAdmin(p.credential()+credentialToo("tenants", p.credential(tenant)), injecting)
	p.held()
	before := parsed[report](t, a.call(http.MethodGet, credentialsPath+"/crm"))
	got := a.wish()
	after := parsed[report](t, got)
	if got.status != 200 || !after.LastSuccess.After(before.LastSuccess) || !after.Token.Sent.After(before.Token.Sent) || !after.Counts || after.Requesting {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if p.auth.Requests() != 2 || forcedRequests("success") != 1 {
		t.Errorf("%d token requests, %d of them forced", p.auth.Requests(), forcedRequests("success"))
	}
	p.want(p.get("/"), 200)
	soon := a.wish()
	a.wantError(soon, 429, "another token was wished for a moment ago")
	if s, err := strconv.Atoi(soon.header.Get("Retry-After")); err != nil || s < 1 || s > 5 {
		t.Errorf("Retry-After is %q", soon.header.Get("Retry-After"))
	}
	a.wantError(a.call(http.MethodPost, credentialsPath+"/tenants/refresh"), 409, "for each value")
	if n := p.auth.Requests(); n != 2 {
		t.Errorf("%d token requests", n)
	}
}

// TestAdminRefreshOutage: one that fails says so, and the token held serves on.
func TestAdminRefreshOutage(t *testing.T) {
	for name, tc := range map[string]struct {
		fault authserver.Fault
		says  string
	}{
		"down":        {authserver.Down(), "unreachable: HTTP 503; "},
		"refused":     {authserver.Invalid("invalid_client", "at-00000000000000000009"), "refused: HTTP 400, invalid_client; "},
		"leave me":    {authserver.TooMany("120"), "unreachable: HTTP 429; "},
		"no JSON":     {authserver.Raw(200, "text/html", "<p>"+oddSecret), "malformed: HTTP 200"},
		"cut off":     {authserver.Reset(), "unreachable: "},
		"an odd code": {authserver.Invalid("a\x1b[31mb\r\nc", "no"), "refused: HTTP "},
		"no token":    {authserver.Answer(func(m map[string]any) { delete(m, "access_token") }), "malformed: "},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParts(t, authserver.Config{})
			a := p.runAdmin(p.credential(), injecting)
			p.held()
			p.auth.SetFault(tc.fault)
			got := a.wish()
			a.wantError(got, 502, "no new token has come: "+tc.says)
			a.wantError(got, 502, "what to do: ")
			a.wantError(got, 502, "the token held serves for another ")
			p.want(p.get("/"), 200)
			if forcedRequests("success") != 0 {
				t.Error("a success is counted")
			}
			if strings.ContainsAny(got.body, "\x1b\r") || strings.Contains(got.body, `\u001b`) {
				t.Errorf("got %q", got.body)
			}
			again := a.wish()
			p.want(again, 429)
			if s, err := strconv.Atoi(again.header.Get("Retry-After")); name == "leave me" && (err != nil || s < 100 || !strings.Contains(again.body, "the server asked not to be asked")) {
				t.Errorf("got %v", again)
			}
		})
	}
}

// TestAdminRefreshWithoutToken: a wish mends a credential that has none, before
// its next request is due.
func TestAdminRefreshWithoutToken(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.auth.SetFault(authserver.Invalid("invalid_client", "no"))
	a := p.runAdmin(p.credential(), injecting)
	p.want(p.get("/"), 502)
	p.auth.SetFault(nil)
	p.want(a.wish(), 200)
	p.want(p.get("/"), 200)
}

// TestAdminRefreshJoins: those who wish at once, and those who come to a request
// that is under way, cause one.
func TestAdminRefreshJoins(t *testing.T) {
	p := newParts(t, authserver.Config{})
	a := p.runAdmin(p.credential(), injecting)
	p.held()
	fault, letGo := hangingToken()
	defer letGo()
	p.auth.FailNext(1, fault)
	var wg sync.WaitGroup
	answers := make(chan answer, 10)
	for range cap(answers) {
		wg.Go(func() {
			got, err := a.attempt(t.Context(), http.MethodPost, refreshPath)
			if err != nil {
				t.Error(err)
			}
			answers <- got
		})
	}
	eventually(t, "the token request", func() bool { return p.auth.Requests() == 2 })
	p.want(p.get("/"), 200) // with the token held
	if r := parsed[report](t, a.call(http.MethodGet, credentialsPath+"/crm")); !r.Requesting {
		t.Errorf("meanwhile: %+v", r)
	}

	// one who leaves takes nothing from the others
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := a.attempt(ctx, http.MethodPost, refreshPath)
		left <- err
	}()
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	letGo()
	wg.Wait()
	close(answers)
	for got := range answers {
		// one may have come behind the end, on a slow machine
		if got.status != 200 && got.status != 429 {
			t.Errorf("got %d %s", got.status, got.body)
		}
	}
	if p.auth.Requests() != 2 || forcedRequests("success") != 1 {
		t.Errorf("%d token requests, %d forced", p.auth.Requests(), forcedRequests("success"))
	}
}

// TestAdminRefreshLeft: the token comes though the only one who wished for it
// has left.
func TestAdminRefreshLeft(t *testing.T) {
	p := newParts(t, authserver.Config{})
	a := p.runAdmin(p.credential(), injecting)
	p.held()
	fault, letGo := hangingToken()
	defer letGo()
	p.auth.FailNext(1, fault)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	left := make(chan error, 1)
	go func() {
		_, err := a.attempt(ctx, http.MethodPost, refreshPath)
		left <- err
	}()
	eventually(t, "the token request", func() bool { return p.auth.Requests() == 2 })
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	letGo()
	eventually(t, "the token", func() bool { return forcedRequests("success") == 1 })
}

// TestAdminRefreshReload: a reload meanwhile changes nothing for a credential
// that stays, and one that is replaced is told of.
func TestAdminRefreshReload(t *testing.T) {
	for name, tc := range map[string]struct {
		failing bool
		more    string
		status  int
	}{
		"it stays":                {false, "", 200},
		"it stays, failing":       {true, "", 200},
		"it is replaced":          {false, "scopes another", 503},
		"it is replaced, failing": {true, "scopes another", 503},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParts(t, authserver.Config{})
			if tc.failing {
				p.auth.SetFault(authserver.Invalid("invalid_client", "no"))
			}
			a := p.runAdmin(p.credential(), injecting)
			eventually(t, "the first answer", func() bool {
				s := credentials.newest()["crm"].source.Snapshot()
				return s.Held || s.Failure != nil
			})
			fault, letGo := hangingToken()
			defer letGo()
			p.auth.SetFault(fault)
			before := p.auth.Requests()
			done := make(chan answer, 1)
			go func() {
				got, err := a.attempt(t.Context(), http.MethodPost, refreshPath)
				if err != nil {
					t.Error(err)
				}
				done <- got
			}()
			// while it fails, one may be under way without the wish
			eventually(t, "the token request", func() bool { return p.auth.Requests() > before && p.lines(refreshPath) > 0 })
			if err := p.load(p.administered(a.address, p.credential(tc.more), "header X-Reload 1\n"+injecting)); err != nil {
				t.Fatal(err)
			}
			if tc.status == 200 {
				letGo()
			}
			got := <-done
			p.want(got, tc.status)
			if tc.status == 503 {
				a.wantError(got, 503, "is being started or stopped")
				if got.header.Get("Retry-After") != "1" {
					t.Errorf("header %v", got.header)
				}
			}
			letGo()
			p.want(p.get("/"), 200)
		})
	}
}

// TestAdminAPIConcurrently: looks, wishes, requests and reloads at once, with a
// credential that comes and goes.
func TestAdminAPIConcurrently(t *testing.T) {
	p := newParts(t, authserver.Config{})
	config := func(more string) string {
		return p.credential() + credentialToo("tenants", p.credential(tenant)) + more
	}
	a := p.runAdmin(config(""), injecting)
	p.held()
	done := make(chan struct{})
	var wg sync.WaitGroup
	keep := func(method, path string, expected ...int) {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				got, err := a.attempt(t.Context(), method, path)
				// an error is of the connection, in a reload
				if err == nil && !slices.Contains(expected, got.status) {
					t.Errorf("%s %s: got %d %s", method, path, got.status, got.body)
				}
			}
		})
	}
	keep("GET", credentialsPath, 200)
	keep("GET", credentialsPath+"/crm", 200)
	keep("GET", credentialsPath+"/erp", 200, 404)
	keep("POST", refreshPath, 200, 429)
	keep("POST", credentialsPath+"/erp/refresh", 200, 404, 429, 503)
	keep("POST", credentialsPath+"/tenants/refresh", 409)
	stop := p.underLoad(func(got answer, err error) {
		if err == nil && got.status != 200 {
			t.Errorf("got %d %s", got.status, got.body)
		}
	})
	for i := range 12 {
		more := ""
		if i%3 > 0 {
			more = credentialToo("erp", p.credential(fmt.Sprintf("scopes s%d", i)))
		}
		if err := caddy.Load(adapt(t, p.administered(a.address, config(more), fmt.Sprintf("header X-Reload %d\n", i)+injecting)), true); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	close(done)
	wg.Wait()
}
