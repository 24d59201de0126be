package caddymodule

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/signing"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/store"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// Share has a credential's token shared, through Caddy's storage, by all
// instances that use the same storage: one of them asks for it, the others take
// it over, and it outlives a restart. No request ever waits for a lock.
//
// Their clocks may differ by a few seconds.
type Share struct {
	// OnStorageFailure is what is done while the storage fails or another
	// instance keeps the lock for longer than 5s: "solo" (the default) asks for a
	// token of this instance's own, "hold" asks for none, for servers where a new
	// token ends the one before it. A grant that spends refresh tokens always
	// holds.
	OnStorageFailure string `json:"on_storage_failure,omitempty"`
}

func (c *Credential) checkShare() error {
	if c.Share == nil {
		return nil
	}
	if c.template.is() {
		return optionErrorf("share", "is for a credential with a single token; this one has a token for each value that requests bring, and each instance asks for those that it needs")
	}
	return checkOneOf("share on_storage_failure", c.Share.OnStorageFailure, "solo", "hold")
}

// newShare is what an entry keeps of the sharing, nil for none.
func newShare(c *Credential) *token.Share {
	if c.Share == nil {
		return nil
	}
	return token.NewShare(c.policy(), c.Share.OnStorageFailure == "hold" || c.refreshing(), token.Slept)
}

// sharer finds where the token of one credential is shared.
type sharer struct {
	name  string
	share *token.Share
	store *store.Store
	makes *makings
}

// makings is what of a credential's configuration makes its tokens what they
// are: another scope is another token, another timeout is not.
type makings struct {
	options any
	jwtFile string // names the client
}

// newMakings has to be called before the guest modules are loaded.
func newMakings(c *Credential) (*makings, error) {
	m := Credential{
		Issuer: c.Issuer, TokenURL: c.TokenURL, GrantRaw: c.GrantRaw, ClientID: c.ClientID, ClientAuthRaw: c.ClientAuthRaw,
		Scopes: c.Scopes, RefreshScopes: c.RefreshScopes, Audience: c.Audience, Resource: c.Resource, Param: c.Param,
		Request: c.Request, Response: c.Response, DPoP: c.DPoP,
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	var options map[string]any
	if err := json.Unmarshal(raw, &options); err != nil {
		return nil, err
	}
	out := &makings{options: options}
	if auth, ok := options["client_auth"].(map[string]any); ok {
		out.jwtFile, _ = auth["file"].(string)
		delete(options, "client_auth") // how the client is proved makes no other token
	}
	if grant, ok := options["grant"].(map[string]any); ok {
		delete(grant, "refresh_token") // it is read once, and may be gone
	}
	return out, nil
}

// text is what of it tells one token from another, now.
func (m *makings) text(r *resolver) (string, error) {
	options, err := resolved(m.options, r)
	if err != nil {
		return "", err
	}
	parts := []any{options}
	if m.jwtFile != "" {
		jwt, err := r.secretFile(m.jwtFile)
		if err != nil {
			return "", err
		}
		parts = append(parts, bearerOf(trimNewline(jwt)))
	}
	raw, err := json.Marshal(parts)
	return string(raw), err
}

// lasting are the claims of a JWT that tell whose it is and what it is good for.
// It is replaced every hour, and the others with it.
var lasting = []string{"iss", "sub", "aud", "azp", "client_id", "scope", "scp", "act"}

// bearerOf is what a JWT tells of its bearer. Another text stands for itself.
func bearerOf(text string) any {
	known, err := signing.Unverified(text)
	if err != nil || known.Subject == "" {
		return text
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(text, ".")[1])
	var claims map[string]any
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		return text
	}
	maps.DeleteFunc(claims, func(name string, _ any) bool { return !slices.Contains(lasting, name) })
	return claims
}

// withoutTime has the placeholders of the clock stand for themselves: they tell
// no two tokens apart, and would have each stored at another place.
func withoutTime(text string) string {
	for _, name := range placeholders(text) {
		if strings.HasPrefix(name, "time.") {
			text = strings.ReplaceAll(text, "{"+name+"}", `\{`+name+`\}`)
		}
	}
	return text
}

// resolved is a value with its placeholders resolved.
func resolved(v any, r *resolver) (any, error) {
	switch v := v.(type) {
	case string:
		text, err := r.secret(withoutTime(v))
		if err != nil {
			return nil, err
		}
		return bearerOf(text), nil
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			var err error
			if out[i], err = resolved(e, r); err != nil {
				return nil, err
			}
		}
		return out, nil
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, e := range v {
			var err error
			if out[name], err = resolved(e, r); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
		return out, nil
	}
	return v, nil
}

// openShared implements token.OpenShared.
func (q *requester) openShared(ctx context.Context) (*token.Shared, error) {
	s, err := apart(ctx, q, func() (*token.Shared, error) {
		r := newResolver(nil)
		makes, err := q.sharer.makes.text(r)
		if err != nil {
			return nil, err
		}
		value := q.sharer.store.Value(store.PathFor(q.sharer.name, "access token", makes), q.sharer.name)
		turns := value
		if q.keeper != nil { // a refresh token is spent by one at a time, whatever scopes each asks for
			path, err := q.refreshPath(r)
			if err != nil {
				return nil, err
			}
			turns = q.sharer.store.Value(path, q.sharer.name)
		}
		s := &token.Shared{Store: shelf{stored{value, q.sharer.name}, turns}}
		if q.credential.bound() {
			b, err := q.ownBinding(r)
			if err != nil {
				return nil, err
			}
			s.Binding = b
		}
		return s, nil
	})
	return s, asFailure(err)
}

// commandWait is how long a command waits for a refresh that is under way.
const commandWait = 10 * time.Second

// withLock does what a running instance must not do at the same time: what is
// stored of a shared refresh token is written by one at a time. A lock that is
// not to be had is no reason to lose what a login brought.
func (q *requester) withLock(ctx context.Context, do func() error) error {
	if q.sharer != nil {
		if s, err := q.openShared(ctx); err == nil {
			wait, cancel := context.WithTimeout(ctx, commandWait)
			defer cancel()
			if unlock, err := s.Store.Lock(wait); err == nil {
				defer unlock()
			}
			// the access token there is of the login before: nobody takes it over
			defer func() { _ = s.Store.(shelf).Delete(context.WithoutCancel(ctx)) }()
		}
	}
	return do()
}

// shelf is where a shared token is stored.
type shelf struct {
	stored
	turns *store.Value // whose lock it is that is taken
}

// Load implements token.SharedStore.
func (s shelf) Load(ctx context.Context) ([]byte, error) { return s.stored.Load(ctx) }

// Lock implements token.SharedStore.
func (s shelf) Lock(ctx context.Context) (func(), error) {
	unlock, err := s.turns.Lock(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, err // it is another's: no failure of the storage
	}
	return unlock, s.count(err)
}

// Break implements token.SharedStore.
func (s shelf) Break(ctx context.Context) error { return s.count(s.turns.Break(ctx)) }

// Interface guards
var (
	_ token.SharedStore = shelf{}
	_ token.Bound       = (*binding)(nil)
	_ store.Locker      = certmagic.Storage(nil)
)
