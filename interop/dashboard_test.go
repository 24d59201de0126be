package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var dashboardPicture = flag.String("interop.picture", "", "draw what TestDashboard's queries returned into this file, docs/dashboard.svg")

const (
	dashboardFile = "../deploy/grafana/dashboard.json"
	readmeFile    = "../README.md"
)

// readDashboard reads it as it is shipped.
func readDashboard(t *testing.T) (text []byte, d dashboard) {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatalf("%s: %v", dashboardFile, err)
	}
	return text, d
}

// TestDashboardShape: what Grafana, or who reads the dashboard, would stumble over.
func TestDashboardShape(t *testing.T) {
	t.Parallel()
	text, d := readDashboard(t)
	var raw any
	if err := json.Unmarshal(text, &raw); err != nil {
		t.Fatal(err)
	}
	var tidy bytes.Buffer
	encoder := json.NewEncoder(&tidy)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(raw); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, tidy.Bytes()) {
		t.Errorf("%s is not as jq --sort-keys prints it", dashboardFile)
	}
	if d.Title == "" || d.UID != "caddy-upstream-auth" || d.SchemaVersion < 39 || d.Refresh != "30s" {
		t.Errorf("title %q, uid %q, schemaVersion %d, refresh %q", d.Title, d.UID, d.SchemaVersion, d.Refresh)
	}
	ids := make(map[int]string)
	taken := make(map[[2]int]string)
	for _, p := range d.placed() {
		if other, known := ids[p.ID]; known || p.ID == 0 {
			t.Errorf("%q has the id %d, as has %q", p.Title, p.ID, other)
		}
		ids[p.ID] = p.Title
		if p.Type != "row" {
			p.check(t)
		}
		at := p.GridPos
		if at.X < 0 || at.W < 1 || at.X+at.W > 24 || at.H < 1 {
			t.Errorf("%q is at %+v, of 24 columns", p.Title, at)
		}
		for x := at.X; x < at.X+at.W; x++ {
			for y := at.Y; y < at.Y+at.H; y++ {
				if other, known := taken[[2]int{x, y}]; known {
					t.Fatalf("%q lies over %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
	for _, v := range d.Templating.List {
		if v.Type == "datasource" {
			continue
		}
		if !v.Multi || !v.IncludeAll || v.Datasource.UID != "${datasource}" || v.Definition != v.query() {
			t.Errorf("variable %s: %+v", v.Name, v)
		}
	}
	checkRunbookLinks(t, d)
}

// check: what each panel needs.
func (p panel) check(t *testing.T) {
	t.Helper()
	if p.Title == "" || p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
		t.Errorf("panel %d, %q, lacks a title, a description, a unit or a query", p.ID, p.Title)
	}
	ours := datasource{"prometheus", "${datasource}"}
	if p.Datasource != ours {
		t.Errorf("%q has the data source %+v; want %+v", p.Title, p.Datasource, ours)
	}
	refs := make(map[string]bool)
	for _, q := range p.Targets {
		if q.Datasource != ours || q.Expr == "" || refs[q.RefID] || q.Instant == q.Range {
			t.Errorf("%q: the query %+v", p.Title, q)
		}
		if p.Type != "table" && q.LegendFormat == "" {
			t.Errorf("%q: no legend for %s", p.Title, q.Expr)
		}
		refs[q.RefID] = true
	}
}

// checkRunbookLinks: each leads to a section that is there.
func checkRunbookLinks(t *testing.T, d dashboard) {
	t.Helper()
	runbook, err := os.ReadFile(runbookFile)
	if err != nil {
		t.Fatal(err)
	}
	sections := []string{""}
	for _, found := range heading.FindAllSubmatch(runbook, -1) {
		sections = append(sections, "#"+strings.ReplaceAll(strings.ToLower(string(found[1])), " ", "-"))
	}
	links := slices.Clone(d.Links)
	for _, p := range d.all() {
		links = append(links, p.Links...)
	}
	const runbookAt = "https://github.com/caddy-upstream-auth/caddy-upstream-auth/blob/main/docs/runbook.md"
	for _, link := range links {
		section, ours := strings.CutPrefix(link.URL, runbookAt)
		if !ours || !slices.Contains(sections, section) {
			t.Errorf("there is no %s", link.URL)
		}
	}
	if len(links) == 0 {
		t.Error("no link leads to the runbook")
	}
}

// A histogram is asked for by its buckets.
var (
	metricName = regexp.MustCompile(`\bcaddy_upstream_auth_\w+`)
	metricRow  = regexp.MustCompile("(?m)^\\| `(caddy_upstream_auth_\\w+)` \\| (\\w+)")
)

// TestDashboardMetrics: the queries are of metrics that the README has, and each
// of those has its place.
func TestDashboardMetrics(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(readmeFile)
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]bool)
	for _, found := range metricRow.FindAllStringSubmatch(string(readme), -1) {
		name := found[1]
		if found[2] == "histogram" {
			name += "_bucket"
		}
		documented[name] = false
	}
	_, d := readDashboard(t)
	for where, query := range d.queries() {
		for _, name := range metricName.FindAllString(query, -1) {
			if _, known := documented[name]; !known {
				t.Errorf("%s: the README knows no %s", where, name)
			}
			documented[name] = true
		}
	}
	for name, used := range documented {
		if !used {
			t.Errorf("no panel shows %s", name)
		}
	}
}

// TestDashboard has a real Prometheus answer every query, after a run in which
// there is something to see in each panel.
func TestDashboard(t *testing.T) {
	t.Parallel()
	_, d := readDashboard(t)
	s := startScene(t)
	every := s.choices(t, d)
	all := maps.Clone(every)
	for _, v := range d.Templating.List {
		if v.IncludeAll {
			all[v.Name] = v.AllValue
		}
	}
	drawn := make(map[string][]line) // by panel and query
	for _, p := range d.all() {
		for _, q := range p.Targets {
			where := fmt.Sprintf("panel %q, query %s", p.Title, q.RefID)
			s.answers(t, where, q, every)
			drawn[p.of(q)] = s.answers(t, where, q, all)
		}
	}
	if *dashboardPicture == "" || t.Failed() {
		return
	}
	if err := os.WriteFile(*dashboardPicture, s.draw(d, drawn), 0o600); err != nil {
		t.Fatal(err)
	}
}

var labelValues = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)

// choices asks for the values of each variable, as Grafana does, and chooses all
// of them.
func (s *scene) choices(t *testing.T, d dashboard) chosen {
	t.Helper()
	c := chosen{"__rate_interval": "5s", "__interval": "1s", "__range": "30s"}
	want := map[string]int{"job": 1, "instance": len(s.caddys), "credential": 7}
	for _, v := range d.Templating.List {
		if v.Type != "query" {
			continue
		}
		part := labelValues.FindStringSubmatch(v.query())
		if part == nil {
			t.Fatalf("variable %s is asked for with %q", v.Name, v.query())
		}
		var answer struct{ Data []string }
		ask := url.Values{"match[]": {c.in(part[1])}, "start": {seconds(s.began)}, "end": {seconds(s.ended)}}
		if err := s.ask(t.Context(), "/api/v1/label/"+part[2]+"/values?"+ask.Encode(), &answer); err != nil {
			t.Fatalf("variable %s: %v", v.Name, err)
		}
		if len(answer.Data) != want[v.Name] {
			t.Errorf("variable %s can be %q; want %d values", v.Name, answer.Data, want[v.Name])
		}
		c[v.Name] = anyOf(answer.Data)
	}
	return c
}

func seconds(at time.Time) string { return fmt.Sprintf("%.3f", float64(at.UnixMilli())/1000) }

var legendLabel = regexp.MustCompile(`\{\{(\w+)\}\}`)

// answers asks a query, which has to return something other than 0, under the
// legend that it has.
func (s *scene) answers(t *testing.T, where string, q target, c chosen) []line {
	t.Helper()
	lines, err := s.query(t.Context(), q, c)
	if err != nil {
		t.Errorf("%s: %v:\n%s", where, err, c.in(q.Expr))
		return nil
	}
	seen := false
	for n, l := range lines {
		for _, p := range l.points {
			seen = seen || !math.IsNaN(p.value) && p.value != 0
		}
		lines[n].legend = legendLabel.ReplaceAllStringFunc(q.LegendFormat, func(found string) string {
			value := l.labels[strings.Trim(found, "{}")]
			if value == "" {
				t.Errorf("%s: no %s in %v", where, found, l.labels)
			}
			return value
		})
	}
	if !seen {
		t.Errorf("%s returns nothing, or 0 alone:\n%s\n%v", where, c.in(q.Expr), lines)
	}
	return lines
}

func (s *scene) query(ctx context.Context, q target, c chosen) ([]line, error) {
	path, ask := "/api/v1/query_range", url.Values{"query": {c.in(q.Expr)}}
	if q.Instant {
		path = "/api/v1/query"
		ask.Set("time", seconds(s.ended))
	} else {
		ask.Set("start", seconds(s.began))
		ask.Set("end", seconds(s.ended))
		ask.Set("step", "1")
	}
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  point
				Values []point
			}
		}
	}
	if err := s.ask(ctx, path+"?"+ask.Encode(), &answer); err != nil {
		return nil, err
	}
	var lines []line
	for _, r := range answer.Data.Result {
		l := line{labels: r.Metric, points: r.Values}
		if q.Instant {
			l.points = []point{r.Value}
		}
		lines = append(lines, l)
	}
	return lines, nil
}
