package main

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

// startFirst and startMemory are the figures that have goals.
func startFirst(r startRow) float64  { return float64(r.first) / float64(time.Millisecond) }
func startMemory(r startRow) float64 { return float64(r.idle.resident) / 1024 }

// startRuns are all turns, in the order of the rounds.
type startRuns struct {
	all  []subject
	rows map[string][]startRow
}

// figures are one figure of a subject in each round that is not void, and its
// ratio to the reference's.
func (r startRuns) figures(name string, of func(startRow) float64) (values, ratios []float64) {
	return r.beside(name, startReference, of)
}

// beside has the ratio to that of another one.
func (r startRuns) beside(name, other string, of func(startRow) float64) (values, ratios []float64) {
	for _, round := range r.quiet(name, other) {
		values = append(values, of(r.rows[name][round]))
		ratios = append(ratios, of(r.rows[name][round])/of(r.rows[other][round]))
	}
	return values, ratios
}

// quiet are the rounds in which neither was disturbed.
func (r startRuns) quiet(name, other string) (rounds []int) {
	for round, row := range r.rows[name] {
		if row.foreign.void() == "" && r.rows[other][round].foreign.void() == "" {
			rounds = append(rounds, round)
		}
	}
	return rounds
}

// void says why the run is no measure, "" if it is one.
func (r startRuns) void() string {
	for _, f := range []struct {
		what string
		of   func(startRow) float64
	}{{"first answer", startFirst}, {"memory", startMemory}} {
		_, ratios := r.beside(startAgain, startSidecar, f.of)
		if len(ratios) < startRounds {
			return fmt.Sprintf("in %d of %d rounds others left the processors alone; %d such are needed", len(ratios), *starts, startRounds)
		}
		if noise := estimateOf(ratios); noise.excludes(1) && math.Abs(noise.median-1) > startNoise {
			return fmt.Sprintf("%s, the sidecar beside itself: %s", f.what, noise)
		}
	}
	return ""
}

func (r startRuns) table() result.Table {
	table := result.Table{
		Name: "start", Heads: []string{"proxy", "first answer, ms", "×", "memory, MiB", "×", "private", "×", "after use", "×", "private", "×", "rounds", "others"},
		Note: fmt.Sprintf("Medians of those of %d rounds in which others left the processors alone (least to most). ×: of that of the %s in the same round. Others: the most that they took in a round.", *starts, startReference),
	}
	for _, s := range r.all {
		cells := []string{s.name}
		for _, of := range []func(startRow) float64{
			startFirst,
			startMemory,
			func(r startRow) float64 { return float64(r.idle.private) / 1024 },
			func(r startRow) float64 { return float64(r.used.resident) / 1024 },
			func(r startRow) float64 { return float64(r.used.private) / 1024 },
		} {
			values, ratios := r.figures(s.name, of)
			if len(values) == 0 {
				cells = append(cells, "–", "–")
				continue
			}
			cells = append(cells, fmt.Sprintf("%.0f (%.0f–%.0f)", median(values), slices.Min(values), slices.Max(values)), fmt.Sprintf("%.2f", median(ratios)))
		}
		var others share
		for _, row := range r.rows[s.name] {
			others = max(others, row.foreign)
		}
		table.Rows = append(table.Rows, append(cells, fmt.Sprint(len(r.quiet(s.name, startReference))), others.String()))
	}
	return table
}

func (r startRuns) goals() (goals []result.Goal) {
	for _, g := range []struct {
		what string
		most float64
		of   func(startRow) float64
	}{
		{"from the start of the process to the first answer", startGoal, startFirst},
		{"memory at rest", memoryGoal, startMemory},
	} {
		_, ratios := r.figures(startSidecar, g.of)
		if len(ratios) == 0 {
			continue // the run is void
		}
		goals = append(goals, result.Goal{
			ID: "P2", What: "sidecar, " + g.what + ", of stock Caddy with the " + startReference, Want: fmt.Sprintf("≤ %.2f", g.most),
			Figure: estimateOf(ratios).String(), Met: median(ratios) <= g.most,
		})
	}
	return goals
}

// median of at least one value.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
