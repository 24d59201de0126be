package interop

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	faultTTL  = 10 * time.Second
	faultAt   = "30%"
	faultSlow = 1500 * time.Millisecond // of each storage call
)

// storageFault is what can be wrong with a storage.
type storageFault struct {
	name          string
	breaks, mends func(*testing.T)
	serves        bool // some calls succeed: shared tokens may go on
}

// TestShareStorage: a storage that is slow, down, read-only, or lies. It costs
// nothing but the sharing, where a token may be asked for without it; what may
// not be is not asked for, and goes on by itself when the storage is back.
func TestShareStorage(t *testing.T) {
	t.Parallel()
	tests := make(map[string]func(*testing.T) []together)
	for kind, start := range map[string]startRotating{
		inFiles: rotatingServer(fosite),
		inRedis: rotatingProvider,
	} {
		tests[kind+", at the gate"] = func(t *testing.T) []together {
			t.Helper()
			f := startFleet(t, kind, start(t, faultTTL, killDelay))
			return f.suffers(t, f.atTheGate())
		}
		tests[kind+", itself"] = func(t *testing.T) []together {
			t.Helper()
			f := startFleet(t, kind, start(t, faultTTL, killDelay))
			if kind == inFiles {
				return f.suffers(t, f.onDisk(t))
			}
			r := f.storage.redis
			return f.suffers(t, []storageFault{{name: "down", mends: r.live, breaks: func(t *testing.T) {
				t.Helper()
				r.stop(t, syscall.SIGKILL)
			}}})
		}
	}
	sideBySide(t, len(tests), tests)
}

// suffers has one fault come after the other, and looks what becomes of three
// credentials.
func (f *fleet) suffers(t *testing.T, faults []storageFault) []together {
	t.Helper()
	alone, held, chain := &sharing{name: "alone"}, &sharing{name: "held", hold: true}, &sharing{name: "chain", refresh: true}
	f.begin(t, chain)
	for _, who := range []string{"a", "b"} {
		f.member(t, who, faultAt, alone, held, chain).live(t)
	}
	f.eachServes(t, []*sharing{alone, held, chain})
	for _, m := range f.members {
		m.load(t, 250*time.Millisecond)
	}
	var rows []together
	for _, fault := range faults {
		f.restarted, f.slack = time.Time{}, 0
		if fault.serves {
			f.slack = 5 * faultSlow
		}
		began := time.Now()
		row := together{server: f.server.name, storage: f.storage.kind, grant: "all", what: "storage " + fault.name, rounds: 1}
		asked := len(f.grants(""))
		before := f.taken(t)
		fault.breaks(t)
		f.without(t, fault, &row)
		fault.mends(t)
		f.recover(t)
		row.asked, row.adopted = len(f.grants(""))-asked, f.taken(t)-before
		row.took = time.Since(began)
		f.judgeAlone(t, began, &row)
		rows = append(rows, row)
	}
	if refusals := f.refusals(""); len(refusals) > 0 {
		t.Errorf("the server refused %d token requests, the first of %s: %s", len(refusals), refusals[0].credential, refusals[0].code)
	}
	if twice := f.spentTwice("chain"); len(twice) > 0 {
		t.Errorf("%d refresh tokens were spent twice", len(twice))
	}
	if t.Failed() {
		for _, s := range f.members[0].shares {
			f.tell(t, s.name)
		}
	}
	return rows
}

// atTheGate are those that the gate makes.
func (f *fleet) atTheGate() []storageFault {
	fault := func(name string, serves bool, of func(storageCall) string) storageFault {
		var over func()
		return storageFault{
			name: name, serves: serves,
			breaks: func(*testing.T) { over = f.gate.rule(of) },
			mends:  func(*testing.T) { over() },
		}
	}
	return []storageFault{
		fault("slow", true, func(c storageCall) string {
			if !c.after {
				<-time.After(faultSlow)
			}
			return ""
		}),
		fault("failing", false, func(storageCall) string { return "fail" }),
		fault("forgetful", false, func(c storageCall) string {
			if c.op == "store" {
				return "forget"
			}
			return ""
		}),
	}
}

// onDisk are those of a file system, which gets one of its own.
func (f *fleet) onDisk(t *testing.T) []storageFault {
	t.Helper()
	on := &victim{mortal: &mortal{storage: f.storage.root}}
	mounted := on.mount(t)
	f.runner = mounted.enter
	f.storage.where = "root " + filepath.Join(mounted.at, "files")
	f.storage.root = filepath.Join(on.storage, "files")
	f.storage.locks = func() ([]string, error) { return locksIn(f.storage.root) }
	aside := f.storage.root + ".aside"
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	return []storageFault{
		{name: "read-only", breaks: mounted.readOnly, mends: mounted.writable},
		{name: "down", breaks: func(t *testing.T) {
			t.Helper()
			must(t, os.Rename(f.storage.root, aside))
			must(t, os.WriteFile(f.storage.root, nil, 0o600)) // no folder, whoever asks
		}, mends: func(t *testing.T) {
			t.Helper()
			must(t, os.Remove(f.storage.root))
			must(t, os.Rename(aside, f.storage.root))
		}},
	}
}

// taken are the tokens that were taken over.
func (f *fleet) taken(t *testing.T) int {
	t.Helper()
	n := 0
	for _, m := range f.members {
		for _, tally := range m.tallies(t) {
			n += tally.adopted
		}
	}
	return n
}

// without: while the storage fails, the one credential goes on, and the others
// are held back, and one that starts is served at once.
func (f *fleet) without(t *testing.T, fault storageFault, row *together) {
	t.Helper()
	f.eachAsks(t, "alone", 1) // what was under way before is over by then
	silent := len(f.seen("held")) + len(f.seen("chain"))
	if !fault.serves {
		for _, m := range f.members {
			for _, credential := range []string{"held", "chain"} {
				m.starves(t, credential)
				m.namesStorage(t, credential)
			}
		}
	}
	b := f.members[1]
	b.die(t, syscall.SIGTERM)
	asked := len(f.seen("alone"))
	b.live(t)
	f.restarted = time.Now()
	first := b.first(t, "alone")
	row.longest = first.ended.Sub(first.began)
	if first.status != http.StatusOK {
		t.Errorf("storage %s: the first answer after a start is %d; want 200", fault.name, first.status)
	}
	if row.longest > 5*time.Second { // which it would wait for the lock
		t.Errorf("storage %s: the first answer after a start took %s (%d token requests since)", fault.name, row.longest, len(f.seen("alone"))-asked)
	}
	f.eachAsks(t, "alone", 1)
	if now := len(f.seen("held")) + len(f.seen("chain")); !fault.serves && now != silent {
		t.Errorf("storage %s: %d token requests that may be made with the lock alone", fault.name, now-silent)
	}
}

// eachAsks waits for each to use tokens that are given from now on.
func (f *fleet) eachAsks(t *testing.T, credential string, tokens int) {
	t.Helper()
	began := time.Now()
	poll(t, longWait, "new tokens for "+credential, func(context.Context) error {
		grants := f.grants(credential)
		for _, m := range f.members {
			n := 0
			for _, g := range grants {
				if g.begun.After(began) && !g.used[m.who].IsZero() {
					n++
				}
			}
			if n < tokens {
				return fmt.Errorf("%s uses %d", m.who, n)
			}
		}
		return nil
	})
}

// starves waits for requests to be turned away.
func (m *member) starves(t *testing.T, credential string) {
	t.Helper()
	poll(t, longWait, m.who+" to hold no token for "+credential, func(ctx context.Context) error {
		s, err := m.get(ctx, credential)
		if err == nil && s.status == http.StatusOK {
			err = fmt.Errorf("status %d", s.status)
		}
		return err
	})
}

// namesStorage wants a complaint to lead to the storage: as the cause, or, where
// another instance has the lock and can no longer give it back, in the advice.
func (m *member) namesStorage(t *testing.T, credential string) {
	t.Helper()
	found := m.complaints(credential)
	if !slices.ContainsFunc(found, func(c complaint) bool { return strings.Contains(c.Cause+c.Advice, "storage") }) {
		t.Errorf("%s says of %s %+v; want the storage to be named", m.who, credential, found)
	}
}

// recover waits for all to be served, and shared, again.
func (f *fleet) recover(t *testing.T) {
	t.Helper()
	var all sync.WaitGroup
	for _, m := range f.members {
		for _, s := range m.shares {
			all.Go(func() { m.serves(t, s.name) })
		}
	}
	all.Wait()
	for _, s := range f.members[0].shares {
		all.Go(func() { f.eachAsks(t, s.name, 1) })
	}
	all.Wait()
	before := f.taken(t)
	poll(t, longWait, "tokens taken over again", func(context.Context) error {
		if n := f.taken(t); n < before+3 {
			return fmt.Errorf("%d", n-before)
		}
		return nil
	})
}

// judgeAlone: of the credential that may go on alone no request was turned away;
// of the others none while a token was valid.
func (f *fleet) judgeAlone(t *testing.T, began time.Time, row *together) {
	t.Helper()
	for _, m := range f.members {
		for _, s := range m.shares {
			for _, got := range m.sampled(s.name) {
				if got.began.Before(began) || got.status == 0 { // it was not running
					continue
				}
				row.requests++
				if got.status == http.StatusOK {
					continue
				}
				row.away++
				if s.name == "alone" {
					row.failed++
					t.Errorf("%s: %s turned a request away with %d", row.what, m.who, got.status)
				}
			}
			failed, _, _ := m.failedWhileValid(s.name)
			failed = slices.DeleteFunc(failed, func(got sample) bool {
				forgot := m == f.members[1] && got.ended.After(f.restarted) // what it held
				return got.began.Before(began) || got.status == 0 || forgot
			})
			if row.failed += len(failed); len(failed) > 0 {
				t.Errorf("%s: %s turned %d requests for %s away while a token was valid, the first with %d", row.what, m.who, len(failed), s.name, failed[0].status)
			}
		}
	}
}
