package main

import (
	"context"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

var starts = flag.Int("starts", 10, "how often each is started in the scenario start")

const (
	startRest     = 2 * time.Second // left alone before its memory is looked at
	startRequests = 300             // sent before it is looked at again
	startGoal     = 0.55            // of the reference's time to the first answer
	memoryGoal    = 0.80            // of the reference's memory
)

// start measures what each proxy costs before it does anything: the time from
// the start of its process to the first good answer to a request, with a token
// that it has asked for meanwhile, of a server that answers at once; and its
// resident memory, left alone for 2 s, and again after 300 requests. "Private" is
// the part of it that is not the binary's file, which the kernel can drop and read
// again: what counts where memory is short.
//
// All are built alike: without the C library, symbols left out; the sidecar with
// the tags of the image's, and the others with none, as xcaddy builds them. They
// take turns in an order that changes. A figure is divided by the
// reference's of the same round, and what stands in the table is the median of
// these ratios: noise that lasts longer than a round falls out. The sidecar is
// measured twice: how far its second line is from its first is the noise that is
// left.
func start(ctx context.Context, s *stage) error {
	all, err := starters(ctx, s.dir)
	if err != nil {
		return err
	}
	results := make([][]startRow, len(all))
	for round := range *starts {
		for _, next := range order(all, round) {
			i := slices.IndexFunc(all, func(o subject) bool { return o.name == next.name })
			row, err := startTurn(ctx, s.dir, next)
			if err != nil {
				return fmt.Errorf("%s: %w", next.name, err)
			}
			results[i] = append(results[i], row)
		}
	}
	return printStarts(all, results)
}

// startRow is what came of one turn.
type startRow struct {
	first   time.Duration // from the start to the first good answer
	idle    memory        // at rest
	used    memory        // at rest after requests
	foreign share         // what others took of the processors meanwhile
}

// memory of a process, in KiB.
type memory struct{ resident, private int }

// starters are those that are compared; the first is the reference.
func starters(ctx context.Context, dir string) ([]subject, error) {
	paths := make(map[string]string)
	for _, name := range []string{"cmd/caddy", "cmd/sidecar", "bench/peers/xoauth2", "bench/peers/httputil"} {
		path, err := program(ctx, dir, name)
		if err != nil {
			return nil, err
		}
		paths[name] = path
	}
	const transport = `
	reverse_proxy API {
		transport upstream_auth api
	}`
	return []subject{
		{name: "stock Caddy, x/oauth2 handler", command: caddy(paths["bench/peers/xoauth2"], "", `
	route {
		xoauth2 TOKEN_URL CLIENT {$SECRET}
		reverse_proxy API
	}`)},
		{name: "cmd/caddy", command: caddy(paths["cmd/caddy"], options, transport)},
		{name: "cmd/sidecar", ours: true, command: caddy(paths["cmd/sidecar"], options, transport)},
		{name: "cmd/sidecar, again", command: caddy(paths["cmd/sidecar"], options, transport)},
		{name: "httputil.ReverseProxy, oauth2.Transport", command: func(t *turn) (*exec.Cmd, error) {
			cmd := exec.Command(paths["bench/peers/httputil"]) //nolint:gosec // our own binary
			cmd.Args = append(cmd.Args, strings.Fields(t.fill("PROXY http://API TOKEN_URL CLIENT"))...)
			cmd.Env = append(os.Environ(), "CLIENT_SECRET="+secret)
			return cmd, nil
		}},
	}, nil
}

func startTurn(ctx context.Context, dir string, s subject) (startRow, error) {
	t, err := newTurn(dir, time.Hour, true)
	if err != nil {
		return startRow{}, err
	}
	defer t.close()
	began := time.Now()
	if err := t.run(ctx, s); err != nil {
		return startRow{}, err
	}
	row := startRow{first: time.Since(began)}
	before := t.usage()
	if row.idle, err = t.memory(ctx); err != nil {
		return startRow{}, err
	}
	g, err := gather(t.proxy, 1)
	if err != nil {
		return startRow{}, err
	}
	defer g.close()
	for range startRequests {
		if c := g.callers[0].call(time.Now()); !c.good() {
			return startRow{}, fmt.Errorf("a request was answered with %d (0: not at all): %s", c.status, t.log())
		}
	}
	if row.used, err = t.memory(ctx); err != nil {
		return startRow{}, err
	}
	row.foreign = t.usage().foreign(before)
	return row, nil
}

// memory is that of the process after a rest.
func (t *turn) memory(ctx context.Context) (memory, error) {
	select {
	case <-ctx.Done():
		return memory{}, ctx.Err()
	case <-time.After(startRest):
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", t.cmd.Process.Pid))
	if err != nil {
		return memory{}, fmt.Errorf("what a process has in memory is known on Linux alone: %w", err)
	}
	return readMemory(string(text))
}

// readMemory reads a smaps_rollup.
func readMemory(text string) (m memory, err error) {
	if m.resident, err = lineOf(text, "Rss:"); err != nil {
		return memory{}, err
	}
	m.private, err = lineOf(text, "Anonymous:")
	return m, err
}

func lineOf(text, name string) (int, error) {
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == name && fields[2] == "kB" {
			return strconv.Atoi(fields[1])
		}
	}
	return 0, fmt.Errorf("smaps_rollup has no line %s", name)
}

// printStarts writes the table, and fails under -strict where a goal is missed.
func printStarts(all []subject, results [][]startRow) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "    medians of %d (least to most); ×: of the first line's in the same round\n", *starts)
	fmt.Fprintln(w, "    proxy\tfirst answer, ms\t×\tmemory, MiB\t×\tprivate\t×\tafter use\t×\tprivate\t×\tothers\tgoals")
	missed := false
	for i, s := range all {
		cells := []string{s.name}
		var ratios []float64
		for _, of := range []func(startRow) float64{
			func(r startRow) float64 { return float64(r.first) / float64(time.Millisecond) },
			func(r startRow) float64 { return float64(r.idle.resident) / 1024 },
			func(r startRow) float64 { return float64(r.idle.private) / 1024 },
			func(r startRow) float64 { return float64(r.used.resident) / 1024 },
			func(r startRow) float64 { return float64(r.used.private) / 1024 },
		} {
			var values, relative []float64
			for round, r := range results[i] {
				values = append(values, of(r))
				relative = append(relative, of(r)/of(results[0][round]))
			}
			ratios = append(ratios, median(relative))
			cells = append(cells, fmt.Sprintf("%.0f (%.0f–%.0f)", median(values), slices.Min(values), slices.Max(values)), fmt.Sprintf("%.2f", median(relative)))
		}
		var others share
		for _, r := range results[i] {
			others += r.foreign / share(len(results[i]))
		}
		said := ""
		if s.ours {
			said = fmt.Sprintf("[%.2f, %.2f] ", startGoal, memoryGoal) + verdictMet
			if ratios[0] > startGoal || ratios[1] > memoryGoal {
				said, missed = fmt.Sprintf("[%.2f, %.2f] ", startGoal, memoryGoal)+verdictMissed, true
			}
		}
		fmt.Fprintf(w, "    %s\t%s\t%s\n", strings.Join(cells, "\t"), others, said)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if missed && *strict {
		return errMissed
	}
	return nil
}

// median of at least one value.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
