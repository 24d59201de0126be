package token

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

func asUnreachable(err error) *oauth.Failure {
	return &oauth.Failure{Kind: oauth.Unreachable, Err: err}
}

func asRefused(err error) *oauth.Failure {
	return &oauth.Failure{Kind: oauth.Refused, Err: err}
}

// tell notes what a refresh has shown.
func (c *Chain) tell(s *Session, err error) {
	var wrong error
	for _, known := range []error{ErrLoginRequired, ErrEnded, ErrUnreadable, ErrStorage, ErrAnswerLost} {
		if errors.Is(err, known) {
			wrong = known
			break
		}
	}
	if known := c.known[s.Path]; wrong == nil && err != nil && known != nil {
		wrong = known.wrong() // the server did not answer: nothing new is known
	}
	if wrong == nil && len(c.unsaved) > 0 {
		wrong = ErrStorage
	}
	c.note(wrong)
}

func (c *Chain) note(wrong error) {
	usable := !errors.Is(wrong, ErrLoginRequired) && !errors.Is(wrong, ErrEnded) && !errors.Is(wrong, ErrUnreadable)
	c.state.Store(&ChainState{Usable: usable, Err: wrong})
}

// Adopted notes that another instance was given an access token with the refresh
// token that is stored, so that what was wrong with it here has passed.
func (c *Chain) Adopted() {
	if was := c.state.Load(); was != nil && !was.Usable {
		c.state.CompareAndSwap(was, &ChainState{Usable: true})
	}
}

// tries notes which refresh token is being tried.
func (c *Chain) tries(refreshToken string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tried = fingerprint(refreshToken)
}

// Stale tells whether another refresh token is stored than was tried last, as
// after a login. It looks every few seconds at most.
func (c *Chain) Stale(ctx context.Context, open Open) bool {
	c.mu.Lock()
	tried, early := c.tried, time.Since(c.looked) < lookEvery
	if !early {
		c.looked = time.Now()
	}
	c.mu.Unlock()
	if early {
		return false
	}
	s, err := open(ctx)
	if err != nil {
		return false
	}
	rec, err := read(ctx, s.Store)
	if err != nil || rec.blank() && tried != "" {
		return false
	}
	rec.take(s.Initial)
	return rec.RefreshToken != "" && fingerprint(rec.RefreshToken) != tried
}

// load reads the record; an empty one if there is none. What an earlier save
// could not write comes first.
func (c *Chain) load(ctx context.Context, s *Session) (*record, error) {
	if err := c.savePending(ctx, s); err != nil {
		return nil, asUnreachable(err)
	}
	rec, err := read(ctx, s.Store)
	known := c.known[s.Path]
	switch {
	case errors.Is(err, ErrUnreadable):
		return nil, asRefused(err)
	case err == nil && rec.blank() && known != nil && !known.blank():
		// what it held is gone, and what was taken before must not be spent again
		rec.Seen = known.Seen
		if rec.take(s.Initial); !rec.blank() {
			return rec, nil
		}
		err = errForgotten
	case err == nil:
		if m := rec.Mark; m != nil && m.Instance == c.instance && m.At.Equal(c.unsent[s.Path]) {
			rec.Mark = nil
		}
		if rec.olderThan(known) {
			// one who was paused has written over what came after him
			copied := *known
			return &copied, c.mend(ctx, s, &copied)
		}
		c.known[s.Path], known = rec, rec
	}
	if err != nil && (known == nil || !known.Static) {
		return nil, asUnreachable(fmt.Errorf("%w: %w", ErrStorage, err))
	}
	copied := *known // if it is static, nothing is spent and nothing need be stored
	return &copied, nil
}

// mend stores again what was stored before.
func (c *Chain) mend(ctx context.Context, s *Session, rec *record) error {
	if err := c.save(ctx, s, rec); err != nil {
		return asUnreachable(err)
	}
	return nil
}

var errForgotten = errors.New("what it held is gone: put it back, log in anew, or restart to begin anew")

func read(ctx context.Context, store Store) (*record, error) {
	raw, err := store.Load(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return new(record), nil
	}
	if err != nil {
		return nil, err
	}
	return parseRecord(raw)
}

func (c *Chain) save(ctx context.Context, s *Session, rec *record) error {
	if err := write(ctx, s.Store, rec); err != nil {
		return err
	}
	c.known[s.Path] = rec
	return nil
}

// write saves a record and reads it back: a storage that forgets would lose the
// chain.
func write(ctx context.Context, store Store, rec *record) error {
	content := rec.bytes()
	if err := store.Save(ctx, content); err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	back, err := store.Load(ctx)
	if err == nil && !bytes.Equal(back, content) {
		err = errors.New("it does not hold what was just written to it")
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	return nil
}

// keep saves what came of a refresh. What cannot be saved is tried again until
// it is.
func (c *Chain) keep(ctx context.Context, s *Session, spent, rec *record) {
	if spent.Static && rec.Static && rec.Ended == nil && spent.Ended == nil {
		return // nothing has changed
	}
	p := saving{spent: spent.RefreshToken, record: rec}
	if spent.Mark != nil {
		p.by = spent.Mark.By
	}
	if err := c.put(ctx, s, p); err != nil {
		c.saveLater(s, p, err)
	}
}

// saving is a record that is to be stored in place of a refresh token that was
// spent.
type saving struct {
	spent  string
	by     string // the mark that it was spent under
	record *record
}

// put saves a record, unless another refresh token is stored by now: a login or
// a logout has the last word.
func (c *Chain) put(ctx context.Context, s *Session, p saving) error {
	there, err := read(ctx, s.Store)
	switch {
	case err == nil && !there.blank() && there.RefreshToken != p.spent && !there.olderThan(p.record):
		c.known[s.Path] = there
		return nil
	case err == nil && p.record.RefreshToken == p.spent && there.Mark != nil && there.Mark.By != p.by:
		return nil // another's request is under way
	case errors.Is(err, ErrUnreadable):
		if err := s.Store.KeepAside(ctx); err != nil {
			return fmt.Errorf("%w: %w", ErrStorage, err)
		}
	case err != nil && p.record.RefreshToken == p.spent:
		return fmt.Errorf("%w: %w", ErrStorage, err) // it brings nothing new, and what is there may be newer
	}
	return c.save(ctx, s, p.record)
}

// saveLater keeps a record that the storage did not take in memory, and tries
// again until it does. The next refresh token is not spent before.
func (c *Chain) saveLater(s *Session, p saving, cause error) {
	c.unsaved[s.Path] = p
	if p.record.RefreshToken != p.spent {
		c.alarmed = true
		c.alarm(cause)
	}
	c.savings.Go(func() { c.retrySave(s) })
}

func (c *Chain) alarm(cause error) {
	if c.Alarm != nil {
		c.Alarm(cause)
	}
}

func (c *Chain) retrySave(s *Session) {
	for pause := time.Second; ; pause = min(2*pause, slowestSave) {
		last := false
		select {
		case <-time.After(pause):
		case <-c.ended:
			last = true
		}
		c.turn <- struct{}{}
		ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
		err := c.savePending(ctx, s)
		cancel()
		<-c.turn
		if err == nil || last {
			return
		}
	}
}

// savePending tries to save what could not be saved, with the turn held.
func (c *Chain) savePending(ctx context.Context, s *Session) error {
	p, ok := c.unsaved[s.Path]
	if !ok {
		return nil
	}
	if err := c.put(ctx, s, p); err != nil {
		return err
	}
	delete(c.unsaved, s.Path)
	if len(c.unsaved) > 0 {
		return nil
	}
	if c.alarmed {
		c.alarmed = false
		c.alarm(nil)
	}
	if state := c.state.Load(); state != nil && errors.Is(state.Err, ErrStorage) {
		c.note(c.known[s.Path].wrong())
	}
	return nil
}

// Drain has the chain spend nothing any more.
func (c *Chain) Drain() { c.closing.Store(true) }

// Close ends the chain: it waits for the refresh under way, which its own
// timeout ends, and tries once more to save what is not saved.
func (c *Chain) Close() {
	c.closing.Store(true)
	close(c.ended)
	c.turn <- struct{}{}
	<-c.turn
	c.savings.Wait()
}

// Keep stores a refresh token that a login brought, over whatever is there.
func Keep(ctx context.Context, store Store, refreshToken string) error {
	return replace(ctx, store, refreshToken, "")
}

// replace stores a refresh token, and has a configured one count as taken.
func replace(ctx context.Context, store Store, refreshToken, initial string) error {
	rec, err := read(ctx, store)
	if errors.Is(err, ErrUnreadable) {
		if err := store.KeepAside(ctx); err != nil {
			return err
		}
		rec, err = new(record), nil
	}
	if err != nil {
		return err
	}
	rec.take(initial)
	rec.begin(refreshToken)
	return write(ctx, store, rec)
}

// Kept is the refresh token that is stored, "" for none.
func Kept(ctx context.Context, store Store) (string, error) {
	rec, err := read(ctx, store)
	if err != nil {
		return "", err
	}
	return rec.RefreshToken, nil
}

// Forget removes the refresh token. The configured one, "" where there is none,
// counts as taken from now on, as those before it do: it would undo the logout.
func Forget(ctx context.Context, store Store, initial string) error {
	return replace(ctx, store, "", initial)
}
