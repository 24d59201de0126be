package faults

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// wire is what is done with a connection in place of speaking HTTP. It may end
// with the connection open; the server closes it at last.
type wire func(conn net.Conn, closed <-chan struct{})

// headOK begins a good answer, of a body of 500 bytes.
var headOK = "HTTP/1.1 200 OK\r\nX-Trace: " + mark(ofAnswer, "trace") + "\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"

// half of a good body.
var half = `{"token_type":"Bearer","expires_in":3600,"access_token":"` + mark(ofAccess, "half")

// silent accepts and reads nothing.
func silent() wire { return func(net.Conn, <-chan struct{}) {} }

// hangsUp closes at once.
func hangsUp() wire { return func(conn net.Conn, _ <-chan struct{}) { conn.Close() } }

// resets sends a TCP RST at once.
func resets() wire { return func(conn net.Conn, _ <-chan struct{}) { reset(conn) } }

func reset(conn net.Conn) {
	if t, ok := conn.(*tapedConn); ok {
		_ = t.SetLinger(0)
	}
	conn.Close()
}

// reads reads the whole request, says a text and goes on with next.
func reads(text string, next wire) wire {
	return func(conn net.Conn, closed <-chan struct{}) {
		if !request(conn) {
			conn.Close()
			return
		}
		if _, err := io.WriteString(conn, text); err != nil {
			return
		}
		next(conn, closed)
	}
}

// request reads one.
func request(conn net.Conn) bool {
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, r.Body)
	return err == nil
}

// endless says a text again and again, for as long as somebody listens.
func endless(text string) wire {
	return func(conn net.Conn, _ <-chan struct{}) {
		text := strings.Repeat(text, 64)
		for {
			if _, err := io.WriteString(conn, text); err != nil {
				return
			}
		}
	}
}

// drips says a text a byte each tenth of a second, and then nothing.
func drips(text string) wire {
	return func(conn net.Conn, closed <-chan struct{}) {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n = (n + 1) % len(text) {
			select {
			case <-tick.C:
			case <-closed:
				return
			}
			if _, err := conn.Write([]byte{text[n]}); err != nil {
				return
			}
		}
	}
}
