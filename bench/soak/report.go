package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// row is a line of the table: what came of the requests that fell to one kind of
// fault.
type row struct {
	times, requests int
	failed          [verdicts]int
	slowest         time.Duration
}

// report prints what was found, and tells whether all is well.
func (f *findings) report(out io.Writer, ttl time.Duration, instances int, race bool) bool {
	wrong := f.tables(out, ttl, instances, race)
	fmt.Fprintln(out)
	for _, note := range f.notes {
		fmt.Fprintln(out, "note:", note)
	}
	for _, line := range wrong {
		fmt.Fprintln(out, "WRONG:", line)
	}
	if len(wrong) == 0 {
		fmt.Fprintln(out, "All is well.")
	}
	return len(wrong) == 0
}

func (f *findings) tables(out io.Writer, ttl time.Duration, instances int, race bool) (wrong []string) {
	rows := f.rows()
	fmt.Fprintf(out, "\n%-16s %6s %9s %10s %12s %8s %9s\n", "fault", "times", "requests", "justified", "unjustified", "unclear", "slowest")
	var total row
	for _, kind := range slices.Concat(processKinds, answerKinds, []string{calm}) {
		r := rows[kind]
		if r == nil {
			continue
		}
		r.print(out, kind)
		total.add(r)
	}
	total.print(out, "all")
	if len(f.noise) > 0 {
		fmt.Fprintln(out, f.quiet())
	}
	wrong = append(wrong, f.failed(out)...)
	wrong = append(wrong, f.tokens(out, ttl)...)
	wrong = append(wrong, f.recoveries(out)...)
	wrong = append(wrong, f.processes(out, race)...)
	wrong = append(wrong, f.ends(out)...)
	if missing := f.unserved(instances); missing != "" {
		wrong = append(wrong, "not one good answer: "+missing)
	}
	return append(wrong, f.faults...)
}

func (f *findings) rows() map[string]*row {
	rows := make(map[string]*row)
	get := func(kind string) *row {
		if rows[kind] == nil {
			rows[kind] = new(row)
		}
		return rows[kind]
	}
	for _, w := range f.windows {
		if w.skipped == "" {
			get(w.kind).times++
		}
	}
	for _, s := range f.samples {
		if s.outcome == good {
			r := get(f.putDown(s))
			r.requests++
			r.slowest = max(r.slowest, s.ended.Sub(s.due))
		}
	}
	for _, j := range f.failures {
		r := get(j.kind)
		r.requests++
		r.failed[j.verdict]++
		r.slowest = max(r.slowest, j.ended.Sub(j.due))
	}
	return rows
}

func (r *row) add(o *row) {
	r.times += o.times
	r.requests += o.requests
	for v := range r.failed {
		r.failed[v] += o.failed[v]
	}
	r.slowest = max(r.slowest, o.slowest)
}

func (r *row) print(out io.Writer, name string) {
	fmt.Fprintf(out, "%-16s %6d %9d %10d %12d %8d %9s\n", name, r.times, r.requests, r.failed[justified], r.failed[unjustified], r.failed[unclear], brief(r.slowest))
}

func brief(d time.Duration) string { return d.Round(time.Millisecond).String() }

// failed tells what the failures were, and of the first of those that should not
// have been.
func (f *findings) failed(out io.Writer) (wrong []string) {
	counts := make(map[string]*[verdicts]int)
	for _, j := range f.failures {
		if counts[j.why] == nil {
			counts[j.why] = new([verdicts]int)
		}
		counts[j.why][j.verdict]++
	}
	fmt.Fprintf(out, "\n%-58s %10s %12s %8s\n", "failed", "justified", "unjustified", "unclear")
	told := make(map[string]int)
	for _, why := range sortedKeys(counts) {
		c := counts[why]
		fmt.Fprintf(out, "%-58s %10d %12d %8d\n", why, c[justified], c[unjustified], c[unclear])
	}
	for _, j := range f.failures {
		if j.verdict != unjustified {
			continue
		}
		if told[j.why]++; told[j.why] <= 3 {
			wrong = append(wrong, fmt.Sprintf("%s: request %d at %s, %s, %s through the %s, process %s, token %s, status %d %s, while: %s",
				j.why, j.number, f.at(j.began), brief(j.ended.Sub(j.began)), j.credential, j.way, j.process, j.token, j.status, j.err, j.kind))
		}
	}
	for _, why := range sortedKeys(told) {
		wrong = append(wrong, fmt.Sprintf("%s: %d in all", why, told[why]))
	}
	return wrong
}

// tokens counts token requests against lifetimes.
func (f *findings) tokens(out io.Writer, ttl time.Duration) (wrong []string) {
	fmt.Fprintf(out, "\n%-10s %9s %8s %7s %10s %13s %13s\n", "token of", "requests", "granted", "failed", "lifetimes", "per lifetime", "most at once")
	for _, c := range clients {
		var asked, granted int
		var lived time.Duration
		var spans []span
		for _, a := range f.asks {
			if a.credential != c.name {
				continue
			}
			asked++
			spans = append(spans, span{a.arrived, a.ended})
			if !a.delivered.IsZero() {
				granted++
			}
		}
		for _, l := range f.lives {
			lived += l.to.Sub(l.from)
		}
		lives := lived.Seconds() / ttl.Seconds()
		fmt.Fprintf(out, "%-10s %9d %8d %7d %10.1f %13.2f %13d\n", c.name, asked, granted, asked-granted, lives, float64(granted)/lives, most(spans))
		// each start, each revocation and each answer that drips has its own
		if allowed := 2*lives + float64(2*len(f.lives)+len(f.revoked)+len(f.windows)); float64(granted) > allowed {
			wrong = append(wrong, fmt.Sprintf("%d tokens of %s, where %.0f are enough", granted, c.name, allowed))
		}
	}
	return wrong
}

// most is how many there were at one time, by as many processes as there are.
func most(spans []span) int {
	type edge struct {
		at   time.Time
		step int
	}
	var edges []edge
	for _, s := range spans {
		edges = append(edges, edge{s.from, 1}, edge{s.to, -1})
	}
	slices.SortFunc(edges, func(a, b edge) int { return a.at.Compare(b.at) })
	now, top := 0, 0
	for _, e := range edges {
		now += e.step
		top = max(top, now)
	}
	return top
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// unserved names those that never had a good answer.
func (f *findings) unserved(instances int) string {
	var missing []string
	for n := range instances {
		for _, c := range clients {
			for _, way := range ways {
				if !slices.ContainsFunc(f.samples, func(s sample) bool {
					return s.outcome == good && s.instance == n && s.credential == c.name && s.way == way
				}) {
					missing = append(missing, fmt.Sprintf("%s through the %s of %d", c.name, way, n))
				}
			}
		}
	}
	return strings.Join(missing, ", ")
}
