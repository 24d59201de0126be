package advice

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// ofNetwork is a failure without an answer, or with half of one.
func ofNetwork(f *oauth.Failure, k Facts) (Advice, bool) {
	half := f.Kind == oauth.Unreachable && f.Status >= 200 && f.Status < 300 && f.Err != nil && f.Code == ""
	if f.Status != 0 && !half || f.Err == nil {
		return Advice{}, false
	}
	for _, cause := range []func(*oauth.Failure, Facts) (Advice, bool){ofProxy, ofTLS, ofNames, ofTime, ofConnection} {
		if a, ok := cause(f, k); ok {
			return a, true
		}
	}
	a := Advice{
		Wrong: "no answer to the token request came from " + k.host(),
		Do:    "the log's cause has the details; to try from this machine: " + k.reach(),
		Topic: unreachable,
	}
	if k.Proxy != "" {
		a.Wrong = "no answer to the token request came from " + k.host() + " through the proxy " + k.Proxy
		a.Do = "look at the proxy's log: it may not allow the host, or not get through to it" + k.around()
	}
	return a, true
}

// ofNames is a name that does not resolve.
func ofNames(f *oauth.Failure, k Facts) (Advice, bool) {
	e, ok := errors.AsType[*net.DNSError](f.Err)
	if !ok {
		return Advice{}, false
	}
	name := cmp.Or(e.Name, k.host())
	a := Advice{Topic: unreachable}
	look := "getent hosts " + name
	if e.IsNotFound && !e.IsTemporary {
		a.Wrong = "the name " + name + " does not exist in DNS"
		a.Do = "correct the host in " + k.address() + "; if it is right, this machine asks a DNS server that does not know it (as with names of a company or a cluster): " + look + " shows it, and /etc/resolv.conf names the server"
		return a, true
	}
	a.Wrong = "the DNS server does not answer for the name " + name
	if e.Server != "" {
		a.Wrong = "the DNS server " + e.Server + " does not answer for the name " + name
	}
	a.Do = "it may pass: it is tried again by itself; if it stays, see that DNS (port 53, UDP and TCP) is let through from here, as by a NetworkPolicy, and that /etc/resolv.conf names a server that runs; to look: " + look
	return a, true
}

// ofTime is a time that ran out. Whether the request was written before tells
// where it was spent.
func ofTime(f *oauth.Failure, k Facts) (Advice, bool) {
	if !timedOut(f.Err) {
		return Advice{}, false
	}
	within := "in time"
	if k.Timeout > 0 {
		within = "within " + span(k.Timeout)
	}
	a := Advice{Topic: unreachable}
	_, reading := metadataPlace(f)
	switch {
	case f.Status != 0:
		a.Wrong = k.host() + " began to answer and did not end " + within
		a.Do = "the server, or the line to it, is slow or stuck: see to it there; if it is always this slow, " + k.in("") + longer(k)
	case f.Lost:
		a.Wrong = k.host() + " got the token request and did not answer " + within
		a.Do = "the server is slow or hangs: look at it, or ask its operator; if it is always this slow, " + k.in("") + longer(k)
	case reading:
		a.Wrong = "the metadata of " + k.host() + " did not come " + within
		a.Do = "no connection may have come about, or the server is slow; to tell: " + k.reach() + "; a firewall that drops packets in silence shows as no answer to the connection"
	case strings.Contains(f.Err.Error(), "TLS handshake"):
		a.Wrong = k.host() + " took the connection and did not answer the TLS handshake in time"
		a.Do = "something in between takes connections and passes nothing on (a firewall, a load balancer without servers behind it), or it is no TLS port; to look: openssl s_client -connect " + k.hostPort() + " </dev/null; a longer timeout would not help"
	default:
		a.Wrong = "no connection to " + k.host() + " came about " + within
		a.Do = "most likely a firewall, a NetworkPolicy or a route drops the packets in silence; else DNS or the TLS handshake hangs; to tell: " + k.reach() + "; a longer timeout would not help"
		if k.Proxy != "" {
			a.Do = "most likely the proxy " + k.Proxy + ", which is in between, does not get through to it, or hangs: look at its log" + k.around()
		}
	}
	return a, true
}

func timedOut(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return errors.Is(err, context.DeadlineExceeded) || ok && e.Timeout()
}

// longer is a line with twice the time, up to the longest that makes sense.
func longer(k Facts) string {
	if k.Timeout <= 0 {
		return "timeout 30s"
	}
	return "timeout " + span(min(2*k.Timeout, 10*time.Minute))
}

// ofConnection is a connection that did not come about, or broke.
func ofConnection(f *oauth.Failure, k Facts) (Advice, bool) {
	a := Advice{Topic: unreachable}
	is := func(errnos ...syscall.Errno) bool {
		for _, e := range errnos {
			if errors.Is(f.Err, e) {
				return true
			}
		}
		return false
	}
	silent := k.host()
	if k.Proxy != "" && !f.Lost {
		silent = "the proxy " + k.Proxy + ", or " + k.host() + " behind it,"
	}
	const broken = "if it stays: the server crashes, a firewall or load balancer cuts connections, or another program than expected listens there"
	switch {
	case is(syscall.ECONNREFUSED):
		a.Wrong = "nothing listens at " + target(f, k) + ": the connection was refused"
		a.Do = "see that the server runs, and that host and port in " + k.address() + " are right; to try: " + k.reach()
	case is(syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EADDRNOTAVAIL):
		a.Wrong = "there is no route to " + target(f, k)
		a.Do = "see to the network here: ip route get <address>; where the address is an IPv6 one and this machine has none, have DNS give an IPv4 address; a firewall may also answer so"
	case is(syscall.EACCES, syscall.EPERM):
		a.Wrong = "this machine does not allow the connection to " + target(f, k)
		a.Do = "a rule here forbids it: look at its firewall (nft list ruleset), and at the unit's RestrictAddressFamilies and IPAddressDeny, or the container's policy"
	case is(syscall.EMFILE, syscall.ENFILE):
		a.Wrong = "this process has too many open files and connections to make another"
		a.Do = "raise the limit (systemd: LimitNOFILE=65536; a shell: ulimit -n 65536) and start Caddy anew; if it fills up again, look at what stays open: ls /proc/<pid>/fd | wc -l"
	case is(syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED):
		a.Wrong = silent + " broke the connection off before it answered"
		a.Do = "it is tried again by itself; " + broken
		switch {
		case k.Method == "tls_client_auth": // its alert may be overtaken (RFC 8446 §4.4.2.4)
			a.Do = "a server that does not take the client's certificate may do this: see that it is the one that is registered there; " + broken
		case !strings.HasPrefix(cmp.Or(k.Endpoint, k.Issuer), "http://"):
			a.Do += "; a server that demands a client certificate may do this, too: ask its operator"
		}
	case f.Status != 0 && (errors.Is(f.Err, io.ErrUnexpectedEOF) || errors.Is(f.Err, io.EOF)):
		a.Wrong = "the answer of " + k.host() + " was cut short"
		a.Do = "it is tried again by itself; if it stays, a gateway or proxy in between cuts answers: look at its log and its limits"
	case errors.Is(f.Err, io.EOF), errors.Is(f.Err, io.ErrUnexpectedEOF):
		a.Wrong = silent + " closed the connection and gave no answer"
		a.Do = "it is tried again by itself; " + broken
	case strings.Contains(f.Err.Error(), "malformed HTTP"):
		a.Wrong = "what listens at " + k.host() + " does not speak HTTP"
		a.Do = "correct the port in " + k.address()
		if strings.HasPrefix(k.Endpoint, "http://") {
			a.Do += "; if it speaks TLS there, write https:// in place of http://"
		}
	default:
		return a, false
	}
	if k.Proxy != "" {
		a.Do += "; the proxy's log may tell (" + k.Proxy + ")"
	}
	return a, true
}

// target is what was dialled.
func target(f *oauth.Failure, k Facts) string {
	if e, ok := errors.AsType[*net.OpError](f.Err); ok && e.Addr != nil && k.Proxy == "" {
		if at := e.Addr.String(); at != k.host() {
			return k.host() + " (" + at + ")"
		}
	}
	return k.host()
}

// ofProxy is a proxy that is not reached, or does not let the request through.
func ofProxy(f *oauth.Failure, k Facts) (Advice, bool) {
	name := "the proxy"
	if k.Proxy != "" {
		name += " " + k.Proxy
	}
	a := Advice{Topic: unreachable}
	e, _ := errors.AsType[*net.OpError](f.Err)
	switch {
	case e != nil && e.Op == "proxyconnect":
		a.Wrong = "no connection to " + name + " comes about"
		if why := inShort(e.Err); why != "" {
			a.Wrong += ": " + why
		}
		a.Do = "see that it runs, and correct the address: proxy <url> in the credential, else HTTPS_PROXY in the environment of Caddy" + k.around()
		return a, true
	case e != nil && strings.HasPrefix(e.Op, "socks"):
		a.Wrong = name + " does not connect to " + k.host()
		a.Do = "look at its log: what it allows (its rules), whom it lets in (proxy socks5://user:password@host:port), and whether it gets through to the server itself" + k.around()
		return a, true
	}
	refusal, ok := errors.AsType[*oauth.ProxyError](f.Err)
	if !ok {
		return a, false
	}
	a.Wrong = fmt.Sprintf("%s refuses to connect to %s (HTTP %d)", name, k.host(), refusal.Status)
	switch refusal.Status {
	case http.StatusProxyAuthRequired:
		a.Do = "it wants a user and a password: " + k.in("") + "proxy http://<user>:<password>@<host>:<port>, each from {env.NAME} or {file./path}" + k.around()
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusNotFound:
		a.Do = "it does not get through to the server: look at its log; most likely its DNS does not know the name, or the server is down" + k.around()
	default:
		a.Do = "its rules do not allow it: have " + k.hostPort() + " added to what it lets through" + k.around()
	}
	return a, true
}

// around is how a server is reached without its proxy.
func (k Facts) around() string {
	name := k.host()
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	return "; if the server is reached without the proxy: take the line proxy out of the credential, or, where HTTPS_PROXY sets it, put " + name + " into NO_PROXY in the environment of Caddy, and start Caddy anew"
}

// inShort is why a connection did not come about.
func inShort(err error) string {
	dns, _ := errors.AsType[*net.DNSError](err)
	switch {
	case dns != nil && dns.IsNotFound:
		return "its name " + dns.Name + " does not exist in DNS"
	case dns != nil:
		return "DNS does not answer for its name " + dns.Name
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there, the connection was refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "there is no route to it"
	case timedOut(err):
		return "it does not answer in time"
	}
	return ""
}
