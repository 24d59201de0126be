package browser

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

const (
	clientID = "status-app"
	secret   = "s3cr3t-0f-the-app"
)

// credential is a client at an authorization server of its own.
type credential struct {
	name   string
	config authserver.Config
	fault  authserver.Fault // of the server, from the start
	lines  []string         // further ones in the Caddyfile
	secret string           // the line client_auth, which has a default
	unused bool             // by any route
	like   *credential      // one before it, whose servers it has, too

	server   *authserver.Server
	listener *authserver.Listener
	api      *authserver.Upstream
	upstream *authserver.Listener
}

// proxy is a Caddy with a status page, and all that is around it.
type proxy struct {
	t           *testing.T
	dir         string
	ip          string
	credentials map[string]*credential
	client      *http.Client
	admin       *http.Client

	cmd   *exec.Cmd
	ended chan struct{}
	mu    sync.Mutex
	log   bytes.Buffer
}

// startProxy starts servers, upstreams and a Caddy before them.
func startProxy(t *testing.T, credentials ...*credential) *proxy {
	t.Helper()
	dir, err := os.MkdirTemp("", "browser") //nolint:usetesting // a unix socket's path has about 100 characters
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{
		t: t, dir: dir, credentials: make(map[string]*credential),
		// an address of its own, whose ports nobody else can have
		ip: fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254)),
	}
	p.client = &http.Client{Timeout: deadline}
	p.admin = &http.Client{Timeout: deadline, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "admin.sock"))
		},
	}}
	t.Cleanup(func() {
		p.stop(syscall.SIGTERM)
		if t.Failed() {
			p.mu.Lock()
			t.Logf("Caddy's log:\n%s", p.log.Bytes())
			p.mu.Unlock()
		}
		os.RemoveAll(dir)
	})
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range credentials {
		p.serve(c)
	}
	if err := os.WriteFile(filepath.Join(dir, "Caddyfile"), []byte(p.caddyfile(credentials)), 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	return p
}

// serve starts what is at both ends of a credential.
func (p *proxy) serve(c *credential) {
	p.t.Helper()
	p.credentials[c.name] = c
	if like := c.like; like != nil {
		c.server, c.listener, c.api, c.upstream = like.server, like.listener, like.api, like.upstream
		return
	}
	c.config.ClientID, c.config.ClientSecret = clientID, secret
	c.server = authserver.New(c.config)
	c.server.SetFault(c.fault)
	c.api = authserver.NewUpstream(c.server)
	c.listener, c.upstream = p.listen(c.server), p.listen(c.api)
	if c.config.RefreshTokens {
		if err := os.WriteFile(filepath.Join(p.dir, "refresh-token"), []byte(c.server.IssueRefreshToken()), 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *proxy) listen(h http.Handler) *authserver.Listener {
	p.t.Helper()
	l, err := authserver.Listen(p.ip+":0", h)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = l.Close() })
	return l
}

func (p *proxy) caddyfile(credentials []*credential) string {
	var blocks, routes strings.Builder
	for _, c := range credentials {
		auth := c.secret
		if auth == "" {
			auth = "client_secret_basic {file." + filepath.Join(p.dir, "secret") + "}"
		}
		fmt.Fprintf(&blocks, "\t\tcredential %s {\n\t\t\ttoken_url %s%s\n\t\t\tclient_id %s\n\t\t\tclient_auth %s\n\t\t\t%s\n\t\t}\n",
			c.name, c.listener.URL(), authserver.TokenPath, clientID, auth, strings.ReplaceAll(strings.Join(c.lines, "\n\t\t\t"), "$DIR", p.dir))
		if !c.unused {
			fmt.Fprintf(&routes, "\thandle /%[1]s {\n\t\tupstream_auth %[1]s\n\t\treverse_proxy %[2]s\n\t}\n", c.name, c.upstream.Addr())
		}
	}
	return fmt.Sprintf(`{
	debug
	admin unix/%[1]s/admin.sock
	persist_config off
	auto_https off
	grace_period 1s
	storage file_system %[1]s/storage
	upstream_auth {
%[3]s	}
}
http://%[2]s:8080 {
	bind %[2]s
	upstream_auth_status /status
%[4]s}
`, p.dir, p.ip, blocks.String(), routes.String())
}

// start runs Caddy until its sites are there.
func (p *proxy) start() {
	p.t.Helper()
	p.cmd = exec.Command(*binary, "run", "--config", filepath.Join(p.dir, "Caddyfile"), "--adapter", "caddyfile")
	p.cmd.Env = append(os.Environ(), "HOME="+p.dir, "XDG_CONFIG_HOME="+p.dir, "XDG_DATA_HOME="+p.dir, "NO_PROXY=*", "no_proxy=*")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // should this program be killed
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait()
		close(ended)
	}(p.cmd, p.ended)
	eventually(p.t, "Caddy's site", func() error {
		select {
		case <-p.ended:
			p.t.Fatalf("caddy ended: %s", p.cmd.ProcessState)
		default:
		}
		_, err := p.get("/status")
		return err
	})
}

// Write takes Caddy's log.
func (p *proxy) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

// stop ends Caddy and waits for its end.
func (p *proxy) stop(signal os.Signal) {
	p.t.Helper()
	if p.cmd == nil || p.cmd.Process == nil {
		return
	}
	p.client.CloseIdleConnections()
	p.admin.CloseIdleConnections()
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Error(err)
	}
	select {
	case <-p.ended:
	case <-time.After(deadline):
		p.t.Errorf("caddy did not end within %s of %s", deadline, signal)
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// url is an address at the proxy.
func (p *proxy) url(path string) string { return "http://" + p.ip + ":8080" + path }

// get sends a request through the proxy, with names and values of header fields.
func (p *proxy) get(path string, header ...string) (int, error) {
	req, err := http.NewRequest(http.MethodGet, p.url(path), nil)
	if err != nil {
		return 0, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return do(p.client, req, nil)
}

func do(client *http.Client, req *http.Request, into any) (int, error) {
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if into != nil {
		return res.StatusCode, json.NewDecoder(res.Body).Decode(into)
	}
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

// requests sends n requests with a credential's token.
func (p *proxy) requests(name string, n int, header ...string) {
	p.t.Helper()
	for range n {
		if _, err := p.get("/"+name, header...); err != nil {
			p.t.Fatal(err)
		}
	}
}

// traffic is n requests, and where pictures are to show more, a second's worth
// each second.
func (p *proxy) traffic(name string, n int, header ...string) {
	p.t.Helper()
	p.requests(name, n, header...)
	end := time.After(*busy)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for second := 0; *busy > 0; second++ {
		select {
		case <-end:
			return
		case <-tick.C:
			p.requests(name, 2+int(2*math.Sin(float64(second)/70))+rand.IntN(2), header...)
		}
	}
}

// report is what the tests want to know of a credential without a browser.
type report struct {
	Name, State string
	Ready       bool
	Token       *struct{ Sent time.Time }
	Failures    int
}

// report asks for it.
func (p *proxy) report(name string) (report, error) {
	req, err := http.NewRequest(http.MethodGet, p.url("/status"), nil)
	if err != nil {
		return report{}, err
	}
	var all struct{ Credentials []report }
	if _, err := do(p.client, req, &all); err != nil {
		return report{}, err
	}
	for _, r := range all.Credentials {
		if r.Name == name {
			return r, nil
		}
	}
	return report{}, fmt.Errorf("no credential %s in %+v", name, all)
}

// await waits until a credential stands so.
func (p *proxy) await(name, state string) {
	p.t.Helper()
	eventually(p.t, name+" is "+state, func() error {
		r, err := p.report(name)
		if err == nil && r.State != state {
			err = fmt.Errorf("it is %s", r.State)
		}
		return err
	})
}

// refresh asks for another token through the admin API.
func (p *proxy) refresh(name string, want int) {
	p.t.Helper()
	eventually(p.t, "a refresh of "+name, func() error { // one is allowed in five seconds
		req, err := http.NewRequest(http.MethodPost, "http://127.0.0.1/upstream_auth/credentials/"+name+"/refresh", nil)
		if err != nil {
			return err
		}
		status, err := do(p.admin, req, nil)
		if err == nil && status != want {
			err = fmt.Errorf("got %d, want %d", status, want)
		}
		return err
	})
}
