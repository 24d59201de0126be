package interop

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"
)

// together is a row of the table of those that share.
type together struct {
	server, storage, grant, what string

	rounds        int
	lost, cut     int // chains, and those of them whose answer was cut
	asked         int // tokens that the server gave
	adopted       int // tokens taken over
	extra         int // tokens that were asked for beside another's
	requests      int
	away, failed  int // requests that were turned away, and those while a token was valid
	longest, took time.Duration
}

func printTogether(t *testing.T, rows []together) {
	t.Helper()
	slices.SortFunc(rows, func(a, b together) int {
		return strings.Compare(a.what+a.server+a.storage+a.grant, b.what+b.server+b.storage+b.grant)
	})
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "server\tstorage\tgrant\twhat\trounds\tchains lost\tanswer cut\ttokens given\ttaken over\tbeside another's\trequests\tturned away\twith a valid token\tlongest\ttook")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", r.server, r.storage, r.grant, r.what, r.rounds, r.lost, r.cut,
			r.asked, r.adopted, r.extra, r.requests, r.away, r.failed, r.longest.Round(10*time.Millisecond), r.took.Round(time.Second))
	}
	w.Flush()
	t.Logf("\n%s", &text)
}

// sideBySide runs subtests, some at a time.
func sideBySide(t *testing.T, most int, tests map[string]func(*testing.T) []together) {
	t.Helper()
	var mu sync.Mutex
	var rows []together
	var all sync.WaitGroup
	room := make(chan struct{}, most)
	for name, test := range tests {
		all.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			t.Run(name, func(t *testing.T) {
				found := test(t)
				mu.Lock()
				defer mu.Unlock()
				rows = append(rows, found...)
			})
		})
	}
	all.Wait()
	printTogether(t, rows)
}

const (
	raceTTL     = 30 * time.Second
	raceAt      = "50%"
	raceDue     = raceTTL / 2
	raceSoonest = raceTTL / 5 // however slow the storage is: its time is part of a token's life
)

// TestShareRaces: four Caddys start at the same moment, with one refresh token to
// begin with, and later all want to refresh at the same moment. One of them asks,
// the others take over what it gets, and no chain is lost.
func TestShareRaces(t *testing.T) {
	t.Parallel()
	const chains = 10 // two races each, over five servers and two storages: 200
	servers := map[string]startRotating{
		"oidc-provider": rotatingProvider,
		"glewlwyd":      rotatingGlewlwyd,
	}
	for _, kind := range serverKinds {
		servers[kind] = rotatingServer(kind)
	}
	tests := make(map[string]func(*testing.T) []together)
	for name, start := range servers {
		for _, kind := range []string{inFiles, inRedis} {
			tests[name+", "+kind] = func(t *testing.T) []together {
				t.Helper()
				return race(t, startFleet(t, kind, start(t, raceTTL, killDelay)), chains)
			}
		}
	}
	sideBySide(t, 5, tests)
}

func race(t *testing.T, f *fleet, chains int) []together {
	t.Helper()
	began := time.Now()
	shares := []*sharing{{name: "alone"}, {name: "held", hold: true}}
	for n := range chains {
		shares = append(shares, &sharing{name: fmt.Sprintf("chain%d", n), refresh: true})
	}
	for _, s := range shares {
		f.begin(t, s)
	}
	for _, who := range []string{"a", "b", "c", "d"} {
		f.member(t, who, raceAt, shares...)
	}
	for _, m := range f.members {
		m.live(t)
	}
	f.eachServes(t, shares)
	if t.Failed() {
		t.FailNow()
	}
	for _, m := range f.members {
		m.load(t, 2*time.Second)
	}
	f.atRest(t, shares)
	f.pauseUntilDue(t, shares)

	// each has used the first token and a later one
	for _, s := range shares {
		poll(t, longWait, "a second token of "+s.name+" in use by all", func(context.Context) error {
			grants := f.grants(s.name)
			for _, m := range f.members {
				if newest := newestOf(grants, m.who); newest.begun.Equal(grants[0].begun) {
					return fmt.Errorf("%s uses the first of %d", m.who, len(grants))
				}
			}
			return nil
		})
	}
	rows := map[string]*together{
		"client_credentials":       {what: "four at the same moment"},
		"client_credentials, hold": {what: "four at the same moment"},
		"refresh_token":            {what: "four at the same moment"},
	}
	for _, s := range shares {
		row := rows[s.grant()]
		row.rounds += 2
		f.judge(t, s, row)
	}
	var all []together
	for grant, row := range rows {
		row.server, row.storage, row.grant, row.took = f.server.name, f.storage.kind, grant, time.Since(began)
		all = append(all, *row)
	}
	return all
}

func (s *sharing) grant() string {
	switch {
	case s.refresh:
		return "refresh_token"
	case s.hold:
		return "client_credentials, hold"
	}
	return "client_credentials"
}

// eachServes wants the first answer of each to be 200.
func (f *fleet) eachServes(t *testing.T, shares []*sharing) {
	t.Helper()
	var all sync.WaitGroup
	for _, m := range f.members {
		for _, s := range shares {
			all.Go(func() {
				if got := m.first(t, s.name); got.status != 200 {
					t.Errorf("%s, %s: the first answer after the start is %d; want 200", m.who, s.name, got.status)
				}
			})
		}
	}
	all.Wait()
}

// atRest waits for a moment at which nobody has a lock.
func (f *fleet) atRest(t *testing.T, shares []*sharing) {
	t.Helper()
	poll(t, longWait, "all locks given back", func(context.Context) error {
		locks, err := f.storage.locks()
		if err == nil && len(locks) > 0 {
			err = fmt.Errorf("%d of %d are held: %s", len(locks), len(shares), locks)
		}
		return err
	})
}

// pauseUntilDue stops all, and has them go on when each token is due.
func (f *fleet) pauseUntilDue(t *testing.T, shares []*sharing) {
	t.Helper()
	for _, m := range f.members {
		if err := halt(m.process); err != nil {
			t.Fatal(err)
		}
	}
	var due time.Time
	for _, s := range shares {
		for _, g := range f.grants(s.name) {
			if at := g.begun.Add(raceDue); at.After(due) {
				due = at
			}
		}
	}
	select {
	case <-time.After(time.Until(due)):
	case <-t.Context().Done():
	}
	for _, m := range f.members {
		if err := m.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
}

// judge looks what has become of one credential, and adds it to a row.
func (f *fleet) judge(t *testing.T, s *sharing, row *together) {
	t.Helper()
	grants, refusals := f.grants(s.name), f.refusals(s.name)
	wrong := false
	if len(refusals) > 0 {
		row.lost++
		wrong = true
		t.Errorf("%s: the server refused %d token requests: %s", s.name, len(refusals), refusals[0].code)
	}
	if twice := f.spentTwice(s.name); len(twice) > 0 {
		wrong = true
		t.Errorf("%s: %d refresh tokens were spent twice", s.name, len(twice))
	}
	extra := 0
	for n := 1; n < len(grants); n++ {
		if grants[n].begun.Sub(grants[n-1].begun) < raceSoonest {
			extra++
		}
	}
	if extra > 0 && (s.hold || s.refresh) {
		wrong = true
		t.Errorf("%s: of %d tokens %d were asked for while another was new", s.name, len(grants), extra)
	}
	counted, adopted := 0, 0
	for _, m := range f.members {
		tally := m.tallies(t)[s.name]
		counted += tally.granted
		adopted += tally.adopted
		failed, away, longest := m.failedWhileValid(s.name)
		row.requests += len(m.sampled(s.name))
		row.away += away
		row.failed += len(failed)
		row.longest = max(row.longest, longest)
		if len(failed) > 0 {
			wrong = true
			t.Errorf("%s, %s: %d requests failed while a token was valid, the first with status %d", m.who, s.name, len(failed), failed[0].status)
		}
	}
	// tokens that came and were replaced before anybody used them count, too
	if want := 2*len(f.members) - counted; adopted < want {
		wrong = true
		t.Errorf("%s: %d tokens asked for, %d taken over; want %d at least", s.name, counted, adopted, want)
	}
	row.asked += len(grants)
	row.adopted += adopted
	row.extra += extra
	if wrong {
		f.tell(t, s.name)
	}
}
