// Package authserver is a small authorization server for the demo and the
// tests: the grants of RFC 6749 and its followers, with every fault on a
// switch, a record of what arrived, and an upstream that demands its tokens.
// It is no server for production: it knows one client, and keeps all in memory.
package authserver

import (
	"cmp"
	"net/http"
	"slices"
	"sync"
)

// Server is an authorization server. It is an http.Handler.
type Server struct {
	// Switch sets the faults of the token endpoint; each of the others has its
	// own.
	Switch
	Authorization       Switch
	DeviceAuthorization Switch
	Keys                Switch
	Metadata            Switch // at both addresses
	Revocation          Switch
	Introspection       Switch

	config     Config
	dialect    dialect
	endpoints  map[string]endpoint
	tokens     tokens
	assertions once // their jti
	proofs     proofs
	signer     func() *signer // makes a key at the first call

	mu       sync.Mutex
	requests map[string]int // by path
	inFlight int
	peak     int
	log      []Request
}

// dialect is what one vendor's token endpoint does in its own way.
type dialect struct {
	path   string
	method string // "" for POST
	// authorize is where a browser is sent, "" for nowhere. pkceOptional takes
	// it there without a proof key, and noIss sends it back without RFC 9207.
	authorize    string
	pkceOptional bool
	noIss        bool
	// whole has all the other endpoints, too; found has metadata alone of them.
	whole, found bool
	// scope is what is granted, whatever was asked for; "" is what was asked for.
	scope string
	// words puts a request into the words of RFC 6749.
	words func(*Request) error
	// check may refuse what others take, once the client is known.
	check func(*Server, Request) *refusal
	// subject reads an assertion of the jwt-bearer grant.
	subject func(*Server, Request, string) (rights, *refusal)
	// sameRefresh returns the refresh token that was used, if it stays valid.
	sameRefresh bool
	// claims may change those of an access token that is a JWT, whose typ is
	// jwtType.
	claims  func(map[string]any)
	jwtType string
	// answer may change the members of a good answer, and wrap puts them into
	// others.
	answer func(map[string]any)
	wrap   func(map[string]any) map[string]any
	// contentType is that of all answers, "" for application/json.
	contentType string
	// refuse writes an error.
	refuse func(http.ResponseWriter, Request, *refusal)
}

// endpoint is one address of a server.
type endpoint struct {
	methods []string
	faults  *Switch
	// answer is the healthy one. The error is that of a body that is no form.
	answer func(http.ResponseWriter, Request, error)
}

// New returns a server that speaks RFC 6749 at TokenPath.
func New(config Config) *Server {
	return newServer(config, standard)
}

func newServer(config Config, d dialect) *Server {
	config.setDefaults()
	s := &Server{config: config, dialect: d, assertions: newOnce(), proofs: newProofs(config.Late), requests: map[string]int{}}
	s.signer = sync.OnceValue(func() *signer { return newSigner(s.config.SigningAlg) })
	s.tokens = newTokens(&s.config, &s.dialect, s.signer)
	get, post := []string{http.MethodGet}, []string{http.MethodPost}
	s.endpoints = map[string]endpoint{d.path: {[]string{cmp.Or(d.method, http.MethodPost)}, &s.Switch, s.token}}
	if d.authorize != "" {
		s.endpoints[d.authorize] = endpoint{get, &s.Authorization, s.authorize}
	}
	if d.authorize != "" || config.JWT {
		s.endpoints[KeysPath] = endpoint{get, &s.Keys, s.keys}
	}
	if d.whole {
		s.endpoints[DeviceAuthorizationPath] = endpoint{post, &s.DeviceAuthorization, s.deviceAuthorization}
		s.endpoints[RevokePath] = endpoint{post, &s.Revocation, s.revoke}
		s.endpoints[IntrospectPath] = endpoint{post, &s.Introspection, s.introspect}
		s.endpoints[DevicePath] = endpoint{slices.Concat(get, post), new(Switch), s.device}
	}
	for _, path := range s.metadataPaths() {
		s.endpoints[path] = endpoint{get, &s.Metadata, s.metadata}
	}
	return s
}

// ServeHTTP answers a request, healthily or with the fault that is set, and
// with 404 where there is nothing.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e, known := s.endpoints[r.URL.Path]
	known = known && slices.Contains(e.methods, r.Method)
	if known {
		defer s.arrive(r.URL.Path)()
	}
	request, err := readRequest(w, r)
	s.record(request)
	if !known {
		http.NotFound(w, r)
		return
	}
	e.faults.serve(w, r, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		e.answer(w, request, err)
	}))
}

// arrive counts a request, and returns what to do when it leaves.
func (s *Server) arrive(path string) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests[path]++
	if path != s.dialect.path {
		return func() {}
	}
	s.inFlight++
	s.peak = max(s.peak, s.inFlight)
	return s.leave
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight--
}

// Requests is the number of token requests that have arrived, whatever became
// of them.
func (s *Server) Requests() int { return s.RequestsTo(s.dialect.path) }

// RequestsTo is the number of requests that have arrived at another address,
// such as AuthorizePath.
func (s *Server) RequestsTo(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[path]
}

// Peak is the largest number of token requests that were in flight at once.
func (s *Server) Peak() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peak
}
