package pod

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// Addresses, the same in each cluster: its networks are its own.
var (
	nodeIP      = netip.MustParseAddr("10.0.0.1")
	serverIP    = netip.MustParseAddr("10.0.0.2")
	apiIP       = netip.MustParseAddr("10.0.0.3")
	resolverIP  = netip.MustParseAddr("10.0.0.4")
	podIP       = netip.MustParseAddr("10.0.0.10")
	neighbourIP = netip.MustParseAddr("10.0.0.11")
)

// The names that the settings of the examples have.
const (
	serverName = "idp.example.com"
	apiName    = "api.example.com"
)

// cluster is what is around a pod: a node, and behind it an authorization
// server and an API, both with certificates of a private authority, a resolver,
// and a neighbour that wishes nobody well.
type cluster struct {
	node, services, podNetwork, neighbour *network
	server                                *authserver.Server
	api                                   *authserver.Upstream
	serverSite, apiSite                   *site
	authority                             []byte            // PEM
	tokenKey                              *ecdsa.PrivateKey // of the service accounts

	mu      sync.Mutex
	client  string   // as the settings have it
	secrets []string // that the authorization server takes
	came    []string // the secrets that have come, in order
	tokens  []string // that were issued
	signed  []string // the tokens of service accounts, in order
	edition string   // the last X-Edition that came to the API
}

// issuedSecret is what the authorization server knows; the client's secrets are
// put in its place on the way, so that they can be rotated.
const issuedSecret = "what-the-server-knows"

// What the tokens of service accounts say of who they are from and of whom.
const (
	tokenIssuer  = "https://cluster.example.com"
	tokenSubject = "system:serviceaccount:" + namespaceName + ":default"
)

// issuedClient is the client that the authorization server knows; what the
// template's settings call it is put in its place, too.
const issuedClient = "client"

// newCluster has the authorization server down, and the API up.
func newCluster(t *testing.T, lifetime time.Duration) *cluster {
	t.Helper()
	c := &cluster{node: newNetwork(t), services: newNetwork(t), podNetwork: newNetwork(t), neighbour: newNetwork(t)}
	c.node.bridge(t, nodeIP)
	c.node.connect(t, c.services, "services", serverIP, apiIP, resolverIP)
	c.node.connect(t, c.podNetwork, "pod", podIP)
	c.node.connect(t, c.neighbour, "neighbour", neighbourIP)
	c.resolve(t)

	c.secrets = []string{"secret-" + rand.Text()}
	var err error
	if c.tokenKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	c.server = authserver.New(authserver.Config{
		ClientID: issuedClient, ClientSecret: issuedSecret, Lifetime: lifetime,
		FederatedKeys: authserver.PublicKeys(c.tokenKey.Public()), FederatedIssuer: tokenIssuer,
		FederatedSubject: tokenSubject, FederatedAudience: "https://" + serverName,
		Issue: func(int) string { return c.issued("at-" + rand.Text() + rand.Text()) },
	})
	c.api = authserver.NewUpstream(c.server)
	authority := newAuthority(t)
	c.authority = authority.pem
	c.serverSite = &site{network: c.services, addr: netip.AddrPortFrom(serverIP, 443), certificate: authority.issue(t, serverName), handler: http.HandlerFunc(c.serveToken)}
	c.apiSite = &site{network: c.services, addr: netip.AddrPortFrom(apiIP, 443), certificate: authority.issue(t, apiName), handler: http.HandlerFunc(c.serveAPI)}
	t.Cleanup(c.serverSite.close)
	t.Cleanup(c.apiSite.close)
	c.apiSite.up(t)
	return c
}

func (c *cluster) issued(token string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tokens = append(c.tokens, token)
	return token
}

func (c *cluster) sign(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.signed = append(c.signed, token)
}

// serviceTokens are those that service accounts were given, in order.
func (c *cluster) serviceTokens() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.signed)
}

// serveToken knows the secrets that are taken now.
func (c *cluster) serveToken(w http.ResponseWriter, r *http.Request) {
	if id, secret, ok := r.BasicAuth(); ok {
		c.mu.Lock()
		c.came = append(c.came, secret)
		known := id == c.client && slices.Contains(c.secrets, secret)
		c.mu.Unlock()
		if known {
			r.SetBasicAuth(issuedClient, issuedSecret)
		}
	}
	c.server.ServeHTTP(w, r)
}

func (c *cluster) serveAPI(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.edition = r.Header.Get("X-Edition")
	c.mu.Unlock()
	c.api.ServeHTTP(w, r)
}

// take sets the secrets that the authorization server takes from now on.
func (c *cluster) take(secrets ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secrets = secrets
}

func (c *cluster) setClient(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.client = id
}

// secret is the newest that it takes.
func (c *cluster) secret() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.secrets[len(c.secrets)-1]
}

// sentSecrets are those that have come, in order.
func (c *cluster) sentSecrets() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.came)
}

// issuedTokens are all that were issued.
func (c *cluster) issuedTokens() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.tokens)
}

// lastEdition is the X-Edition of the last request to the API.
func (c *cluster) lastEdition() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.edition
}

// site is an HTTPS server that can be down.
type site struct {
	network     *network
	addr        netip.AddrPort
	certificate tls.Certificate
	handler     http.Handler
	server      *http.Server // nil while it is down
}

// up returns when it listens.
func (s *site) up(t *testing.T) (at time.Time) {
	t.Helper()
	ln, err := s.network.listen(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s.handler, TLSConfig: &tls.Config{Certificates: []tls.Certificate{s.certificate}}}
	s.server = server
	go func() { _ = server.ServeTLS(ln, "", "") }() // ends when it is closed
	return time.Now()
}

// close has connections refused, and drops those there are.
func (s *site) close() {
	if s.server != nil {
		s.server.Close()
		s.server = nil
	}
}

// authority is a private certificate authority.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Example authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{certificate: template, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (a *authority) issue(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
