// Package result holds what a scenario of bench has measured, in the form in
// which it is printed, kept in bench/results, and shown in the documentation.
package result

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Set is all that one run of one scenario has come to.
type Set struct {
	// Scenario is its name, and that of its file.
	Scenario string `json:"scenario"`
	// Command is what gives the figures again, from the repository's root.
	Command string `json:"command"`
	// Machine is where they are from.
	Machine Machine `json:"machine"`
	// Void says why the run is no measure; "" if it is one.
	Void string `json:"void,omitempty"`

	Tables []Table `json:"tables"`
	Plots  []Plot  `json:"plots,omitempty"`
	Goals  []Goal  `json:"goals,omitempty"`
}

// Machine is what a figure depends on.
type Machine struct {
	Date   string `json:"date"` // of the run, as 2006-01-02
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	Caddy  string `json:"caddy"`
}

// Table is a table of figures, as people read them.
type Table struct {
	// Name is unique in its Set: the documentation asks for scenario/name.
	Name string `json:"name"`
	// Note says in a sentence or two what the figures are; "" for nothing.
	Note  string     `json:"note,omitempty"`
	Heads []string   `json:"heads"`
	Rows  [][]string `json:"rows"` // as many cells as there are heads
}

// Goal is a goal of the project beside what was reached.
type Goal struct {
	ID     string `json:"id"`   // P1
	What   string `json:"what"` // "allocations over plain reverse_proxy, handler"
	Want   string `json:"want"` // "≤ 5"
	Figure string `json:"figure"`
	Met    bool   `json:"met"`
	Why    string `json:"why,omitempty"` // of one that is missed: what the floor is made of
}

// Plot is drawn as docs/plots/<scenario>-<name>.svg.
type Plot struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	// Bars draws a bar for each point of one series, with its label and range;
	// else each series is a line.
	Bars   bool     `json:"bars,omitempty"`
	X      string   `json:"x,omitempty"` // axis, with its unit
	Y      string   `json:"y"`
	LogX   bool     `json:"log_x,omitempty"`
	LogY   bool     `json:"log_y,omitempty"`
	Series []Series `json:"series"`
}

// Series is a line of a plot.
type Series struct {
	Name   string  `json:"name"`
	Points []Point `json:"points"`
}

// Point is a figure with its range. Low and High are equal to Y where none is
// known.
type Point struct {
	Label string  `json:"label,omitempty"` // of a bar
	Ours  bool    `json:"ours,omitempty"`  // a bar of this project's
	X     float64 `json:"x"`
	Y     float64 `json:"y"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

// Save writes the set into a folder.
func (s *Set) Save(dir string) error {
	for _, t := range s.Tables {
		for _, row := range t.Rows {
			if len(row) != len(t.Heads) {
				return fmt.Errorf("table %s/%s: %d cells under %d heads: %q", s.Scenario, t.Name, len(row), len(t.Heads), row)
			}
		}
	}
	text, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // to be read by all
		return err
	}
	return os.WriteFile(filepath.Join(dir, s.Scenario+".json"), append(text, '\n'), 0o644) //nolint:gosec // likewise
}

// Load reads all the sets of a folder, by their scenarios' names.
func Load(dir string) (map[string]*Set, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	sets := make(map[string]*Set)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		s := new(Set)
		if err := json.Unmarshal(text, s); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if s.Scenario+".json" != filepath.Base(file) {
			return nil, fmt.Errorf("%s holds the scenario %q", file, s.Scenario)
		}
		sets[s.Scenario] = s
	}
	return sets, nil
}

// Find finds a table by scenario/name.
func Find(sets map[string]*Set, name string) (*Set, *Table, error) {
	scenario, table, _ := strings.Cut(name, "/")
	s := sets[scenario]
	if s == nil {
		return nil, nil, fmt.Errorf("no scenario %q was run", scenario)
	}
	for i := range s.Tables {
		if s.Tables[i].Name == table {
			return s, &s.Tables[i], nil
		}
	}
	return nil, nil, fmt.Errorf("scenario %s has no table %q", scenario, table)
}
