package interop

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// scene is two Caddys on one storage under a real Prometheus, with a credential
// for each thing that the dashboard has to show.
type scene struct {
	*prometheus
	caddys       []*caddy
	addresses    []string // of their metrics: the label instance
	storage      string
	began, ended time.Time

	away    atomic.Bool // the token endpoint, for some
	strange atomic.Bool // the upstream, which refuses tokens
	asked   atomic.Int64
}

// shownSites is the configuration, but for the sites.
const shownSites = `{
	admin unix/%[1]s/admin.sock
	persist_config off
	auto_https off
	grace_period 2s
	storage file_system %[2]s
	upstream_auth {
		credential crm {
			%[3]s crm
		}
		credential legacy {
			%[3]s legacy
			default_lifetime 8s
		}
		credential tenants {
			%[3]s tenants
			param tenant {header.X-Tenant}
		}
		credential fleet {
			%[3]s fleet
			refresh_at 20%%
			share
		}
		credential mail {
			%[3]s mail
			grant refresh_token {env.SECRET}
			share
		}
		credential archive {
			%[3]s archive
			grant refresh_token {env.SECRET}
		}
		credential partner {
			%[3]s partner
		}
	}
}

http://127.0.0.1 {
	bind unix/%[1]s/sites.sock
	metrics /metrics
}

http://denied {
	bind unix/%[1]s/sites.sock
	reverse_proxy {header.X-Upstream} {
		transport upstream_auth crm {
			upstreams api.example.com
		}
	}
}

http://open {
	bind unix/%[1]s/sites.sock
	reverse_proxy %[4]s {
		transport upstream_auth partner {
			unavailable pass
		}
	}
}
`

const shownSite = `
http://%[2]s {
	bind unix/%[1]s/sites.sock
	reverse_proxy %[3]s {
		transport upstream_auth %[2]s {
			wait 1s
		}
	}
}
`

// The scrapes of the run: of those in health, while things are wrong, and after.
const (
	scrapesWell, scrapesWrong, scrapesAfter = 7, 9, 11
)

// startScene runs it from its beginning to its end.
func startScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{storage: t.TempDir()}
	server := httptest.NewServer(http.HandlerFunc(s.grant))
	t.Cleanup(server.Close)
	api := httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(api.Close)
	for range 2 {
		s.runCaddy(t, server.URL, api.URL)
	}
	s.prometheus = startPrometheus(t, strings.Join(s.addresses, ", "))
	s.load(t, strings.TrimPrefix(api.URL, "http://"))
	s.scrapes(t, 1)
	s.began = time.Now()

	s.scrapes(t, scrapesWell)
	s.away.Store(true)
	s.strange.Store(true)
	folder := filepath.Join(s.storage, "upstream_auth", "mail")
	if err := os.Rename(folder, folder+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(folder, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.scrapes(t, scrapesWell+scrapesWrong)
	s.away.Store(false)
	s.strange.Store(false)
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(folder+".away", folder); err != nil {
		t.Fatal(err)
	}
	s.scrapes(t, scrapesWell+scrapesWrong+scrapesAfter)
	s.ended = time.Now()
	return s
}

// scrapes waits until each of the Caddys was scraped so many times.
func (s *scene) scrapes(t *testing.T, n int) {
	t.Helper()
	poll(t, startDeadline, "scrapes", func(ctx context.Context) error {
		got, err := s.scraped(ctx)
		if err == nil && got < n*len(s.caddys) {
			err = fmt.Errorf("%d so far", got)
		}
		return err
	})
}

// runCaddy starts one more.
func (s *scene) runCaddy(t *testing.T, server, api string) {
	t.Helper()
	// a unix socket's path has about 100 characters
	dir, err := os.MkdirTemp("", "interop") //nolint:usetesting // t.TempDir is too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &caddy{dir: dir, config: filepath.Join(dir, "Caddyfile"), client: clientOf(filepath.Join(dir, "sites.sock"))}
	var text strings.Builder
	credential := fmt.Sprintf("token_url %s/token\n\t\t\tclient_auth client_secret_basic {env.SECRET}\n\t\t\tclient_id", server)
	fmt.Fprintf(&text, shownSites, dir, s.storage, credential, api)
	for _, name := range []string{"crm", "legacy", "tenants", "fleet", "mail", "archive", "partner"} {
		fmt.Fprintf(&text, shownSite, dir, name, api)
	}
	if err := os.WriteFile(c.config, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "run", "--config", c.config, "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir, "SECRET="+rand.Text())
	c.process = start(t, "caddy", cmd)
	t.Cleanup(func() {
		c.client.CloseIdleConnections()
		c.stop(t, syscall.SIGTERM)
		if t.Failed() {
			t.Logf("Caddy's log:\n%s", &c.output)
		}
	})
	poll(t, startDeadline, "the sites", func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "sites.sock"))
		if err != nil {
			return err
		}
		return conn.Close()
	})
	s.caddys = append(s.caddys, c)
	s.addresses = append(s.addresses, forward(t, filepath.Join(dir, "sites.sock")))
}

// lives are the seconds of a token, by the client; 0 for an answer without.
var lives = map[string]int{"crm": 12, "legacy": 0, "tenants": 30, "fleet": 60, "mail": 10}

// grant is the token endpoint.
func (s *scene) grant(w http.ResponseWriter, r *http.Request) {
	client, _, _ := r.BasicAuth()
	refuse := func(status int, code string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"error":%q}`, code)
	}
	w.Header().Set("Content-Type", "application/json")
	// an answer takes its time: 20, 40, … 160 ms
	select {
	case <-time.After(time.Duration(s.asked.Add(1)%8+1) * 20 * time.Millisecond):
	case <-r.Context().Done():
		return
	}
	switch {
	case client == "partner":
		refuse(http.StatusUnauthorized, "invalid_client")
	case client == "archive":
		refuse(http.StatusBadRequest, "invalid_grant")
	case s.away.Load() && client == "crm":
		http.Error(w, "not now", http.StatusServiceUnavailable)
	case s.away.Load() && client == "legacy":
		fmt.Fprintln(w, "<!DOCTYPE html><title>We are back soon</title>")
	default:
		answer := map[string]any{"access_token": rand.Text(), "token_type": "Bearer"}
		if life := lives[client]; life > 0 {
			answer["expires_in"] = life
		}
		if client == "mail" {
			answer["refresh_token"] = rand.Text()
		}
		w.WriteHeader(http.StatusOK)
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			return // the client has gone
		}
	}
}

// serve is the upstream, which knows no token and refuses one when it is told to.
func (s *scene) serve(w http.ResponseWriter, r *http.Request) {
	if s.strange.Load() && r.Host == "fleet" && s.asked.Add(1)%3 == 0 {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		http.Error(w, "that token is no good", http.StatusUnauthorized)
		return
	}
	fmt.Fprintln(w, "welcome")
}

// load sends five requests a second for each site of each Caddy until the test ends.
func (s *scene) load(t *testing.T, api string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for _, c := range s.caddys {
		for _, name := range []string{"crm", "legacy", "tenants", "fleet", "mail", "archive", "partner", "denied", "open"} {
			all.Go(func() {
				tick := time.NewTicker(200 * time.Millisecond)
				defer tick.Stop()
				for n := 0; ; n++ {
					select {
					case <-tick.C:
						if name == "denied" && n%10 != 0 {
							continue // enough to be seen
						}
						all.Go(func() { c.show(ctx, name, api, n) })
					case <-ctx.Done():
						return
					}
				}
			})
		}
	}
	t.Cleanup(func() {
		cancel()
		all.Wait()
	})
}

// show sends one request, whose end is for Prometheus to tell. A template gets a
// new value each second, and at times none.
func (c *caddy) show(ctx context.Context, name, api string, n int) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+name+"/", nil)
	if err != nil {
		return
	}
	req.Header.Set("X-Upstream", api)
	if name == "tenants" && n%10 != 0 {
		req.Header.Set("X-Tenant", fmt.Sprintf("tenant-%d", n/5))
	}
	_, _ = do(c.client, req)
}
