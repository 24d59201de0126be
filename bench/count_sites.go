package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

// countSite is a site of the one Caddy in which requests are counted: a server of
// its own, with nothing on it but the way in which it puts a token on.
type countSite struct {
	name string
	site string // its directives
	bare bool   // carries no token
}

const (
	bareSite      = "reverse_proxy alone"
	headerUpSite  = "static header_up"
	staticSite    = "static handler"
	xoauth2Site   = "x/oauth2 handler"
	handlerSite   = "upstream_auth, handler"
	transportSite = "upstream_auth, transport"
)

var countSites = []countSite{
	{name: bareSite, bare: true, site: `
	reverse_proxy API`},
	{name: headerUpSite, site: `
	reverse_proxy API {
		header_up Authorization "Bearer STATIC"
	}`},
	{name: staticSite, site: `
	static_token "Bearer STATIC"
	reverse_proxy API`},
	{name: xoauth2Site, site: `
	xoauth2 TOKEN_URL CLIENT {$SECRET}
	reverse_proxy API`},
	{name: handlerSite, site: `
	upstream_auth api
	reverse_proxy API`},
	{name: transportSite, site: `
	reverse_proxy API {
		transport upstream_auth api
	}`},
}

// countedCaddy is a Caddy with some sites, in a process of its own, so that its
// allocations and instructions are nobody else's. Its callers, its upstream and
// its token endpoint are here.
type countedCaddy struct {
	*turn
	sites   []countSite
	callers []*caller    // one for each site, with one connection
	carried atomic.Int64 // bytes of the newest request's Authorization
	memory  *http.Client // asks for what it has allocated
	pause   time.Duration
}

// newCountedCaddy starts it, by a command that prepare may change. The upstream
// answers after a pause, and each request is sent after one: then
// Caddy is done with what it did before, whatever else the machine is busy with.
// Otherwise it does one thing or another, as an answer comes before or after the
// end of the writing of its request (net/http's wroteRequest).
func newCountedCaddy(ctx context.Context, dir string, sites []countSite, pause time.Duration, prepare func(*turn, *exec.Cmd)) (*countedCaddy, error) {
	path, err := program(ctx, dir, "bench/peers/onecaddy", "-ldflags=-w") // with the names of its functions
	if err != nil {
		return nil, err
	}
	c := &countedCaddy{sites: sites, pause: pause}
	c.turn, err = newTurnBefore(dir, time.Hour, func(*turn) (listener, error) {
		return authserver.Listen("127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c.carried.Store(int64(len(r.Header.Get("Authorization"))))
			time.Sleep(pause)
			w.Write([]byte("hello\n"))
		}))
	})
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(c.dir, "admin.sock")
	c.memory = &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	var config strings.Builder
	fmt.Fprintf(&config, "{\n\tadmin unix/%s|0600\n\tpersist_config off\n\tauto_https off\n\tlog {\n\t\tlevel WARN\n\t}%s\n}\n", socket, options)
	for i, s := range sites {
		addr := c.proxy
		if i > 0 {
			if addr, err = freeport.Take(); err != nil {
				c.close()
				return nil, err
			}
		}
		_, port, _ := net.SplitHostPort(addr)
		fmt.Fprintf(&config, "http://:%s {\n\tbind 127.0.0.1%s\n}\n", port, s.site)
		c.callers = append(c.callers, &caller{addr: addr, request: []byte("GET /hello HTTP/1.1\r\nHost: " + addr +
			"\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\nX-Request-Id: 0123456789abcdef\r\n\r\n")})
	}
	err = c.run(ctx, subject{command: func(t *turn) (*exec.Cmd, error) {
		file, err := t.write("Caddyfile", t.fill(config.String()))
		if err != nil {
			return nil, err
		}
		cmd := exec.Command(path, "run", "--config", file, "--adapter", "caddyfile")
		cmd.Env = append(append(os.Environ(), secretEnv+"="+secret), steadyEnv...)
		prepare(t, cmd)
		return cmd, nil
	}})
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *countedCaddy) close() {
	for _, one := range c.callers {
		one.hangUp()
	}
	c.turn.close()
}

// call sends requests to a site, one after the other.
func (c *countedCaddy) call(site, n int) error {
	for range n {
		time.Sleep(c.pause)
		if one := c.callers[site].call(time.Now()); !one.good() {
			return fmt.Errorf("%s: a request was answered with %d (0: not at all): %s", c.sites[site].name, one.status, c.log())
		}
	}
	return nil
}

// warm has each site do all that is done once, and looks at what it puts on.
func (c *countedCaddy) warm(requests int) error {
	for i, s := range c.sites {
		if err := c.call(i, requests); err != nil {
			return err
		}
		want := int64(len("Bearer ") + tokenBytes)
		if s.bare {
			want = 0
		}
		if got := c.carried.Load(); got != want {
			return fmt.Errorf("%s: the upstream was given an Authorization of %d bytes, expected %d", s.name, got, want)
		}
	}
	return nil
}

// allocated is how much a process has allocated since its start.
type allocated struct{ objects, bytes uint64 }

// allocated asks for it, which allocates something, too.
func (c *countedCaddy) allocated(ctx context.Context) (a allocated, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1/debug/vars", nil)
	if err != nil {
		return allocated{}, err
	}
	res, err := c.memory.Do(req)
	if err != nil {
		return allocated{}, err
	}
	defer res.Body.Close()
	var vars struct {
		Memstats *struct{ Mallocs, TotalAlloc uint64 } `json:"memstats"`
	}
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return allocated{}, err
	}
	if err := json.Unmarshal(text, &vars); err != nil || vars.Memstats == nil {
		return allocated{}, fmt.Errorf("the admin API's /debug/vars, status %d, does not tell what was allocated: %w", res.StatusCode, err)
	}
	return allocated{vars.Memstats.Mallocs, vars.Memstats.TotalAlloc}, nil
}
