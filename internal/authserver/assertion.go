package authserver

import (
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// assertionType is the only one there is (RFC 7523 §2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// once remembers what may come one time.
type once struct {
	mu   sync.Mutex
	seen shelf[struct{}]
}

func newOnce() once { return once{seen: newShelf[struct{}]()} }

// first tells whether an id comes for the first time; it is remembered until
// then.
func (o *once) first(id string, until, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, seen := o.seen.get(id, now); seen {
		return false
	}
	o.seen.put(id, struct{}{}, until, now)
	return true
}

// byAssertion checks a client that proves itself with a JWT (RFC 7523 §3).
func (s *Server) byAssertion(r Request, text string) (method string, no *refusal) {
	fail := func(why string) (string, *refusal) {
		return "", refuse("invalid_client", "the client assertion is not taken: "+why)
	}
	if r.Form.Get("client_assertion_type") != assertionType {
		return fail("client_assertion_type is missing or unknown")
	}
	peeked, err := peekJWT(text, slices.Concat(asymmetric, symmetric))
	if err != nil {
		return fail(err.Error())
	}
	if id := r.Form.Get("client_id"); id != "" && id != s.config.ClientID {
		return fail("client_id is another")
	}
	if peeked.Issuer != s.config.ClientID && len(s.config.FederatedKeys.Keys) > 0 {
		if err := s.federated(text); err != "" {
			return fail(err)
		}
		return PrivateKeyJWT, nil
	}
	method, keys := PrivateKeyJWT, s.config.ClientKeys.Keys
	if alg := jose.SignatureAlgorithm(peeked.header.Algorithm); slices.Contains(symmetric, alg) {
		method, keys = SecretJWT, []jose.JSONWebKey{secretKey(s.config.ClientSecret, alg)}
		if s.config.ClientSecret == "" {
			keys = nil
		}
	}
	if !s.accepts(method) {
		return fail(method + " is not accepted here")
	}
	c, err := readJWT(text, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(peeked.header.Algorithm)}, keys)
	if err != nil {
		return fail(err.Error())
	}
	now := time.Now()
	err = c.judge(s.audiences(r), now, s.config.Late)
	switch {
	case c.Issuer != s.config.ClientID || c.Subject != s.config.ClientID || s.config.ClientID == "":
		return fail("its iss and sub are not the client_id")
	case err != nil:
		return fail(err.Error())
	case c.ID == "":
		return fail("it has no jti")
	case !s.assertions.first(c.ID, c.Expiry.Time().Add(s.config.Late), now):
		return fail("its jti was used before")
	}
	return method, nil
}

// federated checks an assertion that another issuer made, such as a cluster for
// a service account. It says what is wrong with it. It may come again: it is
// a file that lives for an hour.
func (s *Server) federated(text string) (wrong string) {
	c, err := readJWT(text, asymmetric, s.config.FederatedKeys.Keys)
	if err != nil {
		return err.Error()
	}
	if c.Issuer != s.config.FederatedIssuer || c.Subject != s.config.FederatedSubject {
		return "its iss and sub are not those of the federation"
	}
	if err := c.judge([]string{s.config.FederatedAudience}, time.Now(), s.config.Late); err != nil {
		return err.Error()
	}
	return ""
}

// audiences are what an assertion may call this server.
func (s *Server) audiences(r Request) []string {
	if len(s.config.AssertionAudiences) > 0 {
		return s.config.AssertionAudiences
	}
	return []string{s.issuer(r), base(r) + s.dialect.path}
}
