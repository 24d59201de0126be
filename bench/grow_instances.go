package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

// simulated runs the engine's own fleet of up to a thousand instances on one
// storage, in which eight hours pass in a moment: go test has it, since time of
// one's own is to be had in a test alone.
func (g *growth) simulated(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-timeout=2m", "-v", "-run=^TestGrow$", "./internal/token")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	t := result.Table{Name: "simulated", Note: "Instances with one storage and a token of 30 minutes, over eight simulated hours (the real code in a testing/synctest bubble). Token requests are those of the whole fleet; storage operations those of one instance."}
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| ---") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if t.Heads == nil {
			t.Heads = cells
		} else {
			t.Rows = append(t.Rows, cells)
		}
	}
	plot := result.Plot{Name: "simulated", Title: "A fleet that shares a token", X: "instances", Y: "in a lifetime of the token", LogX: true, LogY: true,
		Series: []result.Series{{Name: "token requests of the fleet"}, {Name: "storage operations of an instance"}}}
	for _, row := range t.Rows {
		var values []float64
		for _, cell := range row {
			v, err := strconv.ParseFloat(cell, 64)
			if err != nil {
				return fmt.Errorf("the test prints what was not expected: %q", row)
			}
			values = append(values, v)
		}
		if len(values) < 3 {
			return fmt.Errorf("the test prints what was not expected: %q", row)
		}
		for i := range plot.Series {
			plot.Series[i].Points = append(plot.Series[i].Points, growPoint(values[0], values[i+1]))
		}
	}
	if len(t.Rows) == 0 {
		return errors.New("the test prints no table")
	}
	g.table(t)
	g.plot(plot)
	return nil
}

const (
	fleetLife = 6 // seconds
	fleetSpan = 12 * time.Second
	fleetRate = 20 // requests a second to each instance
)

// instances are real processes that share their token by one folder.
func (g *growth) instances(ctx context.Context) error {
	t := result.Table{Name: "instances",
		Note:  fmt.Sprintf("Processes that share the tokens of one credential by a folder, each with %d requests a second, for %s. Tokens live %d s. Alone: the same without share.", fleetRate, fleetSpan, fleetLife),
		Heads: []string{"instances", "token requests a lifetime", "at once", "alone", "CPU of an instance, ms/s", "alone", "requests", "failed"},
	}
	asked := result.Plot{Name: "instances", Title: "Token requests of processes on one storage", X: "instances", Y: "token requests a lifetime", LogX: true, LogY: true, Series: []result.Series{{Name: "share"}, {Name: "each alone"}}}
	for n := 1; n <= 16; n *= 2 {
		shared, err := g.fleet(ctx, n, "share")
		if err != nil {
			return fmt.Errorf("%d instances: %w", n, err)
		}
		alone := shared
		if n == 1 || n == 16 { // between them it is a line
			if alone, err = g.fleet(ctx, n, ""); err != nil {
				return fmt.Errorf("%d instances, each alone: %w", n, err)
			}
			asked.Series[1].Points = append(asked.Series[1].Points, growPoint(float64(n), alone.requests))
		}
		without, cpu := "–", "–"
		if n == 1 || n == 16 {
			without, cpu = fmt.Sprintf("%.2f", alone.requests), fmt.Sprintf("%.1f", alone.cpu)
		}
		asked.Series[0].Points = append(asked.Series[0].Points, growPoint(float64(n), shared.requests))
		t.Rows = append(t.Rows, []string{fmt.Sprint(n), fmt.Sprintf("%.2f", shared.requests), fmt.Sprint(shared.atOnce), without, fmt.Sprintf("%.1f", shared.cpu), cpu, grouped(shared.made), fmt.Sprint(shared.failed)})
		if n == 16 {
			g.goal("P6", "requests that failed, of 16 instances with tokens of 6 s", float64(shared.failed), 0, "%.0f")
			g.goal("P6", "token requests under way at once, of 16 instances that share", float64(shared.atOnce), 1, "%.0f")
		}
	}
	g.table(t)
	g.plot(asked)
	return nil
}

// fleetRow is what a fleet did.
type fleetRow struct {
	requests     float64 // token requests a lifetime
	atOnce       int
	cpu          float64 // of an instance, ms a second
	made, failed int
}

// fleet runs so many processes, which all have a token before any other request
// is sent.
func (g *growth) fleet(ctx context.Context, n int, share string) (row fleetRow, err error) {
	folder, err := os.MkdirTemp(g.dir, "shared")
	if err != nil {
		return row, err
	}
	scene, err := newGrowScene(n)
	if err != nil {
		return row, err
	}
	defer scene.close()
	processes := make([]*growProcess, n)
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() {
			file := "{\n\tstorage file_system " + folder + "\n\tupstream_auth {" + scene.credential("api", fleetLife, share) + "\n\t}\n}" + scene.site(i, "\tupstream_auth api\n\treverse_proxy API")
			processes[i], errs[i] = startGrowing(ctx, g.dir, file, scene.sites[i:i+1], pins{})
		})
	}
	wg.Wait()
	defer func() {
		for _, p := range processes {
			if p != nil {
				wg.Go(p.close)
			}
		}
		wg.Wait()
	}()
	if err := errors.Join(errs...); err != nil {
		return row, err
	}
	for _, site := range scene.sites { // each has a token
		c := &caller{addr: site, request: growGet("/auth", site)}
		one := c.call(time.Now())
		c.hangUp()
		if !one.good() {
			return row, fmt.Errorf("%w: %d", errNotAll, one.status)
		}
	}
	began := time.Now()
	used := make([]time.Duration, n)
	for i, p := range processes {
		used[i] = p.cpu()
	}
	made := make([][]call, n)
	stop := make(chan struct{})
	for i, site := range scene.sites {
		wg.Go(func() {
			crowd := &crowd{callers: []*caller{{addr: site, request: growGet("/auth", site)}}}
			defer crowd.close()
			made[i] = crowd.call(fleetRate, began.Add(time.Duration(i)*time.Millisecond), stop)
		})
	}
	sleep(ctx, fleetSpan)
	lasted := time.Since(began)
	mean, gaps := scene.issuer.gap()
	if gaps == 0 {
		return row, fmt.Errorf("no token was renewed in %s", fleetSpan)
	}
	for i, p := range processes {
		row.cpu += micros(p.cpu()-used[i]) / 1000 / lasted.Seconds() / float64(n)
	}
	close(stop)
	wg.Wait()
	for _, calls := range made {
		row.made += len(calls)
		row.failed += failures(calls)
	}
	row.requests = float64(fleetLife*time.Second) / float64(mean)
	row.atOnce, _ = scene.issuer.most()
	return row, nil
}
