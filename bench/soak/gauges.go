package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// gauge is what a process weighs at a moment.
type gauge struct {
	at                time.Time
	memory            float64 // bytes, resident
	goroutines, files float64
}

// weigh asks each Caddy's own metrics again and again, until the context ends.
func (s *stage) weigh(ctx context.Context) {
	for ctx.Err() == nil {
		rest(ctx, 2*time.Second)
		for _, i := range s.caddies {
			var l *life
			s.book.with(func() {
				for _, one := range s.book.lives {
					if one.instance == i.number && one.stopping.IsZero() {
						l = one
					}
				}
			})
			if l == nil {
				continue
			}
			if g, err := i.weight(ctx); err == nil {
				s.book.with(func() { l.gauges = append(l.gauges, g) })
			}
		}
	}
}

func (i *instance) weight(ctx context.Context) (gauge, error) {
	g := gauge{at: time.Now()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1/metrics", nil)
	if err != nil {
		return g, err
	}
	res, err := i.admin.Do(req)
	if err != nil {
		return g, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return g, err
	}
	for line := range strings.Lines(string(body)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		into := map[string]*float64{
			"process_resident_memory_bytes": &g.memory, "go_goroutines": &g.goroutines, "process_open_fds": &g.files,
		}[name]
		if into == nil {
			continue
		}
		if *into, err = strconv.ParseFloat(value, 64); err != nil {
			return g, err
		}
	}
	return g, nil
}

// growth compares the beginning of a life with its end.
type growth struct {
	process     string
	span        time.Duration // that is compared
	first, last gauge         // the least of each
}

// compared is what has to be there for growth to be a fault: anything shorter
// shows how a process warms up.
const compared = time.Minute

// grows compares a minute with a minute, or less in a short life. The least
// value counts: load comes and goes, and what leaks stays.
func (l *life) grows() (growth, bool) {
	if len(l.gauges) < 6 {
		return growth{}, false
	}
	begin, end := l.gauges[0].at, l.gauges[len(l.gauges)-1].at
	g := growth{process: l.process, span: min(compared, end.Sub(begin)/3)}
	g.first, g.last = l.gauges[0], l.gauges[len(l.gauges)-1]
	for _, one := range l.gauges {
		if one.at.Sub(begin) <= g.span {
			g.first = least(g.first, one)
		}
		if end.Sub(one.at) <= g.span {
			g.last = least(g.last, one)
			g.last.at = end
		}
	}
	return g, true
}

func least(a, b gauge) gauge {
	return gauge{a.at, min(a.memory, b.memory), min(a.goroutines, b.goroutines), min(a.files, b.files)}
}

// leaks tells what has grown beyond what a process at work may need, "" where
// nothing has.
func (g growth) leaks(race bool) string {
	var all []string
	for _, one := range []struct {
		what         string
		first, last  float64
		factor, more float64
	}{
		{"memory", g.first.memory, g.last.memory, 1.5, 64 << 20},
		{"goroutines", g.first.goroutines, g.last.goroutines, 1.5, 50},
		{"files", g.first.files, g.last.files, 1.5, 50},
	} {
		if race && one.what == "memory" {
			continue // the detector keeps its own
		}
		if one.last > one.first*one.factor+one.more {
			all = append(all, one.what)
		}
	}
	if g.span < compared {
		return ""
	}
	return strings.Join(all, ", ")
}

func (g growth) String() string {
	return fmt.Sprintf("%-5s over %3.0f s each   memory %4.0f → %4.0f MiB   goroutines %4.0f → %4.0f   files %3.0f → %3.0f",
		g.process, g.span.Seconds(), g.first.memory/(1<<20), g.last.memory/(1<<20), g.first.goroutines, g.last.goroutines, g.first.files, g.last.files)
}
