package main

import (
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

var update = flag.Bool("update", false, "rewrite the list of modules in docs/image.md")

const (
	// root is where the repository begins.
	root = "../.."
	// listMark stands before the list in docs/image.md.
	listMark = "<!-- left out: go test ./cmd/sidecar -update -->\n\n```text\n"
)

// TestConfigurations adapts and provisions every Caddyfile of the repository
// with the modules of this binary: whatever the documentation shows runs in the
// image, too.
func TestConfigurations(t *testing.T) {
	// for those that are filled in from the environment when they are adapted
	t.Setenv("UPSTREAM", "https://api.example.com")
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	// a key for those that seal what they store; it seals nothing here
	secrets := t.TempDir()
	write(t, filepath.Join(secrets, "store-key"), base64.StdEncoding.EncodeToString(make([]byte, 32)))

	files := map[string]string{"Caddyfile.example": read(t, filepath.Join(root, "Caddyfile.example"))}
	for _, path := range glob(t, "deploy/*/Caddyfile") {
		files[path] = read(t, filepath.Join(root, path))
	}
	for _, path := range append(glob(t, "docs/*.md"), "README.md") {
		maps.Copy(files, blocks(path, read(t, filepath.Join(root, path))))
	}
	if len(files) < 20 {
		t.Fatalf("only %d configurations were found", len(files))
	}
	for name, text := range files {
		t.Run(name, func(t *testing.T) {
			if err := load(strings.ReplaceAll(text, "/run/secrets", secrets)); err != nil {
				t.Error(err)
			}
		})
	}
}

// load does what caddy validate does.
func load(text string) error {
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err
	}
	var config caddy.Config
	if err := json.Unmarshal(adapted, &config); err != nil {
		return err
	}
	return caddy.Validate(&config)
}

// TestUnknownDirective is what somebody sees whose Caddyfile needs a module that
// is left out.
func TestUnknownDirective(t *testing.T) {
	err := load("http://localhost:8080 {\n\tfile_server\n}\n")
	if err == nil || !strings.Contains(err.Error(), "unrecognized directive: file_server") {
		t.Errorf("a directive that is left out: %v", err)
	}
}

// TestLeftOut compares the list in docs/image.md with the modules that cmd/caddy
// has and this binary has not.
func TestLeftOut(t *testing.T) {
	ours := caddy.Modules()
	var missing []string
	for _, id := range stock(t) {
		if !slices.Contains(ours, id) {
			missing = append(missing, id)
		}
	}
	if len(missing) == 0 || len(missing) > 60 {
		t.Fatalf("%d modules are left out", len(missing))
	}
	path := filepath.Join(root, "docs/image.md")
	before, rest, found := strings.Cut(read(t, path), listMark)
	list, after, ended := strings.Cut(rest, "```\n")
	if !found || !ended {
		t.Fatalf("%s has no list of the modules that are left out", path)
	}
	want := strings.Join(missing, "\n") + "\n"
	if *update {
		write(t, path, before+listMark+want+"```\n"+after)
		return
	}
	if list != want {
		t.Errorf("%s (go test ./cmd/sidecar -update rewrites it) lists\n%s\nbut left out are\n%s", path, list, want)
	}
}

// stock are the modules of cmd/caddy. It is a process of its own, for its
// modules would be this one's, were they imported here.
func stock(t *testing.T) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "run", "-pgo=off", "./cmd/caddy", "list-modules", "--json")
	cmd.Dir = root
	var log strings.Builder
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	var all []struct {
		Name string `json:"module_name"`
	}
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, m := range all {
		ids = append(ids, m.Name)
	}
	slices.Sort(ids)
	return ids
}

// blocks are the Caddyfiles in a page, by the line where each begins.
func blocks(path, page string) map[string]string {
	found := make(map[string]string)
	var text *strings.Builder
	begin, line := "", 0
	for row := range strings.Lines(page) {
		line++
		switch {
		case row == "```caddyfile\n":
			text, begin = new(strings.Builder), fmt.Sprintf("%s:%d", path, line)
		case row == "```\n" && text != nil:
			found[begin] = text.String()
			text = nil
		case text != nil:
			text.WriteString(row)
		}
	}
	return found
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, pattern))
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(paths), err)
	}
	for i, path := range paths {
		paths[i] = strings.TrimPrefix(path, root+"/")
	}
	return paths
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
