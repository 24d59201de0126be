package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// The ways of BenchmarkInjection, in caddymodule.
const (
	oursAlone    = "upstream_auth"
	xoauth2Alone = "x_oauth2"
	nothingAlone = "nothing" // the loop itself, which is taken off the others
)

const (
	// injectionsFew and injectionsMany are how often it is done in two runs: what
	// the second one takes more is theirs alone.
	injectionsFew, injectionsMany = 1_000, 101_000

	injectionThreads = 8
	injectionRounds  = 5
	injectionTime    = "200ms"
)

// alone is what putting a token on a header costs, with no request around it.
type alone struct {
	objects, bytes float64
	instructions   profile   // nil where nothing counts them
	one, many      []float64 // nanoseconds, on one thread and on several, by rounds
}

// injectionProgram builds the package's tests, which hold the benchmark.
func injectionProgram(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "injection.test")
	if exists(path) {
		return path, nil
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", path, "-trimpath", "-pgo=off", "-ldflags=-w", "./caddymodule")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the tests of caddymodule: %w\n%s", err, out)
	}
	return path, nil
}

func injectionBench(ctx context.Context, path, way string, args ...string) *exec.Cmd {
	args = append([]string{"-test.run=^$", "-test.bench=^BenchmarkInjection/^" + way + "$"}, args...)
	return exec.CommandContext(ctx, path, args...)
}

// countInjection has the instructions of the ways counted.
func countInjection(ctx context.Context, dir, valgrind string, ways []string, into map[string]*alone) error {
	path, err := injectionProgram(ctx, dir)
	if err != nil {
		return err
	}
	for _, way := range append([]string{nothingAlone}, ways...) {
		var few profile
		for _, n := range []int{injectionsFew, injectionsMany} {
			cmd := injectionBench(ctx, path, way, "-test.cpu=1", "-test.benchtime="+strconv.Itoa(n)+"x")
			cmd.Env = append(os.Environ(), steadyEnv...)
			file := filepath.Join(dir, "injection.callgrind")
			underCallgrind(valgrind, file, cmd)
			out, err := cmd.CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %w\n%s", errUncounted, err, out)
			}
			if !strings.Contains(string(out), "BenchmarkInjection/"+way) {
				return fmt.Errorf("BenchmarkInjection has no way %s:\n%s", way, out)
			}
			p, err := readCallgrindFile(file)
			if err != nil {
				return err
			}
			// the loop takes its turns in portions whose size the clock decides
			maps.DeleteFunc(p, func(name string, _ float64) bool {
				return strings.HasPrefix(name, "testing.") || strings.Contains(name, "BenchmarkInjection")
			})
			if few == nil {
				few = p
				continue
			}
			into[way].instructions = p.minus(few).over(injectionsMany - injectionsFew)
		}
		if way != nothingAlone {
			into[way].instructions = into[way].instructions.minus(into[nothingAlone].instructions)
		}
	}
	return nil
}

// benchmarkLine is a line of go test -bench -benchmem.
var benchmarkLine = regexp.MustCompile(`^BenchmarkInjection/\S+\s+\d+\s+([0-9.]+) ns/op\s+(\d+) B/op\s+(\d+) allocs/op$`)

// timeInjection has the ways timed on one thread and on several, in turns, and
// their allocations counted.
func timeInjection(ctx context.Context, dir string, ways []string, rounds int, into map[string]*alone) error {
	path, err := injectionProgram(ctx, dir)
	if err != nil {
		return err
	}
	for round := range rounds {
		for i := range 2 * len(ways) {
			if round%2 == 1 { // backwards
				i = 2*len(ways) - 1 - i
			}
			way, threads := ways[i/2], 1
			if i%2 == 1 {
				threads = injectionThreads
			}
			out, err := injectionBench(ctx, path, way, "-test.benchtime="+injectionTime, "-test.cpu="+strconv.Itoa(threads)).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w\n%s", err, out)
			}
			ns, bytes, objects, err := readBenchmark(string(out))
			if err != nil {
				return err
			}
			a := into[way]
			a.objects, a.bytes = max(a.objects, objects), max(a.bytes, bytes)
			if threads == 1 {
				a.one = append(a.one, ns)
			} else {
				a.many = append(a.many, ns)
			}
		}
	}
	return nil
}

// readBenchmark reads what go test -bench prints of one benchmark.
func readBenchmark(text string) (ns, bytes, objects float64, err error) {
	for line := range strings.Lines(text) {
		if found := benchmarkLine.FindStringSubmatch(strings.TrimSpace(line)); found != nil {
			var out [3]float64
			for i := range out {
				if out[i], err = strconv.ParseFloat(found[i+1], 64); err != nil {
					return 0, 0, 0, err
				}
			}
			return out[0], out[1], out[2], nil
		}
	}
	return 0, 0, 0, fmt.Errorf("go test -bench printed no result of BenchmarkInjection:\n%s", text)
}
