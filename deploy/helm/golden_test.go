package helm

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files and the chart's copies anew")

// TestGolden: what the chart makes, whole, to be read at each change.
func TestGolden(t *testing.T) {
	t.Parallel()
	for _, shape := range shapes {
		if slices.Contains([]string{"least", "older", "StatefulSet", "CronJob", "service account", "policy"}, shape.name) {
			golden(t, strings.ReplaceAll(shape.name, " ", "-"), install(t, shape.kube(), with(t, minimal, shape.values)))
		}
	}
}

func golden(t *testing.T, name string, r release) {
	t.Helper()
	file := filepath.Join("testdata", name+".yaml")
	text := r.text
	if r.notes != "" {
		text += "---\n# " + strings.ReplaceAll(strings.TrimSuffix(r.notes, "\n"), "\n", "\n# ") + "\n"
	}
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have := read(t, file); have != text {
		t.Errorf("%s is another: go test ./helm -run TestGolden -update, and read the difference\n%s", file, text)
	}
}
