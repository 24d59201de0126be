package main

import (
	"context"
	"flag"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

var (
	latencyRate    = flag.Int("latency-rate", 2000, "requests a second, for the latencies in the scenario serve")
	latencyCallers = flag.Int("latency-connections", 100, "callers, with a connection each, for the latencies in the scenario serve")
	latencyRounds  = flag.Int("latency-rounds", 3, "rounds, for the latencies in the scenario serve")
	turnOthers     = flag.Float64("turn-others", mostForeign, "the share of the processors that others may have in a turn at a fixed rate in the scenario serve, before it is thrown away")
	latencyLength  = flag.Duration("latency-for", 3*time.Second, "length of a turn, for the latencies in the scenario serve")
)

// patient is what came of one subject's turns at a fixed rate.
type patient struct {
	times  []time.Duration // of all turns that were kept
	failed int
	thrown int
}

// latency gives each in turn the same number of requests a second, which all can
// stand, and counts from the moment at which a request was meant to be sent.
func (v *serving) latency(ctx context.Context, set *result.Set, started []*running, all []subject) error {
	came := make(map[string]*patient)
	for _, r := range started {
		came[r.name] = new(patient)
	}
	for range *latencyRounds {
		for _, i := range v.random.Perm(len(started)) {
			r := started[i]
			p := came[r.name]
			for range attempts {
				calls, foreign, err := v.atRate(ctx, r)
				if err != nil {
					return fmt.Errorf("%s: %w", r.name, err)
				}
				for _, c := range calls {
					if !c.good() {
						p.failed++
					}
				}
				if foreign <= share(*turnOthers) {
					p.times = append(p.times, times(calls)...)
					break
				}
				p.thrown++
			}
		}
	}
	table := result.Table{
		Name: "latency",
		Note: fmt.Sprintf("Latency in ms at %d requests/s by %d connections, from the moment at which a request was meant to be sent; %d turns of %s each, in an order of chance; %s. Thrown away: turns in which others had more than %.0f%% of the processors.",
			*latencyRate, *latencyCallers, *latencyRounds, *latencyLength, v.pins.note, 100**turnOthers),
		Heads: []string{"proxy", "p50", "p90", "p99", "p99.9", "slowest", "failed", "thrown away"},
	}
	plot := result.Plot{
		Name: "latency", Title: fmt.Sprintf("Latency at %d requests/s", *latencyRate), LogX: true, LogY: true,
		X: "slower is one request in (10: p90; 100: p99; 1,000: p99.9)", Y: "latency, ms",
	}
	for _, s := range all {
		p := came[s.name]
		switch {
		case p == nil:
			table.Rows = append(table.Rows, leftOut(s.name, len(table.Heads)))
			continue
		case len(p.times) == 0:
			table.Rows = append(table.Rows, []string{s.name, none, none, none, none, none, fmt.Sprint(p.failed), fmt.Sprint(p.thrown)})
			continue
		}
		slices.Sort(p.times)
		table.Rows = append(table.Rows, []string{
			s.name, inMS(quantile(p.times, 0.50)), inMS(quantile(p.times, 0.90)), inMS(quantile(p.times, 0.99)), inMS(quantile(p.times, 0.999)), inMS(p.times[len(p.times)-1]),
			fmt.Sprint(p.failed), fmt.Sprint(p.thrown),
		})
		plot.Series = append(plot.Series, result.Series{Name: s.name, Points: tail(p.times)})
	}
	set.Tables = append(set.Tables, table)
	set.Plots = append(set.Plots, plot)
	return nil
}

// atRate is one turn, and the share of the processors that others took.
func (v *serving) atRate(ctx context.Context, r *running) ([]call, share, error) {
	g, err := gather(r.turn.proxy, *latencyCallers)
	if err != nil {
		return nil, 0, err
	}
	defer g.close()
	g.open()
	time.Sleep(settling)
	w, err := watchMachine()
	if err != nil {
		return nil, 0, err
	}
	began, stop := time.Now(), make(chan struct{})
	timer := time.AfterFunc(*latencyLength, func() { close(stop) })
	defer timer.Stop()
	calls := g.call(*latencyRate, began, stop)
	seen, err := w.end(r.turn.cmd.Process.Pid)
	if err != nil {
		return nil, 0, err
	}
	return calls, seen.foreign(), ctx.Err()
}

// tail are the points of a line over the percentiles, which gives each ten-fold
// rarer latency as much room: X is how many requests one slower comes on.
func tail(sorted []time.Duration) []result.Point {
	var out []result.Point
	for exponent := 0.0; ; exponent += 0.25 {
		each := math.Pow(10, exponent)
		if each > float64(len(sorted)) {
			return out
		}
		y := float64(quantile(sorted, 1-1/each)) / float64(time.Millisecond)
		out = append(out, result.Point{X: each, Y: y, Low: y, High: y})
	}
}
