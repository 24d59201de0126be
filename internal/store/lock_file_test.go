package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/store"
)

// TestFileLock: the locks of Caddy's default storage, which are files.
func TestFileLock(t *testing.T) {
	files := &certmagic.FileStorage{Path: t.TempDir()}
	const path = "upstream_auth/crm/1.json"
	waiting := func(v *store.Value, most time.Duration) (func(), error) {
		ctx, cancel := context.WithTimeout(t.Context(), most)
		defer cancel()
		return v.Lock(ctx)
	}
	ours, theirs := store.New(files, nil).Value(path, "crm"), store.New(files, nil).Value(path, "crm")
	unlock, err := waiting(ours, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := waiting(theirs, 50*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while it is held: got %v", err)
	}
	if err := ours.Save(t.Context(), []byte(`1`)); err != nil {
		t.Errorf("the value is not what is locked: %v", err)
	}
	unlock()
	unlock, err = waiting(theirs, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}
