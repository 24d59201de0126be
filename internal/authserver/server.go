// Package authserver is a small authorization server for the demo and the
// tests: RFC 6749's client credentials grant (§4.4), with every fault on a
// switch, a record of what arrived, and an upstream that demands its tokens.
// It is no server for production: it knows one client, and keeps all in memory.
package authserver

import (
	"net/http"
	"sync"
)

// Server is an authorization server. It is an http.Handler, and answers at one
// path.
type Server struct {
	Switch
	config  Config
	dialect dialect
	tokens  tokens

	mu       sync.Mutex
	requests int
	inFlight int
	peak     int
	log      []Request
}

// dialect is what one vendor's token endpoint does in its own way.
type dialect struct {
	path string
	// scope is what is granted, whatever was asked for; "" is what was asked for.
	scope string
	// answer may add to the members of a good answer.
	answer func(map[string]any)
	// refuse writes an error.
	refuse func(http.ResponseWriter, *refusal)
}

// New returns a server that speaks RFC 6749 at TokenPath.
func New(config Config) *Server {
	return newServer(config, standard)
}

func newServer(config Config, d dialect) *Server {
	config.setDefaults()
	s := &Server{config: config, dialect: d}
	s.tokens = newTokens(&s.config)
	return s
}

// ServeHTTP answers a token request, healthily or with the fault that is set,
// and everything else with 404.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	isToken := r.Method == http.MethodPost && r.URL.Path == s.dialect.path
	if isToken {
		s.arrive()
		defer s.leave()
	}
	request, err := readRequest(w, r)
	s.record(request)
	if !isToken {
		http.NotFound(w, r)
		return
	}
	s.serve(w, r, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err != nil {
			s.dialect.refuse(w, refuse("invalid_request", "the body cannot be read as a form"))
			return
		}
		s.grant(w, request)
	}))
}

func (s *Server) arrive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	s.inFlight++
	s.peak = max(s.peak, s.inFlight)
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight--
}

// Requests is the number of token requests that have arrived, whatever became
// of them.
func (s *Server) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// Peak is the largest number of token requests that were in flight at once.
func (s *Server) Peak() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peak
}
