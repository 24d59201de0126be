package caddymodule

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/clientauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/signing"
)

// TLS is the connection to the authorization server. The files are read again
// at each token request.
type TLS struct {
	// CA is the path of a PEM bundle; its certificates are trusted in place of
	// the system's. Default: the system's.
	CA string `json:"ca,omitempty"`
	// ServerName is the name that the server's certificate has to bear.
	// Default: the token URL's host.
	ServerName string `json:"server_name,omitempty"`
	// Cert is the path of a client certificate, in PEM, with those that it was
	// issued by. Default: none is shown.
	Cert string `json:"cert,omitempty"`
	// Key is the path of its private key, in PEM. Required with Cert.
	Key string `json:"key,omitempty"`
	// InsecureSkipVerify accepts any certificate: whoever is between can then
	// take the secret. Default: false.
	InsecureSkipVerify bool `json:"insecure_skip_verify,omitempty"`
}

func (c *Credential) checkConnection() error {
	if t := c.TLS; t != nil {
		values := map[string]string{"ca": t.CA, "server_name": t.ServerName, "cert": t.Cert, "key": t.Key}
		for _, option := range sorted(values) {
			if err := checkPlaceholders(values[option]); err != nil {
				return &optionError{"tls " + option, err}
			}
		}
		_, holder := c.method.(clientauth.CertificateHolder)
		switch {
		case holder && t.Cert+t.Key != "":
			return optionErrorf("tls cert", "stands beside a client_auth with a certificate of its own: write it there alone")
		case t.Cert != "" && t.Key == "":
			return optionErrorf("tls cert", "needs key, too")
		case t.Key != "" && t.Cert == "":
			return optionErrorf("tls key", "needs cert, too")
		}
	}
	if err := checkPlaceholders(c.Proxy); err != nil {
		return &optionError{"proxy", err}
	}
	if c.Proxy != "" && !hasPlaceholder(c.Proxy) {
		if _, err := proxyURL(c.Proxy); err != nil {
			return &optionError{"proxy", err}
		}
	}
	return nil
}

func proxyURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) {
		return nil, errors.New("expected the URL of a proxy: http, https, socks5 or socks5h")
	}
	return u, nil
}

// connection is a credential's way to its server. Credentials with the same
// one share its pooled connections.
type connection struct {
	tls   *TLS
	proxy string
	// once has each request made on a connection of its own: a refresh token
	// that is sent on one which the server is just closing may be spent or not.
	once bool

	mu     sync.Mutex
	key    string // of the transport in use
	closed bool
}

// transports are the pooled connections to authorization servers, keyed by all
// that makes two of them differ.
var transports = caddy.NewUsagePool()

// connectTimeout ends a dial, and a TLS handshake.
const connectTimeout = 10 * time.Second

// transport is a pool's value.
type transport struct{ *http.Transport }

// Destruct closes what is left idle.
func (t transport) Destruct() error {
	t.CloseIdleConnections()
	return nil
}

// open returns the transport for one token request, another one than before if
// a file or a placeholder has changed.
func (c *connection) open(r *resolver, client *proof, m clientauth.Method) (http.RoundTripper, error) {
	key, build, err := c.settings(r, client, m)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t, _, err := transports.LoadOrNew(key, func() (caddy.Destructor, error) { return build() })
	if err != nil {
		return nil, err
	}
	release := c.key // the same one is held once, another one in place of it
	if c.closed {
		release = key // its last request is about to be made
	} else {
		c.key = key
	}
	if release != "" {
		_, _ = transports.Delete(release)
	}
	return t.(transport), nil
}

func (c *connection) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.key != "" {
		_, _ = transports.Delete(c.key)
		c.key = ""
	}
}

// certificate is what a way shows, where it is what the client is proved with.
func (*connection) certificate(way http.RoundTripper, m clientauth.Method) *tls.Certificate {
	t, ok := way.(transport)
	if _, holder := m.(clientauth.CertificateHolder); !holder || !ok || len(t.TLSClientConfig.Certificates) == 0 {
		return nil
	}
	return &t.TLSClientConfig.Certificates[0]
}

// settings reads what the transport is made of. The client's certificate is one
// of its proofs.
func (c *connection) settings(r *resolver, client *proof, m clientauth.Method) (key string, build func() (transport, error), err error) {
	options, block := c.tls, "tls"
	if options == nil {
		options = &TLS{}
	}
	certFile, keyFile := options.Cert, options.Key
	if holder, ok := m.(clientauth.CertificateHolder); ok {
		block = "client_auth"
		certFile, keyFile = holder.CertificateFiles()
	}
	var ca, cert, certKey []byte
	var serverName, proxy string
	for _, file := range []struct {
		block, option, path string
		content             *[]byte
		read                func(string) ([]byte, error)
	}{{"tls", "ca", options.CA, &ca, r.secretFile}, {block, "cert", certFile, &cert, client.secretFile}, {block, "key", keyFile, &certKey, client.secretFile}} {
		if file.path == "" {
			continue
		}
		if *file.content, err = file.read(file.path); err != nil {
			return "", nil, fmt.Errorf("%s %s: %w", file.block, file.option, err)
		}
	}
	if serverName, err = r.resolve(options.ServerName); err != nil {
		return "", nil, fmt.Errorf("tls server_name: %w", err)
	}
	if proxy, err = r.resolve(c.proxy); err != nil {
		return "", nil, fmt.Errorf("proxy: %w", err)
	}

	digest := sha256.New()
	for _, part := range [][]byte{ca, cert, certKey, []byte(serverName), []byte(proxy), fmt.Append(nil, options.InsecureSkipVerify, c.once)} {
		fmt.Fprintf(digest, "%d:", len(part))
		digest.Write(part)
	}
	return hex.EncodeToString(digest.Sum(nil)), func() (transport, error) {
		conf := &tls.Config{ServerName: serverName, InsecureSkipVerify: options.InsecureSkipVerify} //nolint:gosec // only where the config says so
		if ca != nil {
			conf.RootCAs = x509.NewCertPool()
			if !conf.RootCAs.AppendCertsFromPEM(ca) {
				return transport{}, fmt.Errorf("tls ca: %s holds no certificate in PEM", options.CA)
			}
		}
		if cert != nil {
			pair, err := signing.Certificate(cert, certKey, time.Now())
			if err != nil {
				return transport{}, fmt.Errorf("%s: %w", block, err)
			}
			show(conf, &pair)
		}
		t, err := newTransport(conf, proxy, connectTimeout)
		if err == nil {
			t.DisableKeepAlives = c.once
		}
		return t, err
	}, nil
}

// show has a client show its certificate whatever authorities the server names:
// Go would leave out one that none of them has signed, as a self-signed one is.
func show(conf *tls.Config, pair *tls.Certificate) {
	conf.Certificates = []tls.Certificate{*pair}
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
}

// environmentProxy is Go's, but for spellings of a loopback host that it does
// not know ("localhost."): a secret would go to the proxy in the clear.
func environmentProxy(req *http.Request) (*url.URL, error) {
	if isLoopback(req.URL.Hostname()) {
		return nil, nil
	}
	return http.ProxyFromEnvironment(req)
}

func newTransport(conf *tls.Config, proxy string, connect time.Duration) (transport, error) {
	via := environmentProxy
	if proxy != "" {
		u, err := proxyURL(proxy)
		if err != nil {
			return transport{}, fmt.Errorf("proxy: %w", err)
		}
		via = http.ProxyURL(u)
	}
	// A dial outlives the request that wanted it, so it has its own ends; and a
	// connection that died in silence is found out by a ping, not by one token
	// request after another.
	dialer := &net.Dialer{Timeout: connect, KeepAlive: 30 * time.Second}
	return transport{&http.Transport{
		Proxy:                  via,
		DialContext:            dialer.DialContext,
		TLSClientConfig:        conf,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    64, // the default of 2 costs a handshake for most requests of a burst
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    connect,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 3 * time.Second},
		MaxResponseHeaderBytes: 64 << 10,
		OnProxyConnectResponse: oauth.ProxyAnswer,
	}}, nil
}
