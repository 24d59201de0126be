package faults

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// The network between, and servers that do not speak HTTP as they should. A
// fault that hides the outcome is unreachable, whatever it is.
var wireLines = []line{
	{name: "connection refused", how: noListener{}, want: unreachable, unasked: true, says: "connection refused"},
	{name: "DNS: no such host", how: noName{}, want: unreachable, unasked: true, says: "idp.invalid"},
	{name: "hang: accepts, reads nothing", how: silent(), want: unreachable, slow: true, says: "no complete answer within the timeout"},
	{name: "hang: reads, says nothing", how: answers{authserver.Hang()}, want: unreachable, slow: true, says: "no complete answer within the timeout"},
	{name: "hang: in the middle of the headers", how: reads("HTTP/1.1 200 OK\r\nContent-Ty", silent()), want: unreachable, slow: true},
	{name: "hang: in the middle of the body", how: reads(headOK+half, silent()), want: unreachable, slow: true},
	{name: "slower than the timeout", how: answers{authserver.Slow(time.Hour)}, want: unreachable, slow: true},
	{name: "drip: a byte each tenth of a second", how: reads("", drips(headOK+half+strings.Repeat("a", 400))), want: unreachable, slow: true},
	{name: "drip: body a byte each second", how: answers{authserver.Drip(time.Second)}, want: unreachable, slow: true},
	{name: "drip: in time", how: answers{authserver.Drip(time.Millisecond)}, want: used},
	{name: "closed before the request is read", how: hangsUp(), want: unreachable},
	{name: "closed after the request", how: reads("", hangsUp()), want: unreachable},
	{name: "closed in the middle of the headers", how: reads("HTTP/1.1 200 OK\r\nContent-Ty", hangsUp()), want: unreachable},
	{name: "reset before the request is read", how: resets(), want: unreachable},
	{name: "reset after the request", how: answers{authserver.Reset()}, want: unreachable},
	{name: "reset in the middle of the body", how: reads(headOK+half, resets()), want: unreachable},
	{name: "cut body: shorter than Content-Length", how: answers{authserver.CutBody()}, want: unreachable},
	{name: "cut body: chunked", how: reads("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n"+half, hangsUp()), want: unreachable},
	{name: "endless body, chunked", how: reads("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", endless("1\r\n{\r\n")), want: malformed},
	{name: "body of 1 GiB", how: answers{authserver.Huge(1 << 30)}, want: malformed, says: "1 MiB or more"},
	{name: "body of 1 GiB, compressed", how: answers{gzipped(1 << 30)}, want: malformed, says: "1 MiB or more"},
	{name: "endless headers", how: reads("HTTP/1.1 200 OK\r\n", endless("X-Header: "+mark(ofAnswer, "endless")+"\r\n")), want: unreachable},
	{name: "endless 103 answers", how: reads("", endless("HTTP/1.1 103 Early Hints\r\n\r\n")), want: unreachable},
	{name: "no HTTP at all", how: reads("220 mail.example.com ESMTP "+mark(ofBody, "mail")+"\r\n", hangsUp()), want: unreachable},
	{name: "a header that is none", how: reads("HTTP/1.1 200 OK\r\nX-Trace "+mark(ofAnswer, "none")+"\r\n\r\n", hangsUp()), want: unreachable},
	{name: "a header that begins with a blank", how: reads("HTTP/1.1 200 OK\r\n "+mark(ofAnswer, "blank")+": x\r\n\r\n", hangsUp()), want: unreachable},
	{name: "a length that is none", how: reads("HTTP/1.1 200 OK\r\nContent-Length: "+mark(ofAnswer, "length")+"\r\n\r\n", hangsUp()), want: unreachable},
	{name: "a coding that is none", how: reads("HTTP/1.1 200 OK\r\nTransfer-Encoding: "+mark(ofAnswer, "coding")+"\r\n\r\n", hangsUp()), want: unreachable},
	{name: "a status that is none", how: reads("HTTP/1.1 "+mark(ofAnswer, "status")+" OK\r\n\r\n", hangsUp()), want: unreachable},
	{name: "a chunk that is none", how: reads("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"+mark(ofBody, "chunk")+"\r\n", hangsUp()), want: unreachable},
	{name: "two Content-Length headers", how: reads("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{\"a\":", hangsUp()), want: unreachable},

	{name: "TLS: certificate expired", how: edited(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }), want: unreachable, unasked: true, says: "expired"},
	{name: "TLS: certificate not valid yet", how: edited(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), want: unreachable, unasked: true},
	{name: "TLS: another CA", how: foreign(), want: unreachable, unasked: true, says: "unknown authority"},
	{name: "TLS: another name", how: edited(func(c *x509.Certificate) {
		c.IPAddresses, c.DNSNames = nil, []string{"idp.example.com"}
	}), want: unreachable, unasked: true, says: "certificate"},
	{name: "TLS: for clients only", how: edited(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), want: unreachable, unasked: true},
	{name: "TLS: too old", how: certificate(func(a *authority) *tls.Config {
		old := a.good().Clone()
		old.MaxVersion = tls.VersionTLS11
		return old
	}), want: unreachable, unasked: true},
	{name: "TLS: hang in the handshake", how: overTLS{silent()}, want: unreachable, slow: true, unasked: true},
	{name: "TLS: reset in the handshake", how: overTLS{resets()}, want: unreachable, unasked: true},
	{name: "TLS: plain HTTP where TLS belongs", how: overTLS{func(conn net.Conn, _ <-chan struct{}) {
		_, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"))
		_ = conn.Close()
	}}, want: unreachable, unasked: true},
}
