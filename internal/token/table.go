package token

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// Key is the SHA-256 of a distinct value: the table need not know it.
type Key [sha256.Size]byte

// Limits bound what a Table holds and asks for. All must be above zero.
type Limits struct {
	// MaxTokens is how many values may have a token, or a first request under
	// way, at one time.
	MaxTokens int
	// MaxNew is how many new values are asked for in any second at most; below
	// 1 it is one in 1/MaxNew seconds. Of those that upstreams refuse as many
	// are asked for anew, besides.
	MaxNew float64
	// InFlight is how many token requests are under way at once, renewals
	// among them.
	InFlight int
	// Idle is how long a value must not have been used before its token is
	// given up: for another one if the table is full, else when it is due.
	Idle time.Duration
	// Remember is how long a value that the server refused is not asked for
	// again.
	Remember time.Duration
	// OnDemand tokens are not renewed in the background: each goes at its end.
	OnDemand bool
}

// Table holds the access tokens of a credential that has one for each distinct
// value. It takes memory and makes token requests within its Limits, whatever
// values come.
type Table struct {
	alarm     // rings in an outage
	policy    Policy
	limits    Limits
	scheduler *Scheduler
	observer  Observer
	random    random
	seed      maphash.Seed
	shards    [shards]shard

	mu       sync.Mutex // for all below, and for the entries
	closed   bool
	entries  int
	tokens   int // of these hold one
	nextScan instant
	obtained time.Time
	granted  *granted // to the newest token

	rate      rate
	again     rate // of those that upstreams refuse
	refused   memory[*oauth.Failure]
	spacings  memory[rejection]
	inFlight  int
	newcomers line // first requests that wait for their turn
	due       line // renewals that do
	rejected  line // and those for tokens that upstreams refuse
	turn      int  // whose it is, if more than one waits
	outage    outage
}

// NewTable returns an empty table. It starts no goroutine before the first Wait.
func NewTable(policy Policy, limits Limits, scheduler *Scheduler, observer Observer) *Table {
	return &Table{
		policy: policy, limits: limits, scheduler: scheduler, observer: observer,
		random: defaultRandom, seed: maphash.MakeSeed(),
		rate: newRate(limits.MaxNew), again: newRate(limits.MaxNew),
		refused: newMemory[*oauth.Failure](limits.MaxTokens), spacings: newMemory[rejection](limits.MaxTokens),
	}
}

// Token is the token held for a value, nil if there is none that is valid. It
// is what a request costs: a look-up, a comparison with the clock, and once a
// second a mark that the value is in use.
func (t *Table) Token(key Key) *Token {
	e := t.find(&key)
	if e == nil {
		return nil
	}
	return e.token(now())
}

// Wait returns a valid token for a value, and asks for one if none is held,
// waiting at most that long. All who wait for one value share its request and
// its failure. requester is called for a new value alone, and must neither
// block nor call the table; what it returns makes the renewals too.
//
// The error is a *Limited, an *oauth.Failure, ErrClosed, or the context's. A
// failure is an earlier one's where the server is to be left alone for the
// moment: Snapshot tells until when.
func (t *Table) Wait(ctx context.Context, key Key, most time.Duration, requester func() Requester) (*Token, error) {
	if tok := t.Token(key); tok != nil {
		return tok, nil
	}
	tok, f, err := t.join(ctx, key, requester)
	if f == nil {
		return tok, err
	}
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-f.done:
		return f.token, f.err
	case <-ctx.Done():
		t.leave(f)
		return nil, ctx.Err()
	case <-timer.C:
		t.leave(f)
		return t.outwait(f.entry)
	}
}

// join finds the request that a caller is to wait for, or makes one.
func (t *Table) join(ctx context.Context, key Key, requester func() Requester) (*Token, *fetch, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, nil, ErrClosed
	}
	at := now()
	e := t.find(&key)
	if e != nil {
		if tok := e.token(at); tok != nil {
			return tok, nil, nil // it has just come
		}
		e.catchUp(at)
	}
	if e == nil || e.gone() {
		if err := t.admit(key, at); err != nil {
			return nil, nil, err
		}
		e = t.insert(key, requester(), at)
		e.fetch.cause = ctx
		defer t.dispatch(at)
	}
	e.used.Store(int64(at))
	return nil, e.join(), nil
}

// leave is for a caller that waits no longer. A first request that has not been
// made is not made for nobody.
func (t *Table) leave(f *fetch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f.waiters--
	if t.closed && f.stage == begun && f.waiters == 0 {
		f.cancel(ErrClosed)
	}
	if e := f.entry; e.fetch == f && f.first && f.stage == queued && f.waiters == 0 {
		t.newcomers.remove(f)
		t.remove(e)
	}
}

// insert gives a new value its place, and its request one in the line.
func (t *Table) insert(key Key, r Requester, at instant) *entry {
	e := &entry{table: t, key: key, requester: r, next: at}
	e.fetch = &fetch{entry: e, first: true, stage: queued}
	e.recall(at)
	t.newcomers.push(e.fetch)
	t.entries++
	t.put(e)
	return e
}

// remove takes a value's place.
func (t *Table) remove(e *entry) {
	e.next = never
	e.hold(nil)
	e.remember(now())
	t.scheduler.remove(e)
	t.entries--
	t.take(e)
}

// Close ends the table. A token request that somebody waits for goes on for
// them, and publishes nothing; whoever waits for one that has not begun gets
// ErrClosed.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.scheduler.remove(t)
	for e := range t.all() {
		t.remove(e)
		switch {
		case e.fetch == nil:
		case !e.asking():
			e.fetch.settle(nil, ErrClosed)
		case e.fetch.waiters == 0:
			e.fetch.cancel(ErrClosed)
		}
	}
	t.newcomers, t.due, t.rejected, t.outage = line{}, line{}, line{}, outage{}
}

// TableSnapshot is what a table knows of itself at one moment.
type TableSnapshot struct {
	// Tokens is how many values have a token, InFlight how many token requests
	// are under way.
	Tokens, InFlight int
	// Failures counts those in a row that were not about one value alone,
	// Failure is the last of them.
	Failures int
	Failure  *oauth.Failure
	// Next is when the server is asked again after such a failure, zero where
	// nothing is held back.
	Next time.Time
	// Obtained is when the last token request succeeded, zero if none did.
	Obtained time.Time
}

// Snapshot tells the state of the table. It never waits for the network.
func (t *Table) Snapshot() TableSnapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	snap := TableSnapshot{
		Tokens: t.tokens, InFlight: t.inFlight, Obtained: t.obtained,
		Failures: t.outage.failures, Failure: t.outage.failure,
	}
	if t.outage.active(now()) {
		snap.Next = t.outage.until.wall()
	}
	return snap
}

// Limited is the error for a new value that a limit of the table turns away.
type Limited struct {
	// Err is ErrTableFull or ErrTooManyNew.
	Err error
	// RetryAfter is when asking again may be of use.
	RetryAfter time.Duration
}

// The limits that turn new values away.
var (
	ErrTableFull  = errors.New("there are as many tokens as may be held (max_tokens), and all are in use")
	ErrTooManyNew = errors.New("more new values come than may be asked for (max_new)")
)

func (l *Limited) Error() string { return l.Err.Error() }
func (l *Limited) Unwrap() error { return l.Err }

// Interface guards
var (
	_ sleeper = (*Source)(nil)
	_ sleeper = (*Table)(nil)
	_ sleeper = (*entry)(nil)
)
