package authserver

import (
	"crypto/tls"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Hang never answers. It ends when the client leaves or the server closes.
func Hang() Fault {
	return func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
		<-r.Context().Done()
		panic(http.ErrAbortHandler) // to return would be an empty 200
	}
}

// Drip sends the answer a byte each d.
func Drip(d time.Duration) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		good := capture(r, next)
		good.header.Set("Content-Length", strconv.Itoa(good.body.Len()))
		good.sendHeader(w)
		for _, b := range good.body.Bytes() {
			pause(r, d)
			w.Write([]byte{b})
			flush(w)
		}
	}
}

// Reset ends the connection with a TCP RST and no answer. Where that cannot be
// (HTTP/2, connections in memory), the stream or the connection ends.
func Reset() Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if t, ok := conn.(*tls.Conn); ok {
			conn = t.NetConn() // closing TLS would say goodbye first
		}
		if t, ok := conn.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		conn.Close()
	}
}

// CutBody promises the whole answer, sends half of it and closes. The token in
// it has been issued all the same.
func CutBody() Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		good := capture(r, next)
		good.header.Set("Content-Length", strconv.Itoa(good.body.Len()))
		good.sendHeader(w)
		w.Write(good.body.Bytes()[:good.body.Len()/2])
		flush(w)
		panic(http.ErrAbortHandler)
	}
}

// Huge answers with n bytes of JSON, a token that never seems to end, and stops
// when the client does.
func Huge(n int64) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		const head, tail = `{"token_type":"Bearer","expires_in":3600,"access_token":"`, `"}`
		w.Header().Set("Content-Type", "application/json")
		if _, err := w.Write([]byte(head)); err != nil {
			return
		}
		chunk := []byte(strings.Repeat("a", 32<<10))
		for left := n - int64(len(head)+len(tail)); left > 0; {
			written, err := w.Write(chunk[:min(left, int64(len(chunk)))])
			if err != nil {
				return
			}
			left -= int64(written)
		}
		w.Write([]byte(tail))
	}
}

// flush hands what was written to the connection. An error means that the
// client has left, which the next write or pause will find too.
func flush(w http.ResponseWriter) {
	_ = http.NewResponseController(w).Flush()
}
