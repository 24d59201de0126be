package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// put stores a record as another process would have.
func (m *shelfModel) put(r *sharedRecord) { m.set(func() { m.content = r.bytes() }) }

func (m *shelfModel) record() *sharedRecord {
	m.mu.Lock()
	defer m.mu.Unlock()
	return parseShared(m.content)
}

// TestShareHostile: what stands in a storage is worth no more than what comes
// over the wire, and can neither split a header nor keep an instance from its
// own token.
func TestShareHostile(t *testing.T) {
	now := func() string { return time.Now().UTC().Format(time.RFC3339Nano) }
	token := func(value string, more string) string {
		raw, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`{"access_token": %s, "obtained": %q, "bearer": true%s}`, raw, now(), more)
	}
	hour := fmt.Sprintf(`, "expires_in": %d`, time.Hour)
	for name, content := range map[string]func() string{
		"a line break in the token":  func() string { return token("good\r\nX-Admin: yes", hour) },
		"a blank in the token":       func() string { return token("two words", hour) },
		"an umlaut in the token":     func() string { return token("tökén", hour) },
		"a token of two megabytes":   func() string { return token(strings.Repeat("a", 2<<20), hour) },
		"a negative lifetime":        func() string { return token("negative", `, "expires_in": -1`) },
		"a lifetime of 290 years":    func() string { return token("long", `, "expires_in": 9200000000000000000`) },
		"a lifetime of 20 years":     func() string { return token("long", fmt.Sprintf(`, "expires_in": %d`, 20*365*24*time.Hour)) },
		"a negative renewal":         func() string { return token("renewal", hour+`, "refresh_in": -1`) },
		"a request of an hour":       func() string { return token("slow", hour+fmt.Sprintf(`, "took": %d`, time.Hour)) },
		"a request of negative time": func() string { return token("slow", hour+`, "took": -3600000000000`) },
		"many refused ones": func() string {
			return token("many", hour+`, "refused": [`+strings.Repeat(`"x",`, 1000)+`"y"]`)
		},
		"no JSON":        func() string { return `[{` },
		"null":           func() string { return `null` },
		"a list":         func() string { return `[]` },
		"numbers":        func() string { return `{"access_token": 5, "obtained": 7}` },
		"a future one":   func() string { return strings.Replace(token("future", hour), now()[:4], "2999", 1) },
		"an ancient one": func() string { return strings.Replace(token("past", hour), now()[:4], "0001", 1) },
	} {
		for _, hold := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, hold %t", name, hold), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					srv := &server{answer: lives(time.Hour)}
					shelf := newShelf()
					shelf.set(func() { shelf.content = []byte(content()) })
					i := fleet(t, 1, shelf, srv, func(i *instance) { i.share.Hold = hold })[0]
					if _, err := i.Wait(t.Context(), 5*time.Second); err != nil {
						t.Error(err)
					}
					if v := value(i.Source); v != "tok-1" {
						t.Errorf("held %.40q", v)
					}
					pass(24 * time.Hour)
					if n := srv.count(); n < 24 || n > 40 || value(i.Source) == "" {
						t.Errorf("%d requests in a day", n)
					}
				})
			})
		}
	}
}

// TestShareHostileSpacing: a record that says that nothing may be asked for
// costs no more than the longest spacing, and no processor.
func TestShareHostileSpacing(t *testing.T) {
	for _, spacing := range []time.Duration{-time.Hour, 400 * 24 * time.Hour, 1<<63 - 1, -1 << 63} {
		t.Run(spacing.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := &server{answer: lives(10 * 24 * time.Hour)}
				shelf := newShelf()
				i := fleet(t, 1, shelf, srv)[0]
				pass(time.Minute)
				r := shelf.record()
				r.Forced = &forced{At: time.Now().UTC(), Spacing: spacing}
				shelf.put(r)
				before := shelf.granted()
				i.Reject(t.Context(), i.Token(), false)
				pass(6 * time.Minute)
				if n := srv.count(); n != 2 {
					t.Errorf("%d requests, want the refused token replaced", n)
				}
				if n := shelf.granted() - before; n > 5 {
					t.Errorf("%d tries", n)
				}
			})
		})
	}
}

func (m *shelfModel) granted() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.locked
}

// TestShareShortLived: while the storage fails in whatever way, the token in use
// is replaced before it ends.
func TestShareShortLived(t *testing.T) {
	broken := errors.New("broken")
	for name, change := range map[string]func(*shelfModel){
		"works":             func(*shelfModel) {},
		"cannot be read":    func(m *shelfModel) { m.loads = broken },
		"cannot be written": func(m *shelfModel) { m.saves = broken },
		"has no locks":      func(m *shelfModel) { m.locks = broken },
		"hangs":             func(m *shelfModel) { m.latency = time.Hour },
		"is slow":           func(m *shelfModel) { m.latency = 1500 * time.Millisecond },
		"keeps a lock":      func(m *shelfModel) { m.held = true },
		"keeps a lock and is slow": func(m *shelfModel) {
			m.held = true
			m.latency = 1500 * time.Millisecond
		},
	} {
		for _, life := range []time.Duration{20 * time.Second, 30 * time.Second, time.Minute} {
			t.Run(fmt.Sprintf("%s, %s", name, life), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					srv := &server{answer: lives(life), delay: 200 * time.Millisecond}
					shelf := newShelf()
					change(shelf)
					i := fleet(t, 1, shelf, srv)[0]
					defer shelf.set(func() { shelf.held = false })
					if _, err := i.Wait(t.Context(), 5*time.Second); err != nil {
						t.Fatal(err)
					}
					without := 0
					for range 6000 {
						pass(100 * time.Millisecond)
						if name == "keeps a lock" || name == "keeps a lock and is slow" {
							shelf.set(func() { shelf.held = true }) // it is broken from time to time
						}
						if i.Token() == nil {
							without++
						}
					}
					if without > 0 {
						t.Errorf("no token for %d tenths of a second of 10 minutes", without)
					}
				})
			})
		}
	}
}

// TestShareAge: a token that is taken over is as old as it is, however long the
// look took.
func TestShareAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour)}
		shelf := newShelf()
		shelf.latency = time.Second
		r := new(sharedRecord)
		r.put(&oauth.Response{AccessToken: "theirs", ExpiresIn: 10 * time.Minute, Bearer: true}, time.Now(), time.Second)
		shelf.put(r)
		ends := time.Now().Add(10*time.Minute - DefaultExpiryMargin)
		i := fleet(t, 1, shelf, srv, func(i *instance) { i.share.random = func() float64 { return 1 } })[0]
		pass(5 * time.Second) // 2s for the spread, and a second of looking
		if value(i.Source) != "theirs" {
			t.Fatalf("held %q", value(i.Source))
		}
		if off := i.Snapshot().Expires.Sub(ends).Abs(); off > 50*time.Millisecond {
			t.Errorf("its end is off by %s", off)
		}
	})
}

// TestShareSlept: the time in which the machine was suspended counts, for those
// too who take the token over.
func TestShareSlept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slept time.Duration
		h := NewShare(defaults, false, func() time.Duration { return slept })
		h.random = func() float64 { return 0 }
		shelf := newShelf()
		open := func(context.Context) (*Shared, error) { return &Shared{Store: shelf}, nil }
		began := time.Now()
		_, err := h.Request(t.Context(), Occasion{Reason: Demand, Limit: time.Minute}, open, func(context.Context, Occasion) (*oauth.Response, error) {
			slept += 10 * time.Minute // which no clock of a test shows
			return &oauth.Response{AccessToken: "tok", ExpiresIn: time.Hour}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		h.Close()
		if at := shelf.record().Obtained; at.After(began.Add(-9 * time.Minute)) {
			t.Errorf("stored as obtained at %s, %s after it was", at, at.Sub(began.Add(-10*time.Minute)))
		}
	})
}

// TestShareOpenHangs: a file system that hangs fails a request, and does not hold
// it for ever.
func TestShareOpenHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewShare(defaults, false, nil)
		h.random = func() float64 { return 0 }
		open := func(ctx context.Context) (*Shared, error) {
			<-ctx.Done()
			return nil, errors.New("the file system hangs")
		}
		asker := eachTime(func(ctx context.Context, on Occasion) (*oauth.Response, error) {
			return h.Request(ctx, on, open, nil)
		})
		s := NewSource(defaults, new(Scheduler), silent{})
		s.Use(asker)
		s.Start()
		defer s.Close()
		pass(2 * DefaultTimeout)
		if f := s.Snapshot().Failures; f == 0 {
			t.Error("no failure is known yet")
		}
	})
}

type eachTime func(context.Context, Occasion) (*oauth.Response, error)

func (f eachTime) Request(ctx context.Context, on Occasion) (*oauth.Response, error) {
	return f(ctx, on)
}
func (eachTime) Stale() bool { return false }

// TestShareSameToken: of a server that hands out a running token again, a fleet
// asks little more than one instance does.
func TestShareSameToken(t *testing.T) {
	for _, life := range []time.Duration{20 * time.Second, time.Minute, time.Hour} {
		t.Run(life.String(), func(t *testing.T) {
			requests := func(n int) (count int) {
				synctest.Test(t, func(t *testing.T) {
					began := time.Now()
					srv := &server{delay: 20 * time.Millisecond, answer: func(int) (*oauth.Response, error) {
						k := int(time.Since(began) / life)
						left := life - time.Since(began)%life
						return &oauth.Response{AccessToken: fmt.Sprint("tok-", k), ExpiresIn: left.Truncate(time.Second), Bearer: true}, nil
					}}
					shelf := newShelf()
					shelf.latency = 2 * time.Millisecond
					f := fleet(t, n, shelf, srv)
					without := 0
					for range 1000 {
						pass(life / 100)
						for _, i := range f {
							if i.Token() == nil {
								without++
							}
						}
					}
					for _, i := range f {
						i.Close()
					}
					pass(5 * time.Second)
					t.Logf("%d instances: %d requests, without a token for %.2f%%", n, srv.count(), float64(without)/float64(10*n))
					count = srv.count()
				})
				return count
			}
			if one, many := requests(1), requests(50); many > 4*one {
				t.Errorf("%d requests of 50 instances, %d of one", many, one)
			}
		})
	}
}

// TestShareLastLook: an instance that has taken a token over while it waited for
// the lock leaves none behind when it ends.
func TestShareLastLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := &grantsLate{shelfModel: newShelf()}
		shelf.held = true
		h := NewShare(defaults, false, nil)
		open := func(context.Context) (*Shared, error) { return &Shared{Store: shelf}, nil }
		time.AfterFunc(time.Second, func() {
			r := new(sharedRecord)
			r.put(&oauth.Response{AccessToken: "theirs", ExpiresIn: time.Hour}, time.Now(), 0)
			shelf.put(r)
		})
		res, err := h.Request(t.Context(), Occasion{Reason: Demand, Limit: time.Minute}, open, nil)
		if err != nil || res.AccessToken != "theirs" {
			t.Fatalf("got %v, %v", res, err)
		}
		shelf.set(func() { shelf.held = false })
		h.Close()
		if shelf.taken() {
			t.Error("a lock is left behind")
		}
	})
}

// grantsLate takes a while to notice that a lock is not wanted any more, and
// grants it.
type grantsLate struct{ *shelfModel }

func (g *grantsLate) Lock(ctx context.Context) (func(), error) {
	<-ctx.Done()
	g.set(func() { g.held = true })
	return func() {
		time.Sleep(500 * time.Millisecond)
		_ = g.Break(context.Background())
	}, nil
}

// TestShareSkewedSpacing: the spacing holds for an instance whose clock is a
// little behind, too.
func TestShareSkewedSpacing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour)}
		shelf := newShelf()
		i := fleet(t, 1, shelf, srv)[0]
		pass(time.Minute)
		r := shelf.record()
		r.Forced = &forced{At: time.Now().Add(3 * time.Second).UTC(), Spacing: time.Minute}
		shelf.put(r)
		i.Reject(t.Context(), i.Token(), false)
		pass(30 * time.Second)
		if srv.count() != 1 {
			t.Errorf("%d requests within the spacing", srv.count()-1)
		}
		pass(time.Minute)
		if srv.count() != 2 {
			t.Errorf("%d requests after it", srv.count()-1)
		}
	})
}

// TestShareBlind: a request that is made with the lock and without having read
// anything keeps what others have noted.
func TestShareBlind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := &readsLate{shelfModel: newShelf()}
		r := &sharedRecord{Refused: []string{fingerprint("bad")}, Forced: &forced{At: time.Now().UTC(), Spacing: time.Minute}}
		shelf.put(r)
		h := NewShare(defaults, false, nil)
		open := func(context.Context) (*Shared, error) { return &Shared{Store: shelf}, nil }
		res, err := h.Request(t.Context(), Occasion{Reason: Demand, Limit: time.Minute}, open, func(context.Context, Occasion) (*oauth.Response, error) {
			return &oauth.Response{AccessToken: "tok", ExpiresIn: time.Hour}, nil
		})
		if err != nil || res.AccessToken != "tok" {
			t.Fatal(res, err)
		}
		h.Close()
		if r := shelf.record(); r.AccessToken != "tok" || !r.refused("bad") || r.Forced == nil {
			t.Errorf("stored is %+v", r)
		}
	})
}

// readsLate fails to read once, while the lock is held.
type readsLate struct {
	*shelfModel
	failed bool
}

func (r *readsLate) Load(ctx context.Context) ([]byte, error) {
	if r.taken() && !r.failed {
		r.failed = true
		return nil, errors.New("broken")
	}
	return r.shelfModel.Load(ctx)
}

// TestShareTurn: what is still being stored of the last request has nobody wait
// for long, but where nothing may be asked alone.
func TestShareTurn(t *testing.T) {
	for _, hold := range []bool{false, true} {
		t.Run(fmt.Sprintf("hold %t", hold), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := NewShare(defaults, hold, nil)
				shelf := newShelf()
				open := func(context.Context) (*Shared, error) { return &Shared{Store: shelf}, nil }
				h.turn <- struct{}{}
				time.AfterFunc(8*time.Second, func() { <-h.turn })
				waited := make(chan struct{})
				close(waited)
				began := time.Now()
				res, err := h.Request(t.Context(), Occasion{Reason: Demand, Limit: time.Minute, Waited: waited}, open, func(context.Context, Occasion) (*oauth.Response, error) {
					return &oauth.Response{AccessToken: "tok", ExpiresIn: time.Hour}, nil
				})
				want, age := urgentWait, -urgentWait
				if hold {
					want, age = 8*time.Second, -8*time.Second
				}
				if err != nil || time.Since(began) != want {
					t.Fatalf("got %v after %s, want it after %s", err, time.Since(began), want)
				}
				if res.Age != age {
					t.Errorf("it is %s old, want %s", res.Age, age)
				}
				pass(10 * time.Second)
				h.Close()
			})
		})
	}
}
