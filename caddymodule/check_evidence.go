package caddymodule

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/clientauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/advice"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// found is a credential's server, and the way to it.
type found struct {
	way      http.RoundTripper
	endpoint *endpoint // nil if its metadata is not to be had
}

// locate reads the files of the connection, and an issuer's metadata.
func (q *requester) locate(ctx context.Context, limit time.Duration) (*found, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	at, err := apart(ctx, q, func() (*found, error) {
		r := newResolver(nil)
		way, err := q.connection.open(r, newProof(r, nil), q.credential.method)
		if err != nil {
			return nil, err
		}
		at, err := q.find(ctx, r, way)
		return &found{way, at}, err
	})
	return at, asFailure(err)
}

// proxy is the host of the proxy on the way to an address, "" for none.
func (f *found) proxy(address string) string {
	t, ok := f.way.(transport)
	to, err := url.Parse(address)
	if !ok || t.Proxy == nil || err != nil {
		return ""
	}
	via, err := t.Proxy(&http.Request{URL: to})
	if err != nil || via == nil {
		return ""
	}
	return via.Host
}

// addressOf is a URL as it may be shown: a secret may hide in the rest of it.
func addressOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return ""
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// secretShape is the shape of the client secret, nil where there is none or it
// cannot be read.
func (q *requester) secretShape() *advice.Secret {
	holder, ok := q.credential.method.(clientauth.SecretHolder)
	if !ok {
		return nil
	}
	secret, err := newResolver(nil).resolve(holder.ConfiguredSecret())
	if err != nil {
		return nil
	}
	return advice.SecretShape(secret)
}

// certificateSoon is how long before its end a client's certificate is warned
// of.
const certificateSoon = 14 * 24 * time.Hour

// checkCertificate warns of a client certificate that ends soon. One that has
// ended is no more shown, which is a failure of its own.
func (x *exam) checkCertificate() {
	t, ok := x.found.way.(transport)
	if !ok || len(t.TLSClientConfig.Certificates) == 0 {
		return
	}
	leaf, err := x509.ParseCertificate(t.TLSClientConfig.Certificates[0].Certificate[0])
	if err != nil || time.Until(leaf.NotAfter) > certificateSoon {
		return
	}
	x.checked.warn(advice.Advice{
		Wrong: fmt.Sprintf("the client's certificate ends on %s, which is soon", clockText(leaf.NotAfter)),
		Do:    "have a new one issued, and put it under the same path: it is used within a second, without a reload",
		Topic: "tls",
	})
}

// reach makes the connection that a token request would be made on, through a
// proxy and with TLS where these are, and writes nothing on it: that harms
// nothing.
func (x *exam) reach(ctx context.Context) {
	way, ok := x.found.way.(transport)
	if !ok {
		return
	}
	var stands atomic.Bool
	once := way.Clone()
	defer once.CloseIdleConnections()
	once.DisableKeepAlives = true
	once.ForceAttemptHTTP2, once.TLSNextProto = false, make(map[string]func(string, *tls.Conn) http.RoundTripper) // HTTP/2 writes before it is asked to
	dial := once.DialContext
	once.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &mute{conn, &stands}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, x.limit)
	defer cancel()
	began := time.Now()
	_, err := (&oauth.Request{URL: x.found.endpoint.tokenURL}).Do(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { stands.Store(true) },
	}), once)
	if stands.Load() {
		x.checked.Took = time.Since(began).Seconds()
		return
	}
	x.explain(ctx, err)
}

// mute is a connection that writes no more once it stands.
type mute struct {
	net.Conn
	stands *atomic.Bool
}

var errMute = errors.New("nothing is to be written on this connection")

// Write implements net.Conn.
func (m *mute) Write(b []byte) (int, error) {
	if m.stands.Load() {
		return 0, errMute
	}
	return m.Conn.Write(b)
}

// published is what a server's metadata says of the ways in which clients prove
// themselves, and of scopes, as far as it can be read. With a token_url it is
// looked for in the places where servers have it, and counts only if it is of
// that endpoint.
func (x *exam) published(ctx context.Context) (methods, scopes []string) {
	ctx, cancel := context.WithTimeout(ctx, evidenceTimeout)
	defer cancel()
	at := x.found.endpoint
	if at.metadata != nil {
		methods = at.metadata.TokenEndpointAuthMethods
	}
	from := at.tokenURL
	if at.issuer != "" {
		from = strings.TrimSuffix(at.issuer, "/") + "/token"
	}
	for _, place := range metadataPlaces(from) {
		p := readPublished(ctx, x.found.way, place)
		switch {
		case p == nil:
		case at.issuer != "" && p.Issuer == at.issuer:
			return methods, p.Scopes
		case at.issuer == "" && slices.Contains([]string{p.TokenEndpoint, p.MTLS.TokenEndpoint}, at.tokenURL):
			return p.Methods, p.Scopes
		}
		if ctx.Err() != nil {
			break
		}
	}
	return methods, nil
}

// evidenceTimeout is for all that is asked to explain a failure.
const evidenceTimeout = 5 * time.Second

// publishedMetadata is what is read of metadata here (RFC 8414 §2, RFC 8705 §5).
type publishedMetadata struct {
	Issuer        string   `json:"issuer"`
	TokenEndpoint string   `json:"token_endpoint"`
	Methods       []string `json:"token_endpoint_auth_methods_supported"`
	Scopes        []string `json:"scopes_supported"`
	MTLS          struct {
		TokenEndpoint string `json:"token_endpoint"`
	} `json:"mtls_endpoint_aliases"`
}

// mostMetadata is more than any server publishes, in bytes.
const mostMetadata = 1 << 20

// readPublished asks one place for metadata; nil if there is none.
func readPublished(ctx context.Context, way http.RoundTripper, place string) *publishedMetadata {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, place, nil)
	if err != nil {
		return nil
	}
	req.Header.Set("Accept", "application/json")
	res, err := way.RoundTrip(req) // no redirect is followed
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, mostMetadata))
	var p publishedMetadata
	if err != nil || res.StatusCode != http.StatusOK || json.Unmarshal(body, &p) != nil {
		return nil
	}
	return &p
}

// mostLevels is how far a token endpoint may be below its issuer.
const mostLevels = 4

// metadataPlaces are where the metadata of a token endpoint's issuer may be: that
// is the endpoint's address with some of its path taken off. For each there is
// the place of OpenID Connect Discovery §4.1 and that of RFC 8414 §3.1.
func metadataPlaces(tokenURL string) []string {
	u, err := url.Parse(tokenURL)
	if err != nil || u.Host == "" {
		return nil
	}
	root := (&url.URL{Scheme: u.Scheme, Host: u.Host}).String()
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	var places []string
	for range mostLevels {
		end := strings.LastIndexByte(path, '/')
		if end < 0 {
			break
		}
		path = path[:end]
		places = append(places, root+path+"/.well-known/openid-configuration", root+"/.well-known/oauth-authorization-server"+path)
	}
	return places
}
