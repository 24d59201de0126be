package caddymodule

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// series reads Caddy's metrics as a scrape does: those of ours, by name and
// labels.
func (p *parts) series() map[string]float64 {
	p.t.Helper()
	out := make(map[string]float64)
	for line := range strings.Lines(p.get("/metrics").body) {
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

func TestMetrics(t *testing.T) {
	p := newParts(t, authserver.Config{Lifetime: 2 * time.Second})
	p.auth.SetFault(authserver.Invalid("invalid_client", "no"))
	site := "handle /metrics {\nmetrics\n}\nhandle {\nupstream_auth crm {\nclient_authorization reject\n}\nreverse_proxy $API\n}"
	p.run(p.credential("scopes unique-to-this-test"), site)
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
		`build_info{version="` + version() + `"}`:                                                               func(v float64) bool { return v == 1 },
	} {
		if v, found := s[name]; !found || !ok(v) {
			t.Errorf("%s is %v (found: %v)", name, v, found)
		}
	}

	// a reload keeps the counters
	injected := `requests_total{credential="crm",outcome="injected"}`
	if err := p.load(p.caddyfile(p.credential("scopes unique-to-this-test"), site+"\nheader X-Reload 1")); err != nil {
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

// TestMetricsLint: names, units and help texts are as Prometheus wants them.
func TestMetricsLint(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.run(p.credential(), "upstream_auth crm\nreverse_proxy $API")
	p.want(p.get("/"), 200)
	r := prometheus.NewPedanticRegistry()
	if err := registerMetrics(r); err != nil {
		t.Fatal(err)
	}
	if err := registerMetrics(r); err != nil {
		t.Errorf("a second time: %v", err)
	}
	problems, err := testutil.GatherAndLint(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		t.Errorf("%s: %s", problem.Metric, problem.Text)
	}
}

// TestSeriesAreBounded: whatever requests do, no series comes of it.
func TestSeriesAreBounded(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.run(p.credential(), "handle /metrics {\nmetrics\n}\nhandle {\nreverse_proxy $API {\ntransport upstream_auth crm\n}\n}")
	p.want(p.get("/"), 200)
	before := len(p.series())
	for i := range 200 {
		n := strconv.Itoa(i)
		p.get("/"+n+"?q="+n, "Authorization", n, "X-"+n, n)
	}
	if after := len(p.series()); after != before {
		t.Errorf("%d series became %d", before, after)
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
