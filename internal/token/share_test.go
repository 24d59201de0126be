package token

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// shelfModel is a storage that instances share, with its faults.
type shelfModel struct {
	mu      sync.Mutex
	content []byte
	latency time.Duration
	loads   error // what each call answers, nil if it works
	saves   error
	forgets bool // takes what is saved, and does not keep it
	locks   error
	held    bool
	free    chan struct{} // closed when the lock is given back
	locked  int
	saved   int
}

func newShelf() *shelfModel { return &shelfModel{free: make(chan struct{})} }

func (m *shelfModel) pause(ctx context.Context) error {
	m.mu.Lock()
	latency := m.latency
	m.mu.Unlock()
	select {
	case <-time.After(latency):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(2 * time.Second):
		return errors.New("no answer within 2s")
	}
}

func (m *shelfModel) Load(ctx context.Context) ([]byte, error) {
	if err := m.pause(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.loads != nil {
		return nil, m.loads
	}
	if m.content == nil {
		return nil, fs.ErrNotExist
	}
	return m.content, nil
}

func (m *shelfModel) Save(ctx context.Context, content []byte) error {
	if err := m.pause(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.saves != nil {
		return m.saves
	}
	m.saved++
	if !m.forgets {
		m.content = content
	}
	return nil
}

func (m *shelfModel) Lock(ctx context.Context) (func(), error) {
	for {
		m.mu.Lock()
		if m.locks != nil {
			defer m.mu.Unlock()
			return nil, m.locks
		}
		if !m.held {
			m.held = true
			m.locked++
			m.mu.Unlock()
			return func() { _ = m.Break(context.Background()) }, nil
		}
		free := m.free
		m.mu.Unlock()
		select {
		case <-free:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (m *shelfModel) Break(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held {
		m.held = false
		close(m.free)
		m.free = make(chan struct{})
	}
	return nil
}

func (m *shelfModel) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

func (m *shelfModel) taken() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held
}

// instance is a process that shares its token.
type instance struct {
	*Source
	share   *Share
	shelf   *shelfModel
	server  *server
	binding Bound
	adopted atomic.Int64
	asked   atomic.Int64
	leases  atomic.Int64 // of these, with a lease
}

func (i *instance) Request(ctx context.Context, on Occasion) (*oauth.Response, error) {
	open := func(context.Context) (*Shared, error) { return &Shared{Store: i.shelf, Binding: i.binding}, nil }
	res, err := i.share.Request(ctx, on, open, func(ctx context.Context, on Occasion) (*oauth.Response, error) {
		i.asked.Add(1)
		if on.Lease != nil {
			i.leases.Add(1)
			if err := on.Lease(ctx); err != nil {
				return nil, asUnreachable(err)
			}
		}
		return i.server.Request(ctx, on)
	})
	if err == nil && res.Adopted {
		i.adopted.Add(1)
	}
	return res, err
}

func (i *instance) Stale() bool {
	return i.share.Stale(context.Background(), func(context.Context) (*Shared, error) { return &Shared{Store: i.shelf, Binding: i.binding}, nil })
}

// fleet starts instances that share a storage and a server.
func fleet(t *testing.T, n int, shelf *shelfModel, srv *server, change ...func(*instance)) []*instance {
	t.Helper()
	out := make([]*instance, n)
	for k := range out {
		i := &instance{Source: NewSource(defaults, new(Scheduler), silent{}), share: NewShare(defaults, false, nil), shelf: shelf, server: srv}
		for _, c := range change {
			c(i)
		}
		i.Use(i)
		out[k] = i
		t.Cleanup(func() {
			i.Close()
			i.share.Close()
			pass(5 * time.Second) // calls of the storage
			if shelf.taken() {
				t.Error("a lock is left behind")
			}
		})
	}
	for _, i := range out {
		i.Start()
	}
	return out
}

func total(f []*instance, of func(*instance) *atomic.Int64) (n int64) {
	for _, i := range f {
		n += of(i).Load()
	}
	return n
}

func adopted(i *instance) *atomic.Int64 { return &i.adopted }

func holding(i *instance) { i.share.Hold = true }

// TestShare: a hundred instances make one token request for each token, and a
// restart none.
func TestShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour), delay: 300 * time.Millisecond}
		shelf := newShelf()
		shelf.latency = 5 * time.Millisecond
		f := fleet(t, 100, shelf, srv)
		pass(10 * time.Second)
		if srv.count() != 1 || total(f, adopted) != 99 {
			t.Errorf("at the start: %d requests, %d adopted", srv.count(), total(f, adopted))
		}
		for _, i := range f {
			if value(i.Source) != "tok-1" {
				t.Fatalf("held %q", value(i.Source))
			}
		}
		pass(24 * time.Hour)
		if n := srv.count(); n < 24 || n > 40 {
			t.Errorf("in a day: %d requests", n)
		}
		before := srv.count()
		again := fleet(t, 1, shelf, srv)[0]
		pass(3 * time.Second)
		if value(again.Source) == "" || srv.count() != before {
			t.Errorf("after a restart %q is held, %d requests more", value(again.Source), srv.count()-before)
		}
		snap := again.Snapshot()
		if left := time.Until(snap.Expires); left > 50*time.Minute || snap.Lifetime != time.Hour {
			t.Errorf("it is used for %s, of %s", left, snap.Lifetime)
		}
	})
}

// TestShareWithout: a storage that fails, hangs or lies costs the sharing alone;
// where nothing may be asked without it, nothing is.
func TestShareWithout(t *testing.T) {
	broken := errors.New("broken")
	for name, change := range map[string]func(*shelfModel){
		"cannot be read":      func(m *shelfModel) { m.loads = broken },
		"cannot be written":   func(m *shelfModel) { m.saves = broken },
		"forgets":             func(m *shelfModel) { m.forgets = true },
		"has no locks":        func(m *shelfModel) { m.locks = broken },
		"hangs":               func(m *shelfModel) { m.latency = time.Hour },
		"is slow":             func(m *shelfModel) { m.latency = 1900 * time.Millisecond },
		"keeps a lock":        func(m *shelfModel) { m.held = true },
		"holds something odd": func(m *shelfModel) { m.content = []byte(`[{`) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := &server{answer: lives(time.Hour)}
				shelf := newShelf()
				change(shelf)
				defer shelf.set(func() { shelf.held = false })
				i := fleet(t, 1, shelf, srv)[0]
				began := time.Now()
				if tok, err := i.Wait(t.Context(), 5*time.Second); err != nil {
					t.Fatalf("got %+v, %v", tok, err)
				}
				if took := time.Since(began); took > 3*time.Second {
					t.Errorf("a request waited %s", took)
				}
				pass(2 * time.Hour)
				if value(i.Source) == "" {
					t.Error("no token is held")
				}
			})
			synctest.Test(t, func(t *testing.T) {
				srv := &server{answer: lives(time.Hour)}
				shelf := newShelf()
				change(shelf)
				defer shelf.set(func() { shelf.held = false })
				i := fleet(t, 1, shelf, srv, holding)[0]
				_, err := i.Wait(t.Context(), 5*time.Second)
				switch name {
				case "holds something odd":
					if err != nil {
						t.Error(err)
					}
				case "is slow":
				case "keeps a lock":
					pass(time.Second)
					if srv.count() != 0 || err == nil {
						t.Errorf("%d requests, %v", srv.count(), err)
					}
					pass(5 * time.Minute) // nobody holds a lock for so long
					if srv.count() == 0 || value(i.Source) == "" {
						t.Errorf("a dead holder's lock: %d requests", srv.count())
					}
				default:
					pass(5 * time.Minute)
					if srv.count() != 0 {
						t.Errorf("%d requests without the storage", srv.count())
					}
					if f := i.Snapshot().Failure; !errors.Is(f, ErrStorage) || err == nil {
						t.Errorf("got %v", f)
					}
				}
			})
		})
	}
}

// TestShareRejected: a fleet whose token an upstream refuses asks once, and one
// that is refused whatever it brings asks ever more seldom.
func TestShareRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour), delay: 100 * time.Millisecond}
		f := fleet(t, 20, newShelf(), srv)
		pass(time.Minute)
		old := f[0].Token()
		for _, i := range f {
			i.Reject(t.Context(), i.Token(), true)
		}
		pass(10 * time.Second)
		if srv.count() != 2 {
			t.Errorf("%d requests", srv.count())
		}
		for _, i := range f {
			if v := value(i.Source); v != "tok-2" {
				t.Errorf("held %q in place of %q", v, old.Value)
			}
		}
		pass(time.Minute)
		before := srv.count()
		for range 600 {
			for _, i := range f {
				if tok := i.Token(); tok != nil {
					i.Reject(t.Context(), tok, false)
				}
			}
			pass(time.Second)
		}
		if n := srv.count() - before; n > 12 { // 1, 2, 4 … 300 s
			t.Errorf("%d requests in 10 minutes", n)
		}
	})
}

// TestShareBound: a token that is bound to another's key is not taken over.
func TestShareBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{}
		shelf := newShelf()
		n := 0
		own := func(i *instance) {
			n++
			i.binding = keyNamed(fmt.Sprint(n / 2)) // two of each
			i.server = &server{answer: func(int) (*oauth.Response, error) {
				srv.set(func() { srv.in++ })
				return &oauth.Response{AccessToken: fmt.Sprint("tok-", i.binding.Thumbprint()), ExpiresIn: time.Hour, Bearer: true, Binding: i.binding}, nil
			}}
		}
		f := fleet(t, 4, shelf, srv, own)
		pass(20 * time.Second)
		for _, i := range f {
			if tok := i.Token(); tok == nil || tok.Binding.(Bound).Thumbprint() != i.binding.Thumbprint() || tok.Value != "tok-"+i.binding.Thumbprint() {
				t.Errorf("%s holds %+v", i.binding.Thumbprint(), tok)
			}
		}
	})
}

type keyNamed string

func (k keyNamed) Thumbprint() string { return string(k) }
