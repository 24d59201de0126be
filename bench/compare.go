package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

var (
	rounds  = flag.Int("rounds", 3, "rounds of the scenarios cliff and outage")
	callers = flag.Int("callers", 1000, "callers, with a connection each, in the scenarios cliff and outage")
	strict  = flag.Bool("strict", false, "fail if a goal is missed in the scenarios cliff, outage and start")
	install = flag.Bool("install", false, "as root, install the Debian packages of a peer that is not there")
)

// errMissed fails a run with -strict.
var errMissed = errors.New("a goal was missed, or could not be measured")

// row is what a turn has come to, for a table.
type row interface {
	// cells are the figures, each with its goal after it. The goals are made of
	// what the bare proxy did in the same round; nil leaves those out.
	cells(bare row) []string
	// met tells whether each goal is, and void says why the turn is no measure,
	// "" if it is one.
	met(bare row) bool
	void() string
	// others is the share of the processors that others took meanwhile.
	others() share
}

// comparison is one scenario for several subjects, the bare one first.
type comparison struct {
	heads []string
	turn  func(context.Context, string, subject) (row, error)
	// worst puts two turns of one subject together.
	worst func(a, b row) row
}

// run gives each subject its turn in each round, prints a table of each round,
// and one of the worst of all rounds. The order changes from round to round, so
// that nobody always comes after the same one. The bare proxy's figures are
// those of the same round: a noisy machine shows in them. A turn in which other
// programs took more than mostForeign of the processors is void, and with the
// bare proxy's the whole round. With -strict a goal of this module that is
// missed is an error, and so is one that no round could measure.
func (c comparison) run(ctx context.Context, dir string, all []subject) error {
	// this process is the callers and the servers: it is to be in the way less
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	total, met, measured := make(map[string]row), make(map[string]int), make(map[string]int)
	for round := range *rounds {
		rows := make(map[string]row)
		for _, s := range order(all, round) {
			if s.missing != "" {
				continue
			}
			r, err := c.turn(ctx, dir, s)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			rows[s.name] = r
			if before := total[s.name]; before != nil {
				r = c.worst(before, r)
			}
			total[s.name] = r
		}
		bare := rows[all[0].name]
		verdicts := make(map[string]string)
		for name, r := range rows {
			verdicts[name] = verdict(r, bare)
			switch verdicts[name] {
			case verdictMet:
				met[name]++
				measured[name]++
			case verdictMissed:
				measured[name]++
			}
		}
		c.print(fmt.Sprintf("round %d of %d", round+1, *rounds), all, rows, bare, verdicts)
	}
	if *rounds > 1 {
		verdicts := make(map[string]string)
		for name := range total {
			verdicts[name] = fmt.Sprintf("met in %d of %d that are not void", met[name], measured[name])
		}
		c.print("the worst of all rounds, void ones too", all, total, nil, verdicts)
	}
	for _, s := range all {
		if s.ours && *strict && (measured[s.name] == 0 || met[s.name] < measured[s.name]) {
			return fmt.Errorf("%s: %w", s.name, errMissed)
		}
	}
	return nil
}

const (
	verdictMet    = "met"
	verdictMissed = "missed"
)

// verdict says whether a turn's goals were met, or why that cannot be said.
func verdict(r, bare row) string {
	if void := cmp.Or(r.others().void(), r.void()); void != "" {
		return void
	}
	if bare.others().void() != "" {
		return "void, as the first"
	}
	if r.met(bare) {
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

// print writes a table. One that takes no part has its line, too.
func (c comparison) print(title string, all []subject, rows map[string]row, bare row, verdicts map[string]string) {
	fmt.Printf("  %s\n", title)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "    proxy\t%s\tothers\tgoals\n", strings.Join(c.heads, "\t"))
	for _, s := range all {
		r := rows[s.name]
		if r == nil {
			continue
		}
		said := verdicts[s.name]
		if s.bare {
			said = r.others().void() // it has no goals
		}
		fmt.Fprintf(w, "    %s\t%s\t%s\t%s\n", s.name, strings.Join(r.cells(bare), "\t"), r.others(), said)
	}
	_ = w.Flush()
	for _, s := range all {
		if s.missing != "" {
			fmt.Printf("    %s: LEFT OUT, it is not installed; %s\n", s.name, s.missing)
		}
	}
}

// beside is a figure with its goal.
func beside(figure, goal any) string { return fmt.Sprintf("%v (%v)", figure, goal) }

// brief is a duration for a table.
func brief(d time.Duration) string {
	if d < 10*time.Millisecond {
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}
