package faults

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

// server is the authorization server of one cell, on a port of its own, which
// it keeps while nobody listens on it.
type server struct {
	auth   *authserver.Server
	tape   *tape
	addr   string
	rang   func() // told of each arrival
	broken func() bool

	mu       sync.Mutex
	socket   net.Listener // nil while connections are refused
	http     *http.Server
	wire     wire          // has the connections in place of http
	security *tls.Config   // nil for none
	distrust bool          // which nobody should trust: no request comes
	gate     chan struct{} // holds requests until it is closed; nil for none
	waiting  int           // at the gate
	serving  int           // beyond it
	arrivals []arrival     // of token requests, or of connections where they get no further
	conns    []net.Conn    // of wire
	strays   []string      // requests of nobody here
	closed   chan struct{}
	wg       sync.WaitGroup
}

func newServer(auth *authserver.Server, tape *tape, rang func(), broken func() bool) (*server, error) {
	s := &server{auth: auth, tape: tape, rang: rang, broken: broken, closed: make(chan struct{})}
	var err error
	s.addr, err = freeport.Take()
	return s, err
}

// listen has the port answer.
func (s *server) listen() error {
	ln, err := freeport.Listen(s.addr)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.socket = ln
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	s.http.SetKeepAlivesEnabled(false) // each token request meets the socket as it is now
	serve, conns := s.http.Serve, &switched{Listener: ln, server: s}
	s.wg.Go(func() { _ = serve(conns) })
	return nil
}

// refuse has the port refuse connections.
func (s *server) refuse() {
	s.mu.Lock()
	h := s.http
	s.socket, s.http = nil, nil
	s.mu.Unlock()
	if h != nil {
		_ = h.Close()
	}
}

// switched is a listener that gives connections to a wire fault, or secures them.
type switched struct {
	net.Listener
	server *server
}

// Accept implements net.Listener.
func (l *switched) Accept() (net.Conn, error) {
	s := l.server
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		fault, security, distrust := s.wire, s.security, s.distrust
		s.mu.Unlock()
		if fault == nil {
			if distrust {
				s.arrived()
			}
			if security != nil {
				return tls.Server(conn, security), nil
			}
			return conn, nil
		}
		s.arrived()
		s.mu.Lock()
		s.conns = append(s.conns, conn)
		s.mu.Unlock()
		s.wg.Go(func() {
			if !s.pass(s.closed) {
				return
			}
			fault(&tapedConn{TCPConn: conn.(*net.TCPConn), tape: s.tape}, s.closed)
		})
	}
}

// ServeHTTP has each request wait at the gate, and the fault, if there is one,
// or health answer it.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.Header.Get(apiKeyHeader), marker) {
		// clients of an earlier program at this port may not have ended
		s.strayed(r)
		http.Error(w, "this is a test's server", http.StatusMisdirectedRequest)
		return
	}
	s.tape.request(r)
	s.arrived()
	if !s.pass(r.Context().Done()) {
		panic(http.ErrAbortHandler)
	}
	s.serves(1)
	defer s.serves(-1)
	said := &taped{ResponseWriter: w}
	defer func() { s.tape.answer(said.whole()) }() // however it ends
	w.Header().Set("Set-Cookie", "session="+s.tape.canary.mark(ofAnswer, "cookie"))
	s.auth.ServeHTTP(said, r)
}

// arrival is when a token request came, and whether it met the fault.
type arrival struct {
	time.Time
	broken bool
}

func (s *server) arrived() {
	s.mu.Lock()
	s.arrivals = append(s.arrivals, arrival{time.Now(), s.broken()})
	s.mu.Unlock()
	s.rang()
}

// strayed notes a request of nobody here.
func (s *server) strayed(r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.HasPrefix(r.URL.Path, "/.well-known/") {
		return // check looks whether there is metadata
	}
	s.strays = append(s.strays, fmt.Sprint(r.Method, " ", r.Host, r.URL.Path, " ", r.UserAgent()))
}

// asked are the arrivals so far.
func (s *server) asked() []arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.arrivals)
}

// hold closes the gate: a request that arrives stays under way.
func (s *server) hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = make(chan struct{})
}

// release opens it.
func (s *server) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gate != nil {
		close(s.gate)
		s.gate = nil
	}
}

// pass waits at the gate; false if that ends otherwise.
func (s *server) pass(leaves <-chan struct{}) bool {
	s.mu.Lock()
	gate := s.gate
	if gate != nil {
		s.waiting++
	}
	s.mu.Unlock()
	if gate == nil {
		return true
	}
	s.rang()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.waiting--
	}()
	select {
	case <-gate:
		return true
	case <-leaves:
		return false
	}
}

// underWay tells whether a request waits at the gate.
func (s *server) underWay() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting > 0
}

func (s *server) serves(one int) {
	s.mu.Lock()
	s.serving += one
	s.mu.Unlock()
	s.rang()
}

// idle tells that no request is being answered. With the gate closed none will
// be.
func (s *server) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.serving == 0
}

// turn sets what has the connections: a wire fault, or health with nil.
func (s *server) turn(w wire) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wire = w
}

// secure sets what TLS is spoken with, and whether it is a bad one.
func (s *server) secure(config *tls.Config, distrust bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.security, s.distrust = config, distrust
}

// close ends it and all its connections.
func (s *server) close() {
	s.refuse()
	close(s.closed)
	s.mu.Lock()
	for _, conn := range s.conns {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}
