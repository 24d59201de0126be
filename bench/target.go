package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	targetHead = 64 << 10 // the longest head of a request that a target reads
	targetBody = 6        // what it answers with, if nothing else is said
)

// target is an API that costs as little as one can, so that the processor is
// left to the proxies: it looks whether there is a token and not at it, allocates
// nothing for a request, and gives all the same answer.
type target struct {
	listener net.Listener
	answer   []byte
	done     sync.WaitGroup

	requests atomic.Int64 // answered
	without  atomic.Int64 // of those, the ones without an Authorization header

	mu    sync.Mutex
	conns map[net.Conn]bool // nil once it is closed
}

// listenTarget listens on loopback, and answers with a body of so many bytes.
func listenTarget(body int) (*target, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &target{listener: l, conns: make(map[net.Conn]bool)}
	s.answer = append(s.answer, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: "+time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")+"\r\nContent-Length: "+strconv.Itoa(body)+"\r\n\r\n"...)
	s.answer = append(s.answer, bytes.Repeat([]byte("x"), body)...)
	s.done.Go(s.accept)
	return s, nil
}

// Addr is where it listens.
func (s *target) Addr() string { return s.listener.Addr().String() }

// Close ends its connections as well.
func (s *target) Close() error {
	err := s.listener.Close()
	s.mu.Lock()
	for conn := range s.conns {
		_ = conn.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.done.Wait()
	return err
}

func (s *target) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return // closed
		}
		s.mu.Lock()
		if s.conns == nil {
			s.mu.Unlock()
			_ = conn.Close()
			return
		}
		s.conns[conn] = true
		s.mu.Unlock()
		s.done.Go(func() {
			s.serve(conn)
			_ = conn.Close()
			s.mu.Lock()
			delete(s.conns, conn)
			s.mu.Unlock()
		})
	}
}

// serve answers the requests of a connection, until the proxy closes it or says
// that it wants to.
func (s *target) serve(conn net.Conn) {
	buf, have := make([]byte, 4<<10), 0
	for {
		end := blankLine(buf[:have])
		for end < 0 {
			if have == len(buf) {
				if have >= targetHead {
					return
				}
				larger := make([]byte, 2*len(buf))
				copy(larger, buf)
				buf = larger
			}
			n, err := conn.Read(buf[have:])
			if err != nil {
				return
			}
			have += n
			end = blankLine(buf[:have])
		}
		head, err := readHead(buf[:end])
		if err != nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 411 Length Required\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			return
		}
		// what has come of the body, and then the rest of it
		got := min(have-end, head.length)
		have = copy(buf, buf[end+got:have])
		for rest := head.length - got; rest > 0; {
			n, err := conn.Read(buf[:min(rest, len(buf))])
			if err != nil {
				return
			}
			rest -= n
		}
		s.requests.Add(1)
		if !head.authorized {
			s.without.Add(1)
		}
		if _, err := conn.Write(s.answer); err != nil || head.last {
			return
		}
	}
}

// head is what matters of the head of a request or of an answer.
type head struct {
	length     int  // of the body; -1 if it is not said
	authorized bool // there is an Authorization header
	last       bool // nothing more is to come by this connection
}

// errHead is a head that is not as simple as those that are read here.
var errHead = errors.New("the body has no length of its own")

// readHead reads the lines of a request's head. A body that is sent in chunks
// it refuses.
func readHead(text []byte) (h head, err error) {
	line, text, _ := bytes.Cut(text, newline)
	h.last = bytes.HasSuffix(bytes.TrimSuffix(line, carriage), http10)
	h, err = readLines(text, h)
	h.length = max(h.length, 0) // a request that says nothing has no body
	return h, err
}

// readLines reads those of the lines that matter.
func readLines(text []byte, h head) (head, error) {
	h.length = -1
	for len(text) > 0 {
		var line []byte
		line, text, _ = bytes.Cut(text, newline)
		if len(line) < 10 {
			continue
		}
		switch line[0] | 0x20 {
		case 'a':
			if named(line, "authorization") {
				h.authorized = true
			}
		case 'c':
			if named(line, "content-length") {
				n, err := number(line[len("content-length:"):])
				if err != nil {
					return h, err
				}
				h.length = n
			} else if named(line, "connection") && bytes.EqualFold(bytes.TrimSpace(line[len("connection:"):]), closing) {
				h.last = true
			}
		case 't':
			if named(line, "transfer-encoding") {
				return h, errHead
			}
		}
	}
	return h, nil
}

var (
	newline  = []byte("\n")
	carriage = []byte("\r")
	space    = []byte(" ")
	blank    = []byte("\r\n\r\n")
	http10   = []byte("HTTP/1.0")
	closing  = []byte("close")
)

// blankLine is where the head ends, behind the blank line; -1 if it goes on.
func blankLine(text []byte) int {
	if i := bytes.Index(text, blank); i >= 0 {
		return i + len(blank)
	}
	return -1
}

// named tells whether a line is of this header, a name in lower case.
func named(line []byte, name string) bool {
	if len(line) <= len(name) || line[len(name)] != ':' {
		return false
	}
	for i := range len(name) {
		c := line[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != name[i] {
			return false
		}
	}
	return true
}

// number reads a length.
func number(text []byte) (n int, err error) {
	text = bytes.TrimSpace(text)
	for _, c := range text {
		if c < '0' || c > '9' || n > 1<<40 {
			return 0, errHead
		}
		n = 10*n + int(c-'0')
	}
	if len(text) == 0 {
		return 0, errHead
	}
	return n, nil
}
