package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"
)

// sidecar is a proxy beside one program: what the commands proxy and demo run.
type sidecar struct {
	from       string   // where it listens: a loopback address or a unix socket
	to         []string // its upstreams, as URLs or unix//path
	credential *Credential
	injection  Injection // without a credential
	insecure   bool      // insecure_upstream
	admin      string    // where the admin API listens, "off" for nowhere
	status     string    // where the status is, a loopback address or a unix socket; "" for nowhere
	accessLog  bool
	level      string // of the log
}

// sidecarCredential is what the one credential of a sidecar is called.
const sidecarCredential = "default"

// loopbackHosts are the Host names that a sidecar answers to: a page in a
// browser on the same machine can reach a loopback address, by DNS rebinding,
// under a name of its own.
var loopbackHosts = caddyhttp.MatchHost{"localhost", "*.localhost", "127.0.0.1", "::1"}

// config is the Caddy configuration of a sidecar.
func (s *sidecar) config() (*caddy.Config, error) {
	if err := checkListen(s.from); err != nil {
		return nil, fmt.Errorf("--from: %w", err)
	}
	transport := Transport{Injection: s.injection, InsecureUpstream: s.insecure, HTTPTransport: new(reverseproxy.HTTPTransport)}
	transport.Credential = sidecarCredential
	upstreams, err := s.upstreams(&transport)
	if err != nil {
		return nil, fmt.Errorf("--to: %w", err)
	}
	proxy := reverseproxy.Handler{
		TransportRaw: caddyconfig.JSONModuleObject(&transport, "protocol", "upstream_auth", nil),
		Upstreams:    upstreams,
	}
	server := localServer(s.from, caddyconfig.JSONModuleObject(proxy, "handler", "reverse_proxy", nil))
	if s.accessLog {
		server.Logs = new(caddyhttp.ServerLogConfig)
	}
	servers := map[string]*caddyhttp.Server{"sidecar": server}
	if s.status != "" {
		if err := checkListen(s.status); err != nil {
			return nil, fmt.Errorf("--status: %w", err)
		}
		if s.status == s.from {
			return nil, fmt.Errorf("--status: '%s' is where the proxy listens: expected another address", s.status)
		}
		servers["status"] = localServer(s.status, caddyconfig.JSONModuleObject(Status{}, "handler", "upstream_auth_status", nil))
	}
	admin := &caddy.AdminConfig{Listen: s.admin, Config: &caddy.ConfigSettings{Persist: new(bool)}}
	if s.admin == "off" {
		admin.Listen, admin.Disabled = "", true
	}
	log := &caddy.CustomLog{BaseLog: caddy.BaseLog{Level: s.level}}
	if s.level != "DEBUG" { // what it says else, the transport says then
		log.Exclude = []string{string(reverseproxy.Handler{}.CaddyModule().ID)}
	}
	return &caddy.Config{
		Admin:   admin,
		Logging: &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": log}},
		AppsRaw: caddy.ModuleMap{
			"http":  caddyconfig.JSON(caddyhttp.App{Servers: servers}, nil),
			appName: caddyconfig.JSON(App{Credentials: map[string]*Credential{sidecarCredential: s.credential}}, nil),
		},
	}, nil
}

// localServer is a server whose handler answers to loopback names alone.
func localServer(listen string, handler json.RawMessage) *caddyhttp.Server {
	misdirected := caddyhttp.StaticResponse{
		StatusCode: caddyhttp.WeakString(strconv.Itoa(http.StatusMisdirectedRequest)),
		Body:       "this proxy answers to localhost alone\n",
	}
	return &caddyhttp.Server{
		Listen:    []string{listen},
		AutoHTTPS: &caddyhttp.AutoHTTPSConfig{Disabled: true},
		Routes: caddyhttp.RouteList{
			{
				MatcherSetsRaw: []caddy.ModuleMap{{"host": caddyconfig.JSON(loopbackHosts, nil)}},
				HandlersRaw:    []json.RawMessage{handler},
				Terminal:       true,
			},
			{HandlersRaw: []json.RawMessage{caddyconfig.JSONModuleObject(misdirected, "handler", "static_response", nil)}},
		},
	}
}

// checkListen refuses an address that others than this machine can reach:
// whoever reaches the proxy uses the token.
func checkListen(address string) error {
	a, err := caddy.ParseNetworkAddress(address)
	switch {
	case err != nil:
		return err
	case a.IsUnixNetwork():
		return nil
	case a.Network != "tcp" && a.Network != "tcp4" && a.Network != "tcp6", a.PortRangeSize() != 1:
		return fmt.Errorf("'%s': expected one address such as 127.0.0.1:8080, or unix//path/to/socket", address)
	case !isLoopback(a.Host):
		return fmt.Errorf("'%s' can be reached by others, who could then use the token: expected a loopback address such as 127.0.0.1:8080, or unix//path/to/socket", address)
	}
	return nil
}

// upstreams reads the addresses, and has the transport speak TLS where they
// say https.
func (s *sidecar) upstreams(t *Transport) (reverseproxy.UpstreamPool, error) {
	if len(s.to) == 0 {
		return nil, errors.New("is missing: write the API's address, https://host")
	}
	var pool reverseproxy.UpstreamPool
	var schemes []string
	for _, to := range s.to {
		scheme, dial, err := upstreamAddress(to)
		if err != nil {
			return nil, err
		}
		schemes = append(schemes, scheme)
		pool = append(pool, &reverseproxy.Upstream{Dial: dial})
	}
	if slices.ContainsFunc(schemes, func(scheme string) bool { return scheme != schemes[0] }) {
		return nil, errors.New("all upstreams need the same scheme")
	}
	if schemes[0] == "https" {
		t.TLS = new(reverseproxy.TLSConfig)
	}
	return pool, nil
}

// upstreamAddress reads the URL of an upstream, or the path of its socket.
func upstreamAddress(to string) (scheme, dial string, err error) {
	if strings.HasPrefix(to, "unix/") {
		return "http", to, nil
	}
	u, err := url.Parse(to)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return "", "", fmt.Errorf("'%s' is not an upstream: expected https://host, http://127.0.0.1:port or unix//path/to/socket", to)
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return "", "", fmt.Errorf("'%s': only scheme, host and port of an upstream are given here; the rest comes with each request", u.Redacted())
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme, net.JoinHostPort(u.Hostname(), port), nil
}

// adminSocket is where the admin API of a sidecar listens: a unix socket for
// its own user alone, since whoever reaches it can read every secret.
func adminSocket() string { return "unix/" + adminPath() + "|0600" }

func adminPath() string {
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		dir = os.TempDir()
	}
	return filepath.Join(dir, fmt.Sprintf("caddy-upstream-auth-%d.sock", os.Getpid()))
}

// run runs a sidecar until the process is told to stop.
func (s *sidecar) run() error {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	if err := caddy.Run(cfg); err != nil {
		if s.admin == adminSocket() { // Caddy leaves it behind
			_ = os.Remove(adminPath())
		}
		return err
	}
	caddy.Log().Info("caddy upstream-auth proxying", zap.String("from", s.from), zap.Strings("to", s.to), zap.String("status", s.status), zap.String("admin", s.admin))
	return nil
}
