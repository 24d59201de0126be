package advice

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

func TestTLS(t *testing.T) {
	ca := newAuthority(t, "Example Corp Root")
	loopback := []net.IP{net.IPv4(127, 0, 0, 1)}
	issue := func(by *authority, c x509.Certificate) *tls.Config {
		if c.Subject.CommonName == "" {
			c.Subject.CommonName = "idp"
		}
		_, pair := certificate(t, &c, by)
		return &tls.Config{Certificates: []tls.Certificate{pair}}
	}
	good := issue(ca, x509.Certificate{IPAddresses: loopback})
	demands := func(version uint16, protocol string) *tls.Config {
		return &tls.Config{Certificates: good.Certificates, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool(), MinVersion: version, MaxVersion: version, NextProtos: []string{protocol}}
	}
	_, stranger := certificate(t, &x509.Certificate{Subject: pkix.Name{CommonName: "app"}}, newAuthority(t, "Another Root"))
	showing := func(pair tls.Certificate) *http.Transport {
		way := trusting(ca.pool())
		way.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		return way
	}
	// the alert, and no reset that overtakes it
	patient := func(conf *tls.Config) string {
		return "https://" + raw(t, func(c net.Conn) {
			_ = tls.Server(c, conf).Handshake()
			_, _ = io.Copy(io.Discard, c)
		}) + "/token"
	}
	alerted := func(conf *tls.Config) *oauth.Failure { return ask(t, trusting(ca.pool()), patient(conf)) }
	to := func(conf *tls.Config) *oauth.Failure { return ask(t, trusting(ca.pool()), secure(t, conf)) }
	distrusting := func(conf *tls.Config) *oauth.Failure {
		return ask(t, trusting(x509.NewCertPool()), secure(t, conf))
	}
	span := func(from, until time.Duration) x509.Certificate {
		return x509.Certificate{IPAddresses: loopback, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(until)}
	}
	const day = 24 * time.Hour
	old := time.Now().Add(-40 * day).UTC().Format(time.DateOnly)
	mtls := with(func(k *Facts) { k.Method = "tls_client_auth" })

	alert := func(number byte) *oauth.Failure { // RFC 8446 §6
		return ask(t, new(http.Transport), "https://"+raw(t, speaks(string([]byte{0x15, 3, 3, 0, 2, 2, number}))))
	}
	public := newAuthority(t, "DigiCert Global G2")
	chained := issue(public, x509.Certificate{IPAddresses: loopback})
	chained.Certificates[0].Certificate = append(chained.Certificates[0].Certificate, public.cert.Raw)

	for name, c := range map[string]advised{
		"public authority, whole chain": {
			failure: distrusting(chained), facts: crm,
			as: "unknown authority", do: []string{"this is a public authority", "take that line out"}, not: []string{"intermediate"},
		},
		"unknown authority, and no chain told": {
			failure: ask(t, dialing(x509.UnknownAuthorityError{Cert: ca.cert}), "https://idp.example.com/token"), facts: crm,
			as: "unknown authority", wrong: []string{`subject "CN=Example Corp Root"`},
		},
		"client's certificate ended":   {failure: alert(45), facts: mtls, as: "expired certificate", do: []string{"have a new one issued and put it into the same file"}},
		"client's certificate revoked": {failure: alert(44), facts: mtls, as: "revoked certificate", do: []string{"why this one was revoked"}},
		"client's certificate, at the handshake": {
			failure: alert(40), facts: mtls, as: "handshake failure", do: []string{"most likely it does not take the client's certificate"}, not: []string{"cert /path"},
		},
		"another alert": {failure: alert(80), facts: crm, as: "internal error", wrong: []string{"ends the TLS handshake (internal error)"}, do: []string{"the server's log"}},
		"another name": {
			failure: to(issue(ca, x509.Certificate{DNSNames: []string{"*.example.net", "login.example.com"}})), facts: crm,
			as: "doesn't contain any IP SANs", wrong: []string{"the certificate of 127.0.0.1 is for other names: *.example.net, login.example.com"}, do: []string{"write its name in token_url", "in the block tls of the credential crm write: server_name login.example.com"},
		},
		"no name": {
			failure: to(issue(ca, x509.Certificate{})), facts: crm,
			as: "x509", wrong: []string{"bears no name of a host", `subject "CN=idp"`}, do: []string{"subject alternative name"},
		},
		"a name with a trap": {
			failure: to(issue(ca, x509.Certificate{DNSNames: []string{"$(reboot).example.com"}})), facts: crm,
			as: "x509", do: []string{"server_name <one of its names>"},
		},
		"unknown authority": {
			failure: distrusting(good), facts: crm,
			as: "unknown authority", wrong: []string{`issuer "CN=Example Corp Root"`, `subject "CN=idp"`}, do: []string{"in the block tls of the credential crm write: ca /path/to/ca.pem", "-showcerts", "forgets the intermediate"}, not: []string{"self-signed", "inspection"},
		},
		"self-signed": {
			failure: distrusting(issue(nil, x509.Certificate{IPAddresses: loopback})), facts: crm,
			as: "unknown authority", wrong: []string{"is self-signed"}, do: []string{"ca /path/to/ca.pem", "somebody is in between"},
		},
		"inspection": {
			failure: distrusting(issue(newAuthority(t, "Zscaler Intermediate Root CA"), x509.Certificate{IPAddresses: loopback})), facts: crm,
			as: "unknown authority", wrong: []string{"is opened by Zscaler on its way"}, do: []string{"exempt idp.example.com:443 from inspection", "ca /path/to/ca.pem"},
		},
		"public authority, lone": {
			failure: distrusting(issue(newAuthority(t, "DigiCert Global G2"), x509.Certificate{IPAddresses: loopback})), facts: crm,
			as: "unknown authority", do: []string{"most likely the server does not send its intermediate certificate", "fullchain.pem", "ca-certificates"}, not: []string{"ca /path"},
		},
		"ingress without a certificate": {
			failure: distrusting(issue(nil, x509.Certificate{Subject: pkix.Name{CommonName: "Kubernetes Ingress Controller Fake Certificate"}, IPAddresses: loopback})), facts: crm,
			as: "unknown authority", wrong: []string{"has no certificate for this name"}, do: []string{"ingress"}, not: []string{"ca /path"},
		},
		"ended long ago": {
			failure: to(issue(ca, span(-90*day, -40*day))), facts: crm,
			as: "expired", wrong: []string{"ended on " + old, "40 days ago"}, do: []string{"operator renew it"}, not: []string{"clock"},
		},
		"ended just now": {
			failure: to(issue(ca, span(-90*day, -20*time.Minute))), facts: crm,
			as: "expired", wrong: []string{", 20m", " ago ("}, do: []string{"compare the clock first", "timedatectl", "renew it"},
		},
		"not yet": {
			failure: to(issue(ca, span(time.Hour, day))), facts: crm,
			as: "not yet valid", wrong: []string{"is valid from", "and it is"}, do: []string{"most likely this machine's clock is behind", "timedatectl"},
		},
		"not for servers": {
			failure: to(issue(ca, x509.Certificate{IPAddresses: loopback, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})), facts: crm,
			as: "incompatible key usage", wrong: []string{"cannot be used", "key usage"}, do: []string{"issue it anew"},
		},
		"plain HTTP": {
			failure: ask(t, new(http.Transport), strings.Replace(answers(t, 200, "", "{}"), "http", "https", 1)), facts: crm,
			as: "first record", wrong: []string{"speaks plain HTTP at this port"}, do: []string{"token_url", "insecure_token_url"},
		},
		"no TLS": {
			failure: ask(t, new(http.Transport), "https://"+raw(t, speaks("SSH-2.0-OpenSSH\r\n"))), facts: crm,
			as: "first record", wrong: []string{"does not speak TLS"}, do: []string{"openssl s_client -connect idp.example.com:443"},
		},
		"certificate demanded": {
			failure: alerted(demands(tls.VersionTLS13, "http/1.1")), facts: crm,
			as: "certificate required", wrong: []string{"demands a client certificate, and none was shown"}, do: []string{"in the block tls of the credential crm write: cert /path/to/client.pem", "key /path"},
		},
		"stranger's certificate, TLS 1.3 and HTTP/2": {
			failure: ask(t, showing(stranger), patient(demands(tls.VersionTLS13, "h2"))), facts: mtls,
			do: []string{"openssl x509"}, // the alert is told, or lost
		},
		"certificate demanded, HTTP/2": {
			failure: alerted(demands(tls.VersionTLS13, "h2")), facts: crm,
			do: []string{"in the block tls of the credential crm write: cert /path/to/client.pem"},
		},
		"the alert lost": {
			failure: ask(t, dialing(errors.New("http2: client conn could not be established")), "https://idp.example.com/token"), facts: crm,
			wrong: []string{"right after the TLS handshake"}, do: []string{"most likely it demands a client certificate", "cert /path/to/client.pem"},
		},
		"the alert lost, with a certificate": {
			failure: ask(t, dialing(errors.New("http2: client conn could not be established")), "https://idp.example.com/token"), facts: mtls,
			do: []string{"most likely it does not take the client's certificate"}, not: []string{"cert /path"},
		},
		"certificate demanded, TLS 1.2": {
			failure: alerted(demands(tls.VersionTLS12, "http/1.1")), facts: crm,
			as: "handshake failure", wrong: []string{"handshake failure"}, do: []string{"most likely it demands a client certificate", "cert /path/to/client.pem"},
		},
		"stranger's certificate": {
			failure: ask(t, showing(stranger), patient(demands(tls.VersionTLS12, "http/1.1"))), facts: mtls,
			as: "unknown certificate authority", wrong: []string{"does not take the client's certificate (unknown certificate authority)"}, do: []string{"does not trust who issued it"}, not: []string{"if none is configured"},
		},
		"stranger's certificate, or none": {
			failure: ask(t, showing(stranger), patient(demands(tls.VersionTLS12, "http/1.1"))), facts: crm,
			as: "unknown certificate authority", do: []string{"if none is configured: in the block tls", "if one is: "},
		},
		"no version in common": {
			failure: to(&tls.Config{Certificates: good.Certificates, MaxVersion: tls.VersionTLS11}), facts: crm,
			as: "protocol version", wrong: []string{"no version of TLS in common"}, do: []string{"TLS 1.2 and 1.3"},
		},
		"no certificate for the name": {
			failure: alerted(&tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }}), facts: crm,
			as: "unrecognized name", wrong: []string{"no certificate for the name"}, do: []string{"server_name"},
		},
	} {
		c.topic = tlsTopic
		t.Run(name, c.check)
	}
}
