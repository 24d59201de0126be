package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	josev3 "github.com/go-jose/go-jose/v3"
	"github.com/go-jose/go-jose/v4"
	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/storage"
)

// user is whom /authorize takes everybody for.
const user = "resource-owner"

// newFosite has client_credentials, authorization_code with PKCE, refresh_token
// with rotation and the detection of reuse, and jwt-bearer; no metadata.
func newFosite(cfg config) (library, error) {
	secret := make([]byte, 32)
	rand.Read(secret)
	c := &fosite.Config{
		AccessTokenLifespan:                 cfg.ttl,
		TokenURL:                            cfg.issuer + "/token",
		GlobalSecret:                        secret,
		ScopeStrategy:                       fosite.ExactScopeStrategy,
		EnforcePKCEForPublicClients:         true,
		GrantTypeJWTBearerCanSkipClientAuth: true,
		HashCost:                            4, // bcrypt's least: each request compares a secret
	}
	// otherwise set by the first request that asks, without a lock
	c.ClientSecretsHasher = &fosite.BCrypt{Config: c}
	c.AudienceMatchingStrategy = fosite.DefaultAudienceMatchingStrategy
	clients := clientsByID(cfg.keys)
	store, err := newFositeStore(c, clients)
	if err != nil {
		return library{}, err
	}
	f := fositeServer{compose.Compose(c, store, compose.NewOAuth2HMACStrategy(c),
		compose.OAuth2AuthorizeExplicitFactory,
		compose.OAuth2ClientCredentialsGrantFactory,
		compose.OAuth2RefreshTokenGrantFactory,
		compose.RFC7523AssertionGrantFactory,
		compose.OAuth2TokenIntrospectionFactory,
		compose.OAuth2TokenRevocationFactory,
		compose.OAuth2PKCEFactory,
	)}
	mux := http.NewServeMux()
	mux.HandleFunc("/authorize", f.authorize)
	mux.HandleFunc("/token", f.token)
	mux.HandleFunc("/introspect", f.introspect)
	mux.HandleFunc("/revoke", f.revoke)
	return library{
		Handler: mux,
		clients: clients,
		scope:   "read write offline_access",
		revoked: store.revoked,
	}, nil
}

// fositeServer has the endpoints, which fosite leaves to its users.
type fositeServer struct{ fosite.OAuth2Provider }

func (f fositeServer) authorize(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	request, err := f.NewAuthorizeRequest(ctx, r)
	if err != nil {
		f.WriteAuthorizeError(ctx, w, request, err)
		return
	}
	for _, scope := range request.GetRequestedScopes() {
		request.GrantScope(scope)
	}
	for _, audience := range request.GetRequestedAudience() {
		request.GrantAudience(audience)
	}
	response, err := f.NewAuthorizeResponse(ctx, request, &fosite.DefaultSession{Subject: user})
	if err != nil {
		f.WriteAuthorizeError(ctx, w, request, err)
		return
	}
	f.WriteAuthorizeResponse(ctx, w, request, response)
}

func (f fositeServer) token(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	session := &fosite.DefaultSession{}
	request, err := f.NewAccessRequest(ctx, r, session)
	if err != nil {
		f.WriteAccessError(ctx, w, request, err)
		return
	}
	if request.GetGrantTypes().ExactOne("client_credentials") {
		session.Subject = request.GetClient().GetID()
		for _, scope := range request.GetRequestedScopes() {
			request.GrantScope(scope)
		}
		for _, audience := range request.GetRequestedAudience() {
			request.GrantAudience(audience)
		}
	}
	response, err := f.NewAccessResponse(ctx, request)
	if err != nil {
		f.WriteAccessError(ctx, w, request, err)
		return
	}
	f.WriteAccessResponse(ctx, w, request, response)
}

func (f fositeServer) introspect(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	response, err := f.NewIntrospectionRequest(ctx, r, &fosite.DefaultSession{})
	if err != nil {
		f.WriteIntrospectionError(ctx, w, err)
		return
	}
	f.WriteIntrospectionResponse(ctx, w, response)
}

func (f fositeServer) revoke(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	f.WriteRevocationResponse(ctx, w, f.NewRevocationRequest(ctx, r))
}

// fositeStore is fosite's own store in memory. That one touches its map of
// refresh tokens without the lock when it revokes, which under load would end
// the process, so here a lock is put around it.
type fositeStore struct {
	*storage.MemoryStore

	mu     sync.Mutex
	reused map[string]bool // chains in which a spent token came again, by the ID of the request that began them
}

func newFositeStore(c *fosite.Config, clients map[string]client) (*fositeStore, error) {
	s := &fositeStore{MemoryStore: storage.NewMemoryStore(), reused: make(map[string]bool)}
	for _, cl := range clients {
		registered := &fosite.DefaultOpenIDConnectClient{
			DefaultClient: &fosite.DefaultClient{
				ID:            cl.id,
				RedirectURIs:  []string{redirectURI},
				GrantTypes:    []string{"client_credentials", "authorization_code", "refresh_token"},
				ResponseTypes: []string{"code"},
				Scopes:        append([]string{"offline_access"}, scopes...),
				Audience:      []string{"https://api.example.com"},
				Public:        cl.method == none,
			},
			TokenEndpointAuthMethod: cl.method,
		}
		if cl.secret != "" {
			var err error
			if registered.Secret, err = c.ClientSecretsHasher.Hash(context.Background(), []byte(cl.secret)); err != nil {
				return nil, err
			}
		}
		if cl.key != nil {
			key, err := fositeKey(cl.key)
			if err != nil {
				return nil, err
			}
			registered.JSONWebKeys = &josev3.JSONWebKeySet{Keys: []josev3.JSONWebKey{*key}}
			registered.TokenEndpointAuthSigningAlgorithm = key.Algorithm
			s.IssuerPublicKeys[cl.id] = storage.IssuerPublicKeys{
				Issuer: cl.id,
				KeysBySub: map[string]storage.SubjectPublicKeys{cl.id: {
					Subject: cl.id,
					Keys:    map[string]storage.PublicKeyScopes{key.KeyID: {Key: key, Scopes: scopes}},
				}},
			}
		}
		s.Clients[cl.id] = registered
	}
	return s, nil
}

// fositeKey is the key in the types of the jose that fosite uses.
func fositeKey(key *jose.JSONWebKey) (*josev3.JSONWebKey, error) {
	text, err := key.MarshalJSON()
	if err != nil {
		return nil, err
	}
	var same josev3.JSONWebKey
	if err := json.Unmarshal(text, &same); err != nil {
		return nil, fmt.Errorf("key %q: %w", key.KeyID, err)
	}
	same.Use = "sig" // fosite looks at no others
	return &same, nil
}

func (s *fositeStore) revoked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.reused)
}

func (s *fositeStore) GetRefreshTokenSession(ctx context.Context, signature string, session fosite.Session) (fosite.Requester, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.MemoryStore.GetRefreshTokenSession(ctx, signature, session)
}

func (s *fositeStore) CreateRefreshTokenSession(ctx context.Context, signature, accessSignature string, request fosite.Requester) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.MemoryStore.CreateRefreshTokenSession(ctx, signature, accessSignature, request)
}

// DeleteRefreshTokenSession is called for a spent token that came again, before
// its chain is revoked, and never otherwise.
func (s *fositeStore) DeleteRefreshTokenSession(ctx context.Context, signature string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if spent, known := s.RefreshTokens[signature]; known {
		s.reused[spent.GetID()] = true
	}
	return s.MemoryStore.DeleteRefreshTokenSession(ctx, signature)
}

func (s *fositeStore) RevokeRefreshToken(ctx context.Context, requestID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.MemoryStore.RevokeRefreshToken(ctx, requestID)
}

func (s *fositeStore) RotateRefreshToken(ctx context.Context, requestID, signature string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.MemoryStore.RotateRefreshToken(ctx, requestID, signature)
}
