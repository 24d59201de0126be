package main

import (
	"context"
	"crypto/subtle"
	"log"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-oauth2/oauth2/v4"
	"github.com/go-oauth2/oauth2/v4/errors"
	"github.com/go-oauth2/oauth2/v4/manage"
	"github.com/go-oauth2/oauth2/v4/models"
	"github.com/go-oauth2/oauth2/v4/server"
	"github.com/go-oauth2/oauth2/v4/store"
)

// newGoOAuth2 has client_credentials, authorization_code with PKCE, and
// refresh_token with rotation; no metadata, no revocation, and no introspection:
// /introspect is ours.
func newGoOAuth2(cfg config) (library, error) {
	clients := clientsByID(nil) // private_key_jwt is unknown to it
	registered := store.NewClientStore()
	for _, c := range clients {
		if err := registered.Set(c.id, &models.Client{
			ID:     c.id,
			Secret: c.secret,
			Domain: redirectURI,
			Public: c.method == none,
		}); err != nil {
			return library{}, err
		}
	}
	tokens, err := store.NewMemoryTokenStore()
	if err != nil {
		return library{}, err
	}
	m := manage.NewDefaultManager()
	m.MapTokenStorage(tokens)
	m.MapClientStorage(registered)
	m.SetClientTokenCfg(&manage.Config{AccessTokenExp: cfg.ttl})
	m.SetAuthorizeCodeTokenCfg(&manage.Config{
		AccessTokenExp:    cfg.ttl,
		RefreshTokenExp:   24 * time.Hour,
		IsGenerateRefresh: true,
	})
	// its own wants the same port, too
	m.SetValidateURIHandler(func(base, redirect string) error {
		b, err := url.Parse(base)
		if err != nil {
			return err
		}
		r, err := url.Parse(redirect)
		if err != nil || r.Scheme != b.Scheme || r.Hostname() != b.Hostname() || r.Path != b.Path {
			return errors.ErrInvalidRedirectURI
		}
		return nil
	})

	s := server.NewDefaultServer(m)
	s.SetClientInfoHandler(func(r *http.Request) (string, string, error) {
		if r.Header.Get("Authorization") != "" {
			return server.ClientBasicHandler(r)
		}
		return server.ClientFormHandler(r)
	})
	s.SetClientScopeHandler(func(request *oauth2.TokenGenerateRequest) (bool, error) {
		for scope := range strings.FieldsSeq(request.Scope) {
			if !slices.Contains(scopes, scope) {
				return false, nil
			}
		}
		return true, nil
	})
	s.SetUserAuthorizationHandler(func(http.ResponseWriter, *http.Request) (string, error) {
		return user, nil
	})

	mux := http.NewServeMux()
	mux.HandleFunc("/authorize", func(w http.ResponseWriter, r *http.Request) {
		if err := s.HandleAuthorizeRequest(w, r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		if err := s.HandleTokenRequest(w, r); err != nil {
			log.Printf("go-oauth2: /token: %v", err)
		}
	})
	mux.HandleFunc("POST /introspect", func(w http.ResponseWriter, r *http.Request) {
		id, secret, _ := r.BasicAuth()
		if id != upstream.id || subtle.ConstantTimeCompare([]byte(secret), []byte(upstream.secret)) == 0 {
			http.Error(w, "who asks?", http.StatusUnauthorized)
			return
		}
		writeJSON(w, introspectGoOAuth2(r.Context(), m, r.FormValue("token")))
	})
	return library{
		Handler:  mux,
		clients:  clients,
		scope:    "read write",
		rawBasic: true,
	}, nil
}

// introspectGoOAuth2 answers as RFC 7662 section 2.2 has it.
func introspectGoOAuth2(ctx context.Context, m *manage.Manager, token string) map[string]any {
	found, err := m.LoadAccessToken(ctx, token)
	if err != nil {
		return map[string]any{"active": false}
	}
	return map[string]any{
		"active":    true,
		"client_id": found.GetClientID(),
		"scope":     found.GetScope(),
		"sub":       found.GetUserID(),
		"exp":       found.GetAccessCreateAt().Add(found.GetAccessExpiresIn()).Unix(),
	}
}
