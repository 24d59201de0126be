package store

import (
	"context"
	"errors"
	"fmt"
)

// Locker is the part of Caddy's storage that has instances take turns. Storages
// tell by different means that a holder is gone, and none of them at once.
type Locker interface {
	Lock(ctx context.Context, name string) error
	Unlock(ctx context.Context, name string) error
}

// ErrNoLocks: the storage cannot lock.
var ErrNoLocks = errors.New("this storage has no locks")

// lockName is the lock of a value. It is a name of its own in storages that
// keep locks beside values.
func (v *Value) lockName() string { return v.path + ".lock" }

// Lock has the instances that share the storage take turns. It waits until ctx
// ends. The function that it returns gives the lock back, within 2s. A storage
// that heeds no context is left behind, and what it grants too late is given
// back at once; until then the error is ErrHangs.
func (v *Value) Lock(ctx context.Context) (unlock func(), err error) {
	locker, ok := v.store.storage.(Locker)
	if !ok {
		return nil, &Failed{Op: "lock", Path: v.path, Err: ErrNoLocks}
	}
	if !v.store.enter(v.path) {
		return nil, &Failed{Op: "lock", Path: v.path, Err: fmt.Errorf("%w: an earlier lock has not returned", ErrHangs)}
	}
	done := make(chan error, 1)
	go func() { done <- locker.Lock(ctx, v.lockName()) }()
	select {
	case err := <-done:
		v.store.leave(v.path)
		if err != nil {
			return nil, &Failed{Op: "lock", Path: v.path, Err: err}
		}
		return v.unlock, nil
	case <-ctx.Done():
	}
	go func() {
		if err := <-done; err == nil {
			v.unlock()
		}
		v.store.leave(v.path)
	}()
	return nil, &Failed{Op: "lock", Path: v.path, Err: context.Cause(ctx)}
}

// unlock gives the lock back. What fails here ends with the lock's own life.
func (v *Value) unlock() { _ = v.Break(context.Background()) }

// Break takes the lock from whoever holds it.
func (v *Value) Break(ctx context.Context) error {
	locker, ok := v.store.storage.(Locker)
	if !ok {
		return &Failed{Op: "unlock", Path: v.path, Err: ErrNoLocks}
	}
	_, err := v.store.call(ctx, v.lockName(), "unlock", func(ctx context.Context) ([]byte, error) {
		return nil, locker.Unlock(context.WithoutCancel(ctx), v.lockName())
	})
	if err != nil {
		return &Failed{Op: "unlock", Path: v.path, Err: err}
	}
	return nil
}

// enter notes that a lock is being waited for, one at a time for each path.
func (s *Store) enter(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locking[path] {
		return false
	}
	s.locking[path] = true
	return true
}

func (s *Store) leave(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.locking, path)
}
