package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

// names of subjects that the goals are about
const (
	referenceName = "x/oauth2 handler"
	sidecarName   = "upstream_auth, sidecar"
	httputilName  = "httputil, oauth2.Transport"
)

// what the sidecar is to cost
const (
	serveGoal         = 0.78 // of the reference's processor time of a request
	saturatedGoal     = 0.90 // of its p99 at saturation
	serveHTTPUtilGoal = 1.30 // of httputil's processor time
)

// peers compares all subjects, in slices and then at a fixed rate. The
// reference comes first.
func (v *serving) peers(ctx context.Context, set *result.Set, all []subject) error {
	i := slices.IndexFunc(all, func(s subject) bool { return s.name == referenceName })
	if i < 0 {
		return fmt.Errorf("no subject is called %s", referenceName)
	}
	all = slices.Concat(all[i:i+1], all[:i], all[i+1:])
	var started []*running
	var lanes []*lane
	var left []string
	for _, s := range all {
		if s.missing != "" {
			left = append(left, s.name+" ("+s.missing+")")
			continue
		}
		r, err := v.start(ctx, s)
		if err != nil {
			return err
		}
		defer r.turn.close()
		g, err := gather(r.turn.proxy, *sliceCallers)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		defer g.close()
		started = append(started, r)
		lanes = append(lanes, &lane{name: s.name, bare: s.bare, ours: s.ours, group: r.turn.cmd.Process.Pid, target: r.target, crowd: g})
	}
	c := v.contest(lanes)
	if err := c.run(ctx); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(startRest):
	}
	after := make(map[string]memory)
	for _, r := range started {
		m, err := memoryOfGroup(r.turn.cmd.Process.Pid)
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		after[r.name] = m
	}
	note := ""
	if len(left) > 0 {
		note = " Left out: " + strings.Join(left, "; ") + "."
	}
	table := peersTable(c, after)
	table.Note = "A proxied request through each: processor time, and what one processor makes of " + fmt.Sprint(*sliceCallers) + " callers that never wait; where it was not at work for nearly all of the time, it is the callers that were at their end. × is the median of slices, of which few may have a garbage collection in them; × in all is all time by all requests. Memory is resident, after the run; private is what is not a file's. " + v.note(c) + note
	for _, s := range all {
		if s.missing != "" {
			table.Rows = append(table.Rows, leftOut(s.name, len(table.Heads)))
		}
	}
	set.Tables = append(set.Tables, table)
	set.Plots = append(set.Plots, costPlot(c))
	v.judge(set, "peers", c)
	set.Goals = append(set.Goals, peersGoals(c)...)
	return v.latency(ctx, set, started, all)
}

// leftOut is the line of one that takes no part.
func leftOut(name string, cells int) []string {
	row := slices.Repeat([]string{none}, cells)
	row[0] = name + " (left out)"
	return row
}

func peersTable(c *contest, after map[string]memory) result.Table {
	t := result.Table{
		Name:  "peers",
		Heads: []string{"proxy", "µs a request (least–most)", "×", "× in all", "requests/s", "of a processor", "p50, ms", "p99, ms", "p99 ×", "memory, MiB", "private, MiB", "failed", "thrown away"},
	}
	for _, l := range c.lanes {
		times := l.times()
		resident, private, perSecond, busy, p50, p99 := none, none, none, none, none, none
		if m, ok := after[l.name]; ok {
			resident, private = inMiB(m.resident), inMiB(m.private)
		}
		if len(times) > 0 {
			perSecond = fmt.Sprintf("%.0f", median(l.figures((*slice).perSecond)))
			busy = share(median(l.figures((*slice).busy))).String()
			p50, p99 = inMS(quantile(times, 0.50)), inMS(quantile(times, 0.99))
		}
		t.Rows = append(t.Rows, []string{
			l.name,
			spread(l.figures((*slice).each)), estimateOf(l.beside(c.lanes[0], (*slice).each)).String(),
			fmt.Sprintf("%.2f", l.overall()/c.lanes[0].overall()),
			perSecond, busy,
			p50, p99, estimateOf(l.beside(c.lanes[0], (*slice).p99)).String(),
			resident, private,
			fmt.Sprint(l.failed), fmt.Sprint(l.thrown),
		})
	}
	return t
}

// peersGoals are those of the sidecar: of what is whole, the median and what all
// slices come to have to reach a goal.
func peersGoals(c *contest) []result.Goal {
	goal := func(what, beside string, want float64, of func(*slice) float64, whole bool) result.Goal {
		g := result.Goal{ID: "P2", What: what, Want: fmt.Sprintf("≤ %.2f", want), Figure: "not measured"}
		ours, other := c.named(sidecarName), c.named(beside)
		if ours == nil || other == nil {
			return g
		}
		e := estimateOf(ours.beside(other, of))
		g.Figure, g.Met = e.String(), e.median <= want && ours.failed == 0
		if whole {
			inAll := ours.overall() / other.overall()
			g.Figure += fmt.Sprintf(", in all %.2f", inAll)
			g.Met = g.Met && inAll <= want
		}
		if ours.failed > 0 {
			g.Figure += fmt.Sprintf(", %d requests failed", ours.failed)
		}
		return g
	}
	return []result.Goal{
		goal("processor time of a request, sidecar beside stock Caddy with x/oauth2", referenceName, serveGoal, (*slice).each, true),
		goal("p99 at saturation, sidecar beside stock Caddy with x/oauth2", referenceName, saturatedGoal, (*slice).p99, false),
		goal("processor time of a request, sidecar beside httputil.ReverseProxy with oauth2.Transport", httputilName, serveHTTPUtilGoal, (*slice).each, true),
	}
}

// costPlot has a bar for each, with the least and the most of all slices.
func costPlot(c *contest) result.Plot {
	p := result.Plot{Name: "cost", Title: "Processor time of a proxied request (median; least and most of the slices)", Bars: true, Y: "processor time of a request, µs", Series: make([]result.Series, 1)}
	for _, l := range c.lanes {
		figures := l.figures((*slice).each)
		if strings.HasSuffix(l.name, againSuffix) || len(figures) == 0 {
			continue
		}
		p.Series[0].Points = append(p.Series[0].Points, result.Point{
			Label: l.name, Ours: l.ours, X: float64(len(p.Series[0].Points)), Y: median(figures), Low: slices.Min(figures), High: slices.Max(figures),
		})
	}
	return p
}

// inMS is a time in ms, for a table.
func inMS(d time.Duration) string {
	return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond))
}

// inMiB is a number of KiB in MiB, for a table.
func inMiB(kib int) string { return fmt.Sprintf("%.1f", float64(kib)/1024) }
