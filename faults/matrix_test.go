package faults

import (
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// TestMatrix is every line in every column.
func TestMatrix(t *testing.T) {
	var stolen atomic.Int32
	thief, err := authserver.Listen("127.0.0.1:0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { stolen.Add(1) }))
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	lines := slices.Concat(wireLines, statusLines, answerLines, fileLines, tokenLines)
	columns := []*column{
		{when: firstToken, course: onFirstToken, ways: []string{byHandler, byTransport}, checks: true},
		{when: atRefresh, course: onRefresh, held: true, due: true, ways: []string{byTransport, byHandler}},
		{when: forced, course: onForced, held: true, ways: []string{byTransport, byTransport, byHandler}},
		{when: atStop, course: onStop, ways: []string{byHandler, byTransport}, global: "metrics", together: terminate},
		{when: duringReload, course: onReload, held: true, due: true, ways: []string{byTransport, byHandler}, together: reload},
	}
	var running sync.WaitGroup
	defer running.Wait()
	for n, col := range columns {
		col.thief, col.number = thief, n
		// a unix socket's path has about 100 characters
		dir, err := os.MkdirTemp("", "faults") //nolint:usetesting // t.TempDir is too long
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		if err := col.prepare(dir, lines); err != nil {
			t.Fatal(err)
		}
	}
	for _, col := range columns {
		running.Go(col.run)
	}
	for _, col := range columns {
		t.Run(string(col.when), func(t *testing.T) {
			for _, c := range col.order {
				t.Run(c.name, func(t *testing.T) {
					<-c.done
					for _, stray := range c.server.strays {
						t.Log("a stray request:", stray)
					}
					if c.sum == "" {
						t.Error("it was not tested to its end")
					}
					for _, problem := range c.problems[:min(len(c.problems), 5)] {
						t.Errorf("%.700s", problem)
					}
				})
			}
			for _, l := range clockLines {
				col.bubbles[l.name] = t.Run(slug(l.name), func(t *testing.T) { l.clock.inBubble(t, col.when) })
			}
			for _, problem := range col.problems {
				t.Error(problem)
			}
			if t.Failed() {
				keepLog(t, col)
			}
		})
	}
	if n := stolen.Load(); n != 0 {
		t.Errorf("a redirect was followed %d times", n)
	}
	for _, col := range columns {
		canaries.add(col.canary)
	}
	tabulate(t, lines, columns)
}
