package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"net/http"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

var outageRate = flag.Int("outage-rate", 500, "requests a second in the scenario outage")

const (
	outageTokens = 14 * time.Second
	outageAge    = 2 * time.Second // of the token, when the outage begins
	outageLength = 18 * time.Second
	outageAfter  = longestBackoff + 5*time.Second // how long the first good answer is waited for
	// firstBackoff and longestBackoff are the README's, for the goal of the
	// first good answer.
	firstBackoff, longestBackoff = time.Second, time.Minute
	rekindle                     = 250 * time.Millisecond // for that request itself, on top
)

// outage takes the token endpoint away while a token is held. 1,000 callers
// send 500 requests a second through each proxy in turn, at moments that are
// fixed beforehand, and latency counts from those. Tokens live for 14 s. 2 s
// after the first one was issued the endpoint fails for 18 s, and the requests
// of these 18 s are counted: in one variant it answers 503 at once, in the
// other it does not answer, until its return resets the connections that hang.
// The load goes on after that until the first good answer.
//
// Of the failed requests, "token valid" are those that were sent while the newest
// token had life left by the clock of the server that issued it, and "last
// tenth" are those of them for which that was no more than a tenth of its life:
// in those moments this module does not use a token by default (expiry_margin),
// so that none expires on its way. The failure times are those of requests for
// which there was no token, or one in its last tenth; beside them stands how
// many of the bare proxy's good answers took as long, for the noise.
//
// The goals, of each variant: no failure while a token was valid, but in its last tenth; at most
// 15 token requests during the outage; once the token is gone each failure
// within 20 ms; the first good answer at most one step of the backoff after the
// return, by the number of token requests that had failed. The last is for this
// module alone: the others ask anew for each request, which is what the count of
// token requests shows.
func outage(ctx context.Context, s *stage) error {
	all, err := contenders(ctx, s.dir)
	if err != nil {
		return err
	}
	set := &result.Set{Scenario: "outage", Command: command("outage")}
	for _, v := range []struct {
		name, what string
		fault      func(over <-chan struct{}) authserver.Fault
	}{
		{"503", "answers 503", func(<-chan struct{}) authserver.Fault { return authserver.Down() }},
		{"hanging", "hangs", hang},
	} {
		o, err := comparison{
			name: v.name,
			what: fmt.Sprintf("The token endpoint %s for %s: %d requests/s on %d connections, tokens of %s.",
				v.what, outageLength, *outageRate, *callers, outageTokens),
			heads: []string{"requests", "failed", "token valid", "last tenth", "over 1 s", "longest", "failure p99", "slowest", "over 20 ms", "token requests", "good again"},
			turn: func(ctx context.Context, dir string, s subject) (row, error) {
				r, err := outageTurn(ctx, dir, s, v.fault)
				if err != nil {
					return nil, err
				}
				r.variant = v.what
				return r, nil
			},
			worst: func(a, b row) row { return worstOutage(a.(*outageRow), b.(*outageRow)) },
		}.run(ctx, s.dir, all)
		if err != nil {
			return err
		}
		set.Tables = append(set.Tables, o.tables()...)
		goals, void := o.goals("P4")
		set.Goals, set.Void = append(set.Goals, goals...), cmp.Or(set.Void, void)
		set.Plots = append(set.Plots,
			o.bars("failed", "The token endpoint "+v.what+" for "+outageLength.String(), "requests that failed while a token was valid, before the last tenth of its life", func(r row) float64 { return float64(r.(*outageRow).needless()) }))
		if v.name == "hanging" {
			set.Plots = append(set.Plots, o.bars("longest", "The token endpoint "+v.what+" for "+outageLength.String(), "longest wait for an answer, s", func(r row) float64 { return r.(*outageRow).longest.Seconds() }))
		}
	}
	return publish(set)
}

// hang does not answer, and resets the connection when the outage is over.
func hang(over <-chan struct{}) authserver.Fault {
	return func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
		select {
		case <-over:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	}
}

func outageTurn(ctx context.Context, dir string, s subject, fault func(over <-chan struct{}) authserver.Fault) (*outageRow, error) {
	t, err := newTurn(dir, outageTokens, !s.bare)
	if err != nil {
		return nil, err
	}
	defer t.close()
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
	from := began.Add(outageAge)
	if tokens := t.tokens(); len(tokens) > 0 {
		from = tokens[0].from.Add(outageAge)
	}
	var before, after int
	var idle, busy usage
	var to time.Time // of the outage
	stop, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stop)
		sleep(ctx, time.Until(from))
		from, before, idle = time.Now(), t.auth.Requests(), t.usage()
		t.auth.SetFault(fault(over))
		sleep(ctx, outageLength)
		to, after, busy = time.Now(), t.auth.Requests(), t.usage()
		t.auth.SetFault(nil)
		close(over)
		for ctx.Err() == nil && time.Since(to) < outageAfter && g.lastGood.Load() < to.UnixNano() {
			sleep(ctx, 10*time.Millisecond)
		}
	}()
	calls := g.call(*outageRate, began, stop)
	<-stop
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r := judgeOutage(s, calls, from, to, t.tokens(), after-before)
	r.foreign = busy.foreign(idle)
	return r, nil
}
