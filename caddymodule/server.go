package caddymodule

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// metadataAge is when metadata is fetched anew: RFC 8414 sets no time, and
// endpoints and keys change rarely.
const metadataAge = time.Hour

// metadataTimeout ends a fetch that no token request waits for.
const metadataTimeout = 10 * time.Second

// server is what a credential knows of its authorization server from the
// server's metadata. Once it is known a token request never waits for it: the
// last good one serves while a newer one is fetched, or cannot be.
type server struct {
	mu       sync.Mutex
	issuer   string
	metadata *oauth.Metadata
	next     time.Time // when it is fetched anew
	fetching bool
}

// fetch reads an issuer's metadata.
type fetch func(ctx context.Context) (*oauth.Metadata, error)

// get returns the metadata of an issuer. Only the first one is waited for.
func (s *server) get(ctx context.Context, issuer string, from fetch) (*oauth.Metadata, error) {
	s.mu.Lock()
	if s.issuer != issuer { // it is a placeholder, and another server now
		s.issuer, s.metadata, s.next = issuer, nil, time.Time{}
	}
	if m := s.metadata; m != nil {
		if !s.fetching && !time.Now().Before(s.next) {
			s.fetching = true
			go s.refetch(issuer, from) //nolint:gosec // it outlives the request, which does not wait for it
		}
		s.mu.Unlock()
		return m, nil
	}
	s.mu.Unlock()
	m, err := from(ctx)
	if err != nil {
		return nil, err
	}
	s.set(issuer, m)
	return m, nil
}

func (s *server) refetch(issuer string, from fetch) {
	ctx, cancel := context.WithTimeout(context.Background(), metadataTimeout)
	defer cancel()
	m, err := from(ctx)
	if err == nil {
		s.set(issuer, m)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.next = time.Now().Add(metadataAge / 60)
	}
	s.fetching = false
}

func (s *server) set(issuer string, m *oauth.Metadata) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.issuer == issuer {
		s.metadata, s.next = m, time.Now().Add(metadataAge)
	}
}

// doubt has the metadata fetched anew, as after a failure at an endpoint that
// may have moved.
func (s *server) doubt(err *oauth.Failure) {
	moved := err.Status == 0 || err.Status == http.StatusNotFound || err.Status == http.StatusMethodNotAllowed || err.Status == http.StatusGone
	s.mu.Lock()
	defer s.mu.Unlock()
	if moved && s.metadata != nil {
		s.next = time.Time{}
	}
}

func (s *server) inherit(from *server) {
	from.mu.Lock()
	defer from.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issuer, s.metadata, s.next = from.issuer, from.metadata, from.next
}
