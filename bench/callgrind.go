package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// valgrindPackage is Debian's.
const valgrindPackage = "valgrind"

// errUncounted says that instructions cannot be counted here.
var errUncounted = errors.New("nothing counts instructions here")

// steadyEnv has a Go program do nothing by the clock that it can do without: it
// does not collect garbage, runs on one thread at a time, is not interrupted,
// and takes no samples of its heap.
var steadyEnv = []string{"GOGC=off", "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1,memprofilerate=0"}

// findValgrind returns where valgrind is, and what it is driven with.
func findValgrind(ctx context.Context) (path string, err error) {
	path, missing := fromDebian(ctx, valgrindPackage, func() (string, bool) {
		path, err := exec.LookPath("valgrind")
		if err == nil {
			_, err = exec.LookPath("vgdb")
		}
		return path, err == nil
	})
	if missing != "" {
		return "", fmt.Errorf("%w: valgrind is not installed; %s, or run this with -install", errUncounted, missing)
	}
	return path, nil
}

// profile is how many instructions each function took itself, by its name.
type profile map[string]float64

func (p profile) sum() (n float64) {
	for _, cost := range p {
		n += cost
	}
	return n
}

// owned is what the functions of some owners took.
func (p profile) owned(by func(owner) bool) (n float64) {
	for name, cost := range p {
		if by(ownerOf(name)) {
			n += cost
		}
	}
	return n
}

// minus is what is more than in another one, or less.
func (p profile) minus(other profile) profile {
	out := maps.Clone(p)
	for name, cost := range other {
		out[name] -= cost
	}
	return out
}

// over is the profile for one of n.
func (p profile) over(n int) profile {
	out := make(profile, len(p))
	for name, cost := range p {
		out[name] = cost / float64(n)
	}
	return out
}

// middle is the median of each function: what happened in one of several batches
// alone, because others had the processor, falls out.
func middle(batches []profile) profile {
	all := make(map[string][]float64)
	for i, p := range batches {
		for name, cost := range p {
			if all[name] == nil {
				all[name] = make([]float64, len(batches))
			}
			all[name][i] = cost
		}
	}
	out := make(profile, len(all))
	for name, costs := range all {
		out[name] = median(costs)
	}
	return out
}

// underCallgrind makes a command one whose instructions are counted: those in
// user mode, of all its threads. The counts go to the file, and at the word of
// dump to files beside it.
func underCallgrind(valgrind, file string, cmd *exec.Cmd) {
	cmd.Args = append([]string{valgrind, "--tool=callgrind", "--callgrind-out-file=" + file, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = valgrind
}

// callgrind tells a process under callgrind what to do.
type callgrind struct {
	pid  int
	file string
}

// tell sends a command and waits until it is done.
func (c callgrind) tell(ctx context.Context, words ...string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "vgdb", append([]string{"--pid=" + strconv.Itoa(c.pid)}, words...)...) //nolint:gosec // our own words
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: vgdb %s: %w\n%s", errUncounted, strings.Join(words, " "), err, out)
	}
	return nil
}

// count is what the process does while do runs, and shortly after.
func (c callgrind) count(ctx context.Context, do func() error) (profile, error) {
	if err := c.tell(ctx, "zero"); err != nil {
		return nil, err
	}
	if err := do(); err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(callgrindRest):
	}
	if err := c.tell(ctx, "dump"); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(c.file + ".*")
	if err != nil {
		return nil, err
	}
	if len(files) != 1 {
		return nil, fmt.Errorf("%w: callgrind wrote %d files, expected 1: %s", errUncounted, len(files), strings.Join(files, " "))
	}
	defer os.Remove(files[0])
	return readCallgrindFile(files[0])
}

// callgrindRest is left to what comes after an answer: the goroutines that end.
const callgrindRest = 50 * time.Millisecond

// largest are the n functions that cost most, the costliest first.
func (p profile) largest(n int) []string {
	names := slices.SortedFunc(maps.Keys(p), func(a, b string) int {
		return cmp.Or(cmp.Compare(p[b], p[a]), strings.Compare(a, b))
	})
	return names[:min(n, len(names))]
}
