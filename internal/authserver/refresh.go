package authserver

import (
	"slices"
	"strings"
	"time"
)

// refresh is RFC 6749 §6.
func (s *Server) refresh(a asker) (given, *refusal) {
	text := a.Form.Get("refresh_token")
	if text == "" {
		return given{}, refuse("invalid_request", "refresh_token is missing")
	}
	g, no := s.tokens.refresh(text, a.Form.Get("scope"), a.terms)
	if no == nil && g.refresh == "" && s.dialect.sameRefresh {
		g.refresh = text
	}
	return g, no
}

// refresh spends a refresh token, as far as the config has it. scope may narrow
// what was granted.
func (t *tokens) refresh(text, scope string, on terms) (given, *refusal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	r := t.refreshTokens[text]
	if r == nil || r.chain.ended != nil {
		return given{}, refuse("invalid_grant", "the refresh token is unknown or was ended")
	}
	if r.successor != nil && !t.forgives(r, now) {
		if t.config.ReuseDetection {
			r.chain.end(ErrReused, now)
		}
		return given{}, refuse("invalid_grant", "the refresh token was used before")
	}
	if bound := r.chain.bound; bound.key != "" && bound.key != on.key || bound.cert != "" && bound.cert != on.cert {
		// RFC 9449 §5, RFC 8705 §4
		return given{}, refuse("invalid_grant", "the refresh token is bound to another key or certificate")
	}
	granted := r.chain.rights
	if wanted := strings.Fields(scope); len(wanted) > 0 {
		for _, scope := range wanted {
			if !slices.Contains(strings.Fields(granted.scope), scope) {
				return given{}, refuse("invalid_scope", "the login did not grant that scope")
			}
		}
		granted.scope = strings.Join(wanted, " ")
	}
	g := given{left: t.config.Lifetime, fresh: true, user: true}
	switch {
	case r.successor != nil:
		g.refresh = r.successor.text
	case t.config.Rotate == RotateAlways:
		g.refresh = t.rotate(r, now).text
	}
	if t.config.RefreshEndsAccess {
		r.chain.endAccess(now)
	}
	g.token = t.addTo(r.chain, granted, on, now)
	return g, nil
}

// forgives tells whether a spent refresh token is taken once more: its answer
// may have been lost, and if its successor was used, it was not.
func (t *tokens) forgives(r *refreshToken, now time.Time) bool {
	return t.config.Grace > 0 && now.Sub(r.spentAt) <= t.config.Grace && r.successor.successor == nil
}
