// Package interop runs this repository's Caddy against authorization servers
// that nobody here wrote.
package interop

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"
	"text/tabwriter"
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
	if testing.Verbose() {
		results.print()
	}
	return code
}

// row is one line of the table that -v prints.
type row struct {
	method   string // client authentication
	what     string
	tokens   int // issued by the server
	refused  int // token requests it refused
	requests int
	failures int
	longest  time.Duration
	ok       bool
}

type table struct {
	mu   sync.Mutex
	rows []row
}

var results table

// add puts r into the table when the test has ended.
func (tb *table) add(t *testing.T, r *row) {
	t.Helper()
	t.Cleanup(func() {
		r.ok = !t.Failed()
		tb.mu.Lock()
		defer tb.mu.Unlock()
		tb.rows = append(tb.rows, *r)
	})
}

func (tb *table) print() {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "server\tgrant\tmethod\twhat\tresult\ttokens\trefused\trequests\tnot 200\tlongest")
	for _, r := range tb.rows {
		result := "ok"
		if !r.ok {
			result = "FAIL"
		}
		fmt.Fprintf(w, "%s\tclient_credentials\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\n", providerName,
			r.method, r.what, result, r.tokens, r.refused, r.requests, r.failures, r.longest.Round(100*time.Microsecond))
	}
	w.Flush()
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
