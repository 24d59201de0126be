package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

// bare is the row of the first subject, which the others are held against.
func (o *outcome) bare(round int) row { return o.rounds[round][o.all[0].name] }

// measured are the turns of a subject that are not void, and the goals beside
// each.
func (o *outcome) measured(s subject) (rows []row, checks [][]check) {
	for round, all := range o.rounds {
		if r := all[s.name]; whyVoid(r, o.bare(round)) == "" {
			rows = append(rows, r)
			checks = append(checks, r.checks(o.bare(round)))
		}
	}
	return rows, checks
}

// tables are the worst of all turns that are not void, and each turn of each
// round.
func (o *outcome) tables() []result.Table {
	worst := result.Table{
		Name: o.named("worst"), Heads: slices.Concat([]string{"proxy"}, o.heads, []string{"others", "goals"}),
		Note: o.what + fmt.Sprintf(" Of each figure the worst of %d rounds that are not void.", len(o.rounds)),
	}
	detail := result.Table{
		Name: o.named("rounds"), Heads: slices.Concat([]string{"round", "proxy"}, o.heads, []string{"others", "goals"}),
		Note: "Each turn. Others: the share of the processors that other programs took meanwhile; more than " + share(mostForeign).String() + ", and the turn is void.",
	}
	for _, s := range o.all {
		rows, checks := o.measured(s)
		said := fmt.Sprintf("met in %d of %d", howMany(checks, metAll), len(checks))
		switch {
		case len(rows) == 0:
			said = "void"
			for _, all := range o.rounds {
				rows = append(rows, all[s.name])
			}
		case s.bare:
			said = ""
		}
		r := rows[0]
		for _, other := range rows[1:] {
			r = o.worst(r, other)
		}
		worst.Rows = append(worst.Rows, slices.Concat([]string{s.name}, r.cells(), []string{r.others().String(), said}))
	}
	for round, rows := range o.rounds {
		for _, s := range o.all {
			r := rows[s.name]
			said := verdict(r, o.bare(round))
			if s.bare {
				said = r.others().void() // it has no goals
			}
			detail.Rows = append(detail.Rows, slices.Concat([]string{fmt.Sprint(round + 1), s.name}, r.cells(), []string{r.others().String(), said}))
		}
	}
	return []result.Table{worst, detail}
}

// goals are those of this module, the worst of its forms in all rounds.
func (o *outcome) goals(id string) (goals []result.Goal, void string) {
	var names []string
	var all [][]check
	for _, s := range o.all {
		if !s.ours {
			continue
		}
		_, checks := o.measured(s)
		if len(checks) == 0 {
			return nil, "no turn of " + s.name + " is a measure: " + whyVoid(o.rounds[0][s.name], o.bare(0))
		}
		_, name, _ := strings.Cut(s.name, ", ")
		names = append(names, name)
		all = append(all, checks...)
	}
	if len(all) == 0 {
		return nil, ""
	}
	for i := range all[0] {
		worst, met := all[0][i], 0
		for _, checks := range all {
			c := checks[i]
			if c.met {
				met++
			}
			// one that is missed is worse than one that is met, whatever its figure
			if c.met == worst.met && c.figure > worst.figure || worst.met && !c.met {
				worst = c
			}
		}
		goals = append(goals, result.Goal{
			ID: id, What: worst.what + ": the worst of " + strings.Join(names, ", "), Want: worst.want + ", in every round",
			Figure: fmt.Sprintf("%s; met in %d of %d turns", worst.said, met, len(all)), Met: met == len(all),
		})
	}
	return goals, ""
}

// bars are a plot of one figure: the median of the turns that are not void, and
// the range.
func (o *outcome) bars(name, title, unit string, of func(row) float64) result.Plot {
	plot := result.Plot{Name: o.named(name), Title: title, Bars: true, Y: unit, Series: make([]result.Series, 1)}
	for _, s := range o.all {
		rows, _ := o.measured(s)
		var values []float64
		for _, r := range rows {
			values = append(values, of(r))
		}
		if len(values) > 0 {
			plot.Series[0].Points = append(plot.Series[0].Points, bar(s, values))
		}
	}
	return plot
}

// bar is the median of values with their range.
func bar(s subject, values []float64) result.Point {
	return result.Point{Label: s.name, Ours: s.ours, Y: median(values), Low: slices.Min(values), High: slices.Max(values)}
}

func (o *outcome) named(name string) string {
	if o.name == "" {
		return name
	}
	return o.name + "-" + name
}

func howMany[E any](all []E, is func(E) bool) (n int) {
	for _, e := range all {
		if is(e) {
			n++
		}
	}
	return n
}
