package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// root is where the repository begins.
const root = "../.."

// moment is the time in the images of the tests.
var moment = time.Unix(1_700_000_000, 0).UTC()

// image is built once for all tests: as a release, for both platforms.
var image = sync.OnceValues(func() (*built, error) {
	return build(ctx, release010(root, filepath.Join(scratch, "first")))
})

func release010(source, cache string) options {
	platforms, err := parsePlatforms("linux/amd64,linux/arm64")
	if err != nil {
		panic(err)
	}
	return options{source: source, platforms: platforms, version: "0.1.0", revision: "0123456789abcdef", epoch: moment, cache: cache}
}

// TestSameFromElsewhere builds from a copy of the sources in another folder, as
// somebody does who wants to know whether a published image is made of them. The
// cache of compiled packages is the same; with another one it was done by hand
// (docs/image.md).
func TestSameFromElsewhere(t *testing.T) {
	t.Parallel()
	first := firstImage(t)
	elsewhere := filepath.Join(t.TempDir(), "a", "copy")
	copySources(t, elsewhere)
	o := release010(elsewhere, t.TempDir())
	o.platforms = o.platforms[:1] // one says it, and the second takes its time
	second, err := build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	arch := o.platforms[0].Architecture
	one, err := first.images[arch].RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	two, err := second.images[arch].RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	if string(one) != string(two) {
		t.Errorf("two builds of the same sources differ:\n%s\n%s", one, two)
	}
}

// copySources copies what git knows, and what it does not ignore.
func copySources(t *testing.T, to string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate", "--",
		"go.mod", "go.sum", "plugin.go", "cmd", "caddymodule", "internal", "deploy/sidecar")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for path := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		text, err := os.ReadFile(filepath.Join(root, path))
		if os.IsNotExist(err) {
			continue // deleted, and not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(to, path)
		if err := os.MkdirAll(filepath.Dir(copied), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPlatforms(t *testing.T) {
	for _, text := range []string{"", "linux", "linux/riscv64", "windows/amd64", "linux/arm64/v9", "linux/amd64,"} {
		if got, err := parsePlatforms(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// TestFull is a folder that holds something already: mixed up with it, an image
// would not be what was built.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := fresh(dir); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Error(err)
	}
}

func firstImage(t *testing.T) *built {
	t.Helper()
	b, err := image()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestArchiveEnds with two empty blocks, without which tar takes it for cut off.
func TestArchiveEnds(t *testing.T) {
	text, err := archive([]node{{path: "file", mode: 0o644, content: []byte("a")}}, moment)
	if err != nil {
		t.Fatal(err)
	}
	if len(text)%512 != 0 || !bytes.HasSuffix(text, make([]byte, 1024)) {
		t.Errorf("%d bytes, which end with %x", len(text), text[max(0, len(text)-16):])
	}
}
