package store

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// locks is a storage with locks, and with faults.
type locks struct {
	*memory
	lockMu sync.Mutex
	held   map[string]context.Context // with which a lock was taken
	free   chan struct{}              // closed when one is given back
	deaf   bool                       // to the end of a context
	waits  int                        // who waits at once
	most   int
}

func newLocks() *locks {
	return &locks{memory: &memory{}, held: make(map[string]context.Context), free: make(chan struct{})}
}

// Lock implements Locker.
func (l *locks) Lock(ctx context.Context, name string) error {
	if err := l.enter("lock", name); err != nil {
		return err
	}
	l.count(1)
	defer l.count(-1)
	for {
		l.lockMu.Lock()
		if l.held[name] == nil {
			l.held[name] = ctx //nolint:fatcontext // to look later whether it has ended
			l.lockMu.Unlock()
			return nil
		}
		free, ends := l.free, ctx.Done()
		if l.deaf {
			ends = nil
		}
		l.lockMu.Unlock()
		select {
		case <-free:
		case <-ends:
			return ctx.Err()
		}
	}
}

func (l *locks) count(n int) {
	l.lockMu.Lock()
	defer l.lockMu.Unlock()
	l.waits += n
	l.most = max(l.most, l.waits)
}

func (l *locks) peak() int {
	l.lockMu.Lock()
	defer l.lockMu.Unlock()
	return l.most
}

// Unlock implements Locker.
func (l *locks) Unlock(_ context.Context, name string) error {
	if err := l.enter("unlock", name); err != nil {
		return err
	}
	l.lockMu.Lock()
	defer l.lockMu.Unlock()
	if l.held[name] == nil {
		return errors.New("it is not held")
	}
	delete(l.held, name)
	close(l.free)
	l.free = make(chan struct{})
	return nil
}

// holder is the context with which the lock is held, nil if it is not.
func (l *locks) holder() context.Context {
	l.lockMu.Lock()
	defer l.lockMu.Unlock()
	return l.held[crmPath+".lock"]
}

// waiting waits for a lock for so long at most.
func waiting(t *testing.T, v *Value, most time.Duration) (func(), error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), most)
	defer cancel() // the lock outlives the wait for it
	return v.Lock(ctx)
}

// wantFailed checks that a call failed and says at which path and why.
func wantFailed(t *testing.T, err error, op string, cause error) {
	t.Helper()
	if f, ok := errors.AsType[*Failed](err); !ok || f.Op != op || f.Path != crmPath || !errors.Is(err, cause) {
		t.Errorf("got %v, want a %s that failed with %v", err, op, cause)
	}
}

// TestLock: one has it at a time, and who waits gets it when it is given back.
func TestLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocks()
		ours, theirs := New(l, nil).Value(crmPath, "crm"), New(l, nil).Value(crmPath, "crm")
		unlock, err := waiting(t, ours, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if ctx := l.holder(); ctx == nil || ctx.Err() != nil {
			t.Error("the context ended with the wait: a storage would renew the lock no more")
		}
		began := time.Now()
		time.AfterFunc(3*time.Second, unlock)
		again, err := waiting(t, theirs, 5*time.Second)
		if err != nil || time.Since(began) != 3*time.Second {
			t.Fatalf("got %v after %s", err, time.Since(began))
		}
		ctx := l.holder()
		again()
		if l.holder() != nil || ctx.Err() == nil {
			t.Error("it is held still")
		}
	})
}

// TestLockInVain: the wait ends with its context, and leaves nothing.
func TestLockInVain(t *testing.T) {
	errPatience := errors.New("out of patience")
	synctest.Test(t, func(t *testing.T) {
		l := newLocks()
		unlock, err := waiting(t, New(l, nil).Value(crmPath, "crm"), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		v := New(l, nil).Value(crmPath, "crm")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, errPatience)
		defer cancel()
		began := time.Now()
		_, err = v.Lock(ctx)
		wantFailed(t, err, "lock", errPatience)
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("it took %s", took)
		}
		synctest.Wait()
		_, err = v.Lock(ctx)
		wantFailed(t, err, "lock", errPatience)
		synctest.Wait()
		unlock()
		if unlock, err := waiting(t, v, time.Second); err != nil {
			t.Error(err)
		} else {
			unlock()
		}
	})
}

// TestLockLate: a storage that heeds no context holds one goroutine, and what it
// grants when nobody waits any more is given back.
func TestLockLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocks()
		l.deaf = true
		unlock, err := waiting(t, New(l, nil).Value(crmPath, "crm"), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		s := New(l, nil)
		began := time.Now()
		_, err = waiting(t, s.Value(crmPath, "crm"), 5*time.Second)
		wantFailed(t, err, "lock", context.DeadlineExceeded)
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("it took %s", took)
		}
		for range 100 { // the path counts, not the Value
			_, err := waiting(t, s.Value(crmPath, "crm"), 5*time.Second)
			wantFailed(t, err, "lock", ErrHangs)
		}
		if took := time.Since(began); took != 5*time.Second || l.peak() != 1 {
			t.Errorf("%d waited at once, for %s", l.peak(), took)
		}
		if free, err := waiting(t, s.Value("upstream_auth/other/1.json", "other"), time.Second); err != nil {
			t.Errorf("another path: %v", err)
		} else {
			free()
		}
		unlock()
		synctest.Wait()
		if l.holder() != nil {
			t.Error("what was granted too late is held")
		}
		unlock, err = waiting(t, s.Value(crmPath, "crm"), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		unlock()
	})
}

// TestLockAtTheLastMoment: a lock that is granted as its context ends is either
// the caller's, with a context that lives, or given back.
func TestLockAtTheLastMoment(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			l := newLocks()
			v := New(l, nil).Value(crmPath, "crm")
			ctx, cancel := context.WithCancel(t.Context())
			l.fault = func(op, _ string) error {
				if op == "lock" {
					cancel()
				}
				return nil
			}
			unlock, err := v.Lock(ctx)
			synctest.Wait()
			switch {
			case err == nil && (l.holder() == nil || l.holder().Err() != nil):
				t.Error("it is said to be held, and is not, or not for long")
			case err == nil:
				unlock()
			case l.holder() != nil:
				t.Error("it is held by nobody")
			}
		})
	}
}

// TestUnlockLate: an unlocking that hangs never takes a later lock.
func TestUnlockLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocks()
		s := New(l, nil)
		v := s.Value(crmPath, "crm")
		unlock, err := waiting(t, v, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		until := l.hanging("unlock")
		began := time.Now()
		unlock()
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("giving it back took %s", took)
		}
		l.lockMu.Lock()
		delete(l.held, crmPath+".lock") // its own life has ended meanwhile
		l.lockMu.Unlock()
		_, err = waiting(t, v, 5*time.Second)
		wantFailed(t, err, "lock", ErrHangs)
		if slices.Contains(l.begun()[1:], "lock") {
			t.Errorf("a lock that the late unlocking would take: %v", l.begun())
		}
		close(until)
		synctest.Wait()
		unlock, err = waiting(t, v, 5*time.Second)
		if err != nil || l.holder() == nil {
			t.Fatal("got", err)
		}
		unlock()
	})
}

// TestBreak: a dead one's lock is taken from it.
func TestBreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocks()
		if _, err := waiting(t, New(l, nil).Value(crmPath, "crm"), time.Second); err != nil {
			t.Fatal(err)
		}
		v := New(l, nil).Value(crmPath, "crm")
		if err := v.Break(t.Context()); err != nil {
			t.Fatal(err)
		}
		unlock, err := waiting(t, v, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		unlock()
		if err := v.Break(t.Context()); err == nil || !strings.Contains(err.Error(), "it is not held") {
			t.Errorf("of one that nobody holds: %v", err)
		}
		until := l.hanging("unlock")
		defer close(until)
		wantFailed(t, v.Break(t.Context()), "unlock", ErrHangs)
	})
}

// TestLockFails: what the storage says is passed on, and the next one may try.
func TestLockFails(t *testing.T) {
	broken := errors.New("broken")
	l := newLocks()
	l.fault = func(string, string) error { return broken }
	v := New(l, nil).Value(crmPath, "crm")
	for range 2 {
		_, err := v.Lock(t.Context())
		wantFailed(t, err, "lock", broken)
	}
	wantFailed(t, v.Break(t.Context()), "unlock", broken)
}

// TestNoLocks: a storage without locks is no reason to go without one unsaid.
func TestNoLocks(t *testing.T) {
	v := New(&memory{}, nil).Value(crmPath, "crm")
	_, err := v.Lock(t.Context())
	wantFailed(t, err, "lock", ErrNoLocks)
	wantFailed(t, v.Break(t.Context()), "unlock", ErrNoLocks)
}

// Interface guards
var (
	_ Locker  = (*locks)(nil)
	_ Storage = (*locks)(nil)
)
