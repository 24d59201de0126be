package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"runtime"
)

// baselineFile is what a request may cost, from the root.
const baselineFile = "bench/baseline.json"

const (
	// allocationsTolerance is what their number is out by: a buffer that grows
	// once in a batch.
	allocationsTolerance = 0.2
	// instructionsTolerance is of the difference to plain, which was out by 0.4% at
	// most, and injectionTolerance of the injection alone: of so few instructions
	// the benchmark's own loop is some, and on a busy machine it was out by 2.2%.
	instructionsTolerance, injectionTolerance = 0.02, 0.05
	// foreignTolerance is that beside a baseline of another Go or Caddy, and
	// foreignAllocations is for what their compiler moves to the heap.
	foreignTolerance   = 0.10
	foreignAllocations = 1
	// checkRounds are the batches of a check.
	checkRounds = 5
)

// baseline is what it cost when it was last looked at.
type baseline struct {
	Go    string `json:"go"`
	Caddy string `json:"caddy"`
	Arch  string `json:"arch"`
	// Plain is a request at reverse_proxy alone; the handler's and the
	// transport's are what one costs more. All without the scheduler.
	Plain     cost `json:"plain"`
	Handler   cost `json:"handler"`
	Transport cost `json:"transport"`
	// Injection is the token put on a header, with no request around it.
	Injection cost `json:"injection"`
}

// cost is what a request takes.
type cost struct {
	Allocations  float64 `json:"allocations"`
	Instructions float64 `json:"instructions"`
}

// countAgain counts what the baseline has, and compares or renews it.
func countAgain(ctx context.Context, dir, valgrind string) error {
	now, err := countBaseline(ctx, dir, valgrind)
	if err != nil {
		return err
	}
	if *renewBaseline {
		text, err := json.MarshalIndent(now, "", "\t")
		if err != nil {
			return err
		}
		fmt.Printf("  %s is renewed\n", baselineFile)
		return os.WriteFile(baselineFile, append(text, '\n'), 0o644) //nolint:gosec // to be read by all
	}
	text, err := os.ReadFile(baselineFile)
	if err != nil {
		return fmt.Errorf("%w; write one with: go run ./bench -renew count", err)
	}
	var before baseline
	if err := json.Unmarshal(text, &before); err != nil {
		return fmt.Errorf("%s: %w", baselineFile, err)
	}
	grown := false
	for _, v := range now.beside(before) {
		fmt.Printf("  %s\n", v.says)
		grown = grown || v.grown
	}
	if grown {
		fmt.Println("  go run ./bench count shows by function what it costs; if it is meant, renew the baseline with: go run ./bench -renew count")
		return errGrown
	}
	return nil
}

func countBaseline(ctx context.Context, dir, valgrind string) (baseline, error) {
	var sites []countSite
	for _, s := range countSites {
		if s.name == bareSite || s.name == handlerSite || s.name == transportSite {
			sites = append(sites, s)
		}
	}
	requests, ways := newRequests(sites), map[string]*alone{oursAlone: {}, nothingAlone: {}}
	if err := countAllocations(ctx, dir, sites, requests); err != nil {
		return baseline{}, err
	}
	if err := countInstructions(ctx, dir, valgrind, sites, checkRounds, requests); err != nil {
		return baseline{}, err
	}
	if err := timeInjection(ctx, dir, []string{oursAlone}, 1, ways); err != nil { // for its allocations
		return baseline{}, err
	}
	if err := countInjection(ctx, dir, valgrind, []string{oursAlone}, ways); err != nil {
		return baseline{}, err
	}
	m := machine()
	b := baseline{Go: m.Go, Caddy: m.Caddy, Arch: runtime.GOARCH}
	of := func(site string) cost {
		r := requests[site]
		return cost{r.objects, r.instructions.owned(owner.steady)}
	}
	b.Plain = of(bareSite)
	b.Handler, b.Transport = of(handlerSite).minus(b.Plain), of(transportSite).minus(b.Plain)
	b.Injection = cost{ways[oursAlone].objects, ways[oursAlone].instructions.owned(owner.steady)}
	for _, c := range []*cost{&b.Plain, &b.Handler, &b.Transport, &b.Injection} {
		c.Allocations, c.Instructions = math.Round(10*c.Allocations)/10, math.Round(c.Instructions)
	}
	return b, nil
}

func (c cost) minus(other cost) cost {
	return cost{c.Allocations - other.Allocations, c.Instructions - other.Instructions}
}

// besides is one figure beside the baseline's.
type besides struct {
	says  string
	grown bool
}

// beside compares with an earlier one. Beside one of another Go, Caddy or
// processor, instructions are compared by what they are of a plain request's, for
// that one costs more or less then, too.
func (b baseline) beside(before baseline) []besides {
	scale, tolerance, alone, allocations := 1.0, instructionsTolerance, injectionTolerance, allocationsTolerance
	var out []besides
	if b.Go != before.Go || b.Caddy != before.Caddy || b.Arch != before.Arch {
		scale, allocations = b.Plain.Instructions/before.Plain.Instructions, foreignAllocations+allocationsTolerance
		tolerance, alone = foreignTolerance, foreignTolerance
		out = append(out, besides{says: fmt.Sprintf("the baseline is of Go %s, Caddy %s, %s, and this is Go %s, Caddy %s, %s: its instructions are taken times %.3f, as a plain request's are, and may be %.0f%% more, allocations %d; renew it with: go run ./bench -renew count",
			before.Go, before.Caddy, before.Arch, b.Go, b.Caddy, b.Arch, scale, 100*tolerance, foreignAllocations)})
	}
	for _, of := range []struct {
		what        string
		now, before cost
		tolerance   float64
	}{
		{"the handler, over plain reverse_proxy", b.Handler, before.Handler, tolerance},
		{"the transport, over plain reverse_proxy", b.Transport, before.Transport, tolerance},
		{"the injection alone", b.Injection, before.Injection, alone},
	} {
		want := of.before.Instructions * scale
		out = append(out,
			besideOf(of.what, "allocations", of.now.Allocations, of.before.Allocations, allocations, 1),
			besideOf(of.what, "instructions", of.now.Instructions, want, of.tolerance*want, 0))
	}
	return out
}

// besideOf says how a figure stands to the baseline's.
func besideOf(what, unit string, now, before, tolerance float64, digits int) besides {
	v := besides{says: fmt.Sprintf("%s: %.*f %s a request, the baseline has %.*f", what, digits, now, unit, digits, before)}
	switch {
	case now > before+tolerance:
		v.grown = true
		v.says = "GROWN: " + v.says
	case now < before-tolerance:
		v.says += ", which is well below it: renew the baseline with: go run ./bench -renew count"
	}
	return v
}
