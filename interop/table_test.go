package interop

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// row is one line of the table of what was seen.
type row struct {
	server   string
	grant    string
	method   string // client authentication
	what     string
	ok       bool
	tokens   int // issued
	refused  int // token requests that the server refused
	requests int
	failures int // of the requests: those that were not answered with 200
	longest  time.Duration
}

var columns = []string{"server", "grant", "client authentication", "what", "result", "tokens", "refused", "requests", "not 200", "longest"}

func (r *row) cells() []string {
	result := "ok"
	if !r.ok {
		result = "FAIL"
	}
	return []string{
		r.server, r.grant, r.method, r.what, result,
		fmt.Sprint(r.tokens), fmt.Sprint(r.refused), fmt.Sprint(r.requests), fmt.Sprint(r.failures),
		r.longest.Round(100 * time.Microsecond).String(),
	}
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
		tb.put(*r)
	})
}

func (tb *table) put(r row) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.rows = append(tb.rows, r)
}

// sorted are the rows by server, and so on from left to right.
func (tb *table) sorted() []row {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return slices.SortedStableFunc(slices.Values(tb.rows), func(a, b row) int {
		return cmp.Or(
			strings.Compare(a.server, b.server),
			strings.Compare(a.grant, b.grant),
			strings.Compare(a.method, b.method),
			strings.Compare(a.what, b.what),
		)
	})
}

// print is for a terminal.
func (tb *table) print(to io.Writer) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(columns, "\t"))
	for _, r := range tb.sorted() {
		fmt.Fprintln(w, strings.Join(r.cells(), "\t"))
	}
	w.Flush()
}

// write makes a file of it, in Markdown.
func (tb *table) write(file string) error {
	var text strings.Builder
	fmt.Fprintf(&text, "| %s |\n", strings.Join(columns, " | "))
	fmt.Fprintf(&text, "|%s\n", strings.Repeat(" --- |", len(columns)))
	for _, r := range tb.sorted() {
		fmt.Fprintf(&text, "| %s |\n", strings.Join(r.cells(), " | "))
	}
	return os.WriteFile(file, []byte(text.String()), 0o600)
}
