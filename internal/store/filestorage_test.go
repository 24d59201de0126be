package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/store"
)

var _ store.Storage = certmagic.Storage(nil)

// TestFileStorage: the storage that Caddy has unless configured otherwise.
func TestFileStorage(t *testing.T) {
	files := &certmagic.FileStorage{Path: t.TempDir()}
	keys, err := store.ParseKeys([]string{"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="})
	if err != nil {
		t.Fatal(err)
	}
	path := store.PathFor("crm", "https://idp.example.com", "app")
	v := store.New(files, keys).Value(path, "crm")
	if _, err := v.Load(t.Context()); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("nothing is stored: got %v", err)
	}
	if err := v.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := v.Save(t.Context(), []byte(`{"refresh_token":"s3cret"}`)); err != nil {
		t.Fatal(err)
	}
	if got, err := v.Load(t.Context()); err != nil || string(got) != `{"refresh_token":"s3cret"}` {
		t.Fatalf("got %s, %v", got, err)
	}
	name := files.Filename(v.Path())
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v; want a file for its owner alone", info, err)
	}

	// a disk that ran full, long ago
	if err := os.Truncate(name, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Load(t.Context()); err == nil || errors.Is(err, store.ErrNotFound) || !strings.Contains(err.Error(), "is empty") {
		t.Errorf("an empty file: got %v", err)
	}
	kept, err := v.KeepAside(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(files.Filename(kept)); err != nil || filepath.Dir(kept) != filepath.Dir(path) {
		t.Errorf("kept at %s: %v", kept, err)
	}
	if err := v.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(files.Filename(kept)); err != nil {
		t.Errorf("the copy went with the value: %v", err)
	}

	// something else stands where the value belongs
	if err := os.Mkdir(name, 0o700); err != nil {
		t.Fatal(err)
	}
	for op, call := range map[string]func() error{
		"load": func() error { _, err := v.Load(t.Context()); return err },
		"save": func() error { return v.Save(t.Context(), []byte("1")) },
	} {
		err := call()
		if f, ok := errors.AsType[*store.Failed](err); !ok || f.Op != op {
			t.Errorf("%s of a folder: got %v", op, err)
		}
	}
}
