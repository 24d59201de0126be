package store

import (
	"context"
	"fmt"
	"time"
)

// callTimeout is how long one storage call may take, the wait for its turn
// included.
const callTimeout = 2 * time.Second

// errSlow is the cause of a context that ends with callTimeout.
var errSlow = fmt.Errorf("%w: no answer within %s: %w", ErrHangs, callTimeout, context.DeadlineExceeded)

// call is a storage call under way.
type call struct {
	op      string
	started time.Time
	done    chan struct{} // closed when the storage has returned
	raw     []byte
	err     error
}

// call makes a storage call once those before it at the same path are over. It
// returns within callTimeout, though the storage may heed no context: the call
// then goes on by itself, and until it ends no other is begun. So a write that
// comes late never lands on a later one, and what hangs does not pile up.
func (s *Store) call(ctx context.Context, path, op string, f func(context.Context) ([]byte, error)) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errSlow)
	defer cancel()
	c, err := s.begin(ctx, path, op)
	if err != nil {
		return nil, err
	}
	go func() {
		c.raw, c.err = f(ctx)
		s.mu.Lock()
		delete(s.calls, path)
		s.mu.Unlock()
		close(c.done)
	}()
	select {
	case <-c.done:
		return c.raw, c.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// begin waits for the turn at a path, but not for a call that hangs.
func (s *Store) begin(ctx context.Context, path, op string) (*call, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		s.mu.Lock()
		before := s.calls[path]
		if before == nil {
			c := &call{op: op, started: time.Now(), done: make(chan struct{})}
			s.calls[path] = c
			s.mu.Unlock()
			return c, nil
		}
		s.mu.Unlock()
		if err := before.wait(ctx); err != nil {
			return nil, err
		}
	}
}

func (c *call) wait(ctx context.Context) error {
	hangs := time.NewTimer(callTimeout - time.Since(c.started))
	defer hangs.Stop()
	select {
	case <-c.done:
		return nil
	case <-hangs.C:
		return fmt.Errorf("%w: its %s of %s ago has not returned, and nothing else is begun here until it does", ErrHangs, c.op, time.Since(c.started).Round(time.Second))
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
