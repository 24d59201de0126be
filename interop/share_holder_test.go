package interop

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	holderTTL = 30 * time.Second
	holderAt  = "10%" // so that it is the one who asks
	othersAt  = "60%" // when a dead one has lost its lock, and long before a token ends
)

// holderTimeout is longer than any pause, and as short as can be else: so much
// later is a lock broken whose file somebody keeps fresh.
const holderTimeout = "40s"

// place is where a holder of the lock can be stopped, by its neighbour: a storage
// call, or a token request.
type place struct {
	name  string
	call  storageCall // of a chain, of a shared token; who and credential are not set
	clerk string      // or where at the clerk
	lost  bool        // a holder that dies here takes an answer with it
}

// The places of one who spends a refresh token.
var chainPlaces = []place{
	{name: "in lock", call: storageCall{op: "lock", kind: "turn", after: true}},
	{name: "locked", call: storageCall{op: "load", kind: "shared", nth: 1}},
	{name: "announced", call: storageCall{op: "store", kind: "shared", nth: 1, after: true}},
	{name: "marked", call: storageCall{op: "store", kind: "chain", nth: 1, after: true}},
	{name: "dialling", clerk: atDial},
	{name: "writing", call: storageCall{op: "load", kind: "chain", nth: 3, after: true}},
	{name: "written", clerk: atGiven, lost: true},
	{name: "answered", call: storageCall{op: "store", kind: "chain", nth: 2}, lost: true},
	{name: "saved", call: storageCall{op: "store", kind: "chain", nth: 2, after: true}},
	{name: "unlocking", call: storageCall{op: "unlock", kind: "turn"}},
}

// Those of one who does not.
var plainPlaces = []place{
	{name: "in lock", call: storageCall{op: "lock", kind: "turn", after: true}},
	{name: "announced", call: storageCall{op: "store", kind: "shared", nth: 1, after: true}},
	{name: "written", clerk: atCome},
	{name: "answered", call: storageCall{op: "store", kind: "shared", nth: 2}},
	{name: "unlocking", call: storageCall{op: "unlock", kind: "turn"}},
}

// trap waits for one to come to a place, once.
func (f *fleet) trap(who, credential string, p place, of func(context.Context)) {
	if p.clerk != "" {
		f.clerk.trap(who, credential, p.clerk, of)
		return
	}
	var once sync.Once
	over := func() {}
	begun := make(chan struct{})
	var from atomic.Bool // a lock that is under way already is not the one
	over = f.gate.rule(func(c storageCall) string {
		<-begun
		if c.who != who || c.credential != credential {
			return ""
		}
		if c.op == "lock" && !c.after {
			from.Store(true)
		}
		want := p.call
		if !from.Load() || c.op != want.op || c.kind != want.kind || c.after != want.after || want.nth != 0 && c.nth != want.nth {
			return ""
		}
		once.Do(func() {
			over()
			of(context.Background())
		})
		return ""
	})
	close(begun)
}

// unlucky is a Caddy that stops at a place, and what the others do about it.
type unlucky struct {
	*fleet
	*sharing
	place  place
	holder *member
	others []*member
	row    *together
}

// TestShareHolder: one that has the lock is paused, later killed, at each place
// where it can stand; or a call that it makes there hangs. The others go on, and
// nothing is spent twice.
func TestShareHolder(t *testing.T) {
	t.Parallel()
	tests := make(map[string]func(*testing.T) []together)
	for kind, start := range map[string]startRotating{
		inFiles: rotatingServer(fosite),
		inRedis: rotatingProvider,
	} {
		tests[kind] = func(t *testing.T) []together {
			t.Helper()
			return misfortunes(t, startFleet(t, kind, start(t, holderTTL, killDelay)))
		}
		tests[kind+", hanging"] = func(t *testing.T) []together {
			t.Helper()
			return hangs(t, startFleet(t, kind, start(t, holderTTL, killDelay)))
		}
	}
	tests["heartbeat of a lock file"] = outlivedHeartbeat
	sideBySide(t, len(tests), tests)
}

func misfortunes(t *testing.T, f *fleet) []together {
	t.Helper()
	var cases []*unlucky
	var all []*sharing
	add := func(p place, s *sharing) {
		s.name = strings.ReplaceAll(s.name+"-"+p.name, " ", "-")
		s.secure, s.timeout = p.clerk == atDial, holderTimeout
		f.begin(t, s)
		all = append(all, s)
		cases = append(cases, &unlucky{fleet: f, sharing: s, place: p, holder: f.member(t, "holder", holderAt, s)})
	}
	for _, p := range chainPlaces {
		add(p, &sharing{name: "chain", refresh: true})
	}
	for _, p := range plainPlaces {
		add(p, &sharing{name: "plain"})
	}
	var ready sync.WaitGroup
	for _, u := range cases {
		u.holder.live(t)
		ready.Go(func() { u.holder.serves(t, u.name) })
	}
	ready.Wait()
	if t.Failed() {
		t.FailNow()
	}
	others := f.others(t, cases, all)
	began := time.Now()
	var rows []together
	var done sync.WaitGroup
	for _, u := range cases {
		u.others = others
		rows = append(rows, together{server: f.server.name, storage: f.storage.kind, grant: u.grant(), what: "holder paused, then killed: " + u.place.name})
	}
	for n, u := range cases {
		u.row = &rows[n]
		done.Go(func() {
			t.Run(u.name, func(t *testing.T) {
				defer func() {
					if t.Failed() {
						f.tell(t, u.name)
					}
				}()
				u.paused(t)
				u.killed(t)
				u.result(t)
				u.row.took = time.Since(began)
			})
		})
	}
	done.Wait()
	return rows
}

// others starts two more, which hold the same tokens.
func (f *fleet) others(t *testing.T, cases []*unlucky, all []*sharing) []*member {
	t.Helper()
	var ready sync.WaitGroup
	others := []*member{f.member(t, "b", othersAt, all...), f.member(t, "c", othersAt, all...)}
	for _, m := range others {
		m.live(t)
		for _, u := range cases {
			ready.Go(func() { m.serves(t, u.name) })
		}
	}
	ready.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for _, m := range others {
		m.load(t, 500*time.Millisecond)
	}
	return others
}

// stops has the holder come to the place, and meet its fate there.
func (u *unlucky) stops(t *testing.T, fate func() error) (at time.Time) {
	t.Helper()
	u.row.rounds++
	reached := make(chan error, 1)
	u.trap("holder", u.name, u.place, func(context.Context) {
		at = time.Now()
		reached <- fate()
	})
	select {
	case err := <-reached:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(longWait):
		t.Fatalf("the holder did not come to %q", u.place.name)
	case <-t.Context().Done():
		t.FailNow()
	}
	return at
}

// paused: the holder stands longer than its lock is held for alive.
func (u *unlucky) paused(t *testing.T) {
	t.Helper()
	at := u.stops(t, func() error { return halt(u.holder.process) })
	if u.place.lost && u.refresh {
		// its answer is there still, if it goes on before the token ends
		u.lockTaken(t, at)
	} else {
		u.othersUse(t, at)
	}
	resumed := time.Now()
	if err := u.holder.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	u.goesOn(t, resumed)
}

// killed: the holder ends, and is started again when the others have gone on.
func (u *unlucky) killed(t *testing.T) {
	t.Helper()
	at := u.stops(t, func() error {
		err := u.holder.cmd.Process.Kill()
		<-u.holder.ended // before the call that it made returns
		return err
	})
	if u.place.lost && u.refresh {
		u.mourned(t)
		return
	}
	u.othersUse(t, at)
	again := time.Now()
	u.holder.live(t)
	u.holder.serves(t, u.name)
	u.goesOn(t, again)
}

// othersUse waits for the others to use a token that was asked for after a time;
// or just before, by one that got so far.
func (u *unlucky) othersUse(t *testing.T, at time.Time) {
	t.Helper()
	poll(t, longWait, "another token in use by the others", func(context.Context) error {
		grants := u.grants(u.name)
		for _, m := range u.others {
			newest := newestOf(grants, m.who)
			if used := newest.used[m.who]; used.Before(at) {
				return fmt.Errorf("%s uses none since %s", m.who, at.Format("05.000"))
			}
		}
		return nil
	})
}

// lockTaken waits for another to get the lock, and to give it back.
func (u *unlucky) lockTaken(t *testing.T, at time.Time) {
	t.Helper()
	taken := make(chan struct{})
	defer u.gate.rule(func(c storageCall) string {
		if c.credential == u.name && c.who != "holder" && c.op == "unlock" && c.after {
			select {
			case <-taken:
			default:
				close(taken)
			}
		}
		return ""
	})()
	select {
	case <-taken:
	case <-time.After(longWait):
		t.Fatalf("nobody else got the lock since %s", at.Format("05.000"))
	}
}

// goesOn waits for refreshes by the holder, which refreshes most often, and for
// all to use what one of them brought.
func (u *unlucky) goesOn(t *testing.T, since time.Time) {
	t.Helper()
	poll(t, longWait, "two tokens of the holder's", func(context.Context) error {
		if refusals := u.refusals(u.name); len(refusals) > 0 {
			t.Fatalf("the server refused %d token requests: %s", len(refusals), refusals[0].code)
		}
		n := 0
		for _, g := range u.grants(u.name) {
			if g.who == "holder" && g.begun.After(since) && !g.used["holder"].IsZero() {
				n++
			}
		}
		if n < 2 {
			// it has no load: this is what has it use its token
			ctx, cancel := context.WithTimeout(t.Context(), startDeadline)
			defer cancel()
			got, err := u.holder.get(ctx, u.name)
			if err == nil && got.status != http.StatusOK {
				err = fmt.Errorf("status %d", got.status)
			}
			if err != nil {
				return err
			}
			return fmt.Errorf("%d so far", n)
		}
		return nil
	})
}

// mourned: the answer was lost, and that is said; a new refresh token is picked
// up.
func (u *unlucky) mourned(t *testing.T) {
	t.Helper()
	u.row.lost++
	var refused asked
	poll(t, longWait, "a refusal", func(context.Context) error {
		refusals := u.refusals(u.name)
		if len(refusals) == 0 {
			return errors.New("none")
		}
		refused = refusals[0]
		return nil
	})
	for _, g := range u.grants(u.name) {
		if g.spent == refused.spent && g.who == "holder" {
			u.row.cut++
		}
	}
	for _, m := range u.others {
		poll(t, longWait, m.who+" tells why", func(context.Context) error {
			for _, c := range m.complaints(u.name) {
				if c.Kind == "refused" && strings.Contains(c.Cause, "the answer to a refresh was lost") && strings.Contains(c.Advice, "write a new one into the grant refresh_token") {
					return nil
				}
			}
			return fmt.Errorf("it says %+v", m.complaints(u.name))
		})
	}
	u.begin(t, u.sharing)
	for _, m := range u.others {
		m.serves(t, u.name)
	}
}

// result judges all that the case has left.
func (u *unlucky) result(t *testing.T) {
	t.Helper()
	mayLose := u.place.lost && u.refresh
	if refusals := u.refusals(u.name); len(refusals) > 0 && !mayLose {
		u.row.lost++
		t.Errorf("the server refused %d token requests: %s", len(refusals), refusals[0].code)
	}
	if twice := u.spentTwice(u.name); len(twice) > 0 && !mayLose {
		t.Errorf("%d refresh tokens were spent twice", len(twice))
	}
	u.row.asked = len(u.grants(u.name))
	for _, m := range append(slices.Clip(u.others), u.holder) {
		select {
		case <-m.ended:
		default:
			u.row.adopted += m.tallies(t)[u.name].adopted
		}
	}
	for _, m := range u.others {
		failed, away, longest := m.failedWhileValid(u.name)
		u.row.requests += len(m.sampled(u.name))
		u.row.away += away
		u.row.failed += len(failed)
		u.row.longest = max(u.row.longest, longest)
		if len(failed) > 0 {
			t.Errorf("%s: %d requests failed while a token was valid, the first with status %d", m.who, len(failed), failed[0].status)
		}
	}
}
