package main

import (
	"context"
	"fmt"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

// figures is a table of two columns, in which a scenario says what it saw.
func figures(scenario, note string, rows ...[]string) *result.Set {
	return &result.Set{Scenario: scenario, Command: command(scenario), Tables: []result.Table{
		{Name: scenario, Note: note, Heads: []string{"what", "figure"}, Rows: rows},
	}}
}

// figure is a row of it.
func figure(what, format string, args ...any) []string {
	return []string{what, fmt.Sprintf(format, args...)}
}

// cold has all callers come at once while there is no token yet.
func cold(ctx context.Context, s *stage) error {
	const delay = 500 * time.Millisecond
	s.slowServer(delay)
	if err := s.start(ctx); err != nil {
		return err
	}
	l := s.volley(*callers)
	tokens := s.auth.Requests()
	set := figures("cold", fmt.Sprintf("%d callers at once, no token yet, a token endpoint that takes %s.", *callers, delay),
		figure("answered", "%d", l.ok),
		figure("failed", "%d", l.failed+l.reset),
		figure("slowest answer", "%s", brief(l.slowest)),
		figure("token requests", "%d", tokens),
	)
	set.Goals = []result.Goal{{
		ID: "P6", What: fmt.Sprintf("token requests for %s callers at a cold start, all answered", grouped(*callers)), Want: "1",
		Figure: fmt.Sprintf("%d, %d answered", tokens, l.ok), Met: tokens == 1 && l.ok == *callers,
	}}
	return publish(set)
}

// down starts Caddy while there is no authorization server.
func down(ctx context.Context, s *stage) error {
	const away = 5 * time.Second
	addr := s.server.Addr()
	if err := s.server.Close(); err != nil {
		return err
	}
	began := time.Now()
	if err := s.start(ctx); err != nil {
		return err
	}
	listening := time.Since(began)
	first := s.request()
	second := s.request()
	sleep(ctx, away-time.Since(began))
	returned := time.Now()
	if err := s.listen(addr); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if a := s.request(); a.status == 200 {
			return publish(figures("down", fmt.Sprintf("A start while the authorization server is down, for %s.", away),
				figure("Caddy listens after", "%s", brief(listening)),
				figure("a request meanwhile", "%s after %s", first.says(), brief(first.took)),
				figure("another one", "%s after %s", second.says(), brief(second.took)),
				figure("first good answer after the server's return", "%s", brief(time.Since(returned))),
			))
		}
		sleep(ctx, 5*time.Millisecond)
	}
	return ctx.Err()
}

// refresh has short tokens renewed under load.
func refresh(ctx context.Context, s *stage) error {
	s.renew(*lifetime)
	if err := s.start(ctx); err != nil {
		return err
	}
	s.request() // the first may wait
	before, err := s.outcomes()
	if err != nil {
		return err
	}
	asked := s.auth.Requests() // for the first
	l := s.load(ctx, *rate, *length)
	tokens := s.auth.Requests() - asked
	each := float64(tokens) / (l.length.Seconds() / lifetime.Seconds())
	after, err := s.outcomes()
	if err != nil {
		return err
	}
	set := figures("refresh", fmt.Sprintf("Tokens of %s, %d requests/s for %s.", *lifetime, *rate, *length),
		figure("requests", "%d", l.ok+l.failed+l.reset),
		figure("failed", "%d", l.failed+l.reset),
		figure("p50, p99, slowest", "%s, %s, %s", brief(l.percentile(50)), brief(l.percentile(99)), brief(l.slowest)),
		figure("waited for a token", "%d", after["waited"]-before["waited"]),
		figure("expired by the API's clock", "%d", s.api.Expired()),
		figure("without a token", "%d", s.api.Missing()+s.api.Unknown()),
		figure("least life left at the API", "%s", brief(s.api.Smallest())),
		figure("token requests", "%d, %.2f a lifetime", tokens, each),
		figure("token requests at once", "%d", s.auth.Peak()),
	)
	set.Goals = []result.Goal{
		{ID: "P6", What: fmt.Sprintf("token requests a lifetime, tokens of %s", *lifetime), Want: "≤ 1.5", Figure: fmt.Sprintf("%.2f", each), Met: each <= 1.5},
		{ID: "P6", What: "token requests in flight", Want: "1", Figure: fmt.Sprint(s.auth.Peak()), Met: s.auth.Peak() == 1},
	}
	return publish(set)
}

// reload loads the configuration anew under load.
func reload(ctx context.Context, s *stage) error {
	const reloads = 20
	if err := s.start(ctx); err != nil {
		return err
	}
	done := make(chan *load)
	go func() { done <- s.load(ctx, *rate, *length/4) }()
	for i := range reloads {
		sleep(ctx, *length/4/25)
		if err := s.reload(ctx, i); err != nil {
			return err
		}
	}
	l := <-done
	return publish(figures("reload", fmt.Sprintf("%d reloads in %s, %d requests/s.", reloads, *length/4, *rate),
		figure("requests", "%d", l.ok+l.failed+l.reset),
		figure("answered badly", "%d", l.failed),
		figure("connections reset", "%d", l.reset),
		figure("slowest", "%s", brief(l.slowest)),
		figure("token requests", "%d", s.auth.Requests()),
	))
}
