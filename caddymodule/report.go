package caddymodule

import (
	"slices"
	"strings"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/advice"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// overview is what the status page, the admin API and the command status tell.
// Its JSON is a contract: docs/status.schema.json. It holds no token, no secret,
// no value from a request, and of a server's words the error code alone.
type overview struct {
	// Ready tells whether every credential that counts holds a valid token.
	Ready bool `json:"ready"`
	// Time is this process's clock.
	Time        time.Time `json:"time"`
	Version     string    `json:"version"`
	Credentials []*report `json:"credentials"` // by name
}

// report is what is told of one credential.
type report struct {
	Name       string `json:"name"`
	Grant      string `json:"grant"`
	ClientAuth string `json:"client_auth"`
	// Endpoint is the token endpoint or issuer as configured, without its query;
	// "" where only a placeholder tells.
	Endpoint string `json:"endpoint,omitempty"`
	// Used tells whether a route of the config uses it or its token is written to
	// a file, Counts whether Ready above depends on it.
	Used   bool `json:"used"`
	Counts bool `json:"counts"`

	State state     `json:"state"`
	Since time.Time `json:"since"`
	// Ready tells whether a valid token is held; of a template, whether any is.
	Ready bool `json:"ready"`
	// Summary says the state in a sentence, Advice what is wrong and what to do
	// where something is.
	Summary string         `json:"summary"`
	Advice  *advice.Advice `json:"advice,omitempty"`

	// Token is the newest token, absent before the first, and for a template.
	Token *tokenReport `json:"token,omitempty"`
	// Requesting tells whether a token request is under way, NextRequest when
	// the next one is due.
	Requesting  bool      `json:"requesting"`
	NextRequest time.Time `json:"next_request,omitzero"`
	LastSuccess time.Time `json:"last_success,omitzero"`
	// Failures counts those since the last success.
	Failures     int            `json:"failures"`
	FailingSince time.Time      `json:"failing_since,omitzero"`
	Failure      *failureReport `json:"failure,omitempty"`

	// TokenFile is the file with the token, absent where there is none.
	TokenFile    *tokenFileReport    `json:"token_file,omitempty"`
	Shared       bool                `json:"shared"`
	RefreshToken *refreshTokenReport `json:"refresh_token,omitempty"`
	Template     *templateReport     `json:"template,omitempty"`
	LastHour     *hour               `json:"last_hour"`
}

// tokenReport is a token without the token.
type tokenReport struct {
	Valid bool `json:"valid"`
	// Sent is when its request was sent, Expires when it stops being used, Ends
	// when the server says that it ends, RefreshAt when it was planned to be
	// renewed.
	Sent      time.Time `json:"sent"`
	RefreshAt time.Time `json:"refresh_at"`
	Expires   time.Time `json:"expires"`
	Ends      time.Time `json:"ends"`
	// Lifetime is in seconds; Assumed where the server gave none.
	Lifetime float64 `json:"lifetime_seconds"`
	Assumed  bool    `json:"lifetime_assumed"`
	// Rejected tells that an upstream refuses it.
	Rejected bool `json:"rejected"`
	// Scopes are those that the server says it granted, absent where it says
	// nothing; Missing were asked for and not granted.
	Scopes  []string `json:"scopes,omitempty"`
	Missing []string `json:"missing_scopes,omitempty"`
}

type failureReport struct {
	Kind    string `json:"kind"` // unreachable, refused or malformed
	Status  int    `json:"status,omitempty"`
	Code    string `json:"code,omitempty"`
	Message string `json:"message"`
}

type refreshTokenReport struct {
	Usable bool `json:"usable"`
}

type templateReport struct {
	Tokens    int `json:"tokens"`
	MaxTokens int `json:"max_tokens"`
	InFlight  int `json:"in_flight"`
}

// report tells how a credential stands.
func (e *entry) report() *report {
	r := &report{
		Name: e.name, Grant: e.grant, ClientAuth: e.facts.Method, Endpoint: serverOf(&e.facts),
		Used: e.used(), Shared: e.share != nil, LastHour: e.history.hour(), FailingSince: e.journal.failingSince(),
	}
	look := e.standing.look()
	if e.tokens != nil {
		e.reportTable(r, e.tokens.Snapshot())
	} else {
		e.reportSource(r, e.source.Snapshot())
	}
	r.Since = moment(e.standing.seen(r.State, look))
	r.FailingSince = moment(r.FailingSince)
	return r
}

func (e *entry) reportSource(r *report, s token.Snapshot) {
	var chain *token.ChainState
	if e.chain != nil {
		if chain = e.chain.State(); chain != nil {
			r.RefreshToken = &refreshTokenReport{chain.Usable}
		}
	}
	r.State, r.Ready = stateOf(s, chain), s.Held
	r.Requesting, r.NextRequest, r.LastSuccess = s.Requesting, moment(s.Next), moment(s.Obtained)
	if !s.Sent.IsZero() {
		r.Token = &tokenReport{
			Valid: s.Held, Sent: moment(s.Sent), RefreshAt: moment(s.Due), Expires: moment(s.Stops), Ends: moment(s.Ends),
			Lifetime: s.Lifetime.Seconds(), Assumed: s.Assumed, Rejected: s.Suspect, Scopes: s.Scopes, Missing: s.Missing,
		}
	}
	e.reportFailure(r, s.Failure, s.Failures)
	if r.State == stateRejected {
		a := advice.Rejected(e.facts)
		r.Advice = &a
	}
	var do string
	if r.TokenFile, do = e.files.report(); do != "" && r.Advice == nil {
		r.Advice = &advice.Advice{Wrong: r.TokenFile.wrong(), Do: do}
	}
	r.Summary = summary(r, time.Now())
}

func (e *entry) reportTable(r *report, s token.TableSnapshot) {
	r.State, r.Ready = stateOfTable(s), s.Tokens > 0 && s.Failure == nil
	r.Requesting, r.NextRequest, r.LastSuccess = s.InFlight > 0, moment(s.Next), moment(s.Obtained)
	r.Template = &templateReport{Tokens: s.Tokens, MaxTokens: e.maxTokens, InFlight: s.InFlight}
	e.reportFailure(r, s.Failure, s.Failures)
	r.Summary = summary(r, time.Now())
}

func (e *entry) reportFailure(r *report, f *oauth.Failure, failures int) {
	r.Failures = failures
	if f == nil {
		r.FailingSince = time.Time{}
		return
	}
	r.Failure = &failureReport{Kind: f.Kind.String(), Status: f.Status, Code: f.Code, Message: f.Error()}
	a := advice.For(f, e.facts)
	r.Advice = &a
}

// moment is a time as it is told: in UTC, to the millisecond.
func moment(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Round(time.Millisecond)
}

// newOverview tells of credentials, of which those count that counts says.
func newOverview(entries []*entry, counts func(*entry) bool) *overview {
	o := &overview{Ready: true, Time: moment(time.Now()), Version: version(), Credentials: make([]*report, 0, len(entries))}
	for _, e := range entries {
		r := e.report()
		r.Counts = counts(e)
		o.Ready = o.Ready && (r.Ready || !r.Counts)
		o.Credentials = append(o.Credentials, r)
	}
	slices.SortFunc(o.Credentials, func(a, b *report) int { return strings.Compare(a.Name, b.Name) })
	return o
}

// countsByItself tells whether a credential that nobody named has to be ready: a
// template has no token before a request comes.
func countsByItself(e *entry) bool { return e.tokens == nil && e.used() }
