// Package interop runs this repository's Caddy against authorization servers
// that nobody here wrote.
package interop

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"
)

var load = flag.Duration("interop.load", 30*time.Second, "how long tokens are refreshed under load")

// rate is how many requests a second the tests under load send.
const rate = 100

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "interop")
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	for _, prepare := range []func(string) error{installProvider, buildCaddy} {
		if err := prepare(dir); err != nil {
			fmt.Fprintln(os.Stderr, "interop:", err)
			return 1
		}
	}
	code := m.Run()
	if testing.Verbose() && code == 0 { // else what failed is the last that is said
		results.print(os.Stdout)
	}
	if file := os.Getenv("INTEROP_TABLE"); file != "" {
		if err := results.write(file); err != nil {
			fmt.Fprintln(os.Stderr, "interop: INTEROP_TABLE:", err)
			return 1
		}
	}
	return code
}

// poll asks until there is no error any more, or the deadline passes.
func poll(t *testing.T, deadline time.Duration, what string, ask func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s: %v", what, deadline, err)
		case <-tick.C:
		}
	}
}
