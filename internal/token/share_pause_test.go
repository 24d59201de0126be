package token

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// member is a process that shares a refresh token, and may be paused at any of
// the things that it does.
type member struct {
	*process
	share *Share
	shelf *shelfModel

	mu    sync.Mutex
	steps []string
	pause func(step int, after bool) // nil for one that is never paused
	slept atomic.Int64
}

func newMember(d *disk, a *issuer, shelf *shelfModel) *member {
	m := &member{process: &process{chain: NewChain(), disk: d, issuer: a, initial: "a.1"}, shelf: shelf}
	m.share = NewShare(defaults, true, func() time.Duration { return time.Duration(m.slept.Load()) })
	m.share.random = func() float64 { return 0 }
	return m
}

// step does one thing.
func (m *member) step(name string, do func()) {
	m.mu.Lock()
	n := len(m.steps)
	m.steps = append(m.steps, name)
	pause := m.pause
	m.mu.Unlock()
	if pause != nil {
		pause(n, false)
	}
	do()
	if pause != nil {
		pause(n, true)
	}
}

func (m *member) did() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.steps...)
}

// stepShelf and stepDisk are the two records as a member reaches them.
type (
	stepShelf struct{ *member }
	stepDisk  struct{ *member }
)

func (s stepShelf) Load(ctx context.Context) (content []byte, err error) {
	s.step("load", func() { content, err = s.shelf.Load(ctx) })
	return content, err
}

func (s stepShelf) Save(ctx context.Context, content []byte) (err error) {
	s.step("save", func() { err = s.shelf.Save(ctx, content) })
	return err
}

func (s stepShelf) Lock(ctx context.Context) (func(), error) {
	var free func()
	var err error
	s.step("lock", func() { free, err = s.shelf.Lock(ctx) })
	if err != nil {
		return nil, err
	}
	return func() { s.step("unlock", free) }, nil
}

func (s stepShelf) Break(ctx context.Context) error { return s.shelf.Break(ctx) }

func (s stepDisk) Load(ctx context.Context) (content []byte, err error) {
	s.step("chain load", func() { content, err = s.process.Load(ctx) })
	return content, err
}

func (s stepDisk) Save(ctx context.Context, content []byte) (err error) {
	s.step("chain save", func() { err = s.process.Save(ctx, content) })
	return err
}

func (s stepDisk) KeepAside(ctx context.Context) error { return s.process.KeepAside(ctx) }

// ask makes a request as a source would.
func (m *member) ask(ctx context.Context, held *Token) (*oauth.Response, error) {
	on := Occasion{Reason: Scheduled, Limit: time.Minute, Held: held}
	open := func(context.Context) (*Shared, error) { return &Shared{Store: stepShelf{m}}, nil }
	return m.share.Request(ctx, on, open, func(ctx context.Context, on Occasion) (*oauth.Response, error) {
		return m.chain.Refresh(ctx, on, func(context.Context) (*Session, error) {
			return &Session{Path: "crm", Store: stepDisk{m}, Initial: m.initial, Spend: m.spend}, nil
		})
	})
}

func (m *member) spend(ctx context.Context, refreshToken string, guard Guard) (res *oauth.Response, err error) {
	if err := guard(ctx); err != nil {
		return nil, asUnreachable(err)
	}
	// behind the guard there is a gap that nothing closes
	res, err = m.issuer.answer(ctx, refreshToken)
	m.step("answer", func() {})
	return res, err
}

func (m *member) end() {
	m.share.Close()
	m.chain.Close()
}

// TestSharePaused: a process that is paused at any point, for so long that its
// lock is taken for a dead one's, neither stops the other nor spends a refresh
// token late.
func TestSharePaused(t *testing.T) {
	var places []string
	synctest.Test(t, func(t *testing.T) {
		a := &issuer{}
		a.issue("a")
		m := newMember(&disk{}, a, newShelf())
		if _, err := m.ask(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		m.end()
		places = m.did()
	})
	t.Log(strings.Join(places, ", "))
	answered := 0
	for i, place := range places {
		if place == "answer" {
			answered = i
		}
	}
	for n := range places {
		for _, after := range []bool{false, true} {
			for _, holds := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d %s, after %t, the other holds a token %t", n, places[n], after, holds), func(t *testing.T) {
					// from the answer to its save the answer is as good as lost, if the
					// other has nothing else
					saved := answered + 2
					lost := !holds && (n >= answered && n < saved || n == saved && !after)
					synctest.Test(t, func(t *testing.T) { pausedAt(t, n, after, holds, lost) })
				})
			}
		}
	}
}

func pausedAt(t *testing.T, n int, after, holds, lost bool) {
	t.Helper()
	const pause = 2 * time.Minute
	a, d, shelf := &issuer{}, &disk{}, newShelf()
	a.issue("a")
	first, second := newMember(d, a, shelf), newMember(d, a, shelf)
	first.pause = func(step int, ended bool) {
		if step != n || ended != after {
			return
		}
		time.AfterFunc(10*time.Second, func() { _ = shelf.Break(context.Background()) }) // a stale lock
		pass(pause)
		first.slept.Add(int64(pause)) // as if nothing of the process had run
	}
	go func() { _, _ = first.ask(t.Context(), nil) }()
	pass(time.Second)

	var held *Token
	if holds {
		held = &Token{Value: "access-0", sent: now().add(-time.Hour), until: now().add(time.Hour)}
	}
	deadline := time.Now().Add(pause)
	var err error
	for time.Now().Before(deadline) {
		var res *oauth.Response
		if res, err = second.ask(t.Context(), held); err == nil && res != nil {
			break
		}
		if errors.Is(err, ErrEnded) {
			break
		}
		pass(5 * time.Second)
	}
	if lost {
		if !errors.Is(err, ErrEnded) || !errors.Is(err, ErrAnswerLost) {
			t.Errorf("the answer was lost: got %v", err)
		}
	} else if err != nil && !holds {
		t.Errorf("the other goes on: got %v", err)
	}

	pass(2 * pause)
	for range 3 * boolean(!lost) { // whoever comes next
		for _, m := range []*member{second, first} {
			pass(time.Minute)
			res, err := m.ask(t.Context(), &Token{Value: "access-0", sent: now().add(-time.Hour), until: now().add(time.Hour)})
			if err != nil || res == nil {
				t.Errorf("afterwards: %v", err)
			}
			if newest := d.record(t).RefreshToken; !a.good(newest) {
				t.Errorf("%s is stored, which is no good; spent were %v", newest, a.spent())
			}
		}
	}
	first.end()
	second.end()
	if shelf.taken() {
		t.Error("a lock is left behind")
	}
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}
