package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestTarget(t *testing.T) {
	s, err := listenTarget(10)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(conn)
	for name, test := range map[string]struct {
		requests []string // as they come in
		answers  int
		without  int64
	}{
		"plain":          {[]string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n"}, 1, 1},
		"with a token":   {[]string{"GET / HTTP/1.1\r\nHost: a\r\nauthorization: Bearer x\r\n\r\n"}, 1, 0},
		"in pieces":      {[]string{"GET / HTTP/1.1\r\nHost: a\r\nAuthoriz", "ation: Bearer x\r\n", "\r\n"}, 1, 0},
		"with a body":    {[]string{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"}, 1, 1},
		"a body behind":  {[]string{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\nhe", strings.Repeat("x", 9998)}, 1, 1},
		"two at once":    {[]string{"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhiGET / HTTP/1.1\r\nAuthorization: a\r\n\r\n"}, 2, 1},
		"a long head":    {[]string{"GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 20000) + "\r\nAuthorization: a\r\n\r\n"}, 1, 0},
		"another header": {[]string{"GET / HTTP/1.1\r\nX-Authorization: Bearer x\r\nAuthorizations: a\r\n\r\n"}, 1, 1},
	} {
		requests, without := s.requests.Load(), s.without.Load()
		for _, text := range test.requests {
			if _, err := io.WriteString(conn, text); err != nil {
				t.Fatal(err)
			}
		}
		for range test.answers {
			res, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			body, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != http.StatusOK || len(body) != 10 {
				t.Errorf("%s: %s %q, %v", name, res.Status, body, err)
			}
			_ = res.Body.Close()
		}
		if requests, without = s.requests.Load()-requests, s.without.Load()-without; requests != int64(test.answers) || without != test.without {
			t.Errorf("%s: %d requests, %d without a token", name, requests, without)
		}
	}
}

// TestTargetEnds: it closes when the proxy wants to, and when it cannot tell how
// long a body is.
func TestTargetEnds(t *testing.T) {
	s, err := listenTarget(0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for request, status := range map[string]int{
		"GET / HTTP/1.1\r\nConnection: close\r\n\r\n":               200,
		"GET / HTTP/1.0\r\nHost: example.com\r\n\r\n":               200,
		"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n":     411,
		"POST / HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n": 411,
		"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n":             411,
	} {
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(conn)
		res, err := http.ReadResponse(r, nil)
		if err != nil || res.StatusCode != status {
			t.Fatalf("%q: %v, %v", request, res, err)
		}
		_ = res.Body.Close()
		if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("%q: it goes on: %v", request, err)
		}
		_ = conn.Close()
	}
}

// TestSwap has a caller read answers of all forms.
func TestSwap(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	answer := make(chan string, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for r := bufio.NewReader(conn); ; {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					if _, err := io.WriteString(conn, <-answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	g, err := gather(l.Addr().String(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	for name, test := range map[string]struct {
		answer string
		status int
		open   bool
	}{
		"a length":       {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, true},
		"a long one":     {"HTTP/1.1 503 No\r\ncontent-length: 9000\r\n\r\n" + strings.Repeat("x", 9000), 503, true},
		"chunks":         {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 200, true},
		"no body":        {"HTTP/1.1 204 No Content\r\nX-Something: else\r\n\r\n", 204, true},
		"a long head":    {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 9000) + "\r\nContent-Length: 1\r\n\r\nx", 200, true},
		"the last":       {"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 1\r\n\r\nx", 200, false},
		"of old":         {"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, false},
		"no HTTP at all": {"hello\r\n\r\n", 0, false},
	} {
		answer <- test.answer
		got := g.callers[0].call(time.Now())
		if open := g.callers[0].conn != nil; got.status != test.status || open != test.open {
			t.Errorf("%s: %d, open: %v", name, got.status, open)
		}
	}
}

// TestPress: requests of a closed loop cost the callers no allocation.
func TestPress(t *testing.T) {
	s, err := listenTarget(targetBody)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g, err := gather(s.Addr(), 4)
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	g.open()
	requests := s.requests.Load()
	if p := g.press(20 * time.Millisecond); p.failed > 0 || len(p.times) == 0 || int64(len(p.times)) != s.requests.Load()-requests || p.length < 20*time.Millisecond {
		t.Errorf("%d answered in %s, %d failed; the target had %d", len(p.times), p.length, p.failed, s.requests.Load()-requests)
	}
	if n := testing.AllocsPerRun(100, func() {
		if status, err := g.callers[0].swap(); err != nil || status != http.StatusOK {
			t.Errorf("%d, %v", status, err)
		}
	}); n > 0 {
		t.Errorf("%v allocations a request", n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if p := g.press(time.Millisecond); len(p.times) > 0 || p.failed == 0 {
		t.Errorf("the target is gone, and %d were answered", len(p.times))
	}
}
