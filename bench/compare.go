package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

var (
	rounds  = flag.Int("rounds", 3, "rounds of the scenarios cliff and outage")
	callers = flag.Int("callers", 1000, "callers, with a connection each, in the scenarios cliff and outage, and at once in the scenario cold")
	strict  = flag.Bool("strict", false, "fail if a goal is missed, or could not be measured")
	install = flag.Bool("install", false, "as root, install the Debian packages of a peer that is not there")
)

// errMissed fails a run with -strict.
var errMissed = errors.New("a goal was missed, or could not be measured")

// row is what a turn has come to, for a table.
type row interface {
	// cells are the figures.
	cells() []string
	// checks hold them against the goals. These are made of what the bare proxy
	// did in the same round.
	checks(bare row) []check
	// void says why the turn is no measure, "" if it is one.
	void() string
	// others is the share of the processors that others took meanwhile.
	others() share
}

// check is a figure beside its goal.
type check struct {
	what, want string
	figure     float64 // the smaller the better
	said       string  // the figure, as it is written
	met        bool
}

func metAll(checks []check) bool {
	return !slices.ContainsFunc(checks, func(c check) bool { return !c.met })
}

// comparison is one scenario for several subjects, the bare one first.
type comparison struct {
	// name tells its tables and plots from those of another one in the same
	// scenario; "" if there is none. what is said above its tables.
	name, what string
	heads      []string
	turn       func(context.Context, string, subject) (row, error)
	// worst puts two turns of one subject together.
	worst func(a, b row) row
}

// outcome is what it has come to.
type outcome struct {
	comparison
	all    []subject
	rounds []map[string]row // by the subject's name
}

// run gives each subject its turn in each round. The order changes from round to
// round, so that nobody always comes after the same one. What a turn has come to
// is printed as soon as it is known.
func (c comparison) run(ctx context.Context, dir string, all []subject) (*outcome, error) {
	// this process is the callers and the servers: it is to be in the way less
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	fmt.Printf("  %s\n", c.what)
	o := &outcome{comparison: c}
	for _, s := range all {
		if s.missing != "" {
			fmt.Printf("  %s: LEFT OUT; %s\n", s.name, s.missing)
			continue
		}
		o.all = append(o.all, s)
	}
	for round := range *rounds {
		rows := make(map[string]row)
		for _, s := range order(o.all, round) {
			r, err := c.turn(ctx, dir, s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			rows[s.name] = r
			fmt.Printf("  round %d of %d, %s: %s\n", round+1, *rounds, s.name, strings.Join(labelled(c.heads, r.cells()), ", "))
		}
		o.rounds = append(o.rounds, rows)
	}
	return o, nil
}

func labelled(heads, cells []string) []string {
	var out []string
	for i, cell := range cells {
		if cell != "" {
			out = append(out, heads[i]+" "+cell)
		}
	}
	return out
}

const (
	verdictMet    = "met"
	verdictMissed = "missed"
)

// whyVoid says why a turn is no measure, "" if it is one. The bare proxy's
// figures are those of the same round, for a noisy machine shows in them: a round
// in which other programs took too much of its turn is void as a whole.
func whyVoid(r, bare row) string {
	why := cmp.Or(r.others().void(), r.void())
	if why == "" && bare.others().void() != "" {
		return "void, as the first"
	}
	return why
}

// verdict says whether a turn's goals were met, or why that cannot be said.
func verdict(r, bare row) string {
	if why := whyVoid(r, bare); why != "" {
		return why
	}
	if metAll(r.checks(bare)) {
		return verdictMet
	}
	return verdictMissed
}

// order turns the subjects by one each round, and every second round around.
func order(all []subject, round int) []subject {
	n := round % len(all)
	out := slices.Concat(all[n:], all[:n])
	if round%2 == 1 {
		slices.Reverse(out)
	}
	return out
}

// brief is a duration for a table.
func brief(d time.Duration) string {
	if d < 10*time.Millisecond {
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}
