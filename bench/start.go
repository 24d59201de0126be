package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

var starts = flag.Int("starts", 10, "how often each is started in the scenario start")

const (
	startRest     = 2 * time.Second // left alone before its memory is looked at
	startRequests = 300             // sent before it is looked at again
	startGoal     = 0.55            // of the reference's time to the first answer
	memoryGoal    = 0.80            // of the reference's memory
	startRounds   = fewest          // that are not void, at least
	startNoise    = 0.02            // how far the sidecar may be from itself, whatever the interval
)

// start measures what each proxy costs before it does anything: the time from
// the start of its process to the first good answer to a request, with a token
// that it has asked for meanwhile, of a server that answers at once; and its
// resident memory, left alone for 2 s, and again after 300 requests. "Private" is
// the part of it that is not the binary's file, which the kernel can drop and read
// again: what counts where memory is short.
//
// They take turns in an order that changes. A figure is divided by that of stock
// Caddy with the x/oauth2 handler in the same round, and what stands in the table
// is the median of these ratios: noise that lasts longer than a round falls out.
// A round in which others took too much of the processors from one of the two is
// left out. The sidecar is measured twice: how far its second line is from its
// first is the noise that is left, and where it is too far, the run is void.
func start(ctx context.Context, s *stage) error {
	all, err := starters(ctx, s.dir)
	if err != nil {
		return err
	}
	runs := startRuns{all: all, rows: make(map[string][]startRow)}
	for round := range *starts {
		for _, next := range order(all, round) {
			row, err := startTurn(ctx, s.dir, next)
			if err != nil {
				return fmt.Errorf("%s: %w", next.name, err)
			}
			runs.rows[next.name] = append(runs.rows[next.name], row)
			fmt.Printf("  round %d of %d, %s: first answer after %.0f ms, memory %.1f MiB, others %s\n", round+1, *starts, next.name, startFirst(row), startMemory(row), row.foreign)
		}
	}
	set := &result.Set{Scenario: "start", Command: command("start"), Void: runs.void(), Tables: []result.Table{runs.table()}, Goals: runs.goals()}
	for _, p := range []struct {
		name, title, unit string
		of                func(startRow) float64
	}{
		{"first", "From the start of the process to the first answer with a token", "ms", startFirst},
		{"memory", "Resident memory at rest", "MiB", startMemory},
	} {
		plot := result.Plot{Name: p.name, Title: p.title, Bars: true, Y: p.unit, Series: make([]result.Series, 1)}
		for _, s := range all {
			if values, _ := runs.figures(s.name, p.of); s.name != startAgain && len(values) > 0 {
				plot.Series[0].Points = append(plot.Series[0].Points, bar(s, values))
			}
		}
		set.Plots = append(set.Plots, plot)
	}
	return publish(set)
}

// startRow is what came of one turn.
type startRow struct {
	first   time.Duration // from the start to the first good answer
	idle    memory        // at rest
	used    memory        // at rest after requests
	foreign share         // what others took of the processors meanwhile
}

// memory of a process, in KiB. Shared is resident with each page divided by the
// number of processes that have it.
type memory struct{ resident, shared, private int }

// names of those that are looked for in what came of it
const (
	startReference = "x/oauth2 handler"
	startSidecar   = "upstream_auth, sidecar"
	startAgain     = "upstream_auth, sidecar, again"
)

// starters are those that are compared: all, and the sidecar once more.
func starters(ctx context.Context, dir string) ([]subject, error) {
	all, err := subjects(ctx, dir)
	if err != nil {
		return nil, err
	}
	all, err = chosen(all, func(s subject) bool { return s.name == startReference || s.name == startSidecar })
	if err != nil {
		return nil, err
	}
	var there []subject
	for _, s := range all {
		if s.missing != "" {
			fmt.Printf("  %s: LEFT OUT; %s\n", s.name, s.missing)
			continue
		}
		there = append(there, s)
		if s.name == startSidecar {
			s.name = startAgain
			there = append(there, s)
		}
	}
	return there, nil
}

func startTurn(ctx context.Context, dir string, s subject) (startRow, error) {
	t, err := newTurn(dir, time.Hour, !s.bare)
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

// memory is that of the process after a rest, with those that it has started.
func (t *turn) memory(ctx context.Context) (m memory, err error) {
	select {
	case <-ctx.Done():
		return memory{}, ctx.Err()
	case <-time.After(startRest):
	}
	// the process that was started leads a group of its own, and is in it
	files, err := filepath.Glob("/proc/[0-9]*/smaps_rollup")
	if err != nil {
		return memory{}, err
	}
	var all []memory
	for _, file := range files {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return memory{}, err
		}
		if group, err := syscall.Getpgid(pid); err != nil || group != t.cmd.Process.Pid {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return memory{}, err
		}
		one, err := readMemory(string(text))
		if err != nil {
			return memory{}, err
		}
		all = append(all, one)
	}
	if len(all) == 0 {
		return memory{}, errors.New("what a process has in memory is known on Linux alone")
	}
	return together(all), nil
}

// together is the memory of several processes. What they share is counted once.
func together(all []memory) (sum memory) {
	if len(all) == 1 {
		return all[0]
	}
	for _, m := range all {
		sum.private += m.private
		sum.shared += m.shared
	}
	sum.resident = sum.shared
	return sum
}

// readMemory reads a smaps_rollup.
func readMemory(text string) (m memory, err error) {
	if m.resident, err = lineOf(text, "Rss:"); err != nil {
		return memory{}, err
	}
	if m.shared, err = lineOf(text, "Pss:"); err != nil {
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
