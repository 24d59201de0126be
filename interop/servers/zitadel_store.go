package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// zitadelStore is the store of the library's example, which decides what becomes
// of refresh tokens. Ours are the clients, the lives of access tokens, and that
// nobody has to log in.
type zitadelStore struct {
	*storage.Storage
	ttl     time.Duration
	clients map[string]client

	mu     sync.Mutex
	issued map[string]issued // access tokens, by ID
}

// issued is what the example's store keeps to itself, or not at all.
type issued struct {
	clientID string
	expires  time.Time
}

func newZitadelStore(cfg config, clients map[string]client) *zitadelStore {
	known := make(map[string]*storage.Client, len(clients))
	for id, c := range clients {
		known[id] = storage.WebClient(id, c.secret, redirectURI)
	}
	return &zitadelStore{
		Storage: storage.NewStorageWithClients(users{}, known),
		ttl:     cfg.ttl,
		clients: clients,
		issued:  make(map[string]issued),
	}
}

// users are all that anybody asks for, clients too; they have no password.
type users struct{}

func (users) GetUserByID(id string) *storage.User         { return &storage.User{ID: id, Username: id} }
func (users) GetUserByUsername(name string) *storage.User { return users{}.GetUserByID(name) }
func (users) ExampleClientID() string                     { return "" }

func (s *zitadelStore) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	if _, err := s.Storage.GetClientByClientID(ctx, id); err != nil {
		return nil, err
	}
	return zitadelClient{storage.WebClient(id, s.clients[id].secret, redirectURI), s.clients[id]}, nil
}

func (s *zitadelStore) ClientCredentials(ctx context.Context, id, secret string) (op.Client, error) {
	if secret == "" {
		return nil, errors.New("no secret")
	}
	if err := s.AuthorizeClientIDSecret(ctx, id, secret); err != nil {
		return nil, err
	}
	return s.GetClientByClientID(ctx, id)
}

// ClientCredentialsTokenRequest narrows the scopes in silence, as the library
// does at /authorize.
func (*zitadelStore) ClientCredentialsTokenRequest(_ context.Context, id string, asked []string) (op.TokenRequest, error) {
	return &oidc.JWTTokenRequest{Subject: id, Audience: []string{id}, Scopes: granted(asked)}, nil
}

func granted(asked []string) []string {
	return slices.DeleteFunc(slices.Clone(asked), func(scope string) bool { return !slices.Contains(scopes, scope) })
}

// CreateAuthRequest logs the user in at once.
func (s *zitadelStore) CreateAuthRequest(ctx context.Context, asked *oidc.AuthRequest, userID string) (op.AuthRequest, error) {
	request, err := s.Storage.CreateAuthRequest(ctx, asked, userID)
	if err != nil {
		return nil, err
	}
	return request, s.CheckUsernamePassword(user, "", request.GetID())
}

// StoreDeviceAuthorization has the user agree at once.
func (s *zitadelStore) StoreDeviceAuthorization(ctx context.Context, clientID, deviceCode, userCode string, expires time.Time, asked []string) error {
	if err := s.Storage.StoreDeviceAuthorization(ctx, clientID, deviceCode, userCode, expires, asked); err != nil {
		return err
	}
	return s.CompleteDeviceAuthorization(ctx, userCode, user)
}

func (s *zitadelStore) CreateAccessToken(ctx context.Context, request op.TokenRequest) (string, time.Time, error) {
	id, _, err := s.Storage.CreateAccessToken(ctx, asCode(request))
	if err != nil {
		return "", time.Time{}, err
	}
	return id, s.keep(id, request), nil
}

func (s *zitadelStore) CreateAccessAndRefreshTokens(ctx context.Context, request op.TokenRequest, current string) (string, string, time.Time, error) {
	id, refresh, _, err := s.Storage.CreateAccessAndRefreshTokens(ctx, asCode(request), current)
	if err != nil {
		return "", "", time.Time{}, err
	}
	return id, refresh, s.keep(id, request), nil
}

// asCode makes what the example's store would keep without a client or an
// audience look like a code's request.
func asCode(request op.TokenRequest) op.TokenRequest {
	switch request.(type) {
	case *storage.AuthRequest, *storage.RefreshTokenRequest:
		return request
	}
	return &storage.AuthRequest{
		ApplicationID: clientOf(request),
		UserID:        request.GetSubject(),
		Scopes:        request.GetScopes(),
	}
}

// clientOf is the subject where a client asks for itself.
func clientOf(request op.TokenRequest) string {
	if r, ok := request.(interface{ GetClientID() string }); ok {
		return r.GetClientID()
	}
	return request.GetSubject()
}

func (s *zitadelStore) keep(id string, request op.TokenRequest) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	expires := time.Now().Add(s.ttl)
	s.issued[id] = issued{clientOf(request), expires}
	return expires
}

// SetIntrospectionFromToken asks the example's store as the client that the
// token was issued to: that one lets nobody else introspect it.
func (s *zitadelStore) SetIntrospectionFromToken(ctx context.Context, in *oidc.IntrospectionResponse, id, subject, asking string) error {
	s.mu.Lock()
	token, known := s.issued[id]
	s.mu.Unlock()
	if !known || !time.Now().Before(token.expires) {
		return errors.New("no such token any more")
	}
	if asking != upstream.id {
		return errors.New("may not introspect")
	}
	if err := s.Storage.SetIntrospectionFromToken(ctx, in, id, subject, token.clientID); err != nil {
		return err
	}
	in.Expiration = oidc.FromTime(token.expires)
	in.Subject = subject
	return nil
}

// GetKeyByIDAndClientID has the keys of private_key_jwt and of jwt-bearer, in
// which the client is issuer and subject.
func (s *zitadelStore) GetKeyByIDAndClientID(_ context.Context, keyID, clientID string) (*jose.JSONWebKey, error) {
	if key := s.clients[clientID].key; key != nil && key.KeyID == keyID {
		return key, nil
	}
	return nil, errors.New("no such key")
}

// GetRefreshTokenInfo goes by a way on which the example's store has its lock.
func (s *zitadelStore) GetRefreshTokenInfo(ctx context.Context, _, token string) (userID, tokenID string, err error) {
	request, err := s.TokenRequestByRefreshToken(ctx, token)
	if err != nil {
		return "", "", op.ErrInvalidRefreshToken
	}
	return request.GetSubject(), token, nil
}

func (*zitadelStore) ValidateJWTProfileScopes(_ context.Context, _ string, asked []string) ([]string, error) {
	return granted(asked), nil
}

// ValidateTokenExchangeRequest lets everybody exchange everything, for an
// access token where nothing else is asked for.
func (*zitadelStore) ValidateTokenExchangeRequest(_ context.Context, request op.TokenExchangeRequest) error {
	if request.GetRequestedTokenType() == "" {
		request.SetRequestedTokenType(oidc.AccessTokenType)
	}
	request.SetCurrentScopes(granted(request.GetScopes()))
	return nil
}

// VerifyExchangeSubjectToken takes what a client signed for this server.
func (s *zitadelStore) VerifyExchangeSubjectToken(ctx context.Context, token string, kind oidc.TokenType) (string, string, map[string]any, error) {
	if kind != oidc.JWTTokenType {
		return "", "", nil, errors.New("not a JWT of others")
	}
	verifier := op.NewJWTProfileVerifier(s, op.IssuerFromContext(ctx), time.Hour, time.Second)
	claims, err := op.VerifyJWTAssertion(ctx, token, verifier)
	if err != nil {
		return "", "", nil, err
	}
	return token, claims.Subject, nil, nil
}

// VerifyExchangeActorToken takes the same.
func (s *zitadelStore) VerifyExchangeActorToken(ctx context.Context, token string, kind oidc.TokenType) (string, string, map[string]any, error) {
	return s.VerifyExchangeSubjectToken(ctx, token, kind)
}

var (
	_ op.Storage                    = (*zitadelStore)(nil)
	_ op.ClientCredentialsStorage   = (*zitadelStore)(nil)
	_ op.TokenExchangeStorage       = (*zitadelStore)(nil)
	_ op.DeviceAuthorizationStorage = (*zitadelStore)(nil)
	_ op.CanSetUserinfoFromRequest  = (*zitadelStore)(nil)

	_ op.TokenExchangeTokensVerifierStorage = (*zitadelStore)(nil)
)
