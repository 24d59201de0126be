package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

const (
	firstTokens = 2000
	firstDelay  = 20 * time.Millisecond // of the token endpoint, so that requests overlap
	firstMost   = 16                    // token requests of a template under way at once
)

// first has 2,000 distinct values ask for their first tokens over TLS, as fast as
// the limits allow, and counts the connections to the token endpoint.
func (g *growth) first(ctx context.Context) error {
	t := result.Table{
		Name:  "first",
		Note:  fmt.Sprintf("%s first tokens of one template credential over TLS, from a token endpoint that takes %s.", grouped(firstTokens), firstDelay),
		Heads: []string{"token endpoint", "token requests", "under way at once", "connections", "time", "CPU a token, ms"},
	}
	for _, protocol := range []string{"http/1.1", "h2"} {
		row, connections, atOnce, err := g.firstOver(ctx, protocol)
		if err != nil {
			return fmt.Errorf("%s: %w", protocol, err)
		}
		t.Rows = append(t.Rows, row)
		g.goal("P7", "connections for 2,000 first tokens over TLS, "+protocol+", against the requests under way at once", float64(connections), float64(atOnce), "%.0f")
	}
	g.table(t)
	return nil
}

func (g *growth) firstOver(ctx context.Context, protocol string) (row []string, connections, atOnce int, err error) {
	scene, err := newGrowScene(1)
	if err != nil {
		return nil, 0, 0, err
	}
	defer scene.close()
	scene.issuer.delay = firstDelay
	ca, certificate, err := growCertificate(g.dir)
	if err != nil {
		return nil, 0, 0, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, 0, 0, err
	}
	counted := &counting{Listener: ln}
	server := &http.Server{Handler: scene.issuer, ReadHeaderTimeout: patience, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{protocol}, MinVersion: tls.VersionTLS12}}
	if protocol == "http/1.1" {
		server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	}
	go func() { _ = server.ServeTLS(counted, "", "") }() // until it is closed
	defer server.Close()

	file := "{\n\tupstream_auth {" + fmt.Sprintf(`
		credential api {
			token_url https://%s/token/86400
			client_id api
			client_auth client_secret_basic {env.%s}
			param tenant {header.X-Tenant}
			max_tokens %d
			max_new 1000
			tls {
				ca %s
			}
		}`, ln.Addr(), secretEnv, firstTokens, ca) + "\n\t}\n}" + scene.site(0, "\tupstream_auth api\n\treverse_proxy API")
	p, err := startGrowing(ctx, g.dir, file, scene.sites, pins{})
	if err != nil {
		return nil, 0, 0, err
	}
	defer p.close()
	began, before := time.Now(), p.cpu()
	failed := make(chan int, firstTokens)
	var wg sync.WaitGroup
	for n := range firstTokens { // each a caller of its own: nothing but the limits holds them back
		wg.Go(func() {
			sleep(ctx, time.Until(began.Add(time.Duration(n)*time.Second/tokenRate)))
			c := &caller{addr: scene.sites[0]}
			defer c.hangUp()
			if status := askFor(ctx, c, n); status != http.StatusOK {
				failed <- status
			}
		})
	}
	wg.Wait()
	took, used := time.Since(began), p.cpu()-before
	if len(failed) > 0 {
		return nil, 0, 0, fmt.Errorf("%w: %d, the first with %d; %s", errNotAll, len(failed), <-failed, p.log())
	}
	atOnce, _ = scene.issuer.most()
	connections = int(counted.taken.Load())
	if n := scene.issuer.requests(); n != firstTokens || atOnce > firstMost {
		return nil, 0, 0, fmt.Errorf("%d token requests for %d values, %d at once", n, firstTokens, atOnce)
	}
	return []string{protocol, grouped(firstTokens), fmt.Sprint(atOnce), fmt.Sprint(connections), brief(took), fmt.Sprintf("%.2f", micros(used)/1000/firstTokens)}, connections, atOnce, nil
}

// growCertificate makes one for 127.0.0.1 that is its own authority, and writes
// it into a folder for those who are to trust it.
func growCertificate(dir string) (file string, certificate tls.Certificate, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", tls.Certificate{}, err
	}
	of := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, of, of, key.Public(), key)
	if err != nil {
		return "", tls.Certificate{}, err
	}
	file = filepath.Join(dir, "grow-ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return file, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, os.WriteFile(file, text, 0o600)
}
