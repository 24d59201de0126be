package report

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

const (
	verdictMet    = "met"
	verdictMissed = "missed"
)

// figureCell is what a column of figures holds, and is aligned at the right for.
var figureCell = regexp.MustCompile(`^$|^[–-]$|^none$|^[≤≥<>~]? ?[−-]?[0-9]`)

// markdown writes a table. Columns of figures are aligned at the right, and lines
// of this module stand out.
func markdown(heads []string, rows [][]string) string {
	var out strings.Builder
	line := func(cells []string) {
		out.WriteString("|")
		for _, cell := range cells {
			out.WriteString(" " + inCell(cell) + " |")
		}
		out.WriteString("\n")
	}
	line(heads)
	rules := make([]string, len(heads))
	for i := range heads {
		rules[i] = "---"
		if i > 0 && !slices.ContainsFunc(rows, func(row []string) bool { return i >= len(row) || !figureCell.MatchString(row[i]) }) {
			rules[i] = "---:"
		}
	}
	line(rules)
	for _, row := range rows {
		if len(row) > 0 && strings.HasPrefix(row[0], "upstream_auth") {
			row = slices.Clone(row)
			row[0] = "**" + row[0] + "**"
		}
		line(row)
	}
	return strings.TrimSuffix(out.String(), "\n")
}

var tag = regexp.MustCompile(`<([A-Za-z/!?])`)

// inLine makes a text stay in its line, and be no HTML.
func inLine(s string) string {
	return tag.ReplaceAllString(strings.Join(strings.Fields(s), " "), "&lt;$1")
}

// inCell makes a text stay in its cell.
func inCell(s string) string { return strings.ReplaceAll(inLine(s), "|", `\|`) }

// sentence has a note begin and end as one, unless it begins with a name.
func sentence(note string) string {
	note = inLine(note)
	first, size := utf8.DecodeRuneInString(note)
	if word, _, _ := strings.Cut(note, " "); !strings.ContainsAny(word, "_./") {
		note = string(unicode.ToUpper(first)) + note[size:]
	}
	if strings.HasSuffix(note, ".") {
		return note
	}
	return note + "."
}

// goalsBody is the table of goals beside what was reached.
func (d *documentation) goalsBody(ids []string) (string, error) {
	known := regexp.MustCompile(`^[PR][0-9]+$`)
	for _, id := range ids {
		if !known.MatchString(id) {
			return "", fmt.Errorf("a goal is called P1 or R1, not %q", id)
		}
	}
	type met struct {
		result.Goal
		command string
	}
	var goals []met
	for _, scenario := range slices.Sorted(maps.Keys(d.sets)) {
		for _, g := range d.sets[scenario].Goals {
			if len(ids) == 0 || slices.Contains(ids, g.ID) {
				goals = append(goals, met{g, d.sets[scenario].Command})
			}
		}
	}
	slices.SortStableFunc(goals, func(a, b met) int {
		return cmp.Or(cmp.Compare(a.ID[:1], b.ID[:1]), cmp.Compare(number(a.ID), number(b.ID)))
	})
	for _, id := range ids {
		if !slices.ContainsFunc(goals, func(g met) bool { return g.ID == id }) {
			d.lacks("goal " + id)
		}
	}
	if len(goals) == 0 {
		return "", missing{"all goals"}
	}
	var rows [][]string
	for _, g := range goals {
		verdict := verdictMet
		if !g.Met {
			verdict = "**" + verdictMissed + "**"
			why := d.reason(g.Goal)
			if why == "" {
				d.fault("goal %q is missed, and %s has no reason", goalKey(g.Goal), whyFile)
			} else {
				verdict += ": " + why
			}
		}
		rows = append(rows, []string{g.ID, g.What, g.Want, g.Figure, verdict, "`" + g.command + "`"})
	}
	return markdown([]string{"", "what", "goal", "reached", "", "command"}, rows), nil
}

// number is that of a goal: 10 of P10.
func number(id string) int {
	n, _ := strconv.Atoi(id[min(1, len(id)):]) // one without comes first
	return n
}

// machineBody says where figures are from, of some scenarios or of all.
func (d *documentation) machineBody(scenarios []string) (string, error) {
	if len(scenarios) == 0 {
		scenarios = slices.Sorted(maps.Keys(d.sets))
	}
	var machines []result.Machine // in the order of their first scenario
	dates := make(map[result.Machine][]string)
	for _, scenario := range scenarios {
		s := d.sets[scenario]
		if s == nil {
			d.lacks("machine of " + scenario)
			continue
		}
		m := s.Machine
		m.Date = ""
		if dates[m] == nil {
			machines = append(machines, m)
		}
		dates[m] = append(dates[m], s.Machine.Date)
	}
	if len(machines) == 0 {
		return "", missing{"machine"}
	}
	var parts []string
	for _, m := range machines {
		when, err := period(dates[m])
		if err != nil {
			return "", err
		}
		cores := "one core"
		switch m.Cores {
		case 1:
		case 2:
			cores = "two cores"
		default:
			cores = fmt.Sprintf("%d cores", m.Cores)
		}
		parts = append(parts, fmt.Sprintf("%s on %s of a machine with %s (Linux %s, Go %s, Caddy %s)", when, cores, cmp.Or(m.CPU, "an unknown processor"), m.Kernel, m.Go, m.Caddy))
	}
	return "Measured " + strings.Join(parts, ", and ") + ".", nil
}

// period says from when to when: on 2 March 2026, from 2 to 9 March 2026.
func period(dates []string) (string, error) {
	slices.Sort(dates)
	var ends [2]time.Time
	for i, date := range []string{dates[0], dates[len(dates)-1]} {
		day, err := time.Parse(time.DateOnly, date)
		if err != nil {
			return "", fmt.Errorf("the date of a run: %w", err)
		}
		ends[i] = day
	}
	first, last := ends[0], ends[1]
	full := "2 January 2006"
	switch {
	case first.Equal(last):
		return "on " + last.Format(full), nil
	case first.Year() != last.Year():
		return "from " + first.Format(full) + " to " + last.Format(full), nil
	case first.Month() != last.Month():
		return "from " + first.Format("2 January") + " to " + last.Format(full), nil
	}
	return "from " + first.Format("2") + " to " + last.Format(full), nil
}
