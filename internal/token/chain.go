package token

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// What can be wrong with a refresh token. A Failure wraps one of these.
var (
	ErrLoginRequired = errors.New("no refresh token is stored")
	ErrEnded         = errors.New("the server refuses the refresh token")
	ErrAnswerLost    = errors.New("the answer to a refresh was lost, so that the refresh token may be spent")
	ErrStorage       = errors.New("the storage for refresh tokens fails")
	ErrOvertaken     = errors.New("another instance has gone on in place of this one, which was paused")
	ErrUnreadable    = errors.New("what is stored of the refresh token cannot be read")
)

// errResting is a failure after which a token that is held is used to its end:
// to ask earlier could end the chain and would gain nothing.
var errResting = errors.New("the refresh token rests while the access token is valid")

// Store keeps what is known of one refresh token.
type Store interface {
	// Load returns what was saved last. The error is fs.ErrNotExist if nothing
	// was, and wraps ErrUnreadable if it is there and of no use.
	Load(ctx context.Context) ([]byte, error)
	Save(ctx context.Context, content []byte) error
	// KeepAside copies what is there, readable or not, to another place.
	KeepAside(ctx context.Context) error
}

// Session is what one refresh is made of: whose refresh token it is, and how
// it is spent.
type Session struct {
	// Path tells one Store from another.
	Path  string
	Store Store
	// Initial is a configured refresh token to begin with, "" for none;
	// NoInitial is why the one that is configured cannot be read.
	Initial   string
	NoInitial error
	// Grace is how long after a lost answer the server takes the same refresh
	// token again.
	Grace time.Duration
	// Spend makes one token request. guard, if set, is to be called just before
	// it is written, and an error of it ends it unwritten.
	Spend func(ctx context.Context, refreshToken string, guard Guard) (*oauth.Response, error)

	limit time.Duration // of one token request
	on    Occasion
}

// Guard tells whether a request may still be written.
type Guard func(context.Context) error

// Open begins a session. The server and the client may be placeholders, so it
// is done anew for each refresh.
type Open func(context.Context) (*Session, error)

const (
	saveTimeout = 5 * time.Second // for all that is done to save an answer
	lookEvery   = 3 * time.Second // how often a failing credential looks for a new login
	slowestSave = 5 * time.Second // between two tries of a save that fails: another may be waiting for it
)

// Chain spends rotating refresh tokens (RFC 6749 §6), one after the other, so
// that none is lost and none is spent twice. Each is stored before it is used,
// and marked in the store before it is spent: a mark that is found by a later
// process tells that an answer was lost. It outlives configs, so that a refresh
// under way when one is replaced still saves what it gets.
type Chain struct {
	// Alarm, if set, is told when a new refresh token cannot be saved, and with
	// nil when it is saved after all. Set it before the first refresh.
	Alarm func(error)

	turn     chan struct{} // held by the one who refreshes
	instance string
	closing  atomic.Bool
	state    atomic.Pointer[ChainState]

	// with the turn
	known   map[string]*record   // last seen in the store
	unsaved map[string]saving    // what the store did not take
	unsent  map[string]time.Time // the mark that failed: the store may hold it all the same
	alarmed bool

	mu      sync.Mutex
	tried   string    // hash of the refresh token that was spent last
	looked  time.Time // for a new one
	savings sync.WaitGroup
	ended   chan struct{}
}

// ChainState is what is known of a refresh token.
type ChainState struct {
	// Usable is false when there is none, or the server has refused it.
	Usable bool
	// Err is what is wrong, nil if nothing is.
	Err error
}

// NewChain returns a chain at rest.
func NewChain() *Chain {
	return &Chain{
		turn: make(chan struct{}, 1), instance: rand.Text(), ended: make(chan struct{}),
		known: make(map[string]*record), unsaved: make(map[string]saving), unsent: make(map[string]time.Time),
	}
}

// State is what is known, nil before the first refresh.
func (c *Chain) State() *ChainState { return c.state.Load() }

// Refresh spends the refresh token. The occasion's limit, a minute unless set,
// is that of the request alone: neither the wait for an earlier one nor a slow
// storage takes of it, for a request that is cut short may have spent the
// refresh token.
func (c *Chain) Refresh(ctx context.Context, on Occasion, open Open) (*oauth.Response, error) {
	limit := cmp.Or(on.Limit, time.Minute)
	earlier, stop := context.WithTimeout(ctx, limit)
	defer stop()
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-earlier.Done():
		return nil, &oauth.Failure{Kind: oauth.Unreachable, Err: errors.New("an earlier refresh is still under way")}
	}
	if c.closing.Load() || ctx.Err() != nil {
		return nil, &oauth.Failure{Kind: oauth.Unreachable, Err: ErrClosed}
	}
	ctx, cancel := within(ctx, limit)
	defer cancel()
	s, err := open(ctx)
	if err != nil {
		return nil, err
	}
	s.limit, s.on = limit, on
	res, err := c.refresh(ctx, s)
	c.tell(s, err)
	return res, err
}

// within is a context that nothing but its own time ends: what is on its way is
// waited for, whoever leaves.
func within(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}

// refresh does it with the turn held.
func (c *Chain) refresh(ctx context.Context, s *Session) (*oauth.Response, error) {
	rec, err := c.load(ctx, s)
	if err != nil {
		return nil, err
	}
	rec.take(s.Initial)
	res, err := c.spend(ctx, s, rec)
	if !errors.Is(err, ErrEnded) {
		return res, err
	}
	// a login, or another process, may have stored a newer one meanwhile
	newer, loadErr := c.load(ctx, s)
	if loadErr != nil || newer.RefreshToken == rec.RefreshToken || newer.RefreshToken == "" {
		return res, err
	}
	return c.spend(ctx, s, newer)
}

// spend makes one token request, marked while it is under way.
func (c *Chain) spend(ctx context.Context, s *Session, rec *record) (*oauth.Response, error) {
	if rec.RefreshToken == "" {
		if s.NoInitial != nil {
			return nil, asRefused(fmt.Errorf("%w, and the configured one cannot be read: %w", ErrLoginRequired, s.NoInitial))
		}
		return nil, asRefused(ErrLoginRequired)
	}
	c.tries(rec.RefreshToken)
	lost := rec.lost()
	if lost && s.rests(rec.Mark) {
		return nil, asUnreachable(fmt.Errorf("%w: %w", errResting, ErrAnswerLost))
	}
	if err := s.leased(ctx); err != nil {
		return nil, asUnreachable(err)
	}
	if !rec.Static {
		marked := rec.marked(c.instance)
		if err := c.save(ctx, s, marked); err != nil {
			if !lost {
				c.unsent[s.Path] = marked.Mark.At
			}
			return nil, asUnreachable(err)
		}
		rec = marked
	}
	res, err := s.ask(ctx, rec)

	ctx, cancel := within(ctx, saveTimeout)
	defer cancel()
	failure, _ := errors.AsType[*oauth.Failure](err)
	switch {
	case err == nil, res != nil && res.RefreshToken != "":
		c.keep(ctx, s, rec, rec.answered(res.RefreshToken))
	case failure != nil && refusesToken(failure):
		return nil, c.end(ctx, s, rec, failure, lost)
	case failure != nil && failure.Lost && !rec.Static:
		return nil, loseAnswer(failure, s.rests(rec.Mark))
	case !rec.Static && !lost:
		unmarked := *rec
		unmarked.Mark = nil
		c.keep(ctx, s, rec, &unmarked)
	}
	if err != nil {
		return nil, err
	}
	return res, nil
}

func (s *Session) ask(ctx context.Context, rec *record) (*oauth.Response, error) {
	ctx, cancel := within(ctx, s.limit)
	defer cancel()
	var guard Guard
	if s.on.Lease != nil {
		guard = func(ctx context.Context) error { return s.mayWrite(ctx, rec) }
	}
	return s.Spend(ctx, rec.RefreshToken, guard)
}

// leased tells whether the lock under which this is done, if any, still counts.
func (s *Session) leased(ctx context.Context) error {
	if s.on.Lease == nil {
		return nil
	}
	return s.on.Lease(ctx)
}

// mayWrite tells whether a refresh token is still this process's to spend: one
// that was paused may have been taken for dead.
func (s *Session) mayWrite(ctx context.Context, rec *record) error {
	if err := s.leased(ctx); err != nil || rec.Static {
		return err
	}
	there, err := read(ctx, s.Store)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrStorage, err)
	case there.RefreshToken != rec.RefreshToken, !there.markedBy(rec):
		return ErrOvertaken
	}
	return s.leased(ctx)
}

// rests tells whether a refresh token with a mark is left alone. A mark of a
// clock that is ahead is no newer than one of now.
func (s *Session) rests(m *mark) bool {
	age := time.Since(m.At)
	return s.on.Held != nil && (age < 0 || age >= s.Grace)
}

// loseAnswer says of a failure what it means. The mark stays.
func loseAnswer(f *oauth.Failure, rests bool) error {
	said := *f
	said.Err = ErrAnswerLost
	if f.Err != nil {
		said.Err = fmt.Errorf("%w: %w", ErrAnswerLost, f.Err)
	}
	if rests {
		said.Err = fmt.Errorf("%w: %w", errResting, said.Err)
	}
	return &said
}

// refusesToken tells whether the server takes the refresh token no more: RFC 6749
// §5.2 has a word for it, Glewlwyd an empty 400.
func refusesToken(f *oauth.Failure) bool {
	silent := f.Status == http.StatusBadRequest && f.Code == "" && f.Description == "" && f.Err == nil
	return f.Kind == oauth.Refused && (silent || f.Code == "invalid_grant")
}

// end notes that the server refuses a refresh token.
func (c *Chain) end(ctx context.Context, s *Session, rec *record, f *oauth.Failure, lost bool) error {
	if rec.Ended == nil || rec.Mark != nil {
		c.keep(ctx, s, rec, rec.ended(f.Code, lost))
	}
	said := *f
	said.Err = ErrEnded
	if lost || rec.Ended != nil && rec.Ended.Lost {
		said.Err = fmt.Errorf("%w: %w", ErrEnded, ErrAnswerLost)
	}
	return &said
}
