package pod

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The file that the table of what was seen is written to, between its marks.
var tableFile = flag.String("table", "", "write what was played and seen into this `file`")

const (
	tableBegins = "<!-- seen -->\n"
	tableEnds   = "<!-- end -->\n"
)

// row is what was seen of one scene.
type row struct {
	place        int
	played, seen string
}

var rows struct {
	sync.Mutex
	all []row
}

// saw prints what came of a scene, and keeps it for the table, if all of it was
// as it has to be.
func saw(t *testing.T, place int, played, format string, args ...any) {
	t.Helper()
	if t.Failed() {
		return
	}
	seen := fmt.Sprintf(format, args...)
	t.Logf("%s: %s", played, seen)
	rows.Lock()
	defer rows.Unlock()
	rows.all = append(rows.all, row{place, played, seen})
}

// writeTable writes the rows in the order of a pod's life.
func writeTable() error {
	if *tableFile == "" {
		return nil
	}
	slices.SortFunc(rows.all, func(a, b row) int { return cmp.Compare(a.place, b.place) })
	var b strings.Builder
	b.WriteString("| played | seen |\n| --- | --- |\n")
	for _, r := range rows.all {
		fmt.Fprintf(&b, "| %s | %s |\n", r.played, r.seen)
	}
	text, err := os.ReadFile(*tableFile)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(text), tableBegins)
	_, after, ended := strings.Cut(rest, tableEnds)
	if !found || !ended {
		return fmt.Errorf("%s: no marks %s and %s", filepath.Base(*tableFile), strings.TrimSpace(tableBegins), strings.TrimSpace(tableEnds))
	}
	return os.WriteFile(*tableFile, []byte(before+tableBegins+b.String()+tableEnds+after), 0o644)
}
