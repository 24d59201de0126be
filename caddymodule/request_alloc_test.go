//go:build !race

package caddymodule

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

// TestRequestAllocates: what the whole of a request allocates more than one that
// is merely proxied, in a real Caddy: what Caddy does with what we leave on a
// request counts, too. The race detector allocates, and no such build runs this.
func TestRequestAllocates(t *testing.T) {
	const (
		batches  = 5
		requests = 300
	)
	p := newParts(t, authserver.Config{Issue: func(int) string { return strings.Repeat("a", jwtSize) }})
	api := fixedAnswers(t)
	sites := []struct {
		name, site string
		most       float64 // over the first
	}{
		{"plain", "reverse_proxy " + api, 0},
		{"handler", "upstream_auth crm\nreverse_proxy " + api, 5},
		{"transport", "reverse_proxy " + api + " {\ntransport upstream_auth crm\n}", 3},
	}
	config := fmt.Sprintf("{\nadmin off\npersist_config off\nstorage file_system %s\nlog {\noutput file %s\nlevel WARN\n}\nupstream_auth {\ncredential crm {\n%s\n}\n}\n}\n", p.storage, p.log, p.credential())
	var callers []*fixedCaller
	for _, s := range sites {
		c := &fixedCaller{addr: freeport.Addr(t), answer: make([]byte, 4<<10)}
		callers = append(callers, c)
		config += fmt.Sprintf("http://%s {\nbind 127.0.0.1\n%s\n}\n", c.addr, s.site)
	}
	if err := p.load(config); err != nil {
		t.Fatal(err)
	}
	for _, c := range callers {
		c.dial(t)
		c.call(t, requests) // pools are filled, buffers have their size
	}
	// a collection would empty the pools
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	counted := make([][]float64, len(sites))
	for range batches {
		for i, c := range callers {
			before := allocations()
			c.call(t, requests)
			counted[i] = append(counted[i], float64(allocations()-before)/requests)
		}
	}
	plain := slices.Min(counted[0])
	for i, s := range sites {
		got := slices.Min(counted[i]) // what else goes on in this process only adds
		t.Logf("%s: %.2f allocations, %.2f over plain", s.name, got, got-plain)
		if got-plain > s.most+0.5 {
			t.Errorf("%s: %.2f allocations for each request over the plain one's %.2f, want %v at most", s.name, got-plain, plain, s.most)
		}
	}
}

// allocations of this process since its start.
func allocations() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.Mallocs
}

// fixedAnswers is an API that gives each request on a connection the same answer
// and allocates nothing for it. It takes requests without a body.
func fixedAnswers(t *testing.T) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nhello\n")
				request, n := make([]byte, 8<<10), 0
				for {
					more, err := conn.Read(request[n:])
					if err != nil {
						return
					}
					if n += more; !bytes.HasSuffix(request[:n], blankLine) {
						continue
					}
					n = 0
					if _, err := conn.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}

var blankLine = []byte("\r\n\r\n")

// fixedCaller sends the same request again and again on one connection, and
// allocates nothing for it.
type fixedCaller struct {
	addr    string
	conn    net.Conn
	request []byte
	answer  []byte
	length  int // of an answer
}

// dial sends the first request, whose answer says how long the others are.
func (c *fixedCaller) dial(t *testing.T) {
	t.Helper()
	var err error
	if c.conn, err = net.Dial("tcp", c.addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.conn.Close() })
	c.request = []byte("GET /hello HTTP/1.1\r\nHost: " + c.addr + "\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n")
	if _, err := c.conn.Write(c.request); err != nil {
		t.Fatal(err)
	}
	for !bytes.HasSuffix(c.answer[:c.length], []byte("hello\n")) {
		n, err := c.conn.Read(c.answer[c.length:])
		if err != nil {
			t.Fatal(err)
		}
		c.length += n
	}
}

func (c *fixedCaller) call(t *testing.T, n int) {
	t.Helper()
	for range n {
		if _, err := c.conn.Write(c.request); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c.conn, c.answer[:c.length]); err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(c.answer, []byte("HTTP/1.1 200 ")) || !bytes.HasSuffix(c.answer[:c.length], []byte("hello\n")) {
			t.Fatalf("another answer: %q", c.answer[:c.length])
		}
	}
}
