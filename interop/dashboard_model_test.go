package interop

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// dashboard is what is looked at of Grafana's JSON.
type dashboard struct {
	Links      []dashboardLink
	Panels     []panel
	Templating struct {
		List []variable
	}
	SchemaVersion       int
	Title, UID, Refresh string
}

type dashboardLink struct{ URL string }

// panel is one of any type; one of type row holds others when it is closed.
type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               datasource
	Collapsed                bool
	GridPos                  struct{ X, Y, W, H int }
	Links                    []dashboardLink
	Targets                  []target
	Panels                   []panel
	Transformations          []struct {
		Options struct {
			ExcludeByName map[string]bool
			IndexByName   map[string]int
			RenameByName  map[string]string
		}
	}
	FieldConfig struct {
		Defaults  field
		Overrides []struct {
			Matcher    struct{ Options string }
			Properties []struct {
				ID    string
				Value json.RawMessage
			}
		}
	}
}

// field is how values are shown.
type field struct {
	Unit       string
	Color      color
	Max        *float64
	Thresholds thresholds
	Custom     struct {
		AxisSoftMax       float64
		ScaleDistribution struct {
			Type            string
			LinearThreshold float64
		}
		Stacking        struct{ Mode string }
		ThresholdsStyle struct{ Mode string }
	}
	Mappings []struct {
		Options map[string]struct{ Text, Color string }
	}
}

// thresholds are steps that rise; the first has no value, and begins below all.
type thresholds struct {
	Steps []struct {
		Color string
		Value *float64
	}
}

type color struct{ Mode, FixedColor string }

type datasource struct{ Type, UID string }

type target struct {
	Datasource         datasource
	Expr, LegendFormat string
	RefID              string
	Instant, Range     bool
}

// variable is what somebody chooses at the top.
type variable struct {
	Name, Type, AllValue string
	Multi, IncludeAll    bool
	Datasource           datasource
	Definition           string // the query, as the editor shows it
	Query                json.RawMessage
}

// placed are all that has a place: the rows, and the panels, those of closed rows
// too.
func (d dashboard) placed() []panel {
	var all []panel
	for _, p := range d.Panels {
		all = append(append(all, p), p.Panels...)
	}
	return all
}

// all are the panels, without the rows.
func (d dashboard) all() []panel {
	return slices.DeleteFunc(d.placed(), func(p panel) bool { return p.Type == "row" })
}

// of names what a query of the panel returned.
func (p panel) of(q target) string { return fmt.Sprint(p.ID, q.RefID) }

// queries are all, by where they stand.
func (d dashboard) queries() map[string]string {
	all := make(map[string]string)
	for _, p := range d.all() {
		for _, q := range p.Targets {
			all[fmt.Sprintf("panel %q, query %s", p.Title, q.RefID)] = q.Expr
		}
	}
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			all["variable "+v.Name] = v.query()
		}
	}
	return all
}

func (v variable) query() string {
	var q struct{ Query string }
	_ = json.Unmarshal(v.Query, &q) // "" is found to be wrong later
	return q.Query
}

// chosen are the values of the variables, as Grafana puts them into a query.
type chosen map[string]string

var reference = regexp.MustCompile(`\$(\w+)|\$\{(\w+)(?::\w+)?\}`)

// in replaces the variables; what nobody has chosen stays, and finds nothing.
func (c chosen) in(query string) string {
	return reference.ReplaceAllStringFunc(query, func(found string) string {
		part := reference.FindStringSubmatch(found)
		if value, known := c[part[1]+part[2]]; known {
			return value
		}
		return found
	})
}

// anyOf is what Grafana makes of several values for a regular expression.
func anyOf(values []string) string {
	quoted := make([]string, len(values))
	for n, value := range values {
		quoted[n] = strings.ReplaceAll(regexp.QuoteMeta(value), `\`, `\\`)
	}
	return "(" + strings.Join(quoted, "|") + ")"
}

// line is a series that a query returned.
type line struct {
	labels map[string]string
	legend string
	points []point
}

type point struct {
	at    time.Time
	value float64
}

func (p *point) UnmarshalJSON(text []byte) error {
	var seconds float64
	var value string
	if err := json.Unmarshal(text, &[]any{&seconds, &value}); err != nil {
		return err
	}
	var err error
	p.at = time.UnixMilli(int64(math.Round(seconds * 1000)))
	p.value, err = strconv.ParseFloat(value, 64)
	return err
}
