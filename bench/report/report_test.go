package report

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

// TestDocumentation holds the documentation to the figures that are kept: with
// or without some of them, writing it again changes nothing.
func TestDocumentation(t *testing.T) {
	root := filepath.Join("..", "..")
	d, err := draft(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range d.wrong {
		t.Error(err)
	}
	for _, name := range d.stale {
		t.Errorf("%s is of no plot", name)
	}
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		if there, err := os.ReadFile(filepath.Join(root, name)); err != nil {
			t.Error(err)
		} else if !bytes.Equal(there, d.files[name]) {
			t.Errorf("%s is not what bench/results make of it", name)
		}
	}
	if t.Failed() {
		t.Log("go run ./bench report writes it anew")
	}
}

func measured() map[string]*result.Set {
	m := result.Machine{Date: "2026-03-30", CPU: "Some CPU", Cores: 2, Kernel: "6.1", Go: "1.26", Caddy: "2.11"}
	later := m
	later.Date = "2026-04-02"
	return map[string]*result.Set{
		"serve": {
			Scenario: "serve", Command: "go run ./bench serve", Machine: m,
			Tables: []result.Table{
				{Name: "peers", Note: "what each costs", Heads: []string{"proxy", "CPU, µs", "p50|p99", "says"}, Rows: [][]string{
					{"plain | simple", "148 (146–151)", "1|2", "a\nb"}, {"<script>", "≤ 3", "<1", "`x`"}, {"upstream_auth, handler", "–", "none", ""},
				}},
				{Name: "forgotten", Heads: []string{"a"}},
			},
			Plots: []result.Plot{{Name: "cpu", Title: "CPU of a request", Y: "µs", Bars: true, Series: []result.Series{{Points: []result.Point{{Label: "ours", Y: 1, Ours: true}}}}}},
			Goals: []result.Goal{
				{ID: "P10", What: "ten", Want: "≤ 1", Figure: "0", Met: true},
				{ID: "P2", What: "CPU", Want: "≤ 0.78", Figure: "0.80 (0.79–0.81)"},
				{ID: "P1", What: "allocations | handler", Want: "≤ 5", Figure: "4", Met: true},
			},
		},
		"count": {
			Scenario: "count", Command: "go run ./bench count", Machine: later,
			Goals: []result.Goal{{ID: "P1", What: "instructions", Want: "≤ 1.01", Figure: "1.00", Met: true}},
		},
	}
}

// repository is a folder with figures and documents.
func repository(t *testing.T, sets map[string]*result.Set, readme string) string {
	t.Helper()
	root := t.TempDir()
	for _, s := range sets {
		if err := s.Save(filepath.Join(root, resultsDir)); err != nil {
			t.Fatal(err)
		}
	}
	put(t, root, "README.md", readme)
	put(t, root, "docs/performance.md", "text\n\n<!-- bench:plot serve-cpu -->\n<!-- /bench -->\n")
	put(t, root, "docs/plots/serve-old.svg", "<svg/>")
	put(t, root, "docs/plots/notes.txt", "stays")
	put(t, root, whyFile, `{"P2: CPU": "the floor is | here", "P2: other": "of nothing"}`)
	return root
}

func put(t *testing.T, root, name, text string) {
	t.Helper()
	file := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, root, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const before = `# Title

<!-- another comment --> ` + "`|`" + `
<!-- bench:table serve/peers -->
old | text
<!-- /bench -->
With <!-- bench:command serve -->old<!-- /bench -->, p99 <!-- bench:cell serve/peers "plain | simple" "CPU, µs" -->old<!-- /bench -->.
<!-- bench:plot serve-cpu -->
<!-- /bench -->

<!-- bench:goals P1 P2 -->
<!-- /bench -->
<!-- bench:machine -->
<!-- /bench -->
<!-- bench:machine serve -->
<!-- /bench -->
<!-- bench:table grow/routes -->
was there
<!-- /bench -->
<!-- bench:table serve/peers "says" "proxy" -->
<!-- /bench -->
End, without a newline`

const after = `# Title

<!-- another comment --> ` + "`|`" + `
<!-- bench:table serve/peers -->
What each costs.

| proxy | CPU, µs | p50\|p99 | says |
| --- | ---: | ---: | --- |
| plain \| simple | 148 (146–151) | 1\|2 | a b |
| &lt;script> | ≤ 3 | <1 | ` + "`x`" + ` |
| **upstream_auth, handler** | – | none |  |
<!-- /bench -->
With <!-- bench:command serve -->` + "`go run ./bench serve`" + `<!-- /bench -->, p99 <!-- bench:cell serve/peers "plain | simple" "CPU, µs" -->148 (146–151)<!-- /bench -->.
<!-- bench:plot serve-cpu -->
![CPU of a request](docs/plots/serve-cpu.svg)
<!-- /bench -->

<!-- bench:goals P1 P2 -->
|  | what | goal | reached |  | command |
| --- | --- | ---: | ---: | --- | --- |
| P1 | instructions | ≤ 1.01 | 1.00 | met | ` + "`go run ./bench count`" + ` |
| P1 | allocations \| handler | ≤ 5 | 4 | met | ` + "`go run ./bench serve`" + ` |
| P2 | CPU | ≤ 0.78 | 0.80 (0.79–0.81) | **missed**: the floor is \| here | ` + "`go run ./bench serve`" + ` |
<!-- /bench -->
<!-- bench:machine -->
Measured from 30 March to 2 April 2026 on two cores of a machine with Some CPU (Linux 6.1, Go 1.26, Caddy 2.11).
<!-- /bench -->
<!-- bench:machine serve -->
Measured on 30 March 2026 on two cores of a machine with Some CPU (Linux 6.1, Go 1.26, Caddy 2.11).
<!-- /bench -->
<!-- bench:table grow/routes -->
<!-- /bench -->
<!-- bench:table serve/peers "says" "proxy" -->
| says | proxy |
| --- | --- |
| a b | plain \| simple |
| ` + "`x`" + ` | &lt;script> |
|  | upstream_auth, handler |
<!-- /bench -->
End, without a newline`

func TestWrite(t *testing.T) {
	root := repository(t, measured(), before)
	d, err := draft(root)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time nothing is left to do
		if err := Write(root); err != nil {
			t.Fatal(err)
		}
		if got := read(t, root, "README.md"); got != after {
			t.Errorf("got\n%s\nwant\n%s", got, after)
		}
	}
	if got := read(t, root, "docs/performance.md"); !strings.Contains(got, "![CPU of a request](plots/serve-cpu.svg)") {
		t.Errorf("the picture's path is not that from its own folder: %s", got)
	}
	if got := read(t, root, "docs/plots/serve-cpu.svg"); !strings.HasPrefix(got, "<svg ") {
		t.Errorf("the plot is %.20q", got)
	}
	if _, err := os.Stat(filepath.Join(root, "docs/plots/serve-old.svg")); err == nil {
		t.Error("the plot of nothing is still there")
	}
	read(t, root, "docs/plots/notes.txt")

	if !slices.Equal(d.empty, []string{"table grow/routes"}) {
		t.Errorf("left empty: %q", d.empty)
	}
	says := strings.Join(d.notes, "\n")
	for _, want := range []string{"serve/forgotten is shown nowhere", `"P2: other"`} {
		if !strings.Contains(says, want) {
			t.Errorf("it did not say %s, but\n%s", want, says)
		}
	}
}

func TestWithoutFigures(t *testing.T) {
	root := repository(t, nil, before)
	if err := Write(root); err != nil {
		t.Fatal(err)
	}
	got := read(t, root, "README.md")
	if strings.Contains(got, "old") || !strings.Contains(got, "With <!-- bench:command serve --><!-- /bench -->, p99 <!--") || !strings.HasSuffix(got, "End, without a newline") {
		t.Errorf("got\n%s", got)
	}
}

// What is wrong with a marker leaves the whole documentation as it was.
func TestBadMarkers(t *testing.T) {
	for name, text := range map[string]string{
		"unknown":                 "<!-- bench:figure serve -->\n<!-- /bench -->",
		"no end":                  "<!-- bench:table serve/peers -->\n| a |\n",
		"no end before another":   "<!-- bench:machine -->\n<!-- bench:command serve --><!-- /bench -->",
		"end without a beginning": "text <!-- /bench -->",
		"two ends":                "<!-- bench:machine -->\n<!-- /bench -->\n<!-- /bench -->",
		"not closed":              "<!-- bench:table serve/peers\n<!-- /bench -->",
		"no blank":                "<!--bench:table serve/peers-->\n<!-- /bench -->",
		"no kind":                 "<!-- bench -->\n<!-- /bench -->",
		"no table's name":         "<!-- bench:table serve -->\n<!-- /bench -->",
		"no plot's name":          "<!-- bench:plot -->\n<!-- /bench -->",
		"no goal's name":          "<!-- bench:goals P1, P2 -->\n<!-- /bench -->",
		"a cell of no column":     "<!-- bench:cell serve/peers \"a\" --><!-- /bench -->",
		"a cell without quotes":   "<!-- bench:cell serve/peers a b --><!-- /bench -->",
		"columns without quotes":  "<!-- bench:table serve/peers proxy -->\n<!-- /bench -->",
		"a table within a line":   "<!-- bench:table serve/peers --><!-- /bench -->",
	} {
		t.Run(name, func(t *testing.T) {
			root := repository(t, measured(), text)
			err := Write(root)
			if err == nil {
				t.Fatalf("no error: %s", read(t, root, "README.md"))
			}
			if strings.HasPrefix(name, "no end") && !strings.Contains(err.Error(), "has no end") {
				t.Errorf("got %v", err)
			}
			if got := read(t, root, "README.md"); got != text {
				t.Errorf("it was changed: %s", got)
			}
			read(t, root, "docs/plots/serve-old.svg")
		})
	}
}

// What the documentation asks for in vain, of a scenario that was run, is said,
// and the rest is written.
func TestWrong(t *testing.T) {
	for name, text := range map[string]string{
		"no such table":   "<!-- bench:table serve/rates -->\n<!-- /bench -->",
		"no such plot":    "<!-- bench:plot serve-rates -->\n<!-- /bench -->",
		"no such row":     "<!-- bench:cell serve/peers \"a\" \"says\" --><!-- /bench -->",
		"no such columns": "<!-- bench:table serve/peers \"proxy\" \"a\" -->\n<!-- /bench -->",
		"no such column":  "<!-- bench:cell serve/peers \"<script>\" \"a\" --><!-- /bench -->",
	} {
		t.Run(name, func(t *testing.T) {
			root := repository(t, measured(), text+"\n<!-- bench:command serve -->\n<!-- /bench -->\n")
			if err := Write(root); err == nil {
				t.Error("no error")
			}
			if got := read(t, root, "README.md"); !strings.Contains(got, "`go run ./bench serve`") {
				t.Errorf("the rest is not written: %s", got)
			}
		})
	}
	t.Run("no reason", func(t *testing.T) {
		root := repository(t, measured(), "<!-- bench:goals -->\n<!-- /bench -->\n")
		put(t, root, whyFile, `{"P2: CPU": " "}`)
		if err := Write(root); err == nil || !strings.Contains(err.Error(), `"P2: CPU" is missed`) {
			t.Errorf("got %v", err)
		}
		if got := read(t, root, "README.md"); !strings.Contains(got, "| **missed** |") || strings.Index(got, "| P2 |") > strings.Index(got, "| P10 |") {
			t.Errorf("got %s", got)
		}
	})
	t.Run("reasons that are none", func(t *testing.T) {
		root := repository(t, measured(), "")
		put(t, root, whyFile, `["P2"]`)
		if err := Write(root); err == nil {
			t.Error("no error")
		}
	})
	t.Run("two plots of one name", func(t *testing.T) {
		sets := measured()
		sets["serve"].Plots = append(sets["serve"].Plots, sets["serve"].Plots[0])
		if err := Write(repository(t, sets, "")); err == nil {
			t.Error("no error")
		}
	})
	t.Run("two machines", func(t *testing.T) {
		sets := measured()
		sets["count"].Machine.CPU, sets["count"].Machine.Cores = "", 8
		root := repository(t, sets, "<!-- bench:machine -->\n<!-- /bench -->\n")
		if err := Write(root); err != nil {
			t.Fatal(err)
		}
		if got := read(t, root, "README.md"); !strings.Contains(got, "on 2 April 2026 on 8 cores of a machine with an unknown processor (Linux 6.1, Go 1.26, Caddy 2.11), and on 30 March 2026 on two cores") {
			t.Errorf("got %s", got)
		}
	})
}
