package caddymodule

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// series reads Caddy's metrics as a scrape does: those of ours, by name and
// labels.
func (p *parts) series() map[string]float64 {
	p.t.Helper()
	out := make(map[string]float64)
	for line := range strings.Lines(p.scraped().body) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if !ok || !strings.HasPrefix(name, "caddy_upstream_auth_") {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			p.t.Fatal(err)
		}
		out[strings.TrimPrefix(name, "caddy_upstream_auth_")+"}"] = v
	}
	if len(out) == 0 {
		p.t.Fatal("no metrics were scraped")
	}
	return out
}

// scraped is a scrape, made again where a reload's old socket has taken it (see
// get) and ends it without an answer.
func (p *parts) scraped() answer {
	p.t.Helper()
	for {
		a, err := p.try(http.MethodGet, "/metrics", nil)
		switch {
		case err == nil:
			return a
		case !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF):
			p.t.Fatal(err)
		}
	}
}

func TestMetrics(t *testing.T) {
	p := newParts(t, authserver.Config{Lifetime: 2 * time.Second})
	p.auth.SetFault(authserver.Invalid("invalid_client", "no"))
	site := "handle /metrics {\nmetrics\n}\nhandle {\nupstream_auth crm {\nclient_authorization reject\n}\nreverse_proxy $API\n}"
	p.run(p.credential("scopes unique-to-this-test", often), site)
	p.want(p.get("/"), 502)
	if s := p.series(); s[`token_expiry_timestamp_seconds{credential="crm"}`] != 0 || s[`token_consecutive_failures{credential="crm"}`] < 1 {
		t.Errorf("without a token: %v", s)
	}
	p.auth.SetFault(nil)
	eventually(t, "a token", func() bool { return p.get("/").status == 200 })
	p.want(p.get("/", "Authorization", "x"), 400)
	eventually(t, "a renewal", func() bool {
		return p.series()[`token_requests_total{credential="crm",grant="client_credentials",reason="scheduled",result="success"}`] >= 2
	})
	s := p.series()
	now := float64(time.Now().Unix())
	for name, ok := range map[string]func(float64) bool{
		`token_requests_total{credential="crm",grant="client_credentials",reason="start",result="refused"}`:     func(v float64) bool { return v == 1 },
		`token_requests_total{credential="crm",grant="client_credentials",reason="scheduled",result="success"}`: func(v float64) bool { return v >= 2 },
		`token_request_duration_seconds_count{credential="crm"}`:                                                func(v float64) bool { return v >= 3 },
		`token_expiry_timestamp_seconds{credential="crm"}`:                                                      func(v float64) bool { return v > now-1 && v < now+3 },
		`token_refresh_timestamp_seconds{credential="crm"}`:                                                     func(v float64) bool { return v > now-1 && v < now+3 },
		`token_last_success_timestamp_seconds{credential="crm"}`:                                                func(v float64) bool { return v > now-3 && v < now+1 },
		`token_consecutive_failures{credential="crm"}`:                                                          func(v float64) bool { return v == 0 },
		`requests_total{credential="crm",outcome="injected"}`:                                                   func(v float64) bool { return v >= 1 },
		`requests_total{credential="crm",outcome="unavailable"}`:                                                func(v float64) bool { return v >= 1 },
		`requests_total{credential="crm",outcome="client_rejected"}`:                                            func(v float64) bool { return v == 1 },
		`requests_total{credential="crm",outcome="kept"}`:                                                       func(v float64) bool { return v == 0 },
		`lifetime_assumed_total{credential="crm"}`:                                                              func(v float64) bool { return v == 0 },
		`build_info{version="` + version() + `"}`:                                                               func(v float64) bool { return v == 1 },
	} {
		if v, found := s[name]; !found || !ok(v) {
			t.Errorf("%s is %v (found: %v)", name, v, found)
		}
	}

	// a reload keeps the counters
	injected := `requests_total{credential="crm",outcome="injected"}`
	if err := p.load(p.caddyfile(p.credential("scopes unique-to-this-test", often), site+"\nheader X-Reload 1")); err != nil {
		t.Fatal(err)
	}
	if v := p.series()[injected]; v < s[injected] {
		t.Errorf("%s fell from %v to %v on a reload", injected, s[injected], v)
	}
	// a changed credential of the name keeps them too
	if err := p.load(p.caddyfile(p.credential("scopes another"), site)); err != nil {
		t.Fatal(err)
	}
	if v := p.series()[injected]; v < s[injected] {
		t.Errorf("%s fell from %v to %v when the credential changed", injected, s[injected], v)
	}
	// and one that is removed takes its series with it
	if err := p.load(strings.ReplaceAll(p.caddyfile(p.credential(), site), " crm ", " erp ")); err != nil {
		t.Fatal(err)
	}
	for name := range p.series() {
		if strings.Contains(name, `"crm"`) {
			t.Errorf("%s is left of a removed credential", name)
		}
	}
}

// metricTable is all metrics, their types and their labels, in order.
var metricTable = []struct{ name, kind, labels string }{
	{"build_info", "gauge", "version"},
	{"lifetime_assumed_total", "counter", "credential"},
	{"refresh_token_usable", "gauge", "credential"},
	{"request_wait_seconds", "histogram", "credential"},
	{"requests_total", "counter", "credential outcome"},
	{"store_errors_total", "counter", "credential op"},
	{"template_tokens", "gauge", "credential"},
	{"token_consecutive_failures", "gauge", "credential"},
	{"token_expiry_timestamp_seconds", "gauge", "credential"},
	{"token_last_success_timestamp_seconds", "gauge", "credential"},
	{"token_refresh_timestamp_seconds", "gauge", "credential"},
	{"token_request_duration_seconds", "histogram", "credential"},
	{"token_requests_total", "counter", "credential grant reason result"},
	{"tokens_adopted_total", "counter", "credential"},
	{"upstream_unauthorized_total", "counter", "action credential"},
}

// everyKind has Caddy run a credential of each kind: crm with a shared token,
// login with a refresh token, tenants with a token for each value.
func everyKind(t *testing.T) *parts {
	t.Helper()
	p := newParts(t, authserver.Config{RefreshTokens: true, Rotate: authserver.RotateAlways})
	p.run(p.credential("share")+
		credentialToo("login", p.refreshing(p.auth.IssueRefreshToken()))+
		credentialToo("tenants", p.credential(tenant)),
		"handle /metrics {\nmetrics\n}\nhandle /login {\nupstream_auth login\nreverse_proxy $API\n}\nhandle /tenants {\nupstream_auth tenants\nreverse_proxy $API\n}\nhandle {\nupstream_auth crm\nreverse_proxy $API\n}")
	return p
}

// TestMetricTable: a scrape finds these metrics and no others, named and
// described as Prometheus wants them.
func TestMetricTable(t *testing.T) {
	p := everyKind(t)
	for _, path := range []string{"/", "/login", "/tenants"} {
		p.want(p.get(path, "X-Tenant", "acme"), http.StatusOK)
	}
	var ours strings.Builder
	labels, kinds := make(map[string]string), make(map[string]string)
	for line := range strings.Lines(p.get("/metrics").body) {
		found := metricLine.FindStringSubmatch(line)
		if found == nil {
			continue
		}
		ours.WriteString(line)
		comment, name, rest := found[1], found[2], found[3]
		if comment == "# TYPE " {
			kinds[name] = strings.TrimSpace(rest)
		}
		if comment != "" {
			continue
		}
		for _, part := range []string{"_bucket", "_sum", "_count"} {
			if whole := strings.TrimSuffix(name, part); kinds[whole] == "histogram" {
				name = whole
			}
		}
		var names []string
		for _, label := range labelName.FindAllStringSubmatch(rest, -1) {
			if label[1] != "le" {
				names = append(names, label[1])
			}
		}
		labels[name] = strings.Join(names, " ")
	}
	var got []struct{ name, kind, labels string }
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		got = append(got, struct{ name, kind, labels string }{name, kinds[name], labels[name]})
	}
	if !slices.Equal(got, metricTable) {
		t.Errorf("scraped %v\nwant %v", got, metricTable)
	}
	problems, err := promlint.New(strings.NewReader(ours.String())).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		t.Errorf("%s: %s", problem.Metric, problem.Text)
	}
	// a second config of the process registers them anew; the same one not twice
	r := prometheus.NewPedanticRegistry()
	for range 2 {
		if err := registerMetrics(r); err != nil {
			t.Error(err)
		}
	}
	if _, err := r.Gather(); err != nil {
		t.Error(err)
	}
}

var (
	metricLine = regexp.MustCompile(`^(# HELP |# TYPE |# UNIT |)caddy_upstream_auth_([a-z_]+)(.*)`)
	labelName  = regexp.MustCompile(`[{,]([a-z_]+)="`)
)

// TestMetricUnits: OpenMetrics, which Prometheus asks for, tells units.
func TestMetricUnits(t *testing.T) {
	p := everyKind(t)
	a := p.get("/metrics", "Accept", "application/openmetrics-text; version=1.0.0")
	if !strings.HasPrefix(a.header.Get("Content-Type"), "application/openmetrics-text") || !strings.HasSuffix(a.body, "# EOF\n") {
		t.Fatalf("Caddy does not answer with OpenMetrics, but %s", a.header.Get("Content-Type"))
	}
	units := make(map[string]string)
	for line := range strings.Lines(a.body) {
		if found := metricLine.FindStringSubmatch(line); found != nil && found[1] == "# UNIT " {
			units[found[2]] = strings.TrimSpace(found[3])
		}
	}
	for _, m := range metricTable {
		want := ""
		if strings.HasSuffix(m.name, "_seconds") {
			want = "seconds"
		}
		if units[m.name] != want {
			t.Errorf("%s has unit %q, want %q", m.name, units[m.name], want)
		}
	}
}

// TestNativeHistograms: a Prometheus that asks for protobuf gets exponential
// buckets, and the classic ones with them.
func TestNativeHistograms(t *testing.T) {
	p := everyKind(t)
	p.want(p.get("/tenants", "X-Tenant", "acme"), http.StatusOK) // it waits, and is measured
	a := p.get("/metrics", "Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	if got := a.header.Get("Content-Type"); !strings.HasPrefix(got, "application/vnd.google.protobuf") || !strings.Contains(a.body, "caddy_upstream_auth_request_wait_seconds") {
		t.Fatalf("Caddy does not answer with protobuf, but %s", got)
	}
	ctx := caddy.ActiveContext()
	families, err := ctx.GetMetricsRegistry().Gather() // what that answer is made of
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, family := range families {
		switch family.GetName() {
		case "caddy_upstream_auth_request_wait_seconds", "caddy_upstream_auth_token_request_duration_seconds":
		default:
			continue
		}
		for _, m := range family.GetMetric() {
			h := m.GetHistogram()
			native := int64(0)
			for _, delta := range h.GetPositiveDelta() {
				native += delta
			}
			if len(h.GetBucket()) != len(prometheus.DefBuckets) || h.GetSchema() != 3 || h.GetZeroThreshold() == 0 {
				t.Errorf("%s %v has %d classic buckets, and no native ones", family.GetName(), m.GetLabel(), len(h.GetBucket()))
			}
			if h.GetSampleCount() > 0 && native > 0 {
				seen++
			}
		}
	}
	if seen < 2 {
		t.Errorf("%d histograms have anything in their native buckets", seen)
	}
}

// TestTokenRequestsTotal: what causes each reason and each result, counted once,
// beside series that were there at 0.
func TestTokenRequestsTotal(t *testing.T) {
	const metered = "handle /metrics {\nmetrics\n}\nhandle {\n" + replaying + "\n}"
	fails := func(p *parts) {
		eventually(p.t, "a failure", func() bool { return credentials.newest()["crm"].source.Snapshot().Failures == 1 })
	}
	obtained := func(p *parts) { // without a request, which could be ahead of the schedule
		eventually(p.t, "a token", func() bool { return credentials.newest()["crm"].source.Token() != nil })
	}
	refused := func(p *parts) {
		p.aged()
		p.auth.RevokeAll()
		p.want(p.get("/"), http.StatusOK)
	}
	forced := func(p *parts) {
		obtained(p)
		ended, err := credentials.newest()["crm"].source.Refresh(p.t.Context())
		if err != nil {
			p.t.Fatal(err)
		}
		<-ended
	}
	demand := func(p *parts) {
		p.want(p.get("/", "X-Tenant", "acme"), http.StatusOK)
	}
	for _, tc := range []struct {
		reason, result string
		fault          authserver.Fault
		act            func(*parts)
		option         string
	}{
		{"start", "success", nil, obtained, ""},
		{"start", "unreachable", authserver.Down(), fails, ""},
		{"start", "refused", authserver.Invalid("invalid_client", "no"), fails, ""},
		{"start", "malformed", authserver.Raw(http.StatusOK, "text/html", "<html>"), fails, ""},
		{"scheduled", "success", authserver.Down(), obtained, ""}, // behind a failure
		{"demand", "success", nil, demand, tenant},
		{"rejected", "success", nil, refused, ""},
		{"forced", "success", nil, forced, ""},
	} {
		t.Run(tc.reason+" "+tc.result, func(t *testing.T) {
			p := newParts(t, authserver.Config{})
			if tc.fault != nil {
				p.auth.FailNext(1, tc.fault)
			}
			p.run(p.credential(tc.option), metered)
			tc.act(p)
			series := fmt.Sprintf(`token_requests_total{credential="crm",grant="client_credentials",reason="%s",result="%s"}`, tc.reason, tc.result)
			eventually(t, series, func() bool { return p.series()[series] == 1 })
			s := p.series()
			total, durations := 0.0, s[`token_request_duration_seconds_count{credential="crm"}`]
			for name, v := range s {
				if strings.HasPrefix(name, "token_requests_total{") {
					total += v
				}
			}
			if n := p.auth.Requests(); total != float64(n) || durations != float64(n) {
				t.Errorf("%d token requests: %v counted, %v measured", n, total, durations)
			}
		})
	}
}

// TestGauges: what stands in those that TestMetrics does not look at.
func TestGauges(t *testing.T) {
	p := newParts(t, authserver.Config{RefreshTokens: true})
	p.auth.SetFault(authserver.Answer(func(a map[string]any) { delete(a, "expires_in") }))
	p.run(p.credential()+
		credentialToo("login", p.refreshing(p.auth.IssueRefreshToken()))+
		credentialToo("ended", p.refreshing("not-one-of-theirs"))+
		credentialToo("tenants", p.credential(tenant)),
		"handle /metrics {\nmetrics\n}\nhandle {\nupstream_auth tenants\nreverse_proxy $API\n}")
	eventually(t, "a refused refresh token", func() bool { return credentials.newest()["ended"].source.Snapshot().Failures > 0 })
	for _, name := range []string{"crm", "login"} {
		eventually(t, "a token for "+name, func() bool { return credentials.newest()[name].source.Token() != nil })
	}
	s := p.series()
	if v, ok := s[`token_last_success_timestamp_seconds{credential="tenants"}`]; v != 0 || !ok {
		t.Errorf("a template without tokens had its last success at %v (%v)", v, ok)
	}
	for _, value := range []string{"acme", "zenith"} {
		p.want(p.get("/", "X-Tenant", value), http.StatusOK)
	}
	p.auth.SetFault(authserver.Invalid("invalid_client", "no"))
	p.want(p.get("/", "X-Tenant", "third"), http.StatusBadGateway)
	s = p.series()
	for name, want := range map[string]float64{
		`refresh_token_usable{credential="login"}`:           1,
		`refresh_token_usable{credential="ended"}`:           0,
		`template_tokens{credential="tenants"}`:              2,
		`token_consecutive_failures{credential="tenants"}`:   1,
		`token_consecutive_failures{credential="crm"}`:       0,
		`lifetime_assumed_total{credential="crm"}`:           1,
		`lifetime_assumed_total{credential="tenants"}`:       2,
		`lifetime_assumed_total{credential="ended"}`:         0,
		`token_expiry_timestamp_seconds{credential="ended"}`: 0,
	} {
		if v, ok := s[name]; v != want || !ok {
			t.Errorf("%s is %v (found: %v), want %v", name, v, ok, want)
		}
	}
	if age := float64(time.Now().Unix()) - s[`token_last_success_timestamp_seconds{credential="tenants"}`]; age < -1 || age > 10 {
		t.Errorf("the template's last success was %vs ago", age)
	}
	for name := range s {
		switch {
		case strings.HasPrefix(name, "refresh_token_usable") && (strings.Contains(name, `"crm"`) || strings.Contains(name, `"tenants"`)),
			strings.HasPrefix(name, "template_tokens") && !strings.Contains(name, `"tenants"`),
			strings.HasPrefix(name, "token_expiry") && strings.Contains(name, `"tenants"`),
			strings.HasPrefix(name, "token_refresh") && strings.Contains(name, `"tenants"`):
			t.Errorf("%s says nothing", name)
		}
	}
}

var token43 = regexp.MustCompile(`at-[A-Za-z0-9_-]{20,}`)

// TestNoSecretAnywhere: neither the log at debug level, nor metrics, answers or
// the adapted config hold a secret or a token, whatever happens.
func TestNoSecretAnywhere(t *testing.T) {
	faults := map[string]authserver.Fault{
		"healthy":   nil,
		"down":      authserver.Down(),
		"html":      authserver.Raw(200, "text/html", "<html>"),
		"redirect":  authserver.Redirect(307, "http://127.0.0.1:1/"),
		"reset":     authserver.Reset(),
		"cut":       authserver.CutBody(),
		"split":     authserver.Answer(func(a map[string]any) { a["access_token"] = a["access_token"].(string) + "\r\nX: 1" }),
		"odd type":  authserver.Answer(func(a map[string]any) { a["token_type"] = a["access_token"] }),
		"odd scope": authserver.Answer(func(a map[string]any) { a["scope"] = "less" }),
		"echo": func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			user, password, _ := r.BasicAuth()
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"error":%q,"error_description":%q}`, password, "you said "+r.Header.Get("Authorization")+" or "+user+":"+password+r.URL.RawQuery)
		},
	}
	for name, fault := range faults {
		for _, encoding := range []string{"form", "raw"} {
			t.Run(name+" "+encoding, func(t *testing.T) {
				p := newParts(t, authserver.Config{})
				p.auth.SetFault(fault)
				options := fmt.Sprintf("token_url %s%s\nclient_id app\nscopes read write\nclient_auth client_secret_basic {env.%s} {\nencoding %s\n}", p.server.URL(), authserver.TokenPath, secretEnv, encoding)
				file := p.caddyfile(options, "metrics /metrics\nlog\nhandle {\nupstream_auth crm {\nwait 3s\n}\nreverse_proxy $API\n}")
				if err := p.load(file); err != nil {
					t.Fatal(err)
				}
				a := p.get("/")
				for what, text := range map[string]string{
					"answer": fmt.Sprint(a), "metrics": p.get("/metrics").body, "log": p.logged(), "config": string(adapt(t, file)),
				} {
					for _, secret := range []string{oddSecret, url.QueryEscape(oddSecret), base64.StdEncoding.EncodeToString([]byte("app:" + oddSecret)), base64.StdEncoding.EncodeToString([]byte("app:" + url.QueryEscape(oddSecret)))} {
						if strings.Contains(text, secret) {
							t.Errorf("the %s holds the secret as %q", what, secret)
						}
					}
					if found := token43.FindString(text); found != "" {
						t.Errorf("the %s holds a token: %s", what, found)
					}
				}
				if name == "echo" && p.lines("***") == 0 {
					t.Error("nothing was masked: did the server's words get to the log at all?")
				}
			})
		}
	}
}
