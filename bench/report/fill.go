package report

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

// marker is where figures begin: <!-- bench:KIND ARGUMENTS -->. They end at
// endMarker. A marker at the end of its line has a block, from the next line to
// the end marker, and any other one a text within its line.
//
//	table serve/peers                    a table with its note
//	table serve/peers "proxy" "p99"      some columns of it, without
//	plot serve-cpu                       the picture
//	goals P1 P2                          the goals of these, or of all
//	machine serve count                  a sentence on where these were measured, or all
//	command serve                        what gives the figures again
//	cell serve/peers "HAProxy" "p99"     one figure: of a row, by its first cell, and a column
var marker = regexp.MustCompile(`^<!-- bench:([a-z]+)(| [^\n]*?) -->`)

const endMarker = "<!-- /bench -->"

// likeMarker finds markers, and what was meant to be one.
var likeMarker = regexp.MustCompile(`<!--\s*/?\s*bench\b`)

// missing is what no run has come to yet.
type missing struct{ what string }

func (m missing) Error() string { return m.what + " was not measured yet" }

// fill writes the figures into a document, between its markers, and leaves the
// rest as it is.
func (d *documentation) fill(name, text string) (string, error) {
	var out strings.Builder
	for {
		at := likeMarker.FindStringIndex(text)
		if at == nil {
			return out.String() + text, nil
		}
		out.WriteString(text[:at[0]])
		text = text[at[0]:]
		found := marker.FindStringSubmatch(text)
		if found == nil {
			return "", fmt.Errorf("an end without a beginning, or no marker at all: %s", firstLine(text))
		}
		rest := text[len(found[0]):]
		next := likeMarker.FindStringIndex(rest)
		if next == nil || !strings.HasPrefix(rest[next[0]:], endMarker) {
			return "", fmt.Errorf("%s has no end", found[0])
		}
		body, err := d.body(name, found[1], strings.TrimSpace(found[2]))
		if m, ok := errors.AsType[missing](err); ok {
			d.lacks(m.what)
		} else if err != nil {
			return "", fmt.Errorf("%s: %w", found[0], err)
		}
		block := strings.HasPrefix(rest, "\n")
		switch {
		case block && body == "":
			body = "\n"
		case block:
			body = "\n" + body + "\n"
		case strings.Contains(body, "\n"):
			return "", fmt.Errorf("%s: it needs lines of its own", found[0])
		}
		out.WriteString(found[0] + body + endMarker)
		text = rest[next[0]+len(endMarker):]
	}
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// body is what belongs to a marker of a document. With missing it is "".
func (d *documentation) body(name, kind, args string) (string, error) {
	words := strings.Fields(args)
	switch kind {
	case "table":
		return d.tableBody(args)
	case "plot":
		return d.plotBody(name, args)
	case "cell":
		return d.cellBody(args)
	case "goals":
		return d.goalsBody(words)
	case "machine":
		return d.machineBody(words)
	case "command":
		s := d.sets[args]
		if s == nil {
			return "", missing{"command " + args}
		}
		return "`" + s.Command + "`", nil
	}
	return "", fmt.Errorf("no marker is called %q; there are table, plot, cell, goals, machine, command", kind)
}

// table finds a table. One that a scenario does not have is noted as wrong, and
// is missing.
func (d *documentation) table(name string) (*result.Table, error) {
	scenario, _, ok := strings.Cut(name, "/")
	if !ok || strings.ContainsAny(name, " \"") {
		return nil, fmt.Errorf("a table is called scenario/name, not %q", name)
	}
	if d.sets[scenario] == nil {
		return nil, missing{"table " + name}
	}
	_, t, err := result.Find(d.sets, name)
	if err != nil {
		d.fault("%w", err)
		return nil, missing{"table " + name}
	}
	return t, nil
}

func (d *documentation) tableBody(args string) (string, error) {
	name, wanted, err := nameAndKeys(args)
	if err != nil {
		return "", err
	}
	t, err := d.table(name)
	if err != nil {
		return "", err
	}
	d.asked[name] = true
	if len(wanted) > 0 {
		return d.columns(t, name, wanted)
	}
	out := markdown(t.Heads, t.Rows)
	if t.Note != "" {
		out = sentence(t.Note) + "\n\n" + out
	}
	return out, nil
}

// columns are some of a table's.
func (d *documentation) columns(t *result.Table, name string, wanted []string) (string, error) {
	rows := make([][]string, len(t.Rows))
	for _, head := range wanted {
		column := slices.Index(t.Heads, head)
		if column < 0 {
			d.fault("the table %s has no column %q", name, head)
			return "", missing{"table " + name}
		}
		for i, row := range t.Rows {
			rows[i] = append(rows[i], row[column])
		}
	}
	return markdown(wanted, rows), nil
}

// nameAndKeys reads a name, and what stands in quotes behind it.
func nameAndKeys(args string) (name string, keys []string, err error) {
	name, rest, _ := strings.Cut(args, " ")
	for rest = strings.TrimSpace(rest); rest != ""; rest = strings.TrimSpace(rest) {
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return "", nil, fmt.Errorf("what follows the name stands in quotes: %s", rest)
		}
		key, _ := strconv.Unquote(quoted) // it is one
		keys = append(keys, key)
		rest = rest[len(quoted):]
	}
	return name, keys, nil
}

func (d *documentation) plotBody(document, name string) (string, error) {
	if name == "" || strings.ContainsAny(name, " /\"") {
		return "", fmt.Errorf("a plot is called scenario-name, not %q", name)
	}
	run := false
	for scenario, s := range d.sets {
		run = run || strings.HasPrefix(name, scenario+"-")
		for _, p := range s.Plots {
			if scenario+"-"+p.Name != name {
				continue
			}
			d.asked[name] = true
			file := plotFile(scenario, p.Name)
			if dir := path.Dir(document) + "/"; strings.HasPrefix(file, dir) {
				file = file[len(dir):]
			}
			return fmt.Sprintf("![%s](%s)", inLine(p.Title), file), nil
		}
	}
	if run {
		d.fault("there is no plot %q", name)
	}
	return "", missing{"plot " + name}
}

// cellBody finds the figure of a row and a column.
func (d *documentation) cellBody(args string) (string, error) {
	name, keys, err := nameAndKeys(args)
	if err != nil {
		return "", err
	}
	if len(keys) != 2 {
		return "", fmt.Errorf("a cell has a row and a column, in quotes, not %d of them", len(keys))
	}
	t, err := d.table(name)
	if err != nil {
		return "", err
	}
	column := slices.Index(t.Heads, keys[1])
	row := slices.IndexFunc(t.Rows, func(row []string) bool { return len(row) > 0 && row[0] == keys[0] })
	if row < 0 || column < 0 || column >= len(t.Rows[row]) {
		d.fault("the table %s has no cell %q, %q", name, keys[0], keys[1])
		return "", missing{"cell " + args}
	}
	return inLine(t.Rows[row][column]), nil
}
