package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/advice"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// journal writes one log line for each change of a credential's state, not for
// each attempt. It remembers the state through reloads; the logger is lent.
type journal struct {
	name   string
	facts  advice.Facts
	many   bool // a template: what is wrong with one value is not told
	logger atomic.Pointer[zap.Logger]

	mu      sync.Mutex
	failing string // the failure that was told, "" while all is well
	told    bool   // the first token was told
	since   time.Time
	notes   map[string]string // what was warned of, by subject
}

func newJournal(name string, c *Credential) *journal {
	return &journal{name: name, facts: c.facts(name), many: c.template.is()}
}

func (j *journal) log() *zap.Logger {
	l := j.logger.Load()
	if l == nil {
		return zap.NewNop()
	}
	return l.With(zap.String("credential", j.name))
}

func (j *journal) attempted(a token.Attempt) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if f := a.Failure; j.many && f != nil && f.Kind == oauth.Refused && f.Status != 0 && !aboutClient(f) {
		// clients choose the values, and could fill the log
		j.log().Debug("token request for one value refused", zap.NamedError("cause", f))
		return
	}
	if a.Failure != nil {
		j.failed(a)
		return
	}
	fields := []zap.Field{
		zap.Duration("lifetime", a.Lifetime.Round(time.Millisecond)),
		zap.Time("next_request", a.Next),
		zap.Duration("took", a.Took),
	}
	obtained := "access token obtained"
	if a.Adopted {
		obtained = "access token taken over from another instance"
	}
	switch {
	case j.failing != "":
		message := obtained
		if j.told {
			message += " again"
		}
		j.log().Info(message, append(fields, zap.Duration("failing_for", time.Since(j.since)))...)
		j.failing = ""
	case !j.told:
		j.log().Info(obtained, fields...)
	default:
		j.log().Debug("access token renewed", append(fields, zap.Bool("same_token", a.Same), zap.Bool("taken_over", a.Adopted))...)
	}
	j.told = true
	j.warn("lifetime", a.Assumed, "the server gave no usable lifetime for its token; default_lifetime is assumed", zap.Duration("assumed", a.Lifetime))
	if j.many {
		return // what was granted differs from value to value
	}
	j.warn("scopes", len(a.Missing) > 0, "the server granted fewer scopes than were asked for", zap.Strings("missing", a.Missing), zap.Strings("granted", a.Scopes))
	j.warn("token", !a.Bearer, "the token holds characters outside the b64token of RFC 6750; some upstreams may refuse it")
}

// aboutClient tells of a refusal whether it is not about one value of a template
// (RFC 6749 §5.2).
func aboutClient(f *oauth.Failure) bool {
	return slices.Contains([]string{"invalid_client", "unauthorized_client", "unsupported_grant_type"}, f.Code) ||
		f.Code == "" && f.Status == http.StatusUnauthorized
}

// failingSince is when the first of the failures in a row was told of, zero
// while all is well.
func (j *journal) failingSince() time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failing == "" {
		return time.Time{}
	}
	return j.since
}

// note warns of a condition when it begins or changes, and not again.
func (j *journal) note(subject string, holds bool, message string, fields ...zap.Field) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.warn(subject, holds, message, fields...)
}

func (j *journal) warn(subject string, holds bool, message string, fields ...zap.Field) {
	state := ""
	if holds {
		state = fmt.Sprint(fieldValues(fields)...)
		state += "!"
	}
	if j.notes == nil {
		j.notes = make(map[string]string)
	}
	if j.notes[subject] != state && holds {
		j.log().Warn(message, fields...)
	}
	j.notes[subject] = state
}

func fieldValues(fields []zap.Field) []any {
	values := make([]any, 0, len(fields))
	for _, f := range fields {
		values = append(values, f.Integer, f.String, f.Interface)
	}
	return values
}

// failed tells of a failure that is new or another than the last.
func (j *journal) failed(a token.Attempt) {
	f := a.Failure
	if j.failing == "" {
		j.since = time.Now()
	}
	state := strings.Join([]string{f.Kind.String(), fmt.Sprint(f.Status), f.Code}, " ")
	waiting := !a.Held && a.Failures == 1 && f.Kind == oauth.Unreachable
	if waiting {
		state += ", waiting"
	}
	lasts := forPerson(f)
	if lasts != nil {
		state += lasts.Error()
	}
	if f.Kind == oauth.Refused && f.Status == 0 { // nothing was sent: the cause is here
		state += f.Err.Error()
	}
	if state == j.failing {
		j.log().Debug("token request failed again", zap.Int("failures", a.Failures), zap.NamedError("cause", f), zap.Time("next_request", a.Next))
		return
	}
	j.failing = state
	fields := []zap.Field{
		zap.Stringer("kind", f.Kind),
		zap.String("reason", string(a.Reason)),
		zap.Duration("took", a.Took),
		zap.Time("next_request", a.Next),
		zap.Bool("token_held", a.Held),
	}
	if f.Status != 0 {
		fields = append(fields, zap.Int("status", f.Status))
	}
	if f.Code != "" {
		fields = append(fields, zap.String("code", f.Code))
	}
	if f.Description != "" {
		fields = append(fields, zap.String("description", f.Description))
	}
	if f.Err != nil {
		fields = append(fields, zap.NamedError("cause", f.Err))
	}
	fields = append(fields, j.advice(f))
	if j.many {
		j.log().Error("token request failed; tokens that are held serve on, and other values are turned away", fields...)
		return
	}
	if a.Held {
		level := zap.WarnLevel
		if lasts != nil {
			level = zap.ErrorLevel
		}
		j.log().Log(level, "token request failed; the token held stays in use", append(fields, zap.Time("token_expires", a.Expires))...)
		return
	}
	if waiting {
		j.log().Warn("token request failed and no token is held yet; requests wait for the next one", fields...)
		return
	}
	j.log().Error("token request failed and no token is held; requests are turned away until one is obtained", fields...)
}

// advice says what is wrong, and what to do.
func (j *journal) advice(f *oauth.Failure) zap.Field {
	a := advice.For(f, j.facts)
	return zap.String("advice", a.Wrong+": "+a.Do)
}

// forPerson is what of a failure will not pass by itself, nil for nothing: it has to
// do with a refresh token.
func forPerson(f *oauth.Failure) error {
	for _, err := range []error{token.ErrLoginRequired, token.ErrEnded, token.ErrUnreadable, token.ErrStorage, token.ErrAnswerLost} {
		if errors.Is(f, err) {
			return err
		}
	}
	return nil
}

// rejected tells once of an upstream that refuses tokens, and once more if it
// refuses those that came in their place. The refusals of one path may go on for
// ever.
func (j *journal) rejected(s token.Snapshot, again bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.many {
		j.log().Debug("an upstream refuses an access token")
		return
	}
	j.warn("rejected", again, "an upstream refuses every new access token, too: look at its scopes, its audience, and what its subject may do; new ones are asked for ever more seldom")
	if !again {
		j.log().Warn("an upstream refuses the access token, and a new one is asked for", zap.Time("token_obtained", s.Obtained), zap.Time("token_expires", s.Expires))
	}
}

func (j *journal) expired(s token.Snapshot) {
	j.mu.Lock()
	defer j.mu.Unlock()
	fields := []zap.Field{zap.Int("failures", s.Failures)}
	if s.Failure != nil {
		fields = append(fields, zap.NamedError("cause", s.Failure))
	}
	if !s.Next.IsZero() {
		fields = append(fields, zap.Time("next_request", s.Next))
	}
	if s.Failure == nil {
		// one that is handed out to its very end has a successor in a moment
		j.log().Debug("access token expired", fields...)
		return
	}
	fields = append(fields, j.advice(s.Failure))
	j.log().Error("access token expired and no new one was obtained; requests are turned away", fields...)
}
