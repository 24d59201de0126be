package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

var (
	growOnly   = flag.String("grow", "", "the dimensions of the scenario grow, separated by commas (default: all)")
	growRounds = flag.Int("grow-rounds", 15, "rounds of the comparisons in the scenario grow")
	growMost   = flag.Int("grow-most", 100_000, "the most credentials and tokens in the scenario grow")
)

// dimensions are what cost may grow with, in the order in which they run.
var dimensions = []struct {
	name string
	run  func(*growth, context.Context) error
}{
	{"tokens", (*growth).tokens},
	{"first", (*growth).first},
	{"credentials", (*growth).credentials},
	{"routes", (*growth).routes},
	{"cores", (*growth).cores},
	{"headers", (*growth).headers},
	{"bodies", (*growth).bodies},
	{"lifetimes", (*growth).lifetimes},
	{"simulated", (*growth).simulated},
	{"instances", (*growth).instances},
}

// growth is one run of the scenario.
type growth struct {
	dir string
	set result.Set
	// kept and thrown are the rounds of comparisons by whether others left them
	// alone.
	kept, thrown int
}

// grow shows how what injection costs grows with the number of tokens,
// credentials, routes, cores, header fields and instances, and with the size of
// bodies. Where that makes sense it is told beside what the same Caddy costs
// without injection: two sites of one process get slices of load in turn, in an
// order that chance gives, and what stands in the tables is the median of the
// ratios within a round, with its 95% interval. The proxy has a processor of its
// own there, and what it costs is read from its own clock. A round in which
// other programs took more than mostForeign of the machine is thrown away; the
// run is void if half of them had to be.
func grow(ctx context.Context, s *stage) error {
	g := &growth{dir: s.dir, set: result.Set{Scenario: "grow", Command: "go run ./bench grow"}}
	var wanted []string
	if *growOnly != "" {
		wanted = strings.Split(*growOnly, ",")
		g.set.Command = "go run ./bench -grow " + *growOnly + " grow"
	}
	for _, name := range wanted {
		known := slices.ContainsFunc(dimensions, func(d struct {
			name string
			run  func(*growth, context.Context) error
		}) bool {
			return d.name == name
		})
		if !known {
			return fmt.Errorf("cost does not grow with %q here", name)
		}
	}
	for _, d := range dimensions {
		if len(wanted) > 0 && !slices.Contains(wanted, d.name) {
			continue
		}
		began := time.Now()
		if err := d.run(g, ctx); err != nil {
			g.set.Void = d.name + " came to no end" // what was measured before is shown, and not kept
			return errors.Join(fmt.Errorf("%s: %w", d.name, err), publish(&g.set))
		}
		fmt.Fprintf(os.Stderr, "  %s took %s\n", d.name, time.Since(began).Round(time.Second))
	}
	if g.thrown > g.kept {
		g.set.Void = fmt.Sprintf("in %d of %d rounds others took more than %s of the processors", g.thrown, g.thrown+g.kept, share(mostForeign))
	}
	return publish(&g.set)
}

func (g *growth) table(t result.Table) { g.set.Tables = append(g.set.Tables, t) }
func (g *growth) plot(p result.Plot)   { g.set.Plots = append(g.set.Plots, p) }

// goal notes a goal that a figure must not be above.
func (g *growth) goal(id, what string, figure, most float64, format string) {
	g.set.Goals = append(g.set.Goals, result.Goal{
		ID: id, What: what, Want: "≤ " + fmt.Sprintf(format, most), Figure: fmt.Sprintf(format, figure), Met: figure <= most,
	})
}

// growPoint is a point of which no range is known.
func growPoint(x, y float64) result.Point { return result.Point{X: x, Y: y, Low: y, High: y} }

// grouped writes a number as people read it: 100,000.
func grouped(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// bytesOf writes a size: 64 KiB.
func bytesOf(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprint(n)
}

func mib(bytes float64) string { return fmt.Sprintf("%.1f", bytes/(1<<20)) }

// eventually waits until something holds.
func eventually(ctx context.Context, most time.Duration, what string, holds func() bool) error {
	deadline := time.Now().Add(most)
	for !holds() {
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %s: %s", most, what)
		}
		sleep(ctx, 2*time.Millisecond)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

var errNotAll = errors.New("not all requests were answered with 200")
