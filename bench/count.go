package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

var (
	checkBaseline = flag.Bool("check", false, "have the scenario count compare with bench/baseline.json, and fail if a request costs more; it needs valgrind")
	renewBaseline = flag.Bool("renew", false, "have the scenario count write bench/baseline.json; it needs valgrind")
)

const (
	handlerAllocations   = 5 // P1, over plain
	transportAllocations = 4
	ofStatic             = 1.01 // P1, instructions
	ofHeaderUp           = 0.98
	ofXOAuth2            = 1.0 / 6 // P5, instructions
	aloneAllocations     = 1
	aloneBytes           = 16

	countRounds = 7 // batches whose instructions are counted
)

// countCost counts what a request costs, which no clock has a say in: what is
// allocated, by the process's own accounts, and the instructions in user mode, by
// callgrind. Six sites of one Caddy take turns. All of it is Caddy's own: callers
// and servers are in this process. The Caddy collects no garbage and runs on one
// thread.
//
// What a function takes is the median of several batches. What is left of noise
// is in the scheduler: the table owners has it apart, and -check leaves it out.
func countCost(ctx context.Context, s *stage) error {
	valgrind, err := findValgrind(ctx)
	if *checkBaseline || *renewBaseline {
		if err != nil {
			return err // what cannot run must not look as if all were well
		}
		return countAgain(ctx, s.dir, valgrind)
	}
	if err != nil {
		fmt.Printf("  NO INSTRUCTIONS: %v\n", err)
	}
	requests, ways := newRequests(countSites), map[string]*alone{oursAlone: {}, xoauth2Alone: {}, nothingAlone: {}}
	if err := countAllocations(ctx, s.dir, countSites, requests); err != nil {
		return err
	}
	both := []string{oursAlone, xoauth2Alone}
	if err := timeInjection(ctx, s.dir, both, injectionRounds, ways); err != nil {
		return err
	}
	set := &result.Set{Scenario: "count", Command: "go run ./bench count"}
	if valgrind == "" {
		set.Tables = []result.Table{requestTable(requests), injectionTable(ways)}
		set.Goals = append(requestGoals(requests), injectionGoals(ways)...)
		return publish(set)
	}
	if err := countInstructions(ctx, s.dir, valgrind, countSites, countRounds, requests); err != nil {
		return err
	}
	if err := countInjection(ctx, s.dir, valgrind, both, ways); err != nil {
		return err
	}
	set.Tables = []result.Table{requestTable(requests), injectionTable(ways), ownersTable(requests), functionsTable(requests)}
	set.Goals = append(requestGoals(requests), injectionGoals(ways)...)
	return publish(set)
}

func newRequests(sites []countSite) map[string]*perRequest {
	out := make(map[string]*perRequest)
	for _, s := range sites {
		out[s.name] = new(perRequest)
	}
	return out
}

// requestTable is what a request costs at each site.
func requestTable(requests map[string]*perRequest) result.Table {
	t := result.Table{
		Name:  "request",
		Note:  "a proxied request in one Caddy process, a header of 916 bytes put on it; +: more than reverse_proxy alone; ±: half the range of the sums of " + fmt.Sprint(countRounds) + " batches",
		Heads: []string{"site", "allocations", "+", "bytes", "+", "instructions", "+", "± of it", "× alone", "× static handler", "× header_up"},
	}
	bare := requests[bareSite]
	for _, s := range countSites {
		r := requests[s.name]
		row := []string{s.name, fmt.Sprintf("%.1f", r.objects), fmt.Sprintf("%.1f", r.objects-bare.objects), fmt.Sprintf("%.0f", r.bytes), fmt.Sprintf("%.0f", r.bytes-bare.bytes)}
		if r.instructions == nil {
			row = append(row, slices.Repeat([]string{"–"}, len(t.Heads)-len(row))...)
		} else {
			n := r.instructions.sum()
			row = append(row, fmt.Sprintf("%.0f", n), fmt.Sprintf("%.0f", n-bare.instructions.sum()), fmt.Sprintf("%.1f%%", 50*(slices.Max(r.batches)-slices.Min(r.batches))/n))
			for _, other := range []string{bareSite, staticSite, headerUpSite} {
				row = append(row, fmt.Sprintf("%.3f", n/requests[other].instructions.sum()))
			}
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// uncountedFigure stands where instructions could not be counted: such a goal is
// not met.
const uncountedFigure = "not counted: valgrind is missing"

func requestGoals(requests map[string]*perRequest) []result.Goal {
	var goals []result.Goal
	for _, of := range []struct {
		site, what string
		most       float64
	}{{handlerSite, "handler", handlerAllocations}, {transportSite, "transport", transportAllocations}} {
		more := requests[of.site].objects - requests[bareSite].objects
		goals = append(goals, result.Goal{
			ID: "P1", What: "allocations a request over plain reverse_proxy, " + of.what, Want: fmt.Sprintf("≤ %.0f", of.most),
			Figure: fmt.Sprintf("%.1f", more), Met: more <= of.most+allocationsTolerance,
		})
	}
	for _, of := range []struct{ site, what string }{{handlerSite, "handler"}, {transportSite, "transport"}} {
		for _, beside := range []struct {
			site, what string
			most       float64
		}{{staticSite, "a static handler", ofStatic}, {headerUpSite, "a static header_up", ofHeaderUp}} {
			g := result.Goal{ID: "P1", What: "instructions a request, " + of.what + ", of " + beside.what + "'s", Want: fmt.Sprintf("≤ %.2f", beside.most), Figure: uncountedFigure}
			if requests[of.site].instructions != nil {
				ratio := requests[of.site].instructions.sum() / requests[beside.site].instructions.sum()
				g.Figure, g.Met = fmt.Sprintf("%.3f", ratio), ratio <= beside.most
			}
			goals = append(goals, g)
		}
	}
	return goals
}

// injectionTable is what it costs with no request around it.
func injectionTable(ways map[string]*alone) result.Table {
	t := result.Table{
		Name:  "injection",
		Note:  fmt.Sprintf("a token put on a header, with no request around it (BenchmarkInjection in caddymodule); times in nanoseconds, medians of %d (least to most)", injectionRounds),
		Heads: []string{"way", "instructions", "× x/oauth2", "allocations", "bytes", "on one thread", fmt.Sprintf("on %d", injectionThreads)},
	}
	for _, way := range []string{oursAlone, xoauth2Alone} {
		a := ways[way]
		row := []string{strings.ReplaceAll(way, "x_", "x/"), "–", "–"}
		if a.instructions != nil {
			n := a.instructions.sum()
			row = []string{row[0], fmt.Sprintf("%.0f", n), fmt.Sprintf("%.3f", n/ways[xoauth2Alone].instructions.sum())}
		}
		row = append(row, fmt.Sprintf("%.0f", a.objects), fmt.Sprintf("%.0f", a.bytes))
		for _, times := range [][]float64{a.one, a.many} {
			row = append(row, fmt.Sprintf("%.0f (%.0f–%.0f)", median(times), slices.Min(times), slices.Max(times)))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func injectionGoals(ways map[string]*alone) []result.Goal {
	ours := ways[oursAlone]
	instructions := result.Goal{ID: "P5", What: "instructions of the injection alone, of x/oauth2's", Want: fmt.Sprintf("≤ %.3f (1/6)", ofXOAuth2), Figure: uncountedFigure}
	if ours.instructions != nil {
		n, other := ours.instructions.sum(), ways[xoauth2Alone].instructions.sum()
		instructions.Figure, instructions.Met = fmt.Sprintf("%.3f (%.0f of %.0f)", n/other, n, other), n/other <= ofXOAuth2
	}
	var ratios []float64
	for i, one := range ours.one {
		ratios = append(ratios, ours.many[i]/one)
	}
	return []result.Goal{
		instructions,
		{ID: "P5", What: "allocations of the injection alone", Want: "≤ 1 of 16 bytes", Figure: fmt.Sprintf("%.0f of %.0f bytes", ours.objects, ours.bytes), Met: ours.objects <= aloneAllocations && ours.bytes <= aloneBytes},
		{ID: "P5", What: fmt.Sprintf("time of the injection on %d threads, of that on one", injectionThreads), Want: "≤ 1", Figure: fmt.Sprintf("%.2f (%.2f–%.2f)", median(ratios), slices.Min(ratios), slices.Max(ratios)), Met: median(ratios) <= 1},
	}
}

// ownersTable is whose functions a request's instructions are.
func ownersTable(requests map[string]*perRequest) result.Table {
	t := result.Table{
		Name:  "owners",
		Note:  "instructions a request by whose function they are in; +: more than reverse_proxy alone",
		Heads: []string{"whose functions", bareSite},
	}
	var names []string
	for _, s := range countSites {
		if !s.bare {
			names = append(names, s.name)
			t.Heads = append(t.Heads, s.name+" +")
		}
	}
	bare := requests[bareSite].instructions
	line := func(name string, by func(owner) bool) {
		row := []string{name, fmt.Sprintf("%.0f", bare.owned(by))}
		for _, name := range names {
			row = append(row, fmt.Sprintf("%.0f", requests[name].instructions.owned(by)-bare.owned(by)))
		}
		t.Rows = append(t.Rows, row)
	}
	for o := range owners {
		line(o.String(), func(other owner) bool { return other == o })
	}
	line("all", func(owner) bool { return true })
	line("all but the scheduler", owner.steady)
	return t
}

// functionsTable is where the handler or the transport makes the most of a
// difference.
func functionsTable(requests map[string]*perRequest) result.Table {
	t := result.Table{
		Name:  "functions",
		Note:  "the functions that take most more than in reverse_proxy alone, in instructions a request",
		Heads: []string{"function", "whose", staticSite + " +", handlerSite + " +", transportSite + " +"},
	}
	bare := requests[bareSite].instructions
	most := make(profile)
	var more []profile
	for _, site := range []string{staticSite, handlerSite, transportSite} {
		p := requests[site].instructions.minus(bare)
		more = append(more, p)
		for name, cost := range p {
			most[name] = max(most[name], cost)
		}
	}
	for _, name := range most.largest(25) {
		row := []string{shortFunction(name), ownerOf(name).String()}
		for _, p := range more {
			row = append(row, fmt.Sprintf("%.0f", p[name]))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// shortFunction leaves out where its package is, and what its type is made of.
func shortFunction(name string) string {
	name, _, _ = strings.Cut(name, "[")
	return name[strings.LastIndexByte(name, '/')+1:]
}

// errGrown fails a run with -check.
var errGrown = errors.New("a request costs more than bench/baseline.json says")
