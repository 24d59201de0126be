package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// growTarget is an API that costs little. It reads each request to its end, and
// takes one for /auth with a token that has not ended alone.
type growTarget struct {
	ln   net.Listener
	body atomic.Int64 // bytes of all bodies
	mu   sync.Mutex
	room int // requests to /hold that are still to come
	gate chan struct{}
}

func newGrowTarget() (*growTarget, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &growTarget{ln: ln}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go t.serve(conn)
		}
	}()
	return t, nil
}

func (t *growTarget) addr() string { return t.ln.Addr().String() }
func (t *growTarget) close()       { _ = t.ln.Close() }

// holding has the requests whose path ends with /hold be answered when that many
// have come with all their bodies.
func (t *growTarget) holding(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.room, t.gate = n, make(chan struct{})
}

var (
	growGood    = []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nhello\n")
	growRefused = []byte("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
)

func (t *growTarget) serve(conn net.Conn) {
	defer conn.Close()
	reader := bufio.NewReaderSize(conn, 64<<10)
	for {
		req, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		n, err := io.Copy(io.Discard, req.Body)
		if err != nil {
			return
		}
		t.body.Add(n)
		if strings.HasSuffix(req.URL.Path, "/hold") {
			t.hold()
		}
		answer := growGood
		if strings.HasPrefix(req.URL.Path, "/auth") && !alive(req.Header.Get("Authorization")) {
			answer = growRefused
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

func (t *growTarget) hold() {
	t.mu.Lock()
	gate := t.gate
	if t.room--; t.room == 0 {
		close(gate)
	}
	t.mu.Unlock()
	select {
	case <-gate:
	case <-time.After(patience):
	}
}

// growToken is the n-th token, of 909 bytes, which tells when it ends.
func growToken(n int64, ends time.Time) string {
	const size = 909
	head := fmt.Sprintf("%d.%d.", ends.UnixMilli(), n)
	return head + strings.Repeat("t", size-len(head))
}

func alive(authorization string) bool {
	text, ok := strings.CutPrefix(authorization, "Bearer ")
	end, _, _ := strings.Cut(text, ".")
	ms, err := strconv.ParseInt(end, 10, 64)
	return ok && err == nil && time.Now().UnixMilli() < ms
}

// growIssuer is a token endpoint that costs little: the last part of the path is
// how many seconds its tokens live. It knows each client by what it did.
type growIssuer struct {
	delay time.Duration
	n     atomic.Int64

	mu      sync.Mutex
	now     int // requests under way
	peak    int
	clients map[string]*growClient
}

// growClient is one client of it, or more with one name.
type growClient struct {
	requests  int
	now, peak int
	first     time.Time
	last      time.Time
}

func newGrowIssuer() *growIssuer { return &growIssuer{clients: make(map[string]*growClient)} }

func (i *growIssuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, password, _ := r.BasicAuth()
	seconds, err := strconv.Atoi(r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:])
	if _, e := io.Copy(io.Discard, r.Body); e != nil || err != nil || password != secret {
		http.Error(w, `{"error":"invalid_client"}`, http.StatusUnauthorized)
		return
	}
	defer i.arrive(name)()
	if i.delay > 0 {
		time.Sleep(i.delay)
	}
	life := time.Duration(seconds) * time.Second
	var body bytes.Buffer
	_ = json.NewEncoder(&body).Encode(map[string]any{"access_token": growToken(i.n.Add(1), time.Now().Add(life)), "token_type": "Bearer", "expires_in": seconds})
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(body.Bytes())
}

func (i *growIssuer) arrive(name string) (leave func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	c := i.clients[name]
	if c == nil {
		c = &growClient{first: time.Now()}
		i.clients[name] = c
	}
	c.requests++
	c.last = time.Now()
	c.now++
	c.peak = max(c.peak, c.now)
	i.now++
	i.peak = max(i.peak, i.now)
	return func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		c.now--
		i.now--
	}
}

// requests is how many token requests have come.
func (i *growIssuer) requests() int { return int(i.n.Load()) }

// most is how many were under way at once, and the most of one client.
func (i *growIssuer) most() (all, one int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, c := range i.clients {
		one = max(one, c.peak)
	}
	return i.peak, one
}

// gap is the time between two requests of one client, on average over all.
func (i *growIssuer) gap() (mean time.Duration, gaps int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	var sum time.Duration
	for _, c := range i.clients {
		sum += c.last.Sub(c.first)
		gaps += c.requests - 1
	}
	if gaps == 0 {
		return 0, 0
	}
	return sum / time.Duration(gaps), gaps
}

// counting counts the connections that a listener takes.
type counting struct {
	net.Listener
	taken atomic.Int64
}

func (c *counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.taken.Add(1)
	}
	return conn, err
}
