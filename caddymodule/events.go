package caddymodule

import (
	"context"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// The events that a credential emits, with the name in "credential" and further
// data that holds no secret. For a template each value emits its own, and which
// value is not told.
const (
	// eventObtained: a token has come. grant, reason, expires, lifetime_seconds,
	// took_seconds; adopted is true where another instance had asked for it.
	eventObtained = "token_obtained"
	// eventFailed: a token request has failed. grant, reason, kind, status and
	// code where the server gave them, error, failures (in a row), token_held,
	// next_request.
	eventFailed = "token_failed"
	// eventExpired: the token has ended and no other one has come. failures,
	// next_request.
	eventExpired = "token_expired"
	// eventRejected: an upstream refuses the token. expires; again is true if
	// that one had come in place of a refused one.
	eventRejected = "token_rejected"
)

// mostEvents is how many events may wait for their handlers, and one more for
// each credential: handlers are not ours, and may hang.
const mostEvents = 256

// emitter emits the events of one config's credentials, in order, and apart from
// what causes them. It owns no goroutine while it rests.
type emitter struct {
	app *caddyevents.App
	ctx caddy.Context

	mu      sync.Mutex
	queue   []event
	users   int  // credentials
	started bool // the config has: before, Caddy is still writing the list of handlers
	then    func()
	running bool
	closed  bool
	lost    bool // an event was, and that was told
}

type event struct {
	name string
	data map[string]any
}

// newEmitter makes one that calls then once the config has started.
func newEmitter(ctx caddy.Context, then func()) (*emitter, error) {
	app, err := ctx.App("events")
	if err != nil {
		return nil, err
	}
	m := &emitter{app: app.(*caddyevents.App), ctx: ctx, then: then}
	return m, m.app.On("started", m)
}

// serve makes room for the events of one more credential: all of them may have
// some at the same time, as when Caddy starts.
func (m *emitter) serve() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.users++
}

// Handle implements caddyevents.Handler: Caddy tells that the config has
// started. Another module may have an event of that name.
func (m *emitter) Handle(_ context.Context, e caddy.Event) error {
	if e.Origin() != nil {
		return nil
	}
	m.then()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.started = true
	m.deliver()
	return nil
}

// emit hands an event over. A nil emitter belongs to a credential that no config
// uses any more.
func (m *emitter) emit(name string, e *entry, data map[string]any) {
	if m == nil {
		return
	}
	data["credential"] = e.name
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return
	case len(m.queue) >= mostEvents+m.users:
		if !m.lost {
			m.lost = true
			m.ctx.Logger().Warn("events are lost: their handlers take too long", zap.String("event", name))
		}
		return
	}
	m.queue = append(m.queue, event{name, data})
	m.deliver()
}

// deliver begins with what is in the queue. Called with the lock.
func (m *emitter) deliver() {
	if m.started && !m.running && len(m.queue) > 0 {
		m.running = true
		go m.run()
	}
}

func (m *emitter) run() {
	for {
		m.mu.Lock()
		if len(m.queue) == 0 || m.closed || m.ctx.Err() != nil {
			m.queue, m.running = nil, false
			m.mu.Unlock()
			return
		}
		next := m.queue[0]
		m.queue = m.queue[1:]
		m.mu.Unlock()
		m.app.Emit(m.ctx, next.name, next.data)
	}
}

// close forgets what has not been emitted: the handlers go with the config.
func (m *emitter) close() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed, m.queue = true, nil
}

func (m *emitter) attempted(e *entry, a token.Attempt) {
	if f := a.Failure; f != nil {
		m.failed(e, a, f)
		return
	}
	m.emit(eventObtained, e, map[string]any{
		"grant": e.grant, "reason": string(a.Reason), "expires": moment(a.Expires),
		"lifetime_seconds": a.Lifetime.Seconds(), "took_seconds": a.Took.Seconds(), "adopted": a.Adopted,
	})
}

func (m *emitter) failed(e *entry, a token.Attempt, f *oauth.Failure) {
	data := map[string]any{
		"grant": e.grant, "reason": string(a.Reason), "kind": f.Kind.String(), "error": f.Error(),
		"failures": a.Failures, "token_held": a.Held,
	}
	if f.Status != 0 {
		data["status"] = f.Status
	}
	if f.Code != "" {
		data["code"] = f.Code
	}
	m.emit(eventFailed, e, withMoment(data, "next_request", a.Next))
}

func (m *emitter) expired(e *entry, s token.Snapshot) {
	m.emit(eventExpired, e, withMoment(map[string]any{"failures": s.Failures}, "next_request", s.Next))
}

func (m *emitter) rejected(e *entry, s token.Snapshot, again bool) {
	m.emit(eventRejected, e, withMoment(map[string]any{"again": again}, "expires", s.Expires))
}

// withMoment adds a moment that is known.
func withMoment(data map[string]any, name string, t time.Time) map[string]any {
	if !t.IsZero() {
		data[name] = moment(t)
	}
	return data
}

// Interface guard
var _ caddyevents.Handler = (*emitter)(nil)
