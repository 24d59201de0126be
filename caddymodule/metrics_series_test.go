package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/store"
)

// kindOf is what the series of a credential depend on.
type kindOf struct {
	grant    string
	template bool
	share    bool
	refresh  bool
	unasked  bool // no refresh has ended yet
}

// seriesOf are all series that there can be of credentials, as a text scrape
// names them: one for each label value that is known beforehand.
func seriesOf(kinds map[string]kindOf) []string {
	all := []string{`build_info{version="` + version() + `"}`}
	histogram := func(name, credential string) {
		for _, le := range []string{"0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"} {
			all = append(all, fmt.Sprintf(`%s_bucket{credential="%s",le="%s"}`, name, credential, le))
		}
		all = append(all, fmt.Sprintf(`%s_sum{credential="%s"}`, name, credential), fmt.Sprintf(`%s_count{credential="%s"}`, name, credential))
	}
	for name, k := range kinds {
		single := []string{"lifetime_assumed_total", "token_last_success_timestamp_seconds", "token_consecutive_failures"}
		reasons := []string{"scheduled", "demand", "rejected"}
		if k.template {
			single = append(single, "template_tokens")
		} else {
			single = append(single, "token_expiry_timestamp_seconds", "token_refresh_timestamp_seconds")
			reasons = append(reasons, "start", "forced")
		}
		for _, reason := range reasons {
			for _, result := range []string{"success", "unreachable", "refused", "malformed"} {
				all = append(all, fmt.Sprintf(`token_requests_total{credential="%s",grant="%s",reason="%s",result="%s"}`, name, k.grant, reason, result))
			}
		}
		histogram("token_request_duration_seconds", name)
		var ops []string
		if k.refresh {
			ops = []string{"load", "save"}
			if !k.unasked {
				single = append(single, "refresh_token_usable")
			}
		}
		if k.share {
			single = append(single, "tokens_adopted_total")
			ops = []string{"load", "save", "lock", "unlock"}
		}
		for _, op := range ops {
			all = append(all, fmt.Sprintf(`store_errors_total{credential="%s",op="%s"}`, name, op))
		}
		for _, gauge := range single {
			all = append(all, fmt.Sprintf(`%s{credential="%s"}`, gauge, name))
		}
		histogram("request_wait_seconds", name)
		for _, outcome := range []string{"injected", "waited", "kept", "client_rejected", "unavailable", "passed", "upstream_denied"} {
			all = append(all, fmt.Sprintf(`requests_total{credential="%s",outcome="%s"}`, name, outcome))
		}
		for _, action := range []string{"replayed", "refreshed", "ignored"} {
			all = append(all, fmt.Sprintf(`upstream_unauthorized_total{action="%s",credential="%s"}`, action, name))
		}
	}
	slices.Sort(all)
	return all
}

// wantSeries checks that there are these series and no others.
func (p *parts) wantSeries(when string, kinds map[string]kindOf) map[string]float64 {
	p.t.Helper()
	scraped, want := p.series(), seriesOf(kinds)
	if got := slices.Sorted(maps.Keys(scraped)); !slices.Equal(got, want) {
		only := func(a, b []string) []string {
			return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
		}
		p.t.Errorf("%s: %d series, want %d; too many: %q; missing: %q", when, len(got), len(want), only(got, want), only(want, got))
	}
	return scraped
}

var plainKind = kindOf{grant: "client_credentials"}

// TestSeriesAtStart: before a server has answered anything all series are there,
// at 0, so that Prometheus sees the first failure as a rise.
func TestSeriesAtStart(t *testing.T) {
	p := newParts(t, authserver.Config{RefreshTokens: true})
	hanging, letGo := hangingToken()
	defer letGo()
	p.auth.SetFault(hanging)
	p.run(p.credential("share")+
		credentialToo("login", p.refreshing(p.auth.IssueRefreshToken()))+
		credentialToo("tenants", p.credential(tenant)),
		"handle /metrics {\nmetrics\n}\nhandle {\nreverse_proxy $API {\ntransport upstream_auth crm\n}\n}\nhandle /t {\nupstream_auth tenants\n}")
	kinds := map[string]kindOf{
		"crm":     {grant: "client_credentials", share: true},
		"login":   {grant: "refresh_token", refresh: true, unasked: true},
		"tenants": {grant: "client_credentials", template: true},
	}
	for name, v := range p.wantSeries("at the start", kinds) {
		switch {
		case v == 0, strings.HasPrefix(name, "build_info"), strings.HasPrefix(name, "token_refresh_timestamp"):
		default:
			t.Errorf("%s is %v", name, v)
		}
	}
}

// dice are what a flood is made of. It is the same in each run.
type dice struct{ *rand.Rand }

func pick[T any](d dice, of ...T) T { return of[d.IntN(len(of))] }

// floodMark is in all that the flood chooses, so that it is found where it should
// not be.
const floodMark = "zq9mark"

func (d dice) word() string { return fmt.Sprintf("%s-%x", floodMark, d.Uint64()) }

// request is any request at all.
func (d dice) request(t *testing.T, p *parts) *http.Request {
	t.Helper()
	method := pick(d, "GET", "HEAD", "POST", "PUT", "DELETE", "PROPFIND", strings.ToUpper(strings.ReplaceAll(d.word(), "-", "")))
	var body *strings.Reader
	if method != "GET" && method != "HEAD" {
		body = strings.NewReader(d.word())
	} else {
		body = strings.NewReader("")
	}
	path := pick(d, "/crm", "/keep", "/reject", "/denied", "/down", "/pass", "/tenants", "/tenants", "/tenants", "/clients", "/clients", "/inline", "/handler") + "/" + d.word() + "?" + d.word() + "=" + d.word()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.proxy+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = pick(d, p.proxy, d.word()+".example.com", d.word())
	for range d.IntN(3) {
		req.Header.Add("X-"+d.word(), d.word())
	}
	if d.IntN(4) > 0 { // some bring no value, some a bad one
		req.Header.Set("X-Tenant", pick(d, d.word(), d.word(), "acme", "ü"+d.word(), strings.Repeat("x", 300), d.word()+" "+d.word()))
	}
	if d.IntN(2) > 0 {
		req.Header.Add("Authorization", pick(d, "Bearer "+d.word(), "Bearer client-"+d.word(), "Basic "+d.word(), d.word(), "", "Bearer"))
	}
	return req
}

// answer is any answer of a token endpoint.
func (d dice) answer() authserver.Fault {
	return pick(d, nil, nil, nil,
		authserver.Down(), authserver.Invalid(d.word(), d.word()), authserver.Invalid("invalid_client", d.word()), authserver.Invalid("invalid_scope", d.word()),
		authserver.Raw(http.StatusOK, "text/html", "<html>"+d.word()), authserver.Raw(http.StatusUnauthorized, "", d.word()), authserver.Status(http.StatusNoContent),
		authserver.Redirect(http.StatusTemporaryRedirect, "http://"+d.word()+".example.com/"), authserver.Reset(), authserver.CutBody(),
		authserver.Answer(func(a map[string]any) { delete(a, "expires_in") }),
		authserver.Answer(func(a map[string]any) { a["expires_in"], a["scope"] = 2, d.word() }),
		authserver.Answer(func(a map[string]any) { a["token_type"] = d.word() }),
		authserver.TooMany("1"),
	)
}

// steady is the scope of credentials whose requests have no fault.
const steady = "steady"

func sparing(fault authserver.Fault) authserver.Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if fault == nil || r.PostFormValue("scope") == steady {
			next.ServeHTTP(w, r)
			return
		}
		fault(w, r, next)
	}
}

// TestSeriesAreBounded: whatever requests, upstreams and servers do, no series
// comes of it, and none holds anything that they said.
func TestSeriesAreBounded(t *testing.T) {
	const flood = 1000
	p := exchangingParts(t)
	p.upstream = listen(t, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("X-Challenge") != "":
			w.Header().Set("WWW-Authenticate", r.Header.Get("X-Challenge"))
			w.WriteHeader(http.StatusUnauthorized)
		case r.Header.Get("X-Break") != "":
			panic(http.ErrAbortHandler)
		default:
			p.api.ServeHTTP(w, r)
		}
	}))
	site := "handle /metrics {\nmetrics\n}\nhandle /handler/* {\nupstream_auth crm\nreverse_proxy $API\n}\n"
	for path, options := range map[string]string{
		"crm": "crm", "erp": "erp", "keep": "crm {\nclient_authorization keep\n}", "reject": "crm {\nclient_authorization reject\n}", "denied": "crm {\nupstreams api.example.com\n}",
		"down": "down {\nwait 0\n}", "pass": "down {\nwait 0\nunavailable pass\n}",
		"tenants": "tenants {\nwait 50ms\n}", "clients": "clients {\nwait 50ms\n}", "inline": "{\n" + p.credential() + "wait 50ms\n}",
	} {
		site += fmt.Sprintf("handle /%s/* {\nreverse_proxy $API {\ntransport upstream_auth %s\n}\n}\n", path, options)
	}
	p.run(p.credential("scopes "+steady)+
		credentialToo("erp", p.credential("scopes "+steady, "audience erp"))+
		credentialToo("down", strings.ReplaceAll(p.credential(), p.server.URL(), "http://"+deadAddr(t)))+
		credentialToo("tenants", p.credential(tenant, "max_tokens 50", "max_new 200"))+
		credentialToo("clients", p.credential(exchange, "max_new 200")), site)
	template := kindOf{grant: "client_credentials", template: true}
	kinds := map[string]kindOf{
		"crm": plainKind, "erp": plainKind, "down": plainKind, p.inline()[0]: plainKind,
		"tenants": template, "clients": {grant: "token_exchange", template: true},
	}
	p.wantSeries("at the start", kinds)

	// each thing that is counted happens once for certain
	p.aged()
	for n, fault := range []authserver.Fault{nil, authserver.Raw(http.StatusOK, "text/html", "<html>"), authserver.Invalid("invalid_scope", "no")} {
		p.auth.SetFault(sparing(fault))
		p.get("/tenants/", "X-Tenant", fmt.Sprintf("%s-%d", floodMark, n))
	}
	for _, path := range []string{"/crm/", "/keep/", "/reject/", "/denied/", "/down/", "/pass/", "/handler/"} {
		p.get(path, "Authorization", "Bearer "+floodMark)
	}
	p.auth.RevokeAll()
	p.want(p.get("/crm/"), http.StatusOK) // made again
	refusedPost := func() {
		a, err := p.try(http.MethodPost, "/erp/", nil, "X-Challenge", "Bearer")
		if err != nil || a.status != http.StatusUnauthorized {
			t.Fatalf("got %d, %v", a.status, err)
		}
	}
	refusedPost()                                                 // another token is asked for
	eventually(t, "a refusal behind which none is", func() bool { // for it is too early
		refusedPost()
		return p.series()[`upstream_unauthorized_total{action="ignored",credential="erp"}`] > 0
	})

	d := dice{rand.New(rand.NewPCG(5, 2026))}
	statuses := make(map[int]int)
	for range flood {
		switch d.IntN(60) {
		case 0, 1, 2, 3, 4:
			p.auth.SetFault(sparing(d.answer()))
		case 5:
			p.auth.RevokeAll()
		}
		req := d.request(t, p)
		switch d.IntN(20) {
		case 0, 1:
			req.Header.Set("X-Challenge", pick(d, "Bearer", `Bearer error="invalid_token"`, `Bearer error="`+d.word()+`"`, d.word()))
		case 2:
			req.Header.Set("X-Break", "1")
		}
		res, err := p.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		statuses[res.StatusCode]++
	}
	s := p.wantSeries("behind the flood", kinds)
	for name := range s {
		if strings.Contains(name, floodMark) {
			t.Errorf("%s holds what a request brought", name)
		}
	}
	for _, status := range []int{200, 400, 401, 502, 503} {
		if statuses[status] == 0 {
			t.Errorf("no request of the flood was answered with %d: %v", status, statuses)
		}
	}
	for _, label := range []string{
		`outcome="injected"`, `outcome="waited"`, `outcome="kept"`, `outcome="client_rejected"`, `outcome="unavailable"`, `outcome="passed"`, `outcome="upstream_denied"`,
		`action="replayed"`, `action="refreshed"`, `action="ignored"`,
		`reason="start"`, `reason="demand"`, `reason="rejected"`,
		`result="success"`, `result="unreachable"`, `result="refused"`, `result="malformed"`,
	} {
		sum := 0.0
		for name, v := range s {
			if strings.Contains(name, label) {
				sum += v
			}
		}
		if sum == 0 {
			t.Errorf("nothing was counted with %s", label)
		}
	}
}

// inline are the names of the credentials that are written in place.
func (p *parts) inline() (names []string) {
	p.t.Helper()
	for name := range credentials.newest() {
		if strings.HasPrefix(name, inlinePrefix) {
			names = append(names, name)
		}
	}
	return names
}

// TestSeriesOfReloads: a credential that is written in place is called by its
// hash. One that fifty reloads change leaves no series behind, nor does the grant
// that one had before.
func TestSeriesOfReloads(t *testing.T) {
	p := newParts(t, authserver.Config{RefreshTokens: true})
	load := func(credential string, n int) {
		t.Helper()
		site := fmt.Sprintf("handle /metrics {\nmetrics\n}\nhandle {\nupstream_auth {\n%s}\nreverse_proxy $API\n}", p.credential(fmt.Sprintf("param n %d", n)))
		if err := p.load(p.caddyfile(credential, site)); err != nil {
			t.Fatal(err)
		}
	}
	seen := make(map[string]bool)
	for n := range 50 {
		load(p.credential(), n)
		if n%10 == 0 {
			eventually(t, "an answer", func() bool {
				a, err := p.try(http.MethodGet, "/", nil)
				return err == nil && a.status == http.StatusOK
			})
		}
		eventually(t, "the end of the one before", func() bool { return len(p.inline()) == 1 })
		seen[p.inline()[0]] = true
	}
	if len(seen) != 50 {
		t.Errorf("%d names for 50 credentials", len(seen))
	}
	p.wantSeries("after 50 reloads", map[string]kindOf{"crm": plainKind, p.inline()[0]: plainKind})

	// a config that is refused leaves nothing either
	bad := strings.ReplaceAll(p.caddyfile(p.credential(), "upstream_auth {\n"+p.credential("param n bad")+"}\nreverse_proxy $API"), "bind 127.0.0.1", "bind 256.0.0.1")
	if err := p.load(bad); err == nil {
		t.Fatal("it was taken")
	}
	p.wantSeries("after a config that was refused", map[string]kindOf{"crm": plainKind, p.inline()[0]: plainKind})

	load(p.refreshing(p.auth.IssueRefreshToken()), 49)
	eventually(t, "the refresh token", func() bool {
		_, ok := p.series()[`refresh_token_usable{credential="crm"}`]
		return ok
	})
	p.wantSeries("with another grant", map[string]kindOf{"crm": {grant: "refresh_token", refresh: true}, p.inline()[0]: plainKind})
}

// fullDisk is a storage that fails at one kind of call.
type fullDisk struct {
	certmagic.FileStorage
	op string
}

var errFull = errors.New("the disk is full")

func (s *fullDisk) fails(op string) error {
	if s.op == op {
		return errFull
	}
	return nil
}

func (s *fullDisk) Load(context.Context, string) ([]byte, error) { return nil, s.fails("load") }
func (s *fullDisk) Store(context.Context, string, []byte) error  { return s.fails("save") }
func (s *fullDisk) Lock(context.Context, string) error           { return s.fails("lock") }
func (s *fullDisk) Unlock(context.Context, string) error         { return s.fails("unlock") }

// TestStoreErrors: each kind of call that fails is counted by what was to be
// done, and for nobody once the credential is gone.
func TestStoreErrors(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.run(p.credential("share"), measured)
	p.want(p.get("/"), http.StatusOK)
	disk := new(fullDisk)
	value := store.New(disk, nil).Value("upstream_auth/test.json", "crm")
	kept := shelf{stored{value, "crm"}, value}
	for op, call := range map[string]func() error{
		"load":   func() error { _, err := kept.Load(t.Context()); return err },
		"save":   func() error { return kept.Save(t.Context(), []byte("{}")) },
		"lock":   func() error { _, err := kept.Lock(t.Context()); return err },
		"unlock": func() error { return kept.Break(t.Context()) },
	} {
		disk.op = op
		if err := call(); !errors.Is(err, errFull) {
			t.Errorf("%s: %v", op, err)
		}
	}
	s := p.series()
	for _, op := range []string{"load", "save", "lock", "unlock"} {
		if v := s[fmt.Sprintf(`store_errors_total{credential="crm",op="%s"}`, op)]; v != 1 {
			t.Errorf("%s: %v errors are counted", op, v)
		}
	}
	p.stop()
	countStoreError("crm", "load") // what was still under way
	if left := seriesCredentials(); len(left) > 0 {
		t.Errorf("series are left: %v", left)
	}
}
