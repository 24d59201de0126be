package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

const (
	clientID  = "bench"
	secretEnv = "BENCH_CLIENT_SECRET"
	secret    = "bench-secret"
)

// stage is one scenario's set of processes and servers, all on loopback.
type stage struct {
	dir    string
	option string // one more of the credential
	auth   *authserver.Server
	server *authserver.Listener
	api    *authserver.Upstream
	target *authserver.Listener
	proxy  string
	caddy  *exec.Cmd
	client *http.Client
}

func newStage(dir string) (*stage, error) {
	s := &stage{dir: dir, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}, Timeout: 20 * time.Second}}
	s.renew(time.Hour)
	server, err := freeport.Take() // some scenarios close it and open it again
	if err != nil {
		return nil, err
	}
	if s.proxy, err = freeport.Take(); err != nil {
		return nil, err
	}
	return s, s.listen(server)
}

// renew has the authorization server issue tokens of that life.
func (s *stage) renew(life time.Duration) {
	s.auth = authserver.New(authserver.Config{ClientID: clientID, ClientSecret: secret, Lifetime: life})
	s.api = authserver.NewUpstream(s.auth)
}

func (s *stage) slowServer(d time.Duration) { s.auth.SetFault(authserver.Slow(d)) }

// listen starts the servers; what they serve may be replaced before requests
// come.
func (s *stage) listen(addr string) (err error) {
	s.server, err = authserver.Listen(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.auth.ServeHTTP(w, r) }))
	if err != nil || s.target != nil {
		return err
	}
	s.target, err = authserver.Listen("127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.api.ServeHTTP(w, r) }))
	return err
}

func (s *stage) admin() string { return filepath.Join(s.dir, "admin.sock") }

// configure writes the Caddyfile, with one header that makes it another.
func (s *stage) configure(version int) error {
	file := fmt.Sprintf(`{
	admin unix/%s|0600
	persist_config off
	log {
		level WARN
	}
	upstream_auth {
		credential api {
			token_url %s%s
			client_id %s
			client_auth client_secret_basic {env.%s}
			%s
		}
	}
}
http://%s {
	bind 127.0.0.1
	handle /metrics {
		metrics
	}
	handle {
		header X-Version %d
		upstream_auth api
		reverse_proxy %s
	}
}
`, s.admin(), s.server.URL(), authserver.TokenPath, clientID, secretEnv, s.option, s.proxy, version, s.target.Addr())
	return os.WriteFile(filepath.Join(s.dir, "Caddyfile"), []byte(file), 0o600)
}

// start starts Caddy and waits until it listens.
func (s *stage) start(ctx context.Context) error {
	if err := s.configure(0); err != nil {
		return err
	}
	path, err := ours(ctx, s.dir)
	if err != nil {
		return err
	}
	s.caddy = exec.Command(path, "run", "--config", filepath.Join(s.dir, "Caddyfile"), "--adapter", "caddyfile")
	s.caddy.Env = append(os.Environ(), secretEnv+"="+secret)
	log, err := os.Create(filepath.Join(s.dir, "caddy.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	s.caddy.Stdout, s.caddy.Stderr = log, log
	if err := s.caddy.Start(); err != nil {
		return err
	}
	for ctx.Err() == nil {
		conn, err := net.Dial("tcp", s.proxy)
		if err == nil {
			return conn.Close()
		}
		if s.caddy.ProcessState != nil {
			return errors.New("the process ended; its log is lost with the run")
		}
		time.Sleep(2 * time.Millisecond)
	}
	return ctx.Err()
}

func (s *stage) reload(ctx context.Context, version int) error {
	if err := s.configure(version + 1); err != nil {
		return err
	}
	path, err := ours(ctx, s.dir)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, "reload", "--config", filepath.Join(s.dir, "Caddyfile"), "--adapter", "caddyfile", "--address", "unix/"+s.admin())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("reload: %w\n%s", err, out)
	}
	return nil
}

func (s *stage) close() {
	if s.caddy != nil {
		_ = s.caddy.Process.Signal(syscall.SIGTERM)
		_ = s.caddy.Wait()
	}
	_ = s.server.Close()
	_ = s.target.Close()
	s.client.CloseIdleConnections()
}

// reply is what came of one request.
type reply struct {
	status int
	err    error
	took   time.Duration
}

func (r reply) says() string {
	if r.err != nil {
		return r.err.Error()
	}
	return strconv.Itoa(r.status)
}

func (s *stage) request() reply { return s.requestFor("") }

// requestFor is a request of a tenant.
func (s *stage) requestFor(tenant string) reply {
	began := time.Now()
	req, err := http.NewRequest(http.MethodGet, "http://"+s.proxy+"/hello", nil)
	if err != nil {
		return reply{err: err}
	}
	if tenant != "" {
		req.Header.Set("X-Tenant", tenant)
	}
	res, err := s.client.Do(req)
	if err != nil {
		return reply{err: err, took: time.Since(began)}
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return reply{res.StatusCode, err, time.Since(began)}
}

// outcomes are the sidecar's own counts of requests.
func (s *stage) outcomes() (map[string]int, error) {
	res, err := s.client.Get("http://" + s.proxy + "/metrics")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	out := make(map[string]int)
	for line := range strings.Lines(string(body)) {
		rest, ok := strings.CutPrefix(line, `caddy_upstream_auth_requests_total{credential="api",outcome="`)
		if !ok {
			continue
		}
		name, value, _ := strings.Cut(strings.TrimSpace(rest), `"} `)
		if out[name], err = strconv.Atoi(value); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// load is what came of many requests.
type load struct {
	mu      sync.Mutex
	ok      int
	failed  int // answered, but not with 200
	reset   int // not answered at all
	slowest time.Duration
	length  time.Duration
	times   []time.Duration
}

// note counts a reply that took so long from when it was meant to be sent.
func (l *load) note(r reply, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case r.err != nil:
		l.reset++
	case r.status != http.StatusOK:
		l.failed++
	default:
		l.ok++
	}
	l.slowest = max(l.slowest, took)
	l.times = append(l.times, took)
}

func (l *load) percentile(p int) time.Duration {
	if len(l.times) == 0 {
		return 0
	}
	slices.Sort(l.times)
	return l.times[min(len(l.times)*p/100, len(l.times)-1)]
}

// volley sends requests all at once.
func (s *stage) volley(n int) *load {
	l := new(load)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			r := s.request()
			l.note(r, r.took)
		})
	}
	wg.Wait()
	return l
}

// load sends requests at a fixed rate, whether earlier ones were answered or
// not.
func (s *stage) load(ctx context.Context, perSecond int, length time.Duration) *load {
	l := new(load)
	var wg sync.WaitGroup
	began := time.Now()
	gap := time.Second / time.Duration(perSecond)
	for i := 0; ctx.Err() == nil; i++ {
		meant := began.Add(time.Duration(i) * gap)
		if meant.Sub(began) >= length {
			break
		}
		time.Sleep(time.Until(meant))
		wg.Go(func() {
			r := s.request()
			l.note(r, time.Since(meant))
		})
	}
	wg.Wait()
	l.length = time.Since(began)
	return l
}
