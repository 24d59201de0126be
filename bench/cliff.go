package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

var cliffRate = flag.Int("cliff-rate", 2000, "requests a second in the scenario cliff")

const (
	cliffLength    = 10 * time.Second
	cliffWarm      = 2 * time.Second // sent before, at the same rate, and not counted
	cliffDelay     = 500 * time.Millisecond
	cliffLate      = 100 * time.Millisecond
	cliffFloor     = 50 * time.Millisecond // a slowest request below this is quick enough
	cliffRefreshes = 3                     // fewer show nothing
	// These are for the scenario cliff: nginx keeps them a second less, and Dapr
	// to the end.
	tokensOfNginx, tokensOfDapr = 3 * time.Second, 2 * time.Second
)

// cliff looks for the moment at which a token ends under load, and everybody
// waits for the next one. 1,000 callers send 2,000 requests a second for 10 s
// through each proxy in turn, at moments that are fixed beforehand, and latency
// counts from those. The token endpoint takes 500 ms. Tokens live as long as
// makes each proxy renew them about every 2.5 s, for each has a margin of its
// own: three refreshes or more fall into the 10 s, or the turn is void. 2 s
// before are not counted, so that connections are open and a token is there.
//
// The goal: no request over 100 ms that the bare proxy did not have as well,
// the slowest within 1.5 of the bare proxy's, or 50 ms, and none failed, in every
// round that is not void.
func cliff(ctx context.Context, s *stage) error {
	all, err := contenders(ctx, s.dir)
	if err != nil {
		return err
	}
	o, err := comparison{
		what: fmt.Sprintf("%d requests/s on %d connections for %s, from the moment at which each was meant to be sent; the token endpoint takes %s.",
			*cliffRate, *callers, cliffLength, cliffDelay),
		heads: []string{"requests", "over 100 ms", "slowest", "p99", "failed", "refreshes", "token requests", "at once"},
		turn:  cliffTurn,
		worst: func(a, b row) row { return worstCliff(a.(*cliffRow), b.(*cliffRow)) },
	}.run(ctx, s.dir, all)
	if err != nil {
		return err
	}
	set := &result.Set{Scenario: "cliff", Command: command("cliff"), Tables: o.tables(), Plots: []result.Plot{
		o.bars("late", "The refresh cliff", "requests over 100 ms, of "+grouped(cliffRequests()), func(r row) float64 { return float64(r.(*cliffRow).late) }),
	}}
	set.Goals, set.Void = o.goals("P3")
	return publish(set)
}

// cliffRequests is how many are sent and counted.
func cliffRequests() int { return *cliffRate * int(cliffLength/time.Second) }

// contenders are the subjects that ask for tokens, and the bare one before them.
func contenders(ctx context.Context, dir string) ([]subject, error) {
	all, err := subjects(ctx, dir)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(s subject) bool { return s.static })
	return chosen(all, func(s subject) bool { return s.bare })
}

// cliffRow is what one proxy did.
type cliffRow struct {
	foreign   share
	bare      bool
	requests  int
	late      int // over cliffLate
	slowest   time.Duration
	p99       time.Duration
	failed    int // not answered with 200
	refreshes int
	tokens    int // requests to the token endpoint
	peak      int // of those at once, from the start
}

func cliffTurn(ctx context.Context, dir string, s subject) (row, error) {
	t, err := newTurn(dir, s.tokens, !s.bare)
	if err != nil {
		return nil, err
	}
	defer t.close()
	t.auth.SetFault(authserver.Slow(cliffDelay))
	if err := t.run(ctx, s); err != nil {
		return nil, err
	}
	g, err := gather(t.proxy, *callers)
	if err != nil {
		return nil, err
	}
	defer g.close()
	g.needBodies()

	began := time.Now().Add(10 * time.Millisecond)
	from := began.Add(cliffWarm)
	to := from.Add(cliffLength)
	var before, after int
	var idle, busy usage
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		sleep(ctx, time.Until(from))
		before, idle = t.auth.Requests(), t.usage()
		sleep(ctx, time.Until(to))
		after, busy = t.auth.Requests(), t.usage()
		sleep(ctx, 100*time.Millisecond) // so that the last one is sent
	}()
	calls := within(g.call(*cliffRate, began, stop), from, to)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	<-stop
	sorted := times(calls)
	return &cliffRow{
		foreign:   busy.foreign(idle),
		bare:      s.bare,
		requests:  len(calls),
		late:      over(sorted, cliffLate),
		slowest:   at(sorted, 100),
		p99:       at(sorted, 99),
		failed:    failures(calls),
		refreshes: refreshes(t.tokens(), from, to),
		tokens:    after - before,
		peak:      t.auth.Peak(),
	}, nil
}

// refreshes counts the tokens that were issued in a span; those issued within
// a second of each other are one refresh by several.
func refreshes(tokens []life, from, to time.Time) (n int) {
	var last time.Time
	for _, t := range tokens {
		if t.from.After(from) && t.from.Before(to) && t.from.Sub(last) > time.Second {
			n++
		}
		last = t.from
	}
	return n
}

func failures(calls []call) (n int) {
	for _, c := range calls {
		if !c.good() {
			n++
		}
	}
	return n
}

func (r *cliffRow) cells() []string {
	return []string{fmt.Sprint(r.requests), fmt.Sprint(r.late), brief(r.slowest), brief(r.p99), fmt.Sprint(r.failed), fmt.Sprint(r.refreshes), fmt.Sprint(r.tokens), fmt.Sprint(r.peak)}
}

func (r *cliffRow) checks(bare row) []check {
	b := bare.(*cliffRow)
	slowest := max(b.slowest*3/2, cliffFloor)
	return []check{
		{"refresh cliff, requests over 100 ms, of " + grouped(cliffRequests()), "no more than the plain proxy's", float64(r.late - b.late),
			fmt.Sprintf("%d, plain %d", r.late, b.late), r.late <= b.late},
		{"refresh cliff, slowest request", "≤ 1.5 of the plain proxy's, or " + brief(cliffFloor), float64(r.slowest),
			fmt.Sprintf("%s, plain %s", brief(r.slowest), brief(b.slowest)), r.slowest <= slowest},
		{"refresh cliff, requests that failed", "0", float64(r.failed), fmt.Sprint(r.failed), r.failed == 0},
	}
}

func (r *cliffRow) void() string {
	if !r.bare && r.refreshes < cliffRefreshes {
		return fmt.Sprintf("void: fewer than %d refreshes", cliffRefreshes)
	}
	return ""
}

func (r *cliffRow) others() share { return r.foreign }

func worstCliff(a, b *cliffRow) *cliffRow {
	return &cliffRow{
		foreign:   max(a.foreign, b.foreign),
		bare:      a.bare,
		requests:  a.requests + b.requests,
		late:      max(a.late, b.late),
		slowest:   max(a.slowest, b.slowest),
		p99:       max(a.p99, b.p99),
		failed:    max(a.failed, b.failed),
		refreshes: min(a.refreshes, b.refreshes),
		tokens:    max(a.tokens, b.tokens),
		peak:      max(a.peak, b.peak),
	}
}

// sleep waits, but no longer than ctx lasts.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
