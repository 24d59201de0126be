package caddymodule

import (
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// TestJournal: a line for each change of state, and none for what goes on as
// it did.
func TestJournal(t *testing.T) {
	good := token.Attempt{Snapshot: token.Snapshot{Held: true, Lifetime: time.Hour}, Bearer: true}
	failed := func(held bool, n int, f oauth.Failure) token.Attempt {
		return token.Attempt{Snapshot: token.Snapshot{Held: held, Failures: n, Failure: &f}}
	}
	down := oauth.Failure{Kind: oauth.Unreachable, Status: 503}
	gone := oauth.Failure{Kind: oauth.Unreachable}
	refused := oauth.Failure{Kind: oauth.Refused, Status: 401, Code: "invalid_client"}
	assumed, narrowed, narrower, odd := good, good, good, good
	assumed.Assumed, odd.Bearer = true, false
	narrowed.Missing, narrower.Missing = []string{"write"}, []string{"read", "write"}

	for name, tc := range map[string]struct {
		attempts []token.Attempt
		want     []string // levels and the beginnings of messages
	}{
		"renewals":             {[]token.Attempt{good, good, good}, []string{"info access token obtained"}},
		"down at the start":    {[]token.Attempt{failed(false, 1, down), failed(false, 2, down), failed(false, 3, down), good}, []string{"warn token request failed and no token is held yet", "error token request failed and no token is held;", "info access token obtained"}},
		"refused":              {[]token.Attempt{failed(false, 1, refused), failed(false, 2, refused)}, []string{"error token request failed and no token is held;"}},
		"an outage":            {[]token.Attempt{good, failed(true, 1, down), failed(true, 2, down), failed(false, 3, down), good, good}, []string{"info access token obtained", "warn token request failed; the token held", "info access token obtained again"}},
		"another failure":      {[]token.Attempt{good, failed(true, 1, down), failed(true, 2, gone), failed(true, 3, refused)}, []string{"info access token obtained", "warn token request failed; the token held", "warn token request failed; the token held", "warn token request failed; the token held"}},
		"lifetime assumed":     {[]token.Attempt{assumed, assumed, good, assumed}, []string{"info access token obtained", "warn the server gave no usable lifetime", "warn the server gave no usable lifetime"}},
		"scopes narrowed":      {[]token.Attempt{narrowed, narrowed, narrower}, []string{"info access token obtained", "warn the server granted fewer scopes", "warn the server granted fewer scopes"}},
		"token of odd letters": {[]token.Attempt{odd, odd}, []string{"info access token obtained", "warn the token holds characters"}},
	} {
		t.Run(name, func(t *testing.T) {
			core, logs := observer.New(zap.InfoLevel)
			j := &journal{name: "crm"}
			j.logger.Store(zap.New(core))
			for _, a := range tc.attempts {
				j.attempted(a)
			}
			var got []string
			for _, entry := range logs.All() {
				got = append(got, entry.Level.String()+" "+entry.Message)
			}
			if !slices.EqualFunc(got, tc.want, func(line, begin string) bool { return len(line) >= len(begin) && line[:len(begin)] == begin }) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
