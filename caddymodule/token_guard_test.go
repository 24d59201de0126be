package caddymodule

import (
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

func init() { caddy.RegisterModule(new(tellsLies)) }

// TestTokenGuardTold: what another proxy says of a connection's addresses, by
// the PROXY protocol, makes nobody local.
func TestTokenGuardTold(t *testing.T) {
	p := newParts(t, authserver.Config{Issue: canaries})
	file := p.caddyfile(p.credential(), tokenSite)
	if err := p.load(file); err != nil {
		t.Fatal(err)
	}
	p.held()
	p.want(p.get("/token"), http.StatusOK)
	p.stop()
	if err := p.load(strings.Replace(file, "{\n", "{\nservers {\nlistener_wrappers {\ntells_lies\n}\n}\n", 1)); err != nil {
		t.Fatal(err)
	}
	p.held()
	a := p.get("/token")
	if p.want(a, http.StatusForbidden); strings.Contains(a.body, "c4n4ry") {
		t.Errorf("got %s", a.body)
	}
	if p.lines("through another proxy") != 1 {
		t.Error(p.logged())
	}
}

// tellsLies says that each connection came in on a socket.
type tellsLies struct{}

func (*tellsLies) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.listeners.tells_lies", New: func() caddy.Module { return new(tellsLies) }}
}
func (*tellsLies) UnmarshalCaddyfile(*caddyfile.Dispenser) error { return nil }
func (*tellsLies) WrapListener(l net.Listener) net.Listener      { return &lyingListener{l} }

type lyingListener struct{ net.Listener }

func (l *lyingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lyingConn{c}, nil
}

type lyingConn struct{ net.Conn }

func (*lyingConn) LocalAddr() net.Addr  { return &net.UnixAddr{Name: "/run/a.sock", Net: "unix"} }
func (*lyingConn) RemoteAddr() net.Addr { return &net.UnixAddr{Net: "unix"} }
func (c *lyingConn) Raw() net.Conn      { return c.Conn }

// Interface guards
var (
	_ caddy.ListenerWrapper = (*tellsLies)(nil)
	_ caddyfile.Unmarshaler = (*tellsLies)(nil)
)
