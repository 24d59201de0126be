package token

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// SharedStore keeps an access token where the instances that share it find it,
// and has them take turns.
type SharedStore interface {
	// Load returns what was saved last; the error is fs.ErrNotExist if nothing
	// was, and wraps ErrUnreadable if it is of no use.
	Load(ctx context.Context) ([]byte, error)
	Save(ctx context.Context, content []byte) error
	// Lock waits for the lock until ctx ends.
	Lock(ctx context.Context) (unlock func(), err error)
	// Break takes the lock from whoever holds it.
	Break(ctx context.Context) error
}

// Bound is what a token is bound to, as another instance can compare it.
type Bound interface{ Thumbprint() string }

// Shared is what one token is shared by.
type Shared struct {
	Store SharedStore
	// Binding is what tokens are bound to here, nil where they are not.
	Binding Bound
}

// OpenShared begins a look. What a token is kept under may be placeholders, so
// it is done anew for each.
type OpenShared func(context.Context) (*Shared, error)

// Ask makes a token request of this process's own.
type Ask func(context.Context, Occasion) (*oauth.Response, error)

const (
	lockWait   = 5 * time.Second        // for the lock, at most
	urgentWait = time.Second            // while a request waits
	lookAgain  = 250 * time.Millisecond // into the store, while another asks
	startOver  = 2 * time.Second        // in which the instances of a fleet look first
	sameRecord = 250 * time.Millisecond // by which two times of one token may differ
	deadLock   = 30 * time.Second       // beyond what any holder may need
)

// Share has instances use one access token, and make one token request for it:
// each looks into the store first, and asks the server with the lock alone. Its
// storage may be slow, fail, or lie: that costs nothing but the sharing, unless
// Hold is set.
type Share struct {
	// Hold has a token be asked for with the lock alone, or not at all: where a
	// new token ends the one before it, or a refresh token is spent.
	Hold bool
	// Policy and Slept are those of the source.
	Policy Policy
	Slept  func() time.Duration

	random random
	turn   chan struct{} // held while a request, or what follows it, is under way

	mu      sync.Mutex
	newest  time.Time       // when what is held was obtained
	refused map[string]bool // hashes of what an upstream refused here
	looked  time.Time       // for another instance's token, while this one fails

	// with the turn
	blocked      string // whose lock it is that is not to be had
	blockedSince time.Time
}

// NewShare returns one that has nothing under way.
func NewShare(policy Policy, hold bool, slept func() time.Duration) *Share {
	if slept == nil {
		slept = func() time.Duration { return 0 }
	}
	return &Share{Policy: policy, Hold: hold, Slept: slept, random: rand.Float64, turn: make(chan struct{}, 1), refused: make(map[string]bool)}
}

// errBusy is why a request was not made: it is another's turn.
var errBusy = errors.New("another instance has the lock for this token, and has brought none yet")

// Request finds a token in the store, or has ask get one and stores it.
func (h *Share) Request(ctx context.Context, on Occasion, open OpenShared, ask Ask) (*oauth.Response, error) {
	began := now()
	looking, stop := h.patient(ctx, on)
	defer stop()
	select {
	case h.turn <- struct{}{}:
	case <-looking.Done():
		if ctx.Err() != nil {
			return nil, asUnreachable(context.Cause(ctx))
		}
		return h.alone(ctx, began, on, ask) // what came of the last request is still being stored
	}
	over := func() { <-h.turn }
	if on.Reason == Start {
		h.spread(ctx, on)
	}
	opening, opened := context.WithTimeout(ctx, cmp.Or(on.Limit, time.Minute)) // it reads files
	s, err := open(opening)
	opened()
	if err == nil && ctx.Err() != nil {
		err = asUnreachable(context.Cause(ctx))
	}
	if err != nil {
		over()
		return nil, err
	}
	if on.Held != nil && on.Suspect {
		h.refuse(on.Held.Value)
	}
	v := &visit{Share: h, Shared: s, on: on, ask: ask, over: over, began: time.Now().Round(0)}
	res, err := v.request(ctx, looking)
	switch {
	case res == nil:
	case res.Adopted:
		res.Age -= now().sub(began) // it was not yet that old then
	default:
		res.Age = began.sub(v.sent)
	}
	return res, err
}

// patient is a context for what is done in the storage. It ends soon after a
// request has begun to wait, and while there is time for a token request before
// the token in use ends; unless nothing may be asked without the storage.
func (h *Share) patient(ctx context.Context, on Occasion) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	if !h.Hold {
		go func() {
			most := never.sub(0)
			if held := on.Held; held != nil {
				most = max(held.until.sub(now())/2, urgentWait)
			}
			timer := time.NewTimer(most)
			defer timer.Stop()
			waited := on.Waited
			for {
				select {
				case <-waited:
					waited = nil
					timer.Reset(urgentWait)
				case <-timer.C:
					cancel(errBusy)
					return
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	return ctx, func() { cancel(nil) }
}

// alone makes a request whose token nobody shares.
func (h *Share) alone(ctx context.Context, began instant, on Occasion, ask Ask) (*oauth.Response, error) {
	sent, at := now(), time.Now()
	res, err := ask(ctx, on)
	if err == nil {
		h.has(at)
	}
	if res != nil {
		res.Age = began.sub(sent)
	}
	return res, err
}

// spread has the instances of a fleet that starts not all look at once.
func (h *Share) spread(ctx context.Context, on Occasion) {
	timer := time.NewTimer(time.Duration(h.random() * float64(startOver)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-on.Waited:
	case <-ctx.Done():
	}
}

// Stale tells whether another instance has brought a token since. It looks every
// few seconds at most.
func (h *Share) Stale(ctx context.Context, open OpenShared) bool {
	h.mu.Lock()
	early := time.Since(h.looked) < lookEvery
	if !early {
		h.looked = time.Now()
	}
	h.mu.Unlock()
	if early {
		return false
	}
	s, err := open(ctx)
	if err != nil {
		return false
	}
	raw, err := s.Store.Load(ctx)
	return err == nil && h.newer(parseShared(raw), s.Binding, nil)
}

// Close waits for what is under way.
func (h *Share) Close() {
	h.turn <- struct{}{}
	<-h.turn
}

func (h *Share) refuse(value string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.refused) >= 2*maxRefused {
		clear(h.refused) // tokens of long ago
	}
	h.refused[fingerprint(value)] = true
}

// usable tells whether a token that another instance was given is of use here:
// a new one for more than a second, while one that is held is only confirmed.
func (h *Share) usable(r *sharedRecord, binding Bound, held *Token) bool {
	least := time.Second
	if held != nil && held.Value == r.AccessToken {
		least = 0
	}
	thumbprint := ""
	if binding != nil {
		thumbprint = binding.Thumbprint()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return r.left(&h.Policy) > least && r.Bound == thumbprint && !r.refused(r.AccessToken) && !h.refused[fingerprint(r.AccessToken)]
}

// newer tells whether it is one that this instance has not had.
func (h *Share) newer(r *sharedRecord, binding Bound, held *Token) bool {
	return h.usable(r, binding, held) && h.since(r) > sameRecord
}

// other tells whether it is another one than this instance had last.
func (h *Share) other(r *sharedRecord, binding Bound) bool {
	return h.usable(r, binding, nil) && h.since(r).Abs() > sameRecord
}

// since is by how much a token is newer than the last one here.
func (h *Share) since(r *sharedRecord) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return r.Obtained.Sub(h.newest)
}

func (h *Share) has(obtained time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.newest = obtained
}

// storageFailed is a request that is not made, for want of the storage.
func storageFailed(err error) error {
	return asUnreachable(fmt.Errorf("%w: %w", ErrStorage, err))
}
