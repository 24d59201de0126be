package token

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// scripts are what happens to a process before it is killed, one outcome for
// each refresh.
var scripts = map[string][]outcome{
	"rotates":              {answers, answers, answers},
	"down":                 {answers, unavailable, tooMany, answers},
	"refuses the client":   {badClient, answers, badClient, answers},
	"static":               {keeps, keeps, repeats},
	"static at times":      {answers, keeps, answers, answers},
	"half an answer":       {halfAnswers, answers, halfAnswers},
	"not made":             {unmade, answers},
	"never gets a request": {lostBefore, lostBefore, answers, lostBefore},
	"a strange 500":        {answers, saysGrant, answers},
}

const forever = 1 << 30

// at is a fault of one call.
func at(i int, how fault) func(int, string) fault {
	return func(n int, _ string) fault {
		if n == i {
			return how
		}
		return none
	}
}

// stored is a fault of the calls of the storage from one to another.
func stored(how fault, from, to int) func(int, string) fault {
	return func(n int, op string) fault {
		if n < from || n >= to || op == "spend" || op == "load" && how == lies {
			return none
		}
		return how
	}
}

// saves is a fault of all writes.
func saves(how fault) func(int, string) fault {
	return func(_ int, op string) fault {
		if op == "save" {
			return how
		}
		return none
	}
}

// play has a process make the refreshes of a script, until it dies or the
// script ends. It tells whether the process lives.
func (p *process) play(t *testing.T, script []outcome) bool {
	t.Helper()
	p.issuer.will(script...)
	p.issuer.during = func(refreshToken string) {
		if r := p.disk.record(t); r.RefreshToken != refreshToken || !r.lost() && !r.Static {
			t.Errorf("while %s is spent there is %s", refreshToken, p.disk.text())
		}
	}
	lives := make(chan bool, 1)
	go func() {
		alive := false
		defer func() { lives <- alive }() // by Goexit, too
		for range script {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			_, err := p.chain.Refresh(ctx, Occasion{Limit: time.Minute}, p.open)
			cancel()
			if errors.Is(err, ErrEnded) {
				t.Errorf("ended: %v", err)
			}
		}
		alive = true
	}()
	return <-lives
}

// holds tells whether the disk holds what the server would take.
func (p *process) holds(t *testing.T) bool {
	t.Helper()
	stored := p.disk.record(t).RefreshToken
	if stored == "" {
		stored = p.initial // nothing has been taken yet
	}
	return p.issuer.good(stored)
}

// goesOn checks what a process makes of a disk that another has left behind.
func (p *process) goesOn(t *testing.T, lost bool) {
	t.Helper()
	p.issuer.will()
	p.issuer.during = nil
	if !lost {
		p.refreshed(t)
		p.refreshed(t)
		if !p.holds(t) {
			t.Errorf("spent %v, stored %s", p.issuer.spent(), p.disk.text())
		}
		return
	}
	marked := !p.disk.record(t).Static // else nothing is written before it is spent
	for range 3 {                      // and it says so again
		_, err := p.refresh(t, false)
		if f, ok := errors.AsType[*oauth.Failure](err); !ok || f.Kind != oauth.Refused || !errors.Is(err, ErrEnded) || errors.Is(err, ErrAnswerLost) != marked {
			t.Fatalf("got %v", err)
		}
		wantState(t, p, false, ErrEnded)
	}
	p.login(t, "b")
	p.refreshed(t)
	wantStored(t, p, "b.2")
}

// answered checks, where every request was answered, that a process does not
// think otherwise because of what its storage did.
func (p *process) answered(t *testing.T, script []outcome) {
	t.Helper()
	if slices.Contains(script, lostBefore) || slices.Contains(script, saysGrant) {
		return
	}
	p.issuer.will()
	if _, err := p.refresh(t, true); err != nil {
		t.Errorf("with an access token held: got %v", err)
	}
}

// inTheGap tells of calls whether they end behind a request and before the next
// write is done: there, and nowhere else, a process can take an answer with it.
func inTheGap(calls []string) bool {
	spent := -1
	for i, op := range calls {
		if op == "spend" {
			spent = i
		}
	}
	return spent >= 0 && !slices.ContainsFunc(calls[spent:], func(op string) bool {
		return op == "save" || op == "save done, and failed"
	})
}

// TestKilled ends a process at every point between two calls, of the storage and
// of the server. The next one goes on, unless the answer went with the first.
func TestKilled(t *testing.T) {
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			kills, losses := 0, 0
			for _, how := range []fault{dies, diesAfter} {
				for i, alive := 0, false; !alive; i++ {
					synctest.Test(t, func(t *testing.T) {
						p := begin()
						p.fault = at(i, how)
						alive = p.play(t, script)
						p.set(func() { p.dead = true })
						lost := !p.holds(t)
						kills++
						if lost {
							losses++
						}
						if lost && !inTheGap(p.log()) {
							t.Fatalf("killed after %v: the refresh token is lost; stored %s", p.log(), p.disk.text())
						}
						p = p.next()
						if p.disk.record(t).lost() {
							before := len(p.issuer.spent())
							if _, err := p.refresh(t, true); !errors.Is(err, errResting) || len(p.issuer.spent()) != before {
								t.Errorf("with an access token held: got %v", err)
							}
						}
						p.goesOn(t, lost)
					})
					if t.Failed() {
						t.Fatalf("killed at call %d (%d)", i, how)
					}
				}
			}
			// behind each request, around the look for a login, before the write
			if name == "rotates" && losses != 4*len(script) {
				t.Errorf("%d of %d lost", losses, kills)
			}
		})
	}
}

// TestKilledTwice ends the second process too, wherever the first one ended.
func TestKilledTwice(t *testing.T) {
	script := []outcome{answers, answers}
	for _, first := range []fault{dies, diesAfter} {
		for _, second := range []fault{dies, diesAfter} {
			for i := range 14 {
				for j := range 14 {
					synctest.Test(t, func(t *testing.T) {
						p := begin()
						p.fault = at(i, first)
						p.play(t, script)
						p.set(func() { p.dead = true })
						if !p.holds(t) {
							return // is told in TestKilled
						}
						p = p.next()
						p.fault = at(j, second)
						p.play(t, script)
						p.set(func() { p.dead = true })
						lost := !p.holds(t)
						if lost && !inTheGap(p.log()) {
							t.Fatalf("lost after %v", p.log())
						}
						p.next().goesOn(t, lost)
					})
				}
			}
		}
	}
}

// after are the ways in which a process may come through a storage that fails.
var after = map[string]func(*testing.T, *process) *process{
	"killed": func(_ *testing.T, p *process) *process {
		p.set(func() { p.dead = true })
		pass(time.Minute)
		return p.next()
	},
	"closed while it fails": func(_ *testing.T, p *process) *process {
		p.chain.Close()
		return p.next()
	},
	"closed when it is back": func(_ *testing.T, p *process) *process {
		p.up()
		p.chain.Close()
		return p.next()
	},
	"drained, and closed when it is back": func(_ *testing.T, p *process) *process {
		p.chain.Drain()
		pass(10 * time.Minute)
		p.up()
		p.chain.Close()
		return p.next()
	},
	"back": func(t *testing.T, p *process) *process {
		t.Helper()
		p.up()
		pass(slowestSave)
		return p
	},
}

// TestStorageFailsFrom has the storage fail from each call on. Nothing is spent
// then, and nothing is lost unless the process ends before the storage is back.
func TestStorageFailsFrom(t *testing.T) {
	for name, script := range scripts {
		for then, end := range after {
			t.Run(name+", "+then, func(t *testing.T) {
				for _, how := range []fault{breaks, breaksAfter, lies} {
					for i, begun := 0, true; begun; i++ {
						synctest.Test(t, func(t *testing.T) {
							p := begin()
							p.fault = stored(how, i, forever)
							p.play(t, script)
							begun = len(p.log()) > i
							mayBeLost := then == "killed" || then == "closed while it fails"
							asked := len(p.issuer.spent())
							q := end(t, p)
							if len(p.issuer.spent()) != asked {
								t.Error("spent by itself")
							}
							lost := !q.holds(t)
							if lost && (!mayBeLost || how == breaksAfter || !inTheGap(p.log())) {
								t.Fatalf("lost after %v; stored %s", p.log(), q.disk.text())
							}
							alarms := p.alarmed()
							switch n := len(alarms); {
							case n > 2, n > 0 && !errors.Is(alarms[0], ErrStorage), n > 1 && alarms[1] != nil, n == 1 && !mayBeLost, n == 0 && lost:
								t.Errorf("alarms %v", alarms)
							}
							if p == q {
								p.answered(t, script)
							}
							q.goesOn(t, lost)
						})
						if t.Failed() {
							t.Fatalf("from call %d on (%d)", i, how)
						}
					}
				}
			})
		}
	}
}

// TestStorageFlickers has some calls fail in the midst of others.
func TestStorageFlickers(t *testing.T) {
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			for _, how := range []fault{breaks, breaksAfter, lies} {
				for n := 1; n <= 5; n++ {
					for i, begun := 0, true; begun; i++ {
						synctest.Test(t, func(t *testing.T) {
							p := begin()
							p.fault = stored(how, i, i+n)
							p.play(t, script)
							begun = len(p.log()) > i
							pass(time.Minute)
							p.up()
							p.answered(t, script)
							p.goesOn(t, false)
						})
						if t.Failed() {
							t.Fatalf("%d calls from %d on (%d)", n, i, how)
						}
					}
				}
			}
		})
	}
}

// TestStorageDown: without storage nothing is spent, and the access token serves
// to its end.
func TestStorageDown(t *testing.T) {
	for _, how := range []fault{breaks, lies} {
		synctest.Test(t, func(t *testing.T) {
			p := begin()
			s, obs := run(t, p)
			until := s.Token().until
			p.set(func() { p.fault = stored(how, 0, forever) })
			pass(until.sub(now()) - 1)
			if value(s) != "access-1" || !errors.Is(obs.last().Failure, ErrStorage) || obs.last().Failure.Kind != oauth.Unreachable {
				t.Fatalf("held %q, %v", value(s), obs.last().Failure)
			}
			wantState(t, p, true, ErrStorage)
			if n := obs.count(); n > 60 {
				t.Errorf("%d attempts", n)
			}
			pass(time.Hour)
			if value(s) != "" || len(p.alarmed()) != 0 { // nothing is unsaved
				t.Errorf("held %q, alarms %v", value(s), p.alarmed())
			}
			if n := obs.count(); n > 60+1500 { // one in 2.5 s or so
				t.Errorf("%d attempts", n)
			}
			wantSpent(t, p, "a.1")
			p.up()
			pass(time.Minute)
			wantSpent(t, p, "a.1", "a.2")
			if value(s) == "" {
				t.Error("no token a step after the storage is back")
			}
			wantState(t, p, true, nil)
		})
	}
}

// TestStateAfterStorage: a server that fails does not hide that the storage is
// well again.
func TestStateAfterStorage(t *testing.T) {
	p := begin()
	p.refreshed(t)
	p.down()
	_, _ = p.refresh(t, true)
	wantState(t, p, true, ErrStorage)
	p.up()
	p.issuer.will(unavailable)
	_, _ = p.refresh(t, true)
	wantState(t, p, true, nil)
}

// TestSaveFails: what a server gave and the storage does not take is kept in
// memory, told once, and saved when the storage is back; until then nothing
// else is spent.
func TestSaveFails(t *testing.T) {
	for _, how := range []fault{breaks, lies} {
		synctest.Test(t, func(t *testing.T) {
			p := begin()
			p.refreshed(t)
			p.issuer.during = func(string) { p.set(func() { p.fault = stored(how, 0, forever) }) }
			p.refreshed(t)
			p.issuer.during = nil
			wantState(t, p, true, ErrStorage)
			wantStored(t, p, "a.2")
			if got := p.alarmed(); len(got) != 1 || !errors.Is(got[0], ErrStorage) {
				t.Fatalf("alarms %v", got)
			}
			for range 20 {
				pass(time.Minute)
				if _, err := p.refresh(t, true); !errors.Is(err, ErrStorage) {
					t.Fatalf("got %v", err)
				}
			}
			tries := len(p.log())
			pass(10 * time.Minute)
			if n := len(p.log()) - tries; n < 120 || n > 3*121 {
				t.Errorf("%d calls in ten minutes", n)
			}
			wantSpent(t, p, "a.1", "a.2")
			wantState(t, p, true, ErrStorage)
			p.up()
			pass(slowestSave)
			wantStored(t, p, "a.3")
			wantState(t, p, true, nil)
			if got := p.alarmed(); len(got) != 2 || got[1] != nil {
				t.Fatalf("alarms %v", got)
			}
			p.refreshed(t)
			wantSpent(t, p, "a.1", "a.2", "a.3")

			// the next time it is told again, and a refresh saves at once
			p.issuer.during = func(string) { p.down() }
			p.refreshed(t)
			p.up()
			p.issuer.during = nil
			p.refreshed(t)
			if got := p.alarmed(); len(got) != 4 || got[2] == nil || got[3] != nil {
				t.Errorf("alarms %v", got)
			}
			wantSpent(t, p, "a.1", "a.2", "a.3", "a.4", "a.5")
			p.chain.Close()
		})
	}
}

// TestLostThenDown: that an answer was lost is not forgotten because the mark
// could not be written once more.
func TestLostThenDown(t *testing.T) {
	for _, how := range []fault{breaks, breaksAfter} {
		p := begin()
		p.issuer.will(lostAfter)
		_, _ = p.refresh(t, true)
		p.set(func() { p.fault = saves(how) })
		if _, err := p.refresh(t, false); !errors.Is(err, ErrStorage) {
			t.Errorf("got %v", err)
		}
		p.up()
		if _, err := p.refresh(t, true); !errors.Is(err, errResting) {
			t.Errorf("got %v", err)
		}
		wantSpent(t, p, "a.1")
	}
}

// TestUnsavedLastWord: a login or logout while a record waits to be saved wins.
func TestUnsavedLastWord(t *testing.T) {
	for _, what := range []outcome{answers, keeps, unavailable, revokes} {
		for _, logout := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				p := begin()
				p.issuer.will(what)
				p.issuer.during = func(string) { p.down() }
				_, _ = p.refresh(t, false)
				_, _ = p.refresh(t, false)
				wantState(t, p, true, ErrStorage)
				p.issuer.during = nil
				want := ""
				if logout {
					if err := Forget(t.Context(), p.next(), ""); err != nil {
						t.Fatal(err)
					}
				} else {
					p.login(t, "b")
					want = "b.1"
				}
				before := p.disk.text()
				p.up()
				pass(time.Minute)
				wantStored(t, p, want)
				if p.disk.text() != before {
					t.Errorf("stored %s", p.disk.text())
				}
				var state error
				if logout {
					state = ErrLoginRequired
				}
				wantState(t, p, !logout, state)
				// the alarm is for a new refresh token that could be lost
				if got := p.alarmed(); what == answers && (len(got) != 2 || got[1] != nil) || what != answers && len(got) != 0 {
					t.Errorf("alarms %v", got)
				}
			})
		}
	}
}

// TestSlow: a storage that is slow takes nothing from the time of a request,
// for one that is cut short may be spent.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := begin()
		p.slow = 1900 * time.Millisecond
		p.issuer.delay = 9 * time.Second
		s, obs := run(t, p)
		pass(30 * time.Second)
		if got := p.issuer.requests(); value(s) != "access-1" || len(got) != 1 || got[0].left != DefaultTimeout || obs.count() != 1 {
			t.Errorf("held %q after %+v, %d attempts", value(s), got, obs.count())
		}
		pass(slowestSave)
		wantStored(t, p, "a.2")
		s.Close()
		p.chain.Close()
	})
}

// TestStoreHangs: a storage that does not answer holds a refresh for a bounded time,
// before a request and after one.
func TestStoreHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := begin()
		p.set(func() { p.slow = 24 * time.Hour })
		began := time.Now()
		if _, err := p.refresh(t, false); !errors.Is(err, ErrStorage) || time.Since(began) != time.Minute {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		p.set(func() { p.slow = 0 })
		p.issuer.during = func(string) { p.set(func() { p.slow = 24 * time.Hour }) }
		began = time.Now()
		p.refreshed(t)
		if took := time.Since(began); took != saveTimeout || len(p.alarmed()) != 1 {
			t.Errorf("got a token after %v, %v", took, p.alarmed())
		}
		began = time.Now()
		p.chain.Close()
		if took := time.Since(began); took != saveTimeout {
			t.Errorf("closed after %v", took)
		}
	})
}

// TestEndedUnsaved: an end that could not be saved is known again when it is.
func TestEndedUnsaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := begin()
		p.issuer.will(revokes)
		p.issuer.during = func(string) { p.down() }
		if _, err := p.refresh(t, false); !errors.Is(err, ErrEnded) {
			t.Errorf("got %v", err)
		}
		wantState(t, p, false, ErrEnded)
		if _, err := p.refresh(t, false); !errors.Is(err, ErrStorage) {
			t.Errorf("got %v", err)
		}
		p.up()
		pass(slowestSave)
		wantState(t, p, false, ErrEnded)
		if r := p.disk.record(t); r.Ended == nil || r.Mark != nil {
			t.Errorf("stored %s", p.disk.text())
		}
	})
}

// TestUnreadable: what cannot be read is neither spent nor written over; a login
// keeps it aside.
func TestUnreadable(t *testing.T) {
	for _, tc := range []struct {
		name    string
		content string
		sealed  bool
	}{
		{"sealed with another key", `{"sealed":"..."}`, true},
		{"cut short", `{"refresh_token":"a.`, false},
		{"of another kind", `[]`, false},
		{"nothing", `null`, false},
		{"empty", ``, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := begin()
			p.disk.content, p.disk.sealed = []byte(tc.content), tc.sealed
			_, err := p.refresh(t, false)
			if f, ok := errors.AsType[*oauth.Failure](err); !ok || f.Kind != oauth.Refused || !errors.Is(err, ErrUnreadable) {
				t.Fatalf("got %v", err)
			}
			wantState(t, p, false, ErrUnreadable)
			if _, err := Kept(t.Context(), p); !errors.Is(err, ErrUnreadable) {
				t.Errorf("got %v", err)
			}
			if p.disk.text() != tc.content || len(p.disk.aside) != 0 {
				t.Errorf("stored %s", p.disk.text())
			}
			wantSpent(t, p)
			p.initial = ""
			p.login(t, "b")
			if !slices.Equal(p.disk.aside, []string{tc.content}) {
				t.Errorf("kept %q", p.disk.aside)
			}
			p.refreshed(t)
			wantSpent(t, p, "b.1")

			p.disk.set([]byte(tc.content), tc.sealed)
			if err := Forget(t.Context(), p, ""); err != nil || len(p.disk.aside) != 2 {
				t.Errorf("got %v, kept %q", err, p.disk.aside)
			}
			if _, err := p.refresh(t, false); !errors.Is(err, ErrLoginRequired) {
				t.Errorf("got %v", err)
			}
			p.disk.set([]byte(tc.content), tc.sealed)
			p.down()
			if err := Keep(t.Context(), p, "c.1"); err == nil || p.disk.text() != tc.content {
				t.Errorf("got %v, stored %s", err, p.disk.text())
			}
		})
	}
}

// TestUnreadableMeanwhile: an answer is saved though what was stored went bad
// while it was under way.
func TestUnreadableMeanwhile(t *testing.T) {
	p := begin()
	p.issuer.during = func(string) {
		p.issuer.during = nil
		p.disk.set([]byte("{"), false)
	}
	p.refreshed(t)
	if !slices.Equal(p.disk.aside, []string{"{"}) {
		t.Errorf("kept %q", p.disk.aside)
	}
	p.refreshed(t)
	wantSpent(t, p, "a.1", "a.2")

	// not if it cannot be kept aside
	synctest.Test(t, func(t *testing.T) {
		p := begin()
		p.issuer.during = func(string) {
			p.issuer.during = nil
			p.disk.set([]byte("{"), false)
			p.set(func() {
				p.fault = func(_ int, op string) fault {
					if op == "keep aside" {
						return breaks
					}
					return none
				}
			})
		}
		p.refreshed(t)
		pass(time.Minute)
		if p.disk.text() != "{" || len(p.alarmed()) != 1 {
			t.Errorf("stored %s", p.disk.text())
		}
		p.up()
		pass(slowestSave)
		wantStored(t, p, "a.2")
	})
}

// TestForgets: a storage that has lost what it held, as a volume that is no
// longer mounted, is not taken for a new one: the initial refresh token is spent.
func TestForgets(t *testing.T) {
	p := begin()
	p.refreshed(t)
	p.refreshed(t)
	kept := p.disk.text()
	p.disk.set(nil, false)
	if _, err := p.refresh(t, true); !errors.Is(err, ErrStorage) {
		t.Errorf("got %v", err)
	}
	wantState(t, p, true, ErrStorage)
	if p.Stale() {
		t.Error("stale though nothing new is there")
	}
	p.disk.set([]byte(kept), false)
	p.refreshed(t)
	p.disk.set(nil, false)
	p.initial = p.issuer.issue("b") // one that was never there before
	for _, f := range []func(int, string) fault{saves(breaks), nil} {
		p.set(func() { p.fault = f })
		if _, err := p.refresh(t, true); errors.Is(err, ErrStorage) != (f != nil) {
			t.Errorf("got %v", err)
		}
	}
	p.disk.set(nil, false)
	p.initial = ""
	p.login(t, "c")
	p.refreshed(t)

	p.issuer.during = func(string) { p.disk.set(nil, false) }
	p.refreshed(t) // between a request and its answer
	p.issuer.during = nil
	wantStored(t, p, "c.3")
	p.issuer.will(keeps, keeps)
	p.refreshed(t)
	p.disk.set(nil, false)
	p.refreshed(t) // that is not spent
	wantSpent(t, p, "a.1", "a.2", "a.3", "b.1", "c.1", "c.2", "c.3", "c.3")
	wantState(t, p, true, nil)
}
