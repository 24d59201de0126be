// Package report writes what bench has measured into the documentation: tables
// and figures between markers, and plots as files. What stands outside the
// markers is the work of people, and stays as it is.
package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/plot"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

// From the root of the repository:
const (
	resultsDir = "bench/results" // what has been measured
	plotsDir   = "docs/plots"
	// whyFile holds the reasons for goals that are missed, written by hand: by
	// ID and what the goal is of, as "P1: instructions beside header_up".
	whyFile = "bench/why.json"
)

// documents are the files that hold figures between markers, likewise.
var documents = []string{"README.md", "docs/performance.md"}

// Write writes the figures that are kept in a repository into its
// documentation, and says on standard output what it did. What has not been measured yet is left empty, and said. What
// is asked for and does not exist in a scenario that was run is an error, and so
// is a goal that was missed for no reason given; the rest is written all the
// same.
func Write(root string) error {
	d, err := draft(root)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		if err := replace(filepath.Join(root, name), d.files[name]); err != nil {
			return err
		}
	}
	for _, name := range d.stale {
		fmt.Printf("report: %s is deleted\n", name)
		if err := os.Remove(filepath.Join(root, name)); err != nil {
			return err
		}
	}
	if len(d.empty) > 0 {
		fmt.Printf("report: not measured yet, and left empty: %s\n", strings.Join(d.empty, ", "))
	}
	for _, says := range d.notes {
		fmt.Printf("report: %s\n", says)
	}
	return errors.Join(d.wrong...)
}

// replace writes a file unless it holds the same.
func replace(file string, text []byte) error {
	if before, err := os.ReadFile(file); err == nil && bytes.Equal(before, text) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { //nolint:gosec // to be read by all
		return err
	}
	fmt.Printf("report: %s is written\n", file)
	return os.WriteFile(file, text, 0o644) //nolint:gosec // likewise
}

// documentation is what the kept figures make of it.
type documentation struct {
	sets map[string]*result.Set
	why  map[string]string
	// files are its texts and plots, by their names from the root.
	files map[string][]byte
	// stale are plots that are there and of nothing.
	stale []string
	// empty is what the documents ask for and was not measured yet, notes are
	// what else one should know, and wrong is what has to be mended.
	empty []string
	notes []string
	wrong []error

	asked map[string]bool // tables and plots that a document shows
}

func (d *documentation) note(format string, args ...any) {
	d.notes = append(d.notes, fmt.Sprintf(format, args...))
}

func (d *documentation) fault(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	if !slices.ContainsFunc(d.wrong, func(other error) bool { return other.Error() == err.Error() }) {
		d.wrong = append(d.wrong, err)
	}
}

// lacks notes what was not measured yet.
func (d *documentation) lacks(what string) {
	if !slices.Contains(d.empty, what) {
		d.empty = append(d.empty, what)
	}
}

// draft makes the documentation, and writes nothing.
func draft(root string) (*documentation, error) {
	sets, err := result.Load(filepath.Join(root, resultsDir))
	if err != nil {
		return nil, err
	}
	d := &documentation{sets: sets, why: make(map[string]string), files: make(map[string][]byte), asked: make(map[string]bool)}
	text, err := os.ReadFile(filepath.Join(root, whyFile))
	if err == nil {
		err = json.Unmarshal(text, &d.why)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", whyFile, err)
	}
	if err := d.plots(root); err != nil {
		return nil, err
	}
	for _, name := range documents {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return nil, err
		}
		filled, err := d.fill(name, string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		d.files[name] = []byte(filled)
	}
	d.leftOver()
	return d, nil
}

// plots draws the plots of all sets, and finds those that are of none.
func (d *documentation) plots(root string) error {
	for _, scenario := range slices.Sorted(maps.Keys(d.sets)) {
		for _, p := range d.sets[scenario].Plots {
			name := plotFile(scenario, p.Name)
			if d.files[name] != nil {
				return fmt.Errorf("two plots would be %s", name)
			}
			svg, err := plot.Draw(&p)
			if err != nil {
				return fmt.Errorf("scenario %s: %w", scenario, err)
			}
			d.files[name] = svg
		}
	}
	there, err := filepath.Glob(filepath.Join(root, plotsDir, "*.svg"))
	if err != nil {
		return err
	}
	for _, file := range there {
		if name := plotsDir + "/" + filepath.Base(file); d.files[name] == nil {
			d.stale = append(d.stale, name)
		}
	}
	return nil
}

// plotFile is the name of a plot's file, from the root.
func plotFile(scenario, name string) string { return plotsDir + "/" + scenario + "-" + name + ".svg" }

// leftOver notes what was measured and is shown nowhere, and reasons of nothing.
func (d *documentation) leftOver() {
	goals := make(map[string]bool)
	for _, scenario := range slices.Sorted(maps.Keys(d.sets)) {
		s := d.sets[scenario]
		for _, t := range s.Tables {
			if name := scenario + "/" + t.Name; !d.asked[name] {
				d.note("the table %s is shown nowhere", name)
			}
		}
		for _, p := range s.Plots {
			if name := scenario + "-" + p.Name; !d.asked[name] {
				d.note("the plot %s is shown nowhere", name)
			}
		}
		for _, g := range s.Goals {
			goals[goalKey(g)] = true
		}
	}
	for _, key := range slices.Sorted(maps.Keys(d.why)) {
		if !goals[key] {
			d.note("%s has a reason for %q, which is no goal that was measured", whyFile, key)
		}
	}
}

func goalKey(g result.Goal) string { return g.ID + ": " + g.What }

// reason is why a goal is missed: the hand-written one, or its own.
func (d *documentation) reason(g result.Goal) string {
	if why := strings.TrimSpace(d.why[goalKey(g)]); why != "" {
		return why
	}
	return g.Why
}
