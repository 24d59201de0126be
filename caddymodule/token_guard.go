package caddymodule

import (
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
	socket := local != nil && strings.HasPrefix(local.Network(), "unix")
	// a listener wrapper may say of both what another proxy has told it
	if !socket && (local == nil || !loopbackAddr(local.String()) || !loopbackAddr(r.RemoteAddr)) {
		return deniedRemote
	}
	if ok, err := loopbackHosts.MatchWithError(r); !socket && (err != nil || !ok) {
		return deniedHost // by DNS rebinding, a page elsewhere
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For"} {
		if _, ok := r.Header[name]; ok {
			return deniedProxy
		}
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

// loopbackAddr tells whether an address with a port is one of this machine
// alone.
func loopbackAddr(address string) bool {
	at, err := netip.ParseAddrPort(address)
	return err == nil && at.Addr().Unmap().IsLoopback()
}

// lookAt warns where the server around listens for others, too. A handler that
// is provisioned apart from a server cannot know.
func (g *localGuard) lookAt(ctx caddy.Context) {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || server == nil {
		return
	}
	for _, listen := range server.Listen {
		at, err := caddy.ParseNetworkAddress(listen)
		if err != nil || at.IsUnixNetwork() || at.IsFdNetwork() || isLoopback(at.Host) {
			continue
		}
		g.log.Warn("the site of upstream_auth_token listens for others than this machine, who get no token there: bind it to 127.0.0.1 or to a unix socket", zap.String("listen", listen))
		return
	}
}
