package token

import (
	"context"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// lock waits for the lock, and looks meanwhile whether the one who has it brings
// a token: then it is needed no more, and the turn is given back once it is.
func (v *visit) lock(ctx context.Context, r *sharedRecord) (unlock func(), adopted *oauth.Response, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lockWait, errBusy)
	defer cancel()
	type outcome struct {
		unlock func()
		err    error
	}
	got := make(chan outcome, 1)
	go func() {
		unlock, err := v.Store.Lock(ctx)
		got <- outcome{unlock, err}
	}()
	giveUp := func() {
		cancel()
		if o := <-got; o.err == nil {
			o.unlock()
		}
		v.over()
	}
	pause := lookAgain
	look := time.NewTimer(pause)
	defer look.Stop()
	for {
		select {
		case o := <-got:
			if o.err == nil {
				v.blocked = ""
				return o.unlock, nil, nil
			}
			return nil, nil, v.notLocked(ctx, r, o.err)
		case <-look.C:
			pause = min(2*pause, time.Second) // a fleet may be looking
			look.Reset(pause)
			there, err := v.load(ctx)
			if err != nil {
				continue
			}
			r = there
			if res := v.adopt(r); res != nil {
				go giveUp()
				return nil, res, nil
			}
		}
	}
}

// notLocked sorts why the lock was not to be had. A holder that has not been
// heard of for longer than any may need is dead: a storage may keep its lock for
// ever.
func (v *visit) notLocked(ctx context.Context, r *sharedRecord, err error) error {
	if ctx.Err() == nil {
		return err // the storage has no lock to give
	}
	holder := "nobody"
	if r.Asking != nil {
		holder = r.Asking.By
	}
	if v.blocked != holder {
		v.blocked, v.blockedSince = holder, time.Now()
	}
	if time.Since(v.blockedSince) > v.on.Limit+saveTimeout+deadLock {
		v.blocked = ""
		_ = v.Store.Break(context.WithoutCancel(ctx))
	}
	return errBusy
}
