package interop

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestShareStops: a stop in the middle of a refresh leaves no lock behind, and
// one that starts, even in an outage, serves with what is stored.
func TestShareStops(t *testing.T) {
	t.Parallel()
	tests := make(map[string]func(*testing.T) []together)
	for kind, start := range map[string]startRotating{
		inFiles: rotatingProvider,
		inRedis: rotatingServer(fosite),
	} {
		tests[kind] = func(t *testing.T) []together {
			t.Helper()
			return stops(t, startFleet(t, kind, start(t, holderTTL, killDelay)))
		}
	}
	sideBySide(t, 2, tests)
}

func stops(t *testing.T, f *fleet) []together {
	t.Helper()
	const rounds = 4
	began := time.Now()
	plain, chain := &sharing{name: "plain"}, &sharing{name: "chain", refresh: true}
	shares := []*sharing{plain, chain}
	f.begin(t, chain)
	a, b := f.member(t, "a", holderAt, shares...), f.member(t, "b", othersAt, shares...)
	rows := []together{
		{grant: "both", what: "first start", rounds: 1},
		{grant: "both", what: "stopped in a refresh", rounds: rounds},
		{grant: "both", what: "started in an outage", rounds: rounds},
	}
	for _, m := range f.members {
		m.live(t)
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, m := range f.members {
		for _, s := range shares {
			all.Go(func() {
				got := m.first(t, s.name)
				mu.Lock()
				defer mu.Unlock()
				rows[0].requests++
				rows[0].longest = max(rows[0].longest, got.ended.Sub(got.began))
				if got.status != http.StatusOK {
					t.Errorf("%s, %s: the first answer is %d; want 200", m.who, s.name, got.status)
				}
			})
		}
	}
	all.Wait()
	if rows[0].longest > 5*time.Second {
		t.Errorf("a first answer took %s; want that of one token request", rows[0].longest)
	}
	b.load(t, 250*time.Millisecond)
	for range rounds {
		f.stopInRefresh(t, a, chain, &rows[1])
		f.startInOutage(t, a, shares, &rows[2])
	}
	for _, s := range shares {
		if refusals := f.refusals(s.name); len(refusals) > 0 {
			t.Errorf("%s: the server refused %d token requests: %s", s.name, len(refusals), refusals[0].code)
		}
		if twice := f.spentTwice(s.name); len(twice) > 0 {
			t.Errorf("%s: %d refresh tokens were spent twice", s.name, len(twice))
		}
		failed, away, longest := b.failedWhileValid(s.name)
		rows[1].requests += len(b.sampled(s.name))
		rows[1].away, rows[1].failed = rows[1].away+away, rows[1].failed+len(failed)
		rows[1].longest = max(rows[1].longest, longest)
		if away > 0 {
			t.Errorf("%s: %d requests to the one that was not stopped were turned away", s.name, away)
		}
		if t.Failed() {
			f.tell(t, s.name)
		}
	}
	rows[0].asked, rows[0].adopted = len(f.grants("")), f.taken(t)
	for n := range rows {
		rows[n].server, rows[n].storage, rows[n].took = f.server.name, f.storage.kind, time.Since(began)
	}
	return rows
}

// stopInRefresh ends one whose refresh token the server has just taken: it waits
// for the answer, saves it, and gives its lock back.
func (f *fleet) stopInRefresh(t *testing.T, a *member, s *sharing, row *together) {
	t.Helper()
	reached, answer := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(answer) })
	defer release()
	f.clerk.trap(a.who, s.name, atGiven, func(ctx context.Context) {
		close(reached)
		select {
		case <-answer:
		case <-ctx.Done():
		}
	})
	select {
	case <-reached:
	case <-time.After(longWait):
		t.Fatal("no refresh")
	}
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startDeadline)
	defer cancel()
	if _, err := a.await(ctx, func(line string) bool { return strings.Contains(line, "shutting down apps") }); err != nil {
		t.Fatal(err)
	}
	release()
	a.die(t, syscall.SIGTERM)
	if !a.cmd.ProcessState.Success() {
		t.Errorf("caddy ended: %s", a.cmd.ProcessState)
	}
	// the other one may have a lock for a moment
	poll(t, startDeadline, "no lock left behind", func(context.Context) error {
		locks, err := f.storage.locks()
		if err == nil && len(locks) > 0 {
			err = fmt.Errorf("there is %s", locks)
		}
		return err
	})
	last := f.grants(s.name)
	if newest := last[len(last)-1]; newest.who != a.who || newest.answered.IsZero() {
		t.Errorf("the refresh that was under way did not end: %+v", newest)
	}
	row.asked++
}

// startInOutage starts one while the server answers nothing: what was stored
// serves, without a token request.
func (f *fleet) startInOutage(t *testing.T, a *member, shares []*sharing, row *together) {
	t.Helper()
	outage := func(down bool) {
		f.note(func() {
			for _, s := range shares {
				f.down[s.name] = down
			}
		})
	}
	outage(true)
	defer outage(false)
	before := len(f.seen(""))
	a.live(t)
	for _, s := range shares {
		got := a.first(t, s.name)
		row.requests++
		row.longest = max(row.longest, got.ended.Sub(got.began))
		if got.status != http.StatusOK {
			t.Errorf("%s: the first answer in an outage is %d; want 200", s.name, got.status)
		}
	}
	for _, tally := range a.tallies(t) {
		row.adopted += tally.adopted
		if tally.granted > 0 {
			t.Errorf("%d tokens were given in an outage", tally.granted)
		}
	}
	row.asked += len(slices.DeleteFunc(f.seen("")[before:], func(a asked) bool { return !a.granted }))
}
