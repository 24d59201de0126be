package advice

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// ofTLS is a connection that is there and not trusted, by either side.
func ofTLS(f *oauth.Failure, k Facts) (Advice, bool) {
	a, ok := ofRecord(f.Err, k)
	if !ok {
		a, ok = ofAlert(f.Err, k)
	}
	if !ok {
		a, ok = ofCertificate(f.Err, k)
	}
	a.Topic = tlsTopic
	return a, ok
}

// ofRecord is a server that does not speak TLS.
func ofRecord(err error, k Facts) (Advice, bool) {
	e, ok := errors.AsType[tls.RecordHeaderError](err)
	if !ok {
		return Advice{}, false
	}
	if string(e.RecordHeader[:]) == "HTTP/" {
		return Advice{
			Wrong: k.host() + " speaks plain HTTP at this port, and HTTPS was asked for",
			Do:    "write the port at which it speaks TLS (443, unless told otherwise) in " + k.address() + "; if it has none and the way to it is safe, write http:// there and, " + k.in("") + "insecure_token_url",
		}, true
	}
	return Advice{
		Wrong: "what listens at " + k.host() + " does not speak TLS",
		Do:    "correct the host or the port in " + k.address() + "; to look: openssl s_client -connect " + k.hostPort() + " </dev/null",
	}, true
}

// ofAlert is a server that ends the handshake (RFC 8446 §6.2). The words are
// those of crypto/tls.
func ofAlert(err error, k Facts) (Advice, bool) {
	method := k.Method == "tls_client_auth"
	lines := k.in("tls") + "cert /path/to/client.pem, and on the next line: key /path/to/client-key.pem"
	const look = "openssl x509 -noout -subject -issuer -dates -in <its file> shows it"
	a := Advice{}
	if strings.Contains(err.Error(), "client conn could not be established") {
		// TLS 1.3 looks at a client's certificate after the handshake (RFC 8446
		// §4.4.2), and net/http's HTTP/2 drops the alert that tells so
		a.Wrong = k.host() + " breaks the connection off right after the TLS handshake"
		a.Do = "most likely it demands a client certificate: " + lines + "; else it crashes, or something in between cuts the connection"
		if method {
			a.Do = "most likely it does not take the client's certificate: see that it is the one that is registered there; " + look
		}
		return a, true
	}
	e, ok := errors.AsType[*net.OpError](err)
	if !ok || e.Op != "remote error" || e.Err == nil {
		return a, false
	}
	switch alert := strings.TrimPrefix(e.Err.Error(), "tls: "); alert {
	case "certificate required":
		a.Wrong = k.host() + " demands a client certificate, and none was shown"
		a.Do = lines
	case "handshake failure":
		a.Wrong = k.host() + " ends the TLS handshake (handshake failure)"
		a.Do = "most likely it demands a client certificate, and none that it takes was shown: " + lines + "; else it has no cipher or TLS version in common with this program: its operator can tell which it has"
		if method {
			a.Do = "most likely it does not take the client's certificate: " + look + "; compare with what is registered at the server; else the two have no cipher in common"
		}
	case "bad certificate", "unknown certificate authority", "unknown certificate", "unsupported certificate",
		"revoked certificate", "expired certificate", "access denied", "error decrypting message":
		a.Wrong = k.host() + " does not take the client's certificate (" + alert + ")"
		switch alert {
		case "unknown certificate authority":
			a.Do = "the server does not trust who issued it: have it issued by an authority that the server trusts, with the intermediate certificates behind it in the same file; " + look
		case "expired certificate":
			a.Do = "have a new one issued and put it into the same file (it is read at each token request); " + look
		case "revoked certificate":
			a.Do = "have a new one issued, and ask why this one was revoked; " + look
		default:
			a.Do = "see that it is the one that is registered at the server, and made for clients (extended key usage clientAuth); " + look
		}
		if !method {
			a.Wrong = k.host() + " misses a client certificate, or does not take the one that was shown (" + alert + ")"
			a.Do = "if none is configured: " + lines + "; if one is: " + a.Do
		}
	case "unrecognized name":
		a.Wrong = k.host() + " has no certificate for the name that it was asked for"
		a.Do = "correct the host in " + k.address() + ", or, where the server is reached by another name than its own, " + k.in("tls") + "server_name <its name>"
	case "protocol version not supported", "insufficient security level":
		a.Wrong = k.host() + " and this program have no version of TLS in common"
		a.Do = "this program speaks TLS 1.2 and 1.3: have the server speak one of them"
	default:
		a.Wrong = k.host() + " ends the TLS handshake (" + alert + ")"
		a.Do = "the server's log says why; to look: openssl s_client -connect " + k.hostPort() + " </dev/null"
	}
	return a, true
}

// ofCertificate is a server's certificate that is not trusted here.
func ofCertificate(err error, k Facts) (Advice, bool) {
	if _, ok := errors.AsType[x509.SystemRootsError](err); ok {
		return Advice{
			Wrong: "this machine has no list of trusted certificate authorities",
			Do:    "install the package ca-certificates (in an image: copy /etc/ssl/certs/ca-certificates.crt into it), or " + k.in("tls") + "ca /path/to/ca.pem",
		}, true
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok && e.Certificate != nil {
		return otherNames(e, k), true
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Cert != nil {
		if e.Reason == x509.Expired {
			return outOfDate(e.Cert, cmp.Or(k.Received, time.Now()), k), true
		}
		return Advice{
			Wrong: "the certificate of " + k.host() + " cannot be used: " + strings.TrimPrefix(e.Error(), "x509: "),
			Do:    "have the server's operator issue it anew: " + named(e.Cert) + " is not made for this",
		}, true
	}
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		var sent []*x509.Certificate
		if v, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			sent = v.UnverifiedCertificates
		}
		if len(sent) == 0 && e.Cert != nil {
			sent = []*x509.Certificate{e.Cert}
		}
		if len(sent) > 0 {
			return unknownAuthority(sent, k), true
		}
	}
	if v, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return Advice{
			Wrong: "the certificate of " + k.host() + " does not verify: " + strings.TrimPrefix(v.Err.Error(), "x509: "),
			Do:    "have the server's operator look at it: openssl s_client -connect " + k.hostPort() + " -showcerts </dev/null",
		}, true
	}
	return Advice{}, false
}

// otherNames is a certificate that is for other names than the one asked for.
func otherNames(e x509.HostnameError, k Facts) Advice {
	names := append([]string(nil), e.Certificate.DNSNames...)
	for _, ip := range e.Certificate.IPAddresses {
		names = append(names, ip.String())
	}
	if who := standIn(e.Certificate); who != "" {
		return standsIn(who, k)
	}
	asked := cmp.Or(e.Host, k.host())
	if len(names) == 0 {
		return Advice{
			Wrong: "the certificate of " + asked + " bears no name of a host (" + named(e.Certificate) + "): a common name alone does not count",
			Do:    "have it issued anew with " + asked + " as a subject alternative name",
		}
	}
	own := "<one of its names>"
	for _, name := range names {
		if len(name) <= 253 && hostName().MatchString(name) {
			own = name
			break
		}
	}
	return Advice{
		Wrong: "the certificate of " + asked + " is for other names: " + quoted(names),
		Do:    "if one of these is the server that is meant, write its name in " + k.address() + "; where it has to be reached as " + asked + ", " + k.in("tls") + "server_name " + own + "; if none is, the name leads to another server: look at DNS",
	}
}

// hostName is a name of which nothing has to be escaped.
var hostName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9.:-]+$`)
})

// outOfDate is a certificate that is valid at another time. One that is off by
// little may be right, and the clock wrong.
func outOfDate(cert *x509.Certificate, now time.Time, k Facts) Advice {
	const little = 24 * time.Hour
	early := cert.NotBefore.Sub(now)
	if early > 0 {
		return Advice{
			Wrong: "the certificate of " + k.host() + " is valid from " + date(cert.NotBefore) + " on, and it is " + date(now) + " here (" + named(cert) + ")",
			Do:    "most likely this machine's clock is behind: " + setClock + "; else the server's operator has to put the earlier certificate back until then",
		}
	}
	late := now.Sub(cert.NotAfter)
	a := Advice{
		Wrong: "the certificate of " + k.host() + " ended on " + date(cert.NotAfter) + ", " + span(late) + " ago (" + named(cert) + ")",
		Do:    "have the server's operator renew it, and see that the server loads the new one; no setting here mends that safely",
	}
	if late < little {
		a.Do = "compare the clock first, for it ended a short while ago: " + setClock + "; if it is right, " + a.Do
	}
	return a
}

// unknownAuthority is a certificate from somebody who is not trusted here.
func unknownAuthority(sent []*x509.Certificate, k Facts) Advice {
	leaf, last := sent[0], sent[len(sent)-1]
	show := "openssl s_client -connect " + k.hostPort() + " -showcerts </dev/null"
	trust := k.in("tls") + "ca /path/to/ca.pem (what it holds is trusted in place of the system's authorities)"
	a := Advice{Wrong: "the certificate of " + k.host() + " is from an authority that is not trusted here: issuer " + who(leaf.Issuer.String()) + ", subject " + who(leaf.Subject.String())}
	own := bytes.Equal(leaf.RawIssuer, leaf.RawSubject)
	issuer := leaf.Issuer.String() + last.Issuer.String()
	switch {
	case standIn(leaf) != "":
		return standsIn(standIn(leaf), k)
	case own:
		a.Wrong = "the certificate of " + k.host() + " is self-signed, so nobody vouches for it: subject " + who(leaf.Subject.String())
		a.Do = "if this is how the server is run, have its operator give you the certificate, and " + trust + "; if it is not, somebody is in between: the certificate that is sent, to compare: " + show
	case matches(issuer, interceptors) != "":
		a.Wrong = "the connection to " + k.host() + " is opened by " + matches(issuer, interceptors) + " on its way: the certificate is from " + who(leaf.Issuer.String())
		a.Do = "have the network's operator exempt " + k.hostPort() + " from inspection, or, if inspection is wished for, give you its authority's certificate, and " + trust
	case matches(issuer, publicAuthorities) != "" && len(sent) == 1:
		a.Do = "most likely the server does not send its intermediate certificate: have its operator install the full chain (fullchain.pem); " + show + " shows what it sends; else this machine's trusted authorities are missing or old (package ca-certificates), or the file in tls ca lacks this one"
	case matches(issuer, publicAuthorities) != "":
		a.Do = "this is a public authority: this machine's trusted authorities are missing or old (install or renew the package ca-certificates), or the credential's tls ca, which stands in place of them, lacks it: take that line out"
	default:
		a.Do = "most likely a company's or a cluster's own authority: get its certificate from the server's operator, and " + trust
		if len(sent) == 1 {
			a.Do += "; the server sends one certificate alone: if its authority is trusted here, it forgets the intermediate one, which " + show + " shows"
		}
	}
	return a
}

// interceptors are makers of what opens TLS on its way, as they stand in the
// certificates that it makes.
var interceptors = []string{
	"Zscaler", "Netskope", "Fortinet", "FortiGate", "Palo Alto", "Blue Coat", "Symantec Web", "Forcepoint", "Websense",
	"Sophos", "Cisco Umbrella", "Check Point", "Barracuda", "WatchGuard", "SonicWall", "iboss", "Skyhigh", "Menlo Security",
	"Cloudflare Gateway", "mitmproxy", "Charles Proxy", "PortSwigger", "Fiddler", "Squid", "Kaspersky", "Bitdefender", "ESET SSL",
}

var publicAuthorities = []string{
	"Let's Encrypt", "Internet Security Research Group", "DigiCert", "Sectigo", "COMODO", "USERTrust", "GlobalSign",
	"Google Trust Services", "O=Amazon", "Microsoft Azure", "Microsoft Corporation", "GoDaddy", "Starfield", "Entrust",
	"ZeroSSL", "IdenTrust", "Actalis", "SwissSign", "HARICA", "Certum", "TrustAsia", "Buypass", "SSL Corp",
}

func matches(name string, known []string) string {
	for _, word := range known {
		if strings.Contains(strings.ToLower(name), strings.ToLower(word)) {
			return strings.TrimPrefix(word, "O=")
		}
	}
	return ""
}

// standIn is what a gateway shows where it has no certificate for a host.
func standIn(cert *x509.Certificate) string {
	for _, name := range []string{"Kubernetes Ingress Controller Fake Certificate", "TRAEFIK DEFAULT CERT"} {
		if cert.Subject.CommonName == name {
			return name
		}
	}
	return ""
}

func standsIn(name string, k Facts) Advice {
	return Advice{
		Wrong: "the gateway before " + k.host() + " has no certificate for this name, and shows one that stands in (" + name + ")",
		Do:    "have the server's operator give its ingress a certificate for this host (in the Ingress: tls, with the host and the Secret), or correct the host in " + k.address(),
	}
}

// named tells which certificate it is.
func named(cert *x509.Certificate) string {
	return "subject " + who(cert.Subject.String()) + ", issuer " + who(cert.Issuer.String())
}

// who is a name in a certificate, which its maker chose.
func who(name string) string {
	if name = line(name, 120); name == "" {
		return "(none)"
	}
	return strconv.Quote(name)
}
