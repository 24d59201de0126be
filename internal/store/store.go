// Package store keeps what must outlive the process: one small JSON value for
// each path, sealed where keys are configured, over the storage that Caddy has.
// It knows no token and no schedule. What it cannot read it never takes for
// missing, and never writes over unasked.
package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"
)

// Storage is what a Store needs of Caddy's storage. The error of Load for a key
// that does not exist is fs.ErrNotExist.
type Storage interface {
	Store(ctx context.Context, key string, value []byte) error
	Load(ctx context.Context, key string) ([]byte, error)
	Delete(ctx context.Context, key string) error
}

// Store hands out values that live in one storage. Those who share a path must
// share the Store too: it is what puts their calls in order.
type Store struct {
	storage Storage
	keys    *Keys

	mu      sync.Mutex
	calls   map[string]*call // the one under way for each path
	locking map[string]bool  // the paths whose lock is waited for
}

// New makes a Store. Without keys, which may be nil, values are kept plain.
func New(storage Storage, keys *Keys) *Store {
	return &Store{storage: storage, keys: keys, calls: make(map[string]*call), locking: make(map[string]bool)}
}

// Value is the value of a credential at a path. It touches no storage.
func (s *Store) Value(path, credential string) *Value {
	return &Value{store: s, path: path, credential: credential}
}

// PathFor is where a credential keeps what one server gave one client, the
// parts: another server or client never sees it. The hash keeps names apart that a file system
// holds to be the same, as Crm and crm; their folder may be one.
func PathFor(credential string, parts ...string) string {
	h := sha256.New()
	for _, part := range append([]string{credential}, parts...) {
		h.Write(prefixed(nil, part))
	}
	return "upstream_auth/" + credential + "/" + hex.EncodeToString(h.Sum(nil)[:16]) + ".json"
}

// prefixed appends a text behind its length, so that no two lists of texts are
// the same bytes.
func prefixed(to []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint64(to, uint64(len(text))), text...)
}

// Value is one stored value, safe for concurrent use. Its storage calls are made
// one after the other, each ends within 2s, and none is begun while an earlier
// one hangs (ErrHangs).
type Value struct {
	store            *Store
	path, credential string

	mu   sync.Mutex
	kept string // where KeepAside put its newest copy
}

// Path is where the value is stored.
func (v *Value) Path() string { return v.path }

// Load reads the value, which is JSON. The error is ErrNotFound, an *Unreadable,
// or a *Failed.
func (v *Value) Load(ctx context.Context) ([]byte, error) {
	raw, err := v.read(ctx, v.path)
	if err != nil {
		return nil, err
	}
	value, err := v.store.keys.open(raw, v.bound())
	if err != nil {
		return nil, &Unreadable{Path: v.path, Why: err}
	}
	return value, nil
}

// Save writes the value, which must be JSON. After a *Failed it may be written
// all the same, at any time until the next call that is not refused.
func (v *Value) Save(ctx context.Context, value []byte) error {
	if !json.Valid(value) {
		return errors.New("a value to be stored is not JSON") // which the value itself must not show
	}
	raw, err := v.store.keys.seal(value, v.bound())
	if err != nil {
		return fmt.Errorf("sealing %s: %w", v.path, err)
	}
	return v.write(ctx, v.path, raw)
}

// Delete removes the value. One that does not exist is no error.
func (v *Value) Delete(ctx context.Context) error {
	_, err := v.do(ctx, "delete", v.path, func(ctx context.Context) ([]byte, error) {
		return nil, v.store.storage.Delete(ctx, v.path)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// KeepAside copies what is stored, as it is, to a path beside it that is free,
// and returns that path: what cannot be read is kept before it is written over.
// Nothing is copied where the newest copy made here holds the same. It makes up
// to four storage calls. The error is ErrNotFound or a *Failed.
func (v *Value) KeepAside(ctx context.Context) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	raw, err := v.read(ctx, v.path)
	if err != nil {
		return "", err
	}
	if v.kept != "" {
		if copied, err := v.read(ctx, v.kept); err == nil && bytes.Equal(copied, raw) {
			return v.kept, nil
		}
	}
	// without colons, which Windows has in no file name
	to := v.path + ".kept-" + time.Now().UTC().Format("20060102T150405.000000000Z")
	switch _, err := v.read(ctx, to); {
	case err == nil:
		return "", &Failed{Op: "save", Path: to, Err: fs.ErrExist}
	case !errors.Is(err, ErrNotFound):
		return "", err
	}
	if err := v.write(ctx, to, raw); err != nil {
		return "", err
	}
	v.kept = to
	return to, nil
}

func (v *Value) read(ctx context.Context, path string) ([]byte, error) {
	raw, err := v.do(ctx, "load", path, func(ctx context.Context) ([]byte, error) {
		return v.store.storage.Load(ctx, path)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	return raw, err
}

func (v *Value) write(ctx context.Context, path string, raw []byte) error {
	_, err := v.do(ctx, "save", path, func(ctx context.Context) ([]byte, error) {
		return nil, v.store.storage.Store(ctx, path, raw)
	})
	return err
}

// do makes a storage call in its turn. The turn is the value's, also for the
// copies beside it, so that a storage that hangs holds one goroutine of it.
func (v *Value) do(ctx context.Context, op, path string, f func(context.Context) ([]byte, error)) ([]byte, error) {
	raw, err := v.store.call(ctx, v.path, op, f)
	if err != nil {
		return nil, &Failed{Op: op, Path: path, Err: err}
	}
	return raw, nil
}

// bound is what a sealed value belongs to: where it is found, and whose it is.
func (v *Value) bound() []byte {
	return prefixed(prefixed(prefixed(nil, sealing), v.path), v.credential)
}
