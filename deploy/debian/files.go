package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// file is one of the package.
type file struct {
	path     string // without a / at the beginning
	mode     os.FileMode
	content  []byte
	settings bool // the administrator may edit it, and keeps what is edited
}

const (
	docs     = "usr/share/doc/" + name + "/"
	examples = docs + "examples/"
)

// copied are the files that are in the repository as they are in the package, or
// there compressed.
var copied = []struct{ from, to string }{
	{"deploy/systemd/" + name + "@.service", "usr/lib/systemd/system/" + name + "@.service"},
	{"deploy/debian/" + name + ".8", "usr/share/man/man8/" + name + ".8.gz"},
	{"deploy/debian/copyright", docs + "copyright"},
	{"CHANGELOG.md", docs + "CHANGELOG.md.gz"},
	{"README.md", docs + "README.md.gz"},
	{"deploy/debian/example/env", examples + "env"},
	{"deploy/systemd/example/upstream-auth.conf", examples + "upstream-auth.conf"},
	{"Caddyfile.example", examples + "Caddyfile"},
}

// contents are all files of the package.
func contents(ctx context.Context, o options, binary string) ([]file, error) {
	text, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	// that of every instance; one of its own is named in CADDYFILE
	caddyfile, err := os.ReadFile(filepath.Join(o.source, "deploy/sidecar/Caddyfile"))
	if err != nil {
		return nil, err
	}
	notices := exec.CommandContext(ctx, filepath.Join(o.source, ".ci/notices"), binary) //nolint:gosec // the paths are ours
	notices.Stderr = os.Stderr
	licenses, err := notices.Output()
	if err != nil {
		return nil, fmt.Errorf(".ci/notices: %w", err)
	}
	// what Debian's tools read; the changes themselves are beside it
	changelog := fmt.Sprintf("%s (%s) unstable; urgency=medium\n\n  * The changes are in CHANGELOG.md.gz.\n\n -- %s  %s\n",
		name, o.debianVersion(), maintainer, o.epoch.Format(time.RFC1123Z))
	files := []file{
		{path: "usr/bin/" + name, mode: 0o755, content: text},
		{path: "etc/" + name + "/Caddyfile", mode: 0o644, content: caddyfile, settings: true},
		{path: docs + "NOTICES.gz", mode: 0o644, content: compress(licenses)},
		{path: docs + "changelog.gz", mode: 0o644, content: compress([]byte(changelog))},
	}
	for _, c := range copied {
		text, err := os.ReadFile(filepath.Join(o.source, c.from))
		if err != nil {
			return nil, err
		}
		if filepath.Ext(c.to) == ".gz" {
			text = compress(text)
		}
		files = append(files, file{path: c.to, mode: 0o644, content: text})
	}
	return files, nil
}

// compress is gzip -9n: with neither name nor time.
func compress(text []byte) []byte {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err == nil {
		_, err = w.Write(text)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err) // the level is known, and memory does not fail
	}
	return out.Bytes()
}

// lay writes files into a new folder, all of one time.
func lay(dir string, files []file, modified time.Time) error {
	for _, f := range files {
		path := filepath.Join(dir, f.path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // they become folders of the system
			return err
		}
		if err := os.WriteFile(path, f.content, f.mode); err != nil {
			return err
		}
		if err := os.Chmod(path, f.mode); err != nil { // not left to the umask
			return err
		}
	}
	return filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if err := os.Chmod(path, 0o755); err != nil { //nolint:gosec // as above
				return err
			}
		}
		return os.Chtimes(path, modified, modified) //nolint:gosec // nobody else writes here
	})
}
