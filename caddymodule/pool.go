package caddymodule

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/advice"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// pool holds the credentials through config reloads: one whose configuration
// is unchanged keeps its token, its schedule and its counters.
var pool = caddy.NewUsagePool()

// scheduler wakes every credential of this process.
var scheduler = &token.Scheduler{Slept: token.Slept, Jumps: token.Jumps}

// poolKey is a name and the hash of all that makes the value. The name is in
// it because equal credentials of two names keep counters of their own.
type poolKey struct{ name, hash string }

// fingerprint hashes a credential as configured, placeholders unresolved, but
// for its token file, which makes no other token. It has to be taken before the
// guest modules are loaded. Caddy hands out configs
// with their keys in order, the guests' too.
func fingerprint(c *Credential) (string, error) {
	made := *c
	made.TokenFile = nil
	raw, err := json.Marshal(&made)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:]), nil
}

// entry is a credential in the pool. It outlives configs, so it holds nothing
// of one but what an attachment lends it.
type entry struct {
	name, grant string
	source      *token.Source // nil for a template
	tokens      *token.Table  // of a template
	template    template
	bound       bool   // to a key or a certificate
	proven      bool   // by each request (DPoP)
	scheme      string // of the header that carries the token
	rejectedOn  []int  // statuses
	chain       *chain // of a grant that spends refresh tokens
	chainKey    string
	share       *token.Share // nil unless the token is shared
	journal     *journal
	events      atomic.Pointer[emitter] // nil while no config uses it
	facts       advice.Facts
	standing    standing
	history     *history
	maxTokens   int    // of a template
	files       claims // with its token

	mu       sync.Mutex
	attached []*attachment
}

// attachment is what one config lends to an entry while it runs: the newest
// makes the requests and gets the log lines.
type attachment struct {
	entry     *entry
	requester *requester
	logger    *zap.Logger
	emitter   *emitter
	routed    atomic.Bool // a route uses it
	file      *fileClaim  // nil unless its token is written to a file
}

func newEntry(name string, c *Credential, storage certmagic.Storage) (*entry, error) {
	e := &entry{name: name, grant: c.grantName, template: c.template, scheme: defaultScheme, rejectedOn: c.refusedOn(), journal: newJournal(name, c), facts: c.facts(name)}
	e.standing.now(stateStarting)
	e.bound = c.bound()
	if c.DPoP != nil {
		e.proven, e.scheme = true, "DPoP"
	}
	switch {
	case c.template.is():
		e.maxTokens = c.limits().MaxTokens
		e.tokens = token.NewTable(c.policy(), c.limits(), scheduler, e)
	default:
		e.source = token.NewSource(c.policy(), scheduler, e)
	}
	if c.refreshing() {
		e.chainKey = chainKey(storage, name)
		value, _, err := chains.LoadOrNew(e.chainKey, func() (caddy.Destructor, error) { return newChain(name), nil })
		if err != nil {
			return nil, err
		}
		e.chain = value.(*chain)
	}
	e.share = newShare(c)
	credentials.add(e)
	e.history = pasts.take(name)
	return e, nil
}

// attach makes a config's requester and logger the ones in use, and starts the
// credential if it does not run yet.
func (e *entry) attach(a *attachment) {
	e.mu.Lock()
	if n := len(e.attached); n > 0 {
		a.requester.inherit(e.attached[n-1].requester)
	}
	a.requester.name, a.requester.note = e.name, e.journal.note
	e.attached = append(e.attached, a)
	a.emitter.serve()
	e.handOn()
	e.mu.Unlock()
	if a.file != nil {
		tokenFiles.announce(a.file)
	}
	if e.source != nil {
		e.source.Start()
	}
}

// detach takes back what a config has lent. The channel is closed once its token
// file is gone, and nil if it has none.
func (e *entry) detach(a *attachment) (settled <-chan struct{}) {
	e.mu.Lock()
	if i := slices.Index(e.attached, a); i >= 0 {
		e.attached = slices.Delete(e.attached, i, i+1)
		e.handOn()
	}
	e.mu.Unlock()
	a.requester.connection.close()
	if a.file == nil || a.file.file == nil { // it may never have been announced
		return nil
	}
	return a.file.release()
}

// running tells whether a config that was started uses the credential.
func (e *entry) running() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.attached) > 0
}

// used tells whether the config in use has a route that uses the credential, or
// has its token written to a file.
func (e *entry) used() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.attached) == 0 {
		return false
	}
	return e.attached[len(e.attached)-1].used()
}

func (at *attachment) used() bool { return at.routed.Load() || at.file != nil }

// handOn hands the newest attachment on. Called with the lock.
func (e *entry) handOn() {
	if len(e.attached) == 0 {
		e.journal.logger.Store(nil)
		e.events.Store(nil)
		return
	}
	newest := e.attached[len(e.attached)-1]
	if e.source != nil {
		e.source.Use(newest.requester)
	}
	e.journal.logger.Store(newest.logger)
	e.events.Store(newest.emitter)
}

// newest is the requester in use, nil if there is none.
func (e *entry) newest() *requester {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.attached) == 0 {
		return nil
	}
	return e.attached[len(e.attached)-1].requester
}

// Attempted implements token.Observer.
func (e *entry) Attempted(a token.Attempt) {
	countAttempt(e.name, e.grant, a)
	if !a.Adopted || a.Failure != nil {
		e.history.attempted(a.Failure != nil)
	}
	if e.chain != nil && a.Adopted && a.Failure == nil {
		e.chain.Adopted()
	}
	e.journal.attempted(a)
	e.note(a.Snapshot)
	e.files.changed()
	e.events.Load().attempted(e, a)
}

// note remembers since when the credential stands as it does. Of a template it
// is told of one value at a time, which says nothing of it.
func (e *entry) note(s token.Snapshot) {
	if e.source == nil {
		return
	}
	var c *token.ChainState
	if e.chain != nil {
		c = e.chain.State()
	}
	e.standing.now(stateOf(s, c))
}

// Expired implements token.Observer.
func (e *entry) Expired(s token.Snapshot) {
	e.journal.expired(s)
	e.note(s)
	e.files.changed()
	e.events.Load().expired(e, s)
}

// Rejected implements token.Observer.
func (e *entry) Rejected(s token.Snapshot, again bool) {
	e.journal.rejected(s, again)
	e.note(s)
	e.events.Load().rejected(e, s, again)
}

// Destruct ends a credential that no config uses any more.
func (e *entry) Destruct() error {
	if e.source != nil {
		e.source.Close()
	}
	if e.tokens != nil {
		e.tokens.Close()
	}
	if e.share != nil {
		e.share.Close() // it has a lock to give back
	}
	var err error
	if e.chain != nil {
		_, err = chains.Delete(e.chainKey)
	}
	pasts.drop(e.history)
	credentials.remove(e) // with its metrics, which the last save may still count in
	return err
}

// acquire takes a credential from the pool, or puts it there at rest.
func acquire(key poolKey, c *Credential, storage certmagic.Storage) (*entry, error) {
	value, _, err := pool.LoadOrNew(key, func() (caddy.Destructor, error) { return newEntry(key.name, c, storage) })
	if err != nil {
		return nil, fmt.Errorf("credential '%s': %w", key.name, err)
	}
	return value.(*entry), nil
}

// Interface guards
var (
	_ token.Observer   = (*entry)(nil)
	_ caddy.Destructor = (*entry)(nil)
)
