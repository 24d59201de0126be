package advice

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

var crm = Facts{Credential: "crm", Grant: "client_credentials", Method: "client_secret_basic", Encoding: "form", Endpoint: "https://idp.example.com/token", Timeout: 10 * time.Second}

// with is crm, changed.
func with(change func(*Facts)) Facts {
	k := crm
	change(&k)
	return k
}

func closedPort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func through(proxy string) *http.Transport {
	return &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: proxy}), OnProxyConnectResponse: oauth.ProxyAnswer}
}

// reset ends a connection as a crash does, once it was spoken to.
func reset(c net.Conn) {
	_, _ = c.Read(make([]byte, 4096))
	_ = c.(*net.TCPConn).SetLinger(0)
}

func TestNetwork(t *testing.T) {
	const at = "https://idp.example.com/token"
	errno := func(call string, n syscall.Errno) error { return os.NewSyscallError(call, n) }
	proxied := with(func(k *Facts) { k.Proxy = "proxy.example.com:3128" })
	issued := with(func(k *Facts) { k.Endpoint, k.Issuer = "", "https://idp.example.com" })
	refuses := func(answer string) *oauth.Failure { return ask(t, through(raw(t, speaks(answer))), at) }
	for name, c := range map[string]advised{
		"no such name": {
			failure: ask(t, dialing(&net.DNSError{Err: "no such host", Name: "idp.example.com", Server: "10.0.0.10:53", IsNotFound: true}), at), facts: crm,
			as: "no such host", wrong: []string{"the name idp.example.com does not exist in DNS"}, do: []string{"token_url", "getent hosts idp.example.com", "/etc/resolv.conf"}, topic: unreachable,
		},
		"no such name, of an issuer": {
			failure: ask(t, dialing(&net.DNSError{Err: "no such host", Name: "idp.example.com", IsNotFound: true}), at), facts: issued,
			as: "no such host", do: []string{"correct the host in issuer"}, topic: unreachable,
		},
		"DNS is down": {
			failure: ask(t, dialing(&net.DNSError{Err: "server misbehaving", Name: "idp.example.com", Server: "10.0.0.10:53", IsTemporary: true}), at), facts: crm,
			as: "server misbehaving", wrong: []string{"the DNS server 10.0.0.10:53 does not answer for the name idp.example.com"}, do: []string{"tried again by itself", "port 53"}, not: []string{"does not exist"}, topic: unreachable,
		},
		"DNS times out": {
			failure: ask(t, dialing(&net.DNSError{Err: "i/o timeout", Name: "idp.example.com", Server: "10.0.0.10:53", IsTimeout: true, IsTemporary: true}), at), facts: crm,
			as: "i/o timeout", wrong: []string{"10.0.0.10:53 does not answer"}, topic: unreachable,
		},
		"closed port": {
			failure: ask(t, new(http.Transport), "http://"+closedPort(t)+"/token"), facts: crm,
			as: "connection refused", wrong: []string{"nothing listens at idp.example.com (127.0.0.1:"}, do: []string{"the server runs", "host and port in token_url", "curl -sv"}, topic: unreachable,
		},
		"no route": {
			failure: ask(t, dialing(errno("connect", syscall.EHOSTUNREACH)), at), facts: crm,
			as: "no route to host", wrong: []string{"no route to idp.example.com"}, do: []string{"ip route get"}, topic: unreachable,
		},
		"no network": {
			failure: ask(t, dialing(errno("connect", syscall.ENETUNREACH)), at), facts: crm,
			as: "network is unreachable", wrong: []string{"no route"}, do: []string{"IPv6"}, topic: unreachable,
		},
		"forbidden here": {
			failure: ask(t, dialing(errno("connect", syscall.EPERM)), at), facts: crm,
			as: "operation not permitted", wrong: []string{"this machine does not allow"}, do: []string{"nft list ruleset", "RestrictAddressFamilies"}, topic: unreachable,
		},
		"too many files": {
			failure: ask(t, dialing(errno("socket", syscall.EMFILE)), at), facts: crm,
			as: "too many open files", wrong: []string{"too many open files"}, do: []string{"LimitNOFILE=65536"}, topic: unreachable,
		},
		"reset": {
			failure: ask(t, new(http.Transport), "http://"+raw(t, reset)), facts: crm,
			as: "connection reset", wrong: []string{"broke the connection off"}, do: []string{"tried again by itself", "the server crashes", "demands a client certificate may do this, too"}, not: []string{"proxy"}, topic: unreachable,
		},
		"reset, with a client certificate": {
			failure: ask(t, new(http.Transport), "http://"+raw(t, reset)), facts: with(func(k *Facts) { k.Method = "tls_client_auth" }),
			as: "connection reset", do: []string{"does not take the client's certificate"}, topic: unreachable,
		},
		"reset, in the clear": {
			failure: ask(t, new(http.Transport), "http://"+raw(t, reset)), facts: with(func(k *Facts) { k.Endpoint = "http://127.0.0.1:8080/token" }),
			as: "connection reset", not: []string{"certificate"}, topic: unreachable,
		},
		"closed without an answer": {
			failure: ask(t, new(http.Transport), "http://"+raw(t, speaks(""))), facts: crm,
			as: "EOF", wrong: []string{"idp.example.com closed the connection and gave no answer"}, topic: unreachable,
		},
		"cut answer": {
			failure: ask(t, new(http.Transport), "http://"+raw(t, speaks("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"))), facts: crm,
			as: "unexpected EOF", wrong: []string{"was cut short"}, do: []string{"gateway or proxy"}, topic: unreachable,
		},
		"no HTTP": {
			failure: ask(t, new(http.Transport), "http://"+raw(t, speaks("SSH-2.0-OpenSSH_mark\r\n"))), facts: with(func(k *Facts) { k.Endpoint = "http://127.0.0.1:22/token" }),
			as: "malformed HTTP response", wrong: []string{"127.0.0.1:22 does not speak HTTP"}, do: []string{"the port in token_url", "https://"}, not: []string{"mark"}, topic: unreachable,
		},
		"anything else": {
			failure: ask(t, dialing(errors.New("a word of another")), at), facts: crm,
			as: "a word of another", wrong: []string{"no answer to the token request came from idp.example.com"}, do: []string{"the log's cause"}, not: []string{"a word of another"}, topic: unreachable,
		},
		"nothing known": {failure: new(oauth.Failure), wrong: []string{"the token request was refused"}, topic: clientRefused},
		"nothing known, unreachable": {
			failure: &oauth.Failure{Kind: oauth.Unreachable}, facts: crm, wrong: []string{"did not get through to idp.example.com"}, topic: unreachable,
		},

		"proxy down": {
			failure: ask(t, through(closedPort(t)), at), facts: proxied,
			as: "proxyconnect", wrong: []string{"no connection to the proxy proxy.example.com:3128 comes about", "refused"}, do: []string{"proxy <url>", "HTTPS_PROXY", "put idp.example.com into NO_PROXY"}, topic: unreachable,
		},
		"proxy without a name": {
			failure: ask(t, &http.Transport{Proxy: through("proxy.example.com:3128").Proxy, DialContext: dialing(&net.DNSError{Err: "no such host", Name: "proxy.example.com", IsNotFound: true}).DialContext}, at), facts: proxied,
			as: "proxyconnect", wrong: []string{"its name proxy.example.com does not exist"}, topic: unreachable,
		},
		"proxy, and DNS is down": {
			failure: ask(t, &http.Transport{Proxy: through("proxy.example.com:3128").Proxy, DialContext: dialing(&net.DNSError{Err: "server misbehaving", Name: "proxy.example.com", IsTemporary: true}).DialContext}, at), facts: proxied,
			as: "proxyconnect", wrong: []string{"DNS does not answer for its name proxy.example.com"}, topic: unreachable,
		},
		"proxy without a route": {
			failure: ask(t, &http.Transport{Proxy: through("proxy.example.com:3128").Proxy, DialContext: dialing(errno("connect", syscall.EHOSTUNREACH)).DialContext}, at), facts: proxied,
			as: "proxyconnect", wrong: []string{"there is no route to it"}, topic: unreachable,
		},
		"proxy does not answer": {
			failure: ask(t, &http.Transport{Proxy: through("proxy.example.com:3128").Proxy, DialContext: dialing(errno("connect", syscall.ETIMEDOUT)).DialContext}, at), facts: proxied,
			as: "proxyconnect", wrong: []string{"it does not answer in time"}, topic: unreachable,
		},
		"reset behind a proxy": {
			failure: ask(t, new(http.Transport), "http://"+raw(t, reset)), facts: proxied,
			as: "connection reset", do: []string{"the proxy's log may tell (proxy.example.com:3128)"}, topic: unreachable,
		},
		"the system's own timeout": {
			failure: ask(t, dialing(errno("connect", syscall.ETIMEDOUT)), at), facts: Facts{},
			as: "connection timed out", wrong: []string{"no connection to the authorization server came about in time"}, topic: unreachable,
		},
		"proxy wants a password": {
			failure: refuses("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"), facts: proxied,
			as: "the proxy refuses to connect to the server: HTTP 407", wrong: []string{"the proxy proxy.example.com:3128 refuses to connect to idp.example.com"}, do: []string{"proxy http://<user>:<password>@"}, topic: unreachable,
		},
		"proxy forbids": {
			failure: refuses("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"), facts: proxied,
			as: "HTTP 403", do: []string{"have idp.example.com:443 added"}, topic: unreachable,
		},
		"proxy gets nowhere": {
			failure: refuses("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"), facts: with(func(*Facts) {}),
			as: "HTTP 502", wrong: []string{"the proxy refuses to connect"}, do: []string{"does not get through to the server"}, topic: unreachable,
		},
		"proxy says it in its own words": {
			failure: refuses("HTTP/1.1 403 A mark of its own\r\nContent-Length: 0\r\n\r\n"), facts: proxied,
			as: "HTTP 403", do: []string{"have idp.example.com:443 added"}, not: []string{"mark"}, topic: unreachable,
		},
		"proxy says nothing": {
			failure: refuses(""), facts: proxied,
			as: "EOF", wrong: []string{"the proxy proxy.example.com:3128, or idp.example.com behind it, closed the connection"}, topic: unreachable,
		},
		"socks proxy forbids": {
			failure: ask(t, &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "socks5", Host: raw(t, func(c net.Conn) {
				_, _ = c.Read(make([]byte, 99))
				_, _ = c.Write([]byte{5, 0})
				_, _ = c.Read(make([]byte, 99))
				_, _ = c.Write([]byte{5, 2, 0, 1, 0, 0, 0, 0, 0, 0})
			})})}, at), facts: proxied,
			as: "socks connect", wrong: []string{"the proxy proxy.example.com:3128 does not connect to idp.example.com"}, do: []string{"its rules"}, topic: unreachable,
		},
	} {
		t.Run(name, c.check)
	}
}

// overLines is a way on which each connection is one in memory, whose other end
// is held by speak.
func overLines(speak func(net.Conn)) *http.Transport {
	return &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		here, there := net.Pipe()
		go func() {
			defer there.Close()
			speak(there)
		}()
		return here, nil
	}}
}

// hang takes what it is sent, and says nothing for a minute.
func hang(c net.Conn) {
	go func() { _, _ = io.Copy(io.Discard, c) }()
	<-time.After(time.Minute)
}

// TestTime: where the time was spent, and whether more of it would help.
func TestTime(t *testing.T) {
	const plain, secure = "http://127.0.0.1:8080/token", "https://idp.example.com/token"
	for name, tc := range map[string]struct {
		way  *http.Transport
		at   string
		want advised
	}{
		"the server is slow": {overLines(hang), plain, advised{facts: crm, as: "no complete answer", wrong: []string{"got the token request and did not answer within 10s"}, do: []string{"in the credential crm write: timeout 20s"}}},
		"the answer does not end": {overLines(func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096))
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
			hang(c)
		}), plain, advised{facts: crm, as: "reading the answer", wrong: []string{"began to answer and did not end within 10s"}, do: []string{"timeout 20s"}}},
		"no connection": {
			&http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
				<-time.After(time.Minute) // a dial outlives who wanted it
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ETIMEDOUT}
			}}, secure,
			advised{facts: crm, as: "no complete answer", wrong: []string{"no connection to idp.example.com came about within 10s"}, do: []string{"drops the packets", "a longer timeout would not help"}, not: []string{"write: timeout"}},
		},
		"no connection through a proxy": {
			func() *http.Transport {
				way := overLines(hang)
				way.Proxy = through("proxy.example.com:3128").Proxy
				return way
			}(), secure,
			advised{facts: with(func(k *Facts) { k.Proxy = "proxy.example.com:3128" }), as: "no complete answer", do: []string{"the proxy proxy.example.com:3128", "NO_PROXY"}, not: []string{"write: timeout"}},
		},
		"no handshake": {
			func() *http.Transport {
				way := overLines(hang)
				way.TLSHandshakeTimeout = 5 * time.Second
				return way
			}(), secure,
			advised{facts: crm, as: "TLS handshake timeout", wrong: []string{"did not answer the TLS handshake"}, do: []string{"openssl s_client -connect idp.example.com:443", "would not help"}},
		},
		"a timeout not known":   {overLines(hang), plain, advised{facts: Facts{}, wrong: []string{"did not answer in time"}, do: []string{"timeout 30s"}}},
		"an hour is no timeout": {overLines(hang), plain, advised{facts: with(func(k *Facts) { k.Timeout = 9 * time.Minute }), do: []string{"timeout 10m"}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				_, err := (&oauth.Request{URL: tc.at, Params: url.Values{"grant_type": {"client_credentials"}}}).Do(ctx, tc.way)
				f, ok := errors.AsType[*oauth.Failure](err)
				if !ok {
					t.Fatalf("got %v, want a failure", err)
				}
				tc.want.failure, tc.want.topic = f, unreachable
				tc.want.check(t)
				<-time.After(2 * time.Minute) // what dials still gives up
			})
		})
	}
}

// TestMetadataTime: discovery reads, and does not know how far it came.
func TestMetadataTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := oauth.Discover(ctx, overLines(hang), "http://127.0.0.1:8080", func(string) error { return nil })
		f, _ := errors.AsType[*oauth.Failure](err)
		advised{
			failure: f, facts: Facts{Issuer: "http://127.0.0.1:8080", Timeout: 10 * time.Second},
			as: "metadata at", wrong: []string{"the metadata of 127.0.0.1:8080 did not come within 10s"}, do: []string{"curl -sv"}, topic: unreachable,
		}.check(t)
		<-time.After(2 * time.Minute)
	})
}
