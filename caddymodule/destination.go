package caddymodule

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// checkDestination refuses, when the config is loaded, what would have the
// token go where it must not.
func (t *Transport) checkDestination(proxy *reverseproxy.Handler) error {
	if err := t.checkOptions(); err != nil {
		return err
	}
	if t.TLS != nil && t.TLS.InsecureSkipVerify && !t.InsecureUpstream {
		return optionErrorf("http", "tls_insecure_skip_verify would give the token to whoever answers: write insecure_upstream too to allow it")
	}
	if t.TLS == nil && (t.NetworkProxyRaw != nil || t.ForwardProxyURL != "") && !t.InsecureUpstream {
		return optionErrorf("http", "an upstream without TLS through a proxy would get the token in the clear: write insecure_upstream to allow it")
	}
	if proxy == nil {
		return nil
	}
	if proxy.DynamicUpstreamsRaw != nil && len(t.Upstreams) == 0 {
		return optionErrorf("upstreams", "is missing: the upstreams are dynamic, so the hosts that may have the token have to be listed")
	}
	for _, u := range proxy.Upstreams {
		if strings.Contains(u.Dial, "{") {
			if len(t.Upstreams) == 0 {
				return optionErrorf("upstreams", "is missing: the upstream %s holds a placeholder, so the hosts that may have the token have to be listed", u.Dial)
			}
			continue
		}
		if err := t.checkUpstream(u.Dial); err != nil {
			return err
		}
	}
	return nil
}

// validHost is an entry of Upstreams: a name or an address, with a port or
// without; its first label may be any.
var validHost = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^((\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$`)
})

// checkOptions tells what is wrong with the transport's own options, as an
// *optionError.
func (t *Transport) checkOptions() error {
	for _, host := range t.Upstreams {
		_, err := netip.ParseAddr(host) // IPv6 without brackets
		if err != nil && !validHost().MatchString(host) && !strings.HasPrefix(host, "unix//") {
			return optionErrorf("upstreams", "'%s' is not a host, expected host, host:port, *.example.com or unix//path/to/socket", host)
		}
	}
	if err := checkOneOf("health_checks", t.HealthChecks, "on", "off"); err != nil {
		return err
	}
	return t.Replay.check()
}

// checkUpstream refuses an upstream without TLS that is known at load.
func (t *Transport) checkUpstream(dial string) error {
	address, err := caddy.ParseNetworkAddress(dial)
	if err != nil || t.InsecureUpstream || address.IsUnixNetwork() || isLocal(address.Host) {
		return nil //nolint:nilerr // Caddy has its own say about an address that is none
	}
	port := strconv.FormatUint(uint64(address.StartPort), 10)
	if t.TLS != nil && !slices.Contains(t.TLS.ExceptPorts, port) {
		return nil
	}
	secure := address.Host
	if port != "80" {
		secure = net.JoinHostPort(secure, port)
	}
	return optionErrorf("insecure_upstream", "the upstream %s has neither TLS nor a loopback address, so the token would travel in the clear: write https://%s, or insecure_upstream to allow it", dial, secure)
}

// isLocal tells whether dialling a host stays on this machine: as net.Dial has
// it, no host and an unspecified address do, too.
func isLocal(host string) bool {
	if host == "" || host == "127.0.0.1" || host == "localhost" { // nearly all, and read quickly
		return true
	}
	ip, err := netip.ParseAddr(host)
	return isLoopback(host) || err == nil && ip.IsUnspecified()
}

// allowed tells whether an attempt's upstream may have the token, judged by
// the address that is dialled.
func (t *Transport) allowed(req *http.Request) error {
	network, host, port := dialled(req)
	t.SetScheme(req)
	if len(t.Upstreams) > 0 {
		if !t.listed(host, port) && !slices.Contains(t.Upstreams, network+"/"+host) {
			return fmt.Errorf("credential '%s': the address %s is not in upstreams", t.inject.name, net.JoinHostPort(host, port))
		}
		sent, sentPort := splitHost(req.Host)
		if sentPort == "" {
			sentPort = map[string]string{"http": "80", "https": "443"}[req.URL.Scheme]
		}
		if !t.listed(sent, sentPort) {
			return fmt.Errorf("credential '%s': the Host %q is not in upstreams", t.inject.name, req.Host)
		}
	}
	switch {
	case t.InsecureUpstream, req.URL.Scheme == "https", strings.HasPrefix(network, "unix"):
		return nil
	case isLocal(host) && !t.proxied(req):
		return nil
	}
	return fmt.Errorf("credential '%s': the upstream %s has neither TLS nor a loopback address", t.inject.name, net.JoinHostPort(host, port))
}

// proxied tells whether an attempt goes through a forward proxy, as a spelling
// of a loopback host that Go does not know does if the environment has one.
func (t *Transport) proxied(req *http.Request) bool {
	if t.Transport == nil || t.Transport.Proxy == nil {
		return false
	}
	proxy, err := t.Transport.Proxy(req)
	return proxy != nil || err != nil
}

// dialled is where an attempt goes.
func dialled(req *http.Request) (network, host, port string) {
	if info, ok := reverseproxy.GetDialInfo(req.Context()); ok {
		if strings.HasPrefix(info.Network, "unix") {
			return info.Network, info.Address, ""
		}
		return info.Network, info.Host, info.Port
	}
	host, port = splitHost(req.URL.Host)
	return "tcp", host, port
}

func splitHost(hostport string) (host, port string) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return strings.Trim(hostport, "[]"), ""
	}
	return host, port
}

// canonicalHost is one spelling for each host.
func canonicalHost(host string) string {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String()
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// listed tells whether a host is among Upstreams. An entry without a port is
// good for any.
func (t *Transport) listed(host, port string) bool {
	host = canonicalHost(host)
	return slices.ContainsFunc(t.Upstreams, func(entry string) bool {
		entryHost, entryPort := splitHost(entry)
		entryHost = canonicalHost(entryHost)
		if entryPort != "" && entryPort != port {
			return false
		}
		if domain, ok := strings.CutPrefix(entryHost, "*."); ok {
			label, rest, found := strings.Cut(host, ".")
			return found && label != "" && rest == domain
		}
		return entryHost == host
	})
}
