package caddymodule

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// localGuard lets in only what programs of this machine ask by themselves.
type localGuard struct {
	log  *zap.Logger
	mu   sync.Mutex
	told map[string]bool // what was logged
}

// denial is the answer to those that are not let in.
type denial struct {
	status int
	text   string // for whoever asked
	reason string // for the log, once
}

var (
	deniedRemote = &denial{http.StatusForbidden, "this address does not hand out tokens",
		"a token was asked for at an address that others than this machine reach, and not given: bind the site to 127.0.0.1 or to a unix socket"}
	deniedHost = &denial{http.StatusMisdirectedRequest, "this site answers to localhost alone",
		"a token was asked for under a Host that is no loopback name, and not given: ask as localhost or 127.0.0.1"}
	deniedProxy = &denial{http.StatusForbidden, "a proxy does not get a token for others",
		"a token was asked for through another proxy, and not given: have the program ask by itself"}
	deniedPage = &denial{http.StatusForbidden, "a page in a browser does not get a token",
		"a token was asked for by a page in a browser, and not given"}
)

// denies tells why a request gets no token, nil if it may have it.
func (g *localGuard) denies(r *http.Request) *denial {
	d := judge(r)
	if d == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.told[d.reason] {
		if g.told == nil {
			g.told = make(map[string]bool)
		}
		g.told[d.reason] = true
		g.log.Warn(d.reason, zap.String("remote", r.RemoteAddr), zap.String("host", r.Host))
	}
	return d
}

func judge(r *http.Request) *denial {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if c, ok := r.Context().Value(connectionKey{}).(net.Conn); ok && secondHand(c, local, r.RemoteAddr) {
		return deniedProxy
	}
	socket := local != nil && strings.HasPrefix(local.Network(), "unix")
	if !socket && (local == nil || !loopbackAddr(local.String()) || !loopbackAddr(r.RemoteAddr)) {
		return deniedRemote
	}
	if ok, err := loopbackHosts.MatchWithError(r); !socket && (err != nil || !ok) {
		return deniedHost // by DNS rebinding, a page elsewhere
	}
	if proxied(r.Header) {
		return deniedProxy
	}
	// Fetch Metadata tells where a page is from; what a page elsewhere posts has
	// an Origin in every browser
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return deniedPage
	}
	if _, ok := r.Header["Origin"]; ok {
		return deniedPage
	}
	return nil
}

// connectionKey is where a request's context has its connection.
type connectionKey struct{}

// secondHand tells whether the addresses of a connection are what another proxy says,
// by the PROXY protocol: it may say of anybody that he is local.
func secondHand(c net.Conn, local net.Addr, remote string) bool {
	for {
		switch outer := c.(type) {
		case interface{ Raw() net.Conn }: // of the PROXY protocol
			c = outer.Raw()
		case interface{ NetConn() net.Conn }: // of TLS
			c = outer.NetConn()
		default:
			return local == nil || c.LocalAddr().String() != local.String() || c.RemoteAddr().String() != remote
		}
	}
}

// proxied tells whether another proxy says that it stands between: each has its
// own way to.
func proxied(h http.Header) bool {
	for name := range h {
		if name == "Forwarded" || name == "Via" || name == "X-Real-Ip" || strings.HasPrefix(name, "X-Forwarded-") {
			return true
		}
	}
	return false
}

// loopbackAddr tells whether an address with a port is one of this machine
// alone.
func loopbackAddr(address string) bool {
	at, err := netip.ParseAddrPort(address)
	return err == nil && at.Addr().Unmap().IsLoopback()
}

// lookAt has the server around keep the connections of its requests, and warns
// where it listens for others, too. A handler that is provisioned apart from a
// server cannot.
func (g *localGuard) lookAt(ctx caddy.Context) {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || server == nil {
		return
	}
	server.RegisterConnContext(func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connectionKey{}, c)
	})
	for _, listen := range server.Listen {
		at, err := caddy.ParseNetworkAddress(listen)
		if err != nil || at.IsUnixNetwork() || at.IsFdNetwork() || isLoopback(at.Host) {
			continue
		}
		g.log.Warn("the site of upstream_auth_token listens for others than this machine, who get no token there: bind it to 127.0.0.1 or to a unix socket", zap.String("listen", listen))
		return
	}
}
