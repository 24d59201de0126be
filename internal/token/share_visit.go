package token

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// visit is one request for a shared token.
type visit struct {
	*Share
	*Shared
	on   Occasion
	ask  Ask
	over func() // gives back the turn

	began  time.Time // by the wall clock
	known  bool      // what the record held when the server was asked
	sent   instant
	asleep time.Duration // until then
}

// request looks without the lock, and if there is nothing newer, with it.
func (v *visit) request(ctx, looking context.Context) (*oauth.Response, error) {
	r, err := v.load(looking)
	if err != nil {
		return v.without(ctx, err)
	}
	if res := v.adopt(r); res != nil {
		v.over()
		return res, nil
	}
	unlock, res, err := v.lock(looking, r)
	switch {
	case res != nil:
		return res, nil
	case err != nil:
		return v.without(ctx, err)
	}
	return v.locked(ctx, looking, unlock)
}

// load reads the record. One that cannot be read is as good as none.
func (v *visit) load(ctx context.Context) (*sharedRecord, error) {
	raw, err := v.Store.Load(ctx)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrUnreadable) {
		return new(sharedRecord), nil
	}
	if err != nil {
		return nil, err
	}
	return parseShared(raw), nil
}

// adopt takes over what another instance was given, nil if that is of no use.
func (v *visit) adopt(r *sharedRecord) *oauth.Response {
	var wanted bool
	switch {
	case v.on.Reason == Forced: // whoever wishes for it wants what the server gives now
		wanted = r.Obtained.Add(r.Took).After(v.began) && v.newer(r, v.Binding, v.on.Held)
	case v.on.Held != nil:
		wanted = v.newer(r, v.Binding, v.on.Held)
	default:
		wanted = v.other(r, v.Binding)
	}
	if !wanted {
		return nil
	}
	v.has(r.Obtained)
	v.blocked = ""
	return r.response(v.Binding)
}

// without asks without the lock, or says why that is not done.
func (v *visit) without(ctx context.Context, cause error) (*oauth.Response, error) {
	if ctx.Err() != nil {
		v.over()
		return nil, asUnreachable(context.Cause(ctx))
	}
	if v.Hold {
		v.over()
		if errors.Is(cause, errBusy) {
			return nil, asUnreachable(cause)
		}
		return nil, storageFailed(cause)
	}
	res, err := v.asks(ctx)
	if err != nil {
		v.over()
		return res, err
	}
	r := new(sharedRecord)
	v.take(r, res)
	go func() { // whoever waits for the token does not wait for the storage
		defer v.over()
		_ = v.save(context.WithoutCancel(ctx), r, nil)
	}()
	return res, nil
}

// asks asks the server.
func (v *visit) asks(ctx context.Context) (*oauth.Response, error) {
	v.sent, v.asleep = now(), v.Slept()
	return v.ask(ctx, v.on)
}

// locked asks with the lock, which it gives back.
func (v *visit) locked(ctx, looking context.Context, unlock func()) (*oauth.Response, error) {
	lease := newLease(v.Slept)
	mine := &asking{By: rand.Text(), At: time.Now().UTC()}
	release := func() {
		if lease.check() || !v.overtaken(ctx, mine) {
			unlock()
		}
		lease.end()
		v.over()
	}
	r, err := v.load(looking)
	if err == nil {
		if res := v.adopt(r); res != nil {
			go release()
			return res, nil
		}
		if wait := v.space(r); wait > 0 {
			go release()
			return nil, &spacedOut{wait}
		}
		r.Asking, v.known = mine, true
		err = v.mark(looking, r)
	}
	if err == nil && v.Hold {
		v.on.Lease = func(ctx context.Context) error { return v.mayAsk(ctx, lease, mine) }
	}
	if err != nil && v.Hold {
		go release()
		return nil, storageFailed(err)
	}
	res, asked := v.asks(ctx)
	if asked == nil {
		if r == nil { // it could not be read
			r = new(sharedRecord)
		}
		v.take(r, res)
	}
	go func() {
		if r != nil {
			_ = v.save(context.WithoutCancel(ctx), r, mine)
		}
		release()
	}()
	return res, asked
}

// mark says in the record who is asking. Where it matters it is read back: a
// storage may lie.
func (v *visit) mark(ctx context.Context, r *sharedRecord) error {
	content := r.bytes()
	if err := v.Store.Save(ctx, content); err != nil || !v.Hold {
		return err
	}
	back, err := v.Store.Load(ctx)
	if err == nil && !bytes.Equal(back, content) {
		err = errors.New("it does not hold what was just written to it")
	}
	return err
}

// mayAsk is asked just before the request is written.
func (v *visit) mayAsk(ctx context.Context, l *lease, mine *asking) error {
	if err := l.holds(ctx); err != nil {
		return err
	}
	r, err := v.load(ctx)
	switch {
	case err != nil:
		return storageFailed(err)
	case r.Asking == nil || r.Asking.By != mine.By:
		return ErrOvertaken
	}
	return l.holds(ctx)
}

// overtaken tells whether another has begun to ask: then the lock is its own.
func (v *visit) overtaken(ctx context.Context, mine *asking) bool {
	r, err := v.load(context.WithoutCancel(ctx))
	return err == nil && r.Asking != nil && r.Asking.By != mine.By
}

// take notes what the server gave.
func (v *visit) take(r *sharedRecord, res *oauth.Response) {
	took := now().sub(v.sent)
	r.put(res, time.Now().Add(-took-(v.Slept()-v.asleep)), took)
	v.has(r.Obtained)
	v.note(r)
}

// note notes what has become of the token that was held.
func (v *visit) note(r *sharedRecord) {
	switch {
	case v.on.Held == nil || v.on.Held.Value == r.AccessToken:
	case v.on.Suspect:
		r.refuse(v.on.Held.Value)
	case v.on.Reason == Scheduled && !r.refused(v.on.Held.Value):
		r.Forced = nil // it lived to its due point unrefused
	}
}

// space tells how long a refusal has to wait: the instances that share a token
// share the spacing of such requests, too.
func (v *visit) space(r *sharedRecord) time.Duration {
	if v.on.Reason != Rejected {
		return 0
	}
	spacing := firstSpacing
	if f := r.Forced; f != nil {
		if passed := time.Now().Round(0).Sub(f.At); passed >= -clockSkew && passed < f.Spacing {
			return f.Spacing - max(passed, 0)
		}
		spacing = min(max(2*f.Spacing, firstSpacing), mostSpacing)
	}
	r.Forced = &forced{At: time.Now().UTC().Round(0), Spacing: spacing}
	return 0
}

// save stores a record, unless a newer token is stored by now. What another
// instance has noted there meanwhile stays.
func (v *visit) save(ctx context.Context, r *sharedRecord, mine *asking) error {
	there, err := v.load(ctx)
	if err != nil {
		return err
	}
	switch age, ok := there.age(); {
	case ok && age < time.Since(r.Obtained)-sameRecord && v.usable(there, v.Binding, nil):
		copied := *there // theirs is newer
		r = &copied
	case !v.known:
		r.Forced, r.Refused = there.Forced, there.Refused
		v.note(r)
	}
	r.keepEnd(there)
	if a := there.Asking; mine == nil || a != nil && a.By != mine.By {
		r.Asking = a
	} else {
		r.Asking = nil
	}
	return v.Store.Save(ctx, r.bytes())
}
