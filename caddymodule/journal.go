package caddymodule

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// journal writes one log line for each change of a credential's state, not for
// each attempt. It remembers the state through reloads; the logger is lent.
type journal struct {
	name   string
	logger atomic.Pointer[zap.Logger]

	// written by the source's observer alone, one call at a time
	failing string // the failure that was told, "" while all is well
	told    bool   // the first token was told
	since   time.Time
	notes   map[string]string // what was warned of, by subject
}

func (j *journal) log() *zap.Logger {
	l := j.logger.Load()
	if l == nil {
		return zap.NewNop()
	}
	return l.With(zap.String("credential", j.name))
}

func (j *journal) attempted(a token.Attempt) {
	if a.Failure != nil {
		j.failed(a)
		return
	}
	fields := []zap.Field{
		zap.Duration("lifetime", a.Lifetime.Round(time.Millisecond)),
		zap.Time("next_request", a.Next),
		zap.Duration("took", a.Took),
	}
	switch {
	case j.failing != "":
		message := "access token obtained"
		if j.told {
			message += " again"
		}
		j.log().Info(message, append(fields, zap.Duration("failing_for", time.Since(j.since)))...)
		j.failing = ""
	case !j.told:
		j.log().Info("access token obtained", fields...)
	default:
		j.log().Debug("access token renewed", append(fields, zap.Bool("same_token", a.Same))...)
	}
	j.told = true
	j.note("lifetime", a.Assumed, "the server gave no usable lifetime for its token; default_lifetime is assumed", zap.Duration("assumed", a.Lifetime))
	j.note("scopes", len(a.Missing) > 0, "the server granted fewer scopes than were asked for", zap.Strings("missing", a.Missing), zap.Strings("granted", a.Scopes))
	j.note("token", !a.Bearer, "the token holds characters outside the b64token of RFC 6750; some upstreams may refuse it")
}

// note warns of a condition when it begins or changes, and not again.
func (j *journal) note(subject string, holds bool, message string, fields ...zap.Field) {
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
	if a.Held {
		fields = append(fields, zap.Time("token_expires", a.Expires))
		j.log().Warn("token request failed; the token held stays in use", fields...)
		return
	}
	if waiting {
		j.log().Warn("token request failed and no token is held yet; requests wait for the next one", fields...)
		return
	}
	j.log().Error("token request failed and no token is held; requests are turned away until one is obtained", fields...)
}

func (j *journal) expired(s token.Snapshot) {
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
	j.log().Error("access token expired and no new one was obtained; requests are turned away", fields...)
}
