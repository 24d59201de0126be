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
// back at once; until then the error is ErrHangs, as it is while an earlier lock
// is still being given back: that would take this one.
func (v *Value) Lock(ctx context.Context) (unlock func(), err error) {
	locker, ok := v.store.storage.(Locker)
	if !ok {
		return nil, &Failed{Op: "lock", Path: v.path, Err: ErrNoLocks}
	}
	if err := v.store.idle(ctx, v.lockName()); err != nil {
		return nil, &Failed{Op: "lock", Path: v.path, Err: err}
	}
	if !v.store.enter(v.path) {
		return nil, &Failed{Op: "lock", Path: v.path, Err: fmt.Errorf("%w: an earlier lock has not returned", ErrHangs)}
	}
	// Some storages renew a lock while the context lives that it was taken with
	// (Redis): it outlives the wait.
	held, end := context.WithCancelCause(context.WithoutCancel(ctx))
	waited := context.AfterFunc(ctx, func() { end(context.Cause(ctx)) })
	free := func() {
		_ = v.Break(context.Background()) // what fails here ends with the lock's own life
		end(nil)
	}
	done := make(chan error, 1)
	go func() { done <- locker.Lock(held, v.lockName()) }()
	select {
	case err := <-done:
		if err != nil {
			waited()
			end(nil)
			v.store.leave(v.path)
			return nil, &Failed{Op: "lock", Path: v.path, Err: err}
		}
		if waited() {
			v.store.leave(v.path)
			return free, nil
		}
		done <- nil // granted too late
	case <-ctx.Done():
	}
	go func() {
		if err := <-done; err == nil {
			free()
		}
		v.store.leave(v.path)
	}()
	return nil, &Failed{Op: "lock", Path: v.path, Err: context.Cause(ctx)}
}

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

// idle waits until no call is under way at a path.
func (s *Store) idle(ctx context.Context, path string) error {
	for {
		s.mu.Lock()
		before := s.calls[path]
		s.mu.Unlock()
		if before == nil {
			return nil
		}
		if err := before.wait(ctx); err != nil {
			return err
		}
	}
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
