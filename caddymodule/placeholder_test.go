package caddymodule

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestFileStates(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, change := range map[string]func(path string) error{
		"edited":       func(path string) error { return os.WriteFile(path, []byte("longer"), 0o600) },
		"touched":      func(path string) error { return os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour)) },
		"removed":      os.Remove,
		"swapped":      func(path string) error { return os.Rename(write("other", "same"), path) },
		"another link": func(path string) error { _ = os.Remove(path); return os.Symlink(write("linked", "same"), path) },
	} {
		t.Run(name, func(t *testing.T) {
			path := write("file", "same")
			states, none := make(fileStates), make(fileStates)
			states.note(path)
			none.note(path + ".none")
			if states.changed() || none.changed() {
				t.Fatal("changed before it was")
			}
			if err := change(path); err != nil {
				t.Fatal(err)
			}
			if !states.changed() || none.changed() {
				t.Error("the change went unseen, or one was seen that was not")
			}
			write("file.none", "now it is")
			if !none.changed() {
				t.Error("a file that came to be went unseen")
			}
			_ = os.Remove(path + ".none")
			_ = os.Remove(path)
		})
	}
}
