package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// outcome is what an issuer makes of one request.
type outcome uint8

const (
	answers     outcome = iota // a new access token and the next refresh token
	keeps                      // no refresh token in the answer, and none spent
	repeats                    // the same refresh token in the answer
	halfAnswers                // the next refresh token, and no access token of use
	unavailable                // a complete 503
	tooMany                    // a complete 429
	badClient                  // a complete 401
	unmade                     // a request that could not be made
	lostBefore                 // no answer, and the request never came
	lostAfter                  // no answer, though the refresh token is spent
	saysGrant                  // a 500 whose body says invalid_grant
	revokes                    // invalid_grant, from now on
)

// issuer is an authorization server that rotates refresh tokens and takes one
// that was spent for stolen: then the whole chain ends (RFC 9700 §4.14.2). A
// refresh token is the name of its chain and a number: "a.1", then "a.2".
type issuer struct {
	mu       sync.Mutex
	chains   map[string]*issued
	grace    time.Duration // in which one that was spent last is forgiven
	delay    time.Duration
	outcomes []outcome    // of the next requests; then answers
	during   func(string) // is told of each request when it comes
	got      []asked
}

// asked is one request that came.
type asked struct {
	refreshToken string
	at           time.Time
	left         time.Duration // until it would have been given up
}

type issued struct {
	newest  int
	ended   bool
	rotated time.Time
}

func (a *issuer) issue(chain string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.chains == nil {
		a.chains = make(map[string]*issued)
	}
	a.chains[chain] = &issued{newest: 1}
	return chain + ".1"
}

// good tells whether a refresh token may be spent.
func (a *issuer) good(refreshToken string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, n := a.find(refreshToken)
	return c != nil && !c.ended && c.newest == n
}

func (a *issuer) find(refreshToken string) (*issued, int) {
	chain, number, _ := strings.Cut(refreshToken, ".")
	n, _ := strconv.Atoi(number)
	return a.chains[chain], n
}

func (a *issuer) set(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
}

// will says what becomes of the next requests.
func (a *issuer) will(outcomes ...outcome) { a.set(func() { a.outcomes = outcomes }) }

func (a *issuer) requests() []asked {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.got)
}

// spent are the refresh tokens that came.
func (a *issuer) spent() []string {
	var spent []string
	for _, r := range a.requests() {
		spent = append(spent, r.refreshToken)
	}
	return spent
}

func (a *issuer) answer(ctx context.Context, refreshToken string) (*oauth.Response, error) {
	a.mu.Lock()
	deadline, _ := ctx.Deadline()
	a.got = append(a.got, asked{refreshToken, time.Now(), time.Until(deadline)})
	what, delay, during := answers, a.delay, a.during
	if len(a.outcomes) > 0 {
		what, a.outcomes = a.outcomes[0], a.outcomes[1:]
	}
	a.mu.Unlock()
	if during != nil {
		during(refreshToken)
	}
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return nil, &oauth.Failure{Kind: oauth.Unreachable, Lost: true, Err: ctx.Err()}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	res := &oauth.Response{AccessToken: fmt.Sprintf("access-%d", len(a.got)), ExpiresIn: time.Hour, Bearer: true}
	c, n := a.find(refreshToken)
	switch what {
	case unavailable:
		return nil, &oauth.Failure{Kind: oauth.Unreachable, Status: 503}
	case tooMany:
		return nil, &oauth.Failure{Kind: oauth.Unreachable, Status: 429, Code: "invalid_grant"}
	case badClient:
		return nil, &oauth.Failure{Kind: oauth.Refused, Status: 401, Code: "invalid_client"}
	case unmade:
		return nil, errors.New("the secret cannot be read")
	case lostBefore:
		return nil, &oauth.Failure{Kind: oauth.Unreachable, Lost: true, Err: errors.New("connection reset")}
	case saysGrant:
		return nil, &oauth.Failure{Kind: oauth.Unreachable, Status: 500, Code: "invalid_grant", Lost: true}
	case revokes:
		c.ended = true
	}
	forgiven := n == c.newest-1 && time.Since(c.rotated) < a.grace
	if c.ended || n != c.newest && !forgiven {
		c.ended = true
		return nil, &oauth.Failure{Kind: oauth.Refused, Status: 400, Code: "invalid_grant"}
	}
	switch what {
	case keeps:
		return res, nil
	case repeats:
		res.RefreshToken = refreshToken
		return res, nil
	}
	if !forgiven {
		c.newest++
		c.rotated = time.Now()
	}
	chain, _, _ := strings.Cut(refreshToken, ".")
	next := fmt.Sprintf("%s.%d", chain, c.newest)
	switch what {
	case lostAfter:
		return nil, &oauth.Failure{Kind: oauth.Unreachable, Status: 504, Lost: true}
	case halfAnswers:
		return &oauth.Response{RefreshToken: next}, &oauth.Failure{Kind: oauth.Malformed, Status: 200, Err: errors.New("no access_token")}
	}
	res.RefreshToken = next
	return res, nil
}

// disk is what outlives a process.
type disk struct {
	mu      sync.Mutex
	content []byte // nil for nothing
	sealed  bool   // with a key that nobody has
	aside   []string
}

func (d *disk) load() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sealed {
		return nil, fmt.Errorf("%w: no key opens it", ErrUnreadable)
	}
	if d.content == nil {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(d.content), nil
}

func (d *disk) save(content []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.content, d.sealed = slices.Clone(content), false
}

func (d *disk) set(content []byte, sealed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.content, d.sealed = content, sealed
}

func (d *disk) keepAside() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.aside = append(d.aside, string(d.content))
}

func (d *disk) text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return string(d.content)
}

// record is what is stored, an empty one if nothing is.
func (d *disk) record(t *testing.T) *record {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	r := new(record)
	if d.content != nil {
		if err := json.Unmarshal(d.content, r); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// fault is what becomes of one storage call or token request.
type fault uint8

const (
	none        fault = iota
	dies              // the process ends before it
	diesAfter         // the process ends after it
	breaks            // an error, and nothing is done
	breaksAfter       // an error, though it is done
	lies              // no error, and nothing is done
)

var errDisk = errors.New("input/output error")

// process is one run of the program: a Chain, its view of a disk, and its way
// to an issuer.
type process struct {
	chain   *Chain
	disk    *disk
	issuer  *issuer
	initial string
	grace   time.Duration

	mu     sync.Mutex
	dead   bool
	slow   time.Duration
	fault  func(n int, op string) fault // of the nth call, the first is 0
	calls  []string
	alarms []error
}

func (p *process) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *process) log() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

func (p *process) alarmed() []error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.alarms)
}

// call makes a call, or not. In a process that has died no goroutine goes on.
func (p *process) call(ctx context.Context, op string, do func()) error {
	p.mu.Lock()
	f, slow := none, p.slow
	if p.fault != nil {
		f = p.fault(len(p.calls), op)
	}
	if f == dies {
		p.dead = true
	}
	if p.dead {
		p.mu.Unlock()
		runtime.Goexit()
	}
	done := f != breaks && f != lies
	switch {
	case !done:
		op += " failed"
	case f == breaksAfter:
		op += " done, and failed"
	}
	p.calls = append(p.calls, op)
	p.mu.Unlock()
	if slow > 0 && op != "spend" {
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if done {
		do()
	}
	switch f {
	case diesAfter:
		p.set(func() { p.dead = true })
		runtime.Goexit()
	case breaks, breaksAfter:
		return errDisk
	}
	return nil
}

func (p *process) Load(ctx context.Context) (content []byte, err error) {
	if fault := p.call(ctx, "load", func() { content, err = p.disk.load() }); fault != nil {
		return nil, fault
	}
	return content, err
}

func (p *process) Save(ctx context.Context, content []byte) error {
	return p.call(ctx, "save", func() { p.disk.save(content) })
}

func (p *process) KeepAside(ctx context.Context) error {
	return p.call(ctx, "keep aside", p.disk.keepAside)
}

func (p *process) spend(ctx context.Context, refreshToken string, _ Guard) (res *oauth.Response, err error) {
	_ = p.call(ctx, "spend", func() { res, err = p.issuer.answer(ctx, refreshToken) })
	return res, err
}

func (p *process) open(context.Context) (*Session, error) {
	return &Session{Path: "crm", Store: p, Initial: p.initial, Grace: p.grace, Spend: p.spend}, nil
}

// refresh makes one refresh, held telling whether an access token is held.
func (p *process) refresh(t *testing.T, held bool) (*oauth.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	on := Occasion{Limit: time.Minute}
	if held {
		on.Held = new(Token)
	}
	return p.chain.Refresh(ctx, on, p.open)
}

// refreshed makes one refresh that must succeed.
func (p *process) refreshed(t *testing.T) {
	t.Helper()
	if res, err := p.refresh(t, false); err != nil || res.AccessToken == "" {
		t.Fatalf("got %v, %v", res, err)
	}
}

// Request and Stale make a process a Requester.
func (p *process) Request(ctx context.Context, on Occasion) (*oauth.Response, error) {
	return p.chain.Refresh(ctx, on, p.open)
}

func (p *process) Stale() bool { return p.chain.Stale(context.Background(), p.open) }

// begin is the first process of all, with a refresh token "a.1" configured.
func begin() *process {
	p := &process{disk: new(disk), issuer: new(issuer)}
	p.initial = p.issuer.issue("a")
	return p.next()
}

// next is a process after p with the same configuration, disk and server.
func (p *process) next() *process {
	q := &process{disk: p.disk, issuer: p.issuer, initial: p.initial, grace: p.grace, chain: NewChain()}
	q.chain.Alarm = func(err error) { q.set(func() { q.alarms = append(q.alarms, err) }) }
	return q
}

// login is another process that stores the first refresh token of a new chain.
func (p *process) login(t *testing.T, chain string) {
	t.Helper()
	if err := Keep(t.Context(), p.next(), p.issuer.issue(chain)); err != nil {
		t.Fatal(err)
	}
}

// down makes the storage fail.
func (p *process) down() { p.set(func() { p.fault = stored(breaks, 0, forever) }) }

func (p *process) up() { p.set(func() { p.fault = nil }) }

// run starts a Source on a process.
func run(t *testing.T, p *process) (*Source, *observer) {
	t.Helper()
	obs := new(observer)
	s := NewSource(defaults, new(Scheduler), obs)
	s.random = func() float64 { return 0.5 }
	s.Use(p)
	s.Start()
	t.Cleanup(s.Close)
	synctest.Wait()
	return s, obs
}

// wantSpent compares the refresh tokens that reached the server.
func wantSpent(t *testing.T, p *process, want ...string) {
	t.Helper()
	if got := p.issuer.spent(); !slices.Equal(got, want) {
		t.Fatalf("spent %v, want %v", got, want)
	}
}

func wantStored(t *testing.T, p *process, refreshToken string) {
	t.Helper()
	if got := p.disk.record(t).RefreshToken; got != refreshToken {
		t.Fatalf("stored %q, want %q", got, refreshToken)
	}
}

func wantState(t *testing.T, p *process, usable bool, err error) {
	t.Helper()
	if s := p.chain.State(); s == nil || s.Usable != usable || !errors.Is(s.Err, err) {
		t.Fatalf("state %+v, want usable %t, %v", s, usable, err)
	}
}

// TestInitial: a configured refresh token is taken once, in whatever order
// configs come.
func TestInitial(t *testing.T) {
	p := begin()
	p.refreshed(t)
	p.refreshed(t)
	p = p.next() // a restart
	p.refreshed(t)

	rollout := p.next()
	rollout.initial = p.issuer.issue("b")
	rollout.refreshed(t)
	rollout.refreshed(t)

	rollback := rollout.next()
	rollback.initial = "a.1"
	rollback.refreshed(t)
	rollback.initial = "b.1" // on the same Chain, as a reload
	rollback.refreshed(t)
	wantSpent(t, p, "a.1", "a.2", "a.3", "b.1", "b.2", "b.3", "b.4")
	wantStored(t, p, "b.5")
	if strings.Contains(strings.Join(p.disk.record(t).Seen, " "), "a.1") {
		t.Error("an initial refresh token stands in the list of those seen")
	}
}

// TestInitialNotTaken: what was never stored as taken is taken next time.
func TestInitialNotTaken(t *testing.T) {
	p := begin()
	p.down()
	if _, err := p.refresh(t, false); !errors.Is(err, ErrStorage) {
		t.Fatalf("got %v", err)
	}
	p.up()
	p.refreshed(t)
	wantSpent(t, p, "a.1")
}

// TestLoginRequired: with nothing configured and nothing stored nothing is
// asked.
func TestLoginRequired(t *testing.T) {
	p := begin()
	p.initial = ""
	_, err := p.refresh(t, false)
	if f, ok := errors.AsType[*oauth.Failure](err); !ok || f.Kind != oauth.Refused || !errors.Is(err, ErrLoginRequired) {
		t.Fatalf("got %v", err)
	}
	wantState(t, p, false, ErrLoginRequired)
	wantSpent(t, p)

	p.login(t, "b")
	p.issuer.will(unavailable)
	if _, err := p.refresh(t, false); err == nil {
		t.Fatal("got a token")
	}
	wantState(t, p, true, nil) // there is one now, whatever the server does
	p.refreshed(t)
	wantSpent(t, p, "b.1", "b.1")
}

// TestOrder: the mark is stored before a refresh token is spent, and the next
// one before the access token is given out.
func TestOrder(t *testing.T) {
	p := begin()
	p.issuer.during = func(refreshToken string) {
		if r := p.disk.record(t); r.RefreshToken != refreshToken || !r.lost() {
			t.Errorf("while %s is spent there is %s", refreshToken, p.disk.text())
		}
	}
	for _, want := range []string{"a.2", "a.3"} {
		p.refreshed(t)
		wantStored(t, p, want)
		if r := p.disk.record(t); r.Mark != nil || r.Static || r.Ended != nil || r.Obtained.IsZero() {
			t.Errorf("stored %s", p.disk.text())
		}
	}
	one := []string{"load", "save", "load", "spend", "load", "save", "load"}
	if got := p.log(); !slices.Equal(got, slices.Concat(one, one)) {
		t.Errorf("calls %v", got)
	}
	wantState(t, p, true, nil)
}

// TestStatic: a server that gives no other refresh token, or the same, is asked
// with the one there is, and nothing is written from then on.
func TestStatic(t *testing.T) {
	for _, what := range []outcome{keeps, repeats} {
		p := begin()
		p.issuer.will(what, what, what, what, lostBefore, unavailable, keeps, answers)
		p.refreshed(t)
		if r := p.disk.record(t); !r.Static || r.Mark != nil || r.RefreshToken != "a.1" {
			t.Fatalf("stored %s", p.disk.text())
		}
		before := p.disk.text()
		p.refreshed(t)
		p = p.next()
		p.refreshed(t)
		p.down() // nothing is spent, so nothing need be stored
		p.refreshed(t)
		wantState(t, p, true, nil)
		for range 2 {
			if _, err := p.refresh(t, true); err == nil || errors.Is(err, ErrAnswerLost) || errors.Is(err, errResting) {
				t.Errorf("got %v", err)
			}
		}
		p.up()
		p.refreshed(t)
		if n := len(p.alarmed()); n != 0 || p.disk.text() != before || slices.Contains(p.log(), "save") {
			t.Errorf("written %v, %d alarms", p.log(), n)
		}

		p.refreshed(t) // rotates from now on
		if r := p.disk.record(t); r.Static || r.RefreshToken != "a.2" {
			t.Errorf("stored %s", p.disk.text())
		}
		p.refreshed(t)
		wantStored(t, p, "a.3")
	}
}

// TestStaticDown: storage that is down holds up what has to be stored, also for
// a refresh token that need not.
func TestStaticDown(t *testing.T) {
	p := begin()
	p.issuer.will(keeps)
	p.refreshed(t)
	p.down()
	p.initial = p.issuer.issue("b")
	if _, err := p.refresh(t, false); !errors.Is(err, ErrStorage) {
		t.Errorf("a new one was taken: %v", err)
	}
	p.initial = "a.1"
	p.refreshed(t) // with one that the server now rotates
	if _, err := p.refresh(t, false); !errors.Is(err, ErrStorage) {
		t.Errorf("got %v", err)
	}
	wantSpent(t, p, "a.1", "a.1")
	restarted := p.next()
	restarted.down()
	if _, err := restarted.refresh(t, false); !errors.Is(err, ErrStorage) {
		t.Errorf("nothing is known: got %v", err)
	}
	p.up()
	p.refreshed(t)
	wantSpent(t, p, "a.1", "a.1", "a.2")
}

// TestMark: which failures leave the mark in place, and what becomes of the
// refresh token.
func TestMark(t *testing.T) {
	for _, tc := range []struct {
		name   string
		what   outcome
		lost   bool
		stored string
		held   bool
	}{
		{name: "503", what: unavailable, stored: "a.1"},
		{name: "429 with a strange code", what: tooMany, stored: "a.1"},
		{name: "invalid_client", what: badClient, stored: "a.1"},
		{name: "not made", what: unmade, stored: "a.1"},
		{name: "an access token of no use", what: halfAnswers, stored: "a.2"},
		{name: "lost on the way there", what: lostBefore, lost: true, stored: "a.1"},
		{name: "lost on the way back", what: lostAfter, lost: true, stored: "a.1"},
		{name: "lost with a token held", what: lostAfter, lost: true, stored: "a.1", held: true},
		{name: "500 with a strange code", what: saysGrant, lost: true, stored: "a.1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := begin()
			p.issuer.will(tc.what)
			_, err := p.refresh(t, tc.held)
			if err == nil || errors.Is(err, ErrAnswerLost) != tc.lost || errors.Is(err, errResting) != tc.held || errors.Is(err, ErrEnded) {
				t.Errorf("got %v", err)
			}
			if f, ok := errors.AsType[*oauth.Failure](err); ok && f.Lost != tc.lost {
				t.Errorf("got %+v", f)
			}
			r := p.disk.record(t)
			if r.RefreshToken != tc.stored || r.Ended != nil || r.lost() != tc.lost || (r.Mark != nil) != tc.lost {
				t.Errorf("stored %s", p.disk.text())
			}
			var want error
			if tc.lost {
				want = ErrAnswerLost
			}
			wantState(t, p, true, want)
		})
	}
}

// TestMarkStays: what lost an answer once is not mended by a complete failure
// later, and keeps the time of the first.
func TestMarkStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := begin()
		p.issuer.will(lostBefore, unavailable, lostBefore, badClient)
		for range 4 {
			if _, err := p.refresh(t, false); err == nil {
				t.Fatal("got a token")
			}
			if r := p.disk.record(t); !r.lost() || time.Since(r.Mark.At) != time.Since(p.issuer.requests()[0].at) {
				t.Fatalf("stored %s", p.disk.text())
			}
			wantState(t, p, true, ErrAnswerLost)
			time.Sleep(time.Minute)
		}
		p = p.next()
		if _, err := p.refresh(t, true); !errors.Is(err, ErrAnswerLost) || !errors.Is(err, errResting) {
			t.Errorf("with a token held: got %v", err)
		}
		p.refreshed(t)
		if r := p.disk.record(t); r.Mark != nil || r.RefreshToken != "a.2" {
			t.Errorf("stored %s", p.disk.text())
		}
		wantState(t, p, true, nil)
	})
}

// TestOtherMarks: a mark that another clock made in the future is no newer than
// one of now, one without a time is old, and one of another refresh token says
// nothing.
func TestOtherMarks(t *testing.T) {
	p := begin()
	p.issuer.will(lostBefore)
	if _, err := p.refresh(t, false); err == nil {
		t.Fatal("got a token")
	}
	r := p.disk.record(t)
	p = p.next()
	for _, r.Mark.At = range []time.Time{time.Now().Add(time.Hour), {}} {
		p.disk.save(r.bytes())
		for _, p.grace = range []time.Duration{0, time.Minute} {
			if _, err := p.refresh(t, true); !errors.Is(err, errResting) {
				t.Errorf("%v: got %v", r.Mark.At, err)
			}
		}
	}
	wantSpent(t, p, "a.1")
	r.Mark.Hash = fingerprint("a.0")
	p.disk.save(r.bytes())
	if _, err := p.refresh(t, true); err != nil {
		t.Errorf("got %v", err)
	}
	wantStored(t, p, "a.2")
}

// TestHalfAnswer: a refresh token beside an access token of no use is saved.
func TestHalfAnswer(t *testing.T) {
	p := begin()
	p.issuer.will(halfAnswers)
	res, err := p.refresh(t, true)
	if f, ok := errors.AsType[*oauth.Failure](err); !ok || f.Kind != oauth.Malformed || res != nil {
		t.Fatalf("got %v, %v", res, err)
	}
	wantStored(t, p, "a.2")
	wantState(t, p, true, nil)
	p = p.next()
	p.refreshed(t)
	wantSpent(t, p, "a.1", "a.2")
}

// TestEnded: one that the server refuses is named so at each attempt, until
// there is another.
func TestEnded(t *testing.T) {
	p := begin()
	p.refreshed(t)
	p.issuer.will(revokes, revokes, unavailable, badClient)
	for i, want := range []error{ErrEnded, ErrEnded, nil, nil, ErrEnded} {
		_, err := p.refresh(t, false)
		f, ok := errors.AsType[*oauth.Failure](err)
		if !ok || want != nil && (f.Kind != oauth.Refused || f.Code != "invalid_grant") || !errors.Is(err, want) && want != nil || errors.Is(err, ErrAnswerLost) {
			t.Fatalf("%d: got %v", i, err)
		}
		if r := p.disk.record(t); r.Ended == nil || r.Mark != nil || r.Ended.Lost || r.RefreshToken != "a.2" {
			t.Fatalf("%d: stored %s", i, p.disk.text())
		}
		wantState(t, p, false, ErrEnded)
	}
	p.issuer.set(func() { p.issuer.chains["a"].ended = false })
	p.refreshed(t) // the server thinks better of it
	if r := p.disk.record(t); r.Ended != nil || r.RefreshToken != "a.3" {
		t.Errorf("stored %s", p.disk.text())
	}
	wantState(t, p, true, nil)

	p.issuer.will(keeps, revokes)
	p.refreshed(t)
	for range 2 { // nor is the end of a static one forgotten, or written twice
		_, err := p.refresh(t, false)
		if r := p.disk.record(t); !errors.Is(err, ErrEnded) || r.Ended == nil || !r.Static {
			t.Fatalf("got %v, stored %s", err, p.disk.text())
		}
	}
	p.issuer.set(func() { p.issuer.chains["a"].ended = false })
	p.issuer.will(keeps, revokes)
	p.refreshed(t)
	if r := p.disk.record(t); r.Ended != nil {
		t.Errorf("stored %s", p.disk.text())
	}
	if _, err := p.refresh(t, false); !errors.Is(err, ErrEnded) {
		t.Errorf("got %v", err)
	}
	p.login(t, "b")
	p.issuer.will(unavailable)
	if _, err := p.refresh(t, false); err == nil || errors.Is(err, ErrEnded) {
		t.Errorf("got %v", err)
	}
	wantState(t, p, true, nil)
}

// TestWordsOfTheEnd: which answers end a refresh token. Not each server has a word
// for that.
func TestWordsOfTheEnd(t *testing.T) {
	for _, tc := range []struct {
		name    string
		failure oauth.Failure
		ended   bool
	}{
		{"invalid_grant", oauth.Failure{Kind: oauth.Refused, Status: 400, Code: "invalid_grant"}, true},
		{"invalid_grant with 401", oauth.Failure{Kind: oauth.Refused, Status: 401, Code: "invalid_grant"}, true},
		{"an empty 400", oauth.Failure{Kind: oauth.Refused, Status: 400}, true},
		{"an empty 401", oauth.Failure{Kind: oauth.Refused, Status: 401}, false},
		{"an empty 403", oauth.Failure{Kind: oauth.Refused, Status: 403}, false},
		{"an empty 429", oauth.Failure{Kind: oauth.Unreachable, Status: 429}, false},
		{"another code", oauth.Failure{Kind: oauth.Refused, Status: 400, Code: "invalid_request"}, false},
		{"words without a code", oauth.Failure{Kind: oauth.Refused, Status: 400, Description: "bad request"}, false},
		{"a page", oauth.Failure{Kind: oauth.Refused, Status: 400, Err: errors.New("the answer is a page")}, false},
	} {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, lost %t", tc.name, lost), func(t *testing.T) {
				p := begin()
				if lost {
					p.issuer.will(lostBefore)
					if _, err := p.refresh(t, false); err == nil {
						t.Fatal("got a token")
					}
				}
				_, err := p.chain.Refresh(t.Context(), Occasion{}, func(ctx context.Context) (*Session, error) {
					s, err := p.open(ctx)
					s.Spend = func(context.Context, string, Guard) (*oauth.Response, error) { return nil, &tc.failure }
					return s, err
				})
				if errors.Is(err, ErrEnded) != tc.ended || errors.Is(err, ErrAnswerLost) != (tc.ended && lost) {
					t.Errorf("got %v", err)
				}
				if r := p.disk.record(t); (r.Ended != nil) != tc.ended || tc.ended && r.Ended.Lost != lost || r.lost() != (lost && !tc.ended) {
					t.Errorf("stored %s", p.disk.text())
				}
			})
		}
	}
}

// TestNewerInTheStore: after invalid_grant one that was stored meanwhile is
// spent at once.
func TestNewerInTheStore(t *testing.T) {
	for _, first := range []outcome{answers, keeps} {
		p := begin()
		p.issuer.will(first)
		p.refreshed(t)
		p.issuer.will(revokes)
		p.issuer.during = func(string) {
			p.issuer.during = nil
			p.login(t, "b")
		}
		res, err := p.refresh(t, true)
		if err != nil || res.AccessToken == "" {
			t.Fatalf("got %v, %v", res, err)
		}
		if got := p.issuer.spent(); !slices.Equal(got[2:], []string{"b.1"}) {
			t.Errorf("spent %v", got)
		}
		wantStored(t, p, "b.2")
		wantState(t, p, true, nil)
	}
}

// TestLastWord: a login and a logout between a request and its answer win.
func TestLastWord(t *testing.T) {
	for _, what := range []outcome{answers, keeps, halfAnswers, unavailable, lostAfter, revokes} {
		t.Run(fmt.Sprint("login ", what), func(t *testing.T) {
			p := begin()
			p.issuer.will(what)
			p.issuer.during = func(string) {
				p.issuer.during = nil
				p.login(t, "b")
			}
			_, _ = p.refresh(t, false)
			if r := p.disk.record(t); what != revokes && (r.RefreshToken != "b.1" || r.Mark != nil || r.Static || r.Ended != nil) {
				t.Fatalf("stored %s", p.disk.text())
			}
			p.refreshed(t)
			if got := p.issuer.spent(); got[0] != "a.1" || got[1] != "b.1" {
				t.Errorf("spent %v", got)
			}
		})
		t.Run(fmt.Sprint("logout ", what), func(t *testing.T) {
			p := begin()
			p.issuer.will(what)
			p.issuer.during = func(string) {
				if err := Forget(t.Context(), p.next(), ""); err != nil {
					t.Error(err)
				}
			}
			_, _ = p.refresh(t, false)
			if r := p.disk.record(t); r.RefreshToken != "" || r.Mark != nil || r.Ended != nil {
				t.Fatalf("stored %s", p.disk.text())
			}
			p = p.next()
			if _, err := p.refresh(t, false); !errors.Is(err, ErrLoginRequired) {
				t.Errorf("got %v", err)
			}
			wantSpent(t, p, "a.1")
		})
	}
}

// TestKept: what a login stores is found, and a logout leaves no refresh token.
func TestKept(t *testing.T) {
	p := begin()
	if got, err := Kept(t.Context(), p); got != "" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	p.refreshed(t)
	p.login(t, "b")
	if got, err := Kept(t.Context(), p); got != "b.1" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	if err := Forget(t.Context(), p, ""); err != nil {
		t.Fatal(err)
	}
	if got, err := Kept(t.Context(), p); got != "" || err != nil || strings.Contains(p.disk.text(), "b.1") {
		t.Fatalf("got %q, %v", got, err)
	}
	if _, err := p.refresh(t, false); !errors.Is(err, ErrLoginRequired) {
		t.Errorf("the initial one was taken again: %v", err)
	}
	for _, f := range []fault{breaks, lies} {
		p.fault = saves(f)
		if err := Keep(t.Context(), p, p.issuer.issue("c")); !errors.Is(err, ErrStorage) {
			t.Errorf("a login that is not stored: got %v", err)
		}
		if err := Keep(t.Context(), p, "c.1"); err == nil {
			t.Error("a login that is not stored is no error")
		}
	}
}

// TestOtherPaths: what is known of one server is not taken for another's.
func TestOtherPaths(t *testing.T) {
	p, q := begin(), begin()
	p.refreshed(t)
	open := func(context.Context) (*Session, error) {
		return &Session{Path: "other", Store: q, Initial: "a.1", Spend: q.spend}, nil
	}
	if _, err := p.chain.Refresh(t.Context(), Occasion{}, open); err != nil {
		t.Fatal(err)
	}
	p.refreshed(t)
	wantSpent(t, p, "a.1", "a.2")
	wantSpent(t, q, "a.1")
	failing := errors.New("a placeholder cannot be resolved")
	if _, err := p.chain.Refresh(t.Context(), Occasion{}, func(context.Context) (*Session, error) { return nil, failing }); !errors.Is(err, failing) {
		t.Errorf("got %v", err)
	}
	p.refreshed(t)
}

// TestLoginPickedUp: a login is seen within 5s, without a reload, whatever the
// backoff.
func TestLoginPickedUp(t *testing.T) {
	for _, tc := range []struct {
		name  string
		begin func(*process)
	}{
		{"ended", func(p *process) { p.issuer.will(revokes) }},
		{"never logged in", func(p *process) { p.initial = "" }},
		{"unreadable", func(p *process) { p.initial, p.disk.content, p.disk.sealed = "", []byte("?"), true }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := begin()
				tc.begin(p)
				s, _ := run(t, p)
				pass(time.Hour)
				spent := len(p.issuer.spent())
				if spent > 130 {
					t.Errorf("%d requests in an hour", spent)
				}
				p.login(t, "b")
				pass(5 * time.Second)
				if got := p.issuer.spent(); len(got) != spent+1 || got[spent] != "b.1" || value(s) == "" {
					t.Fatalf("5s after a login: spent %v, held %q", got[spent:], value(s))
				}
				pass(24 * time.Hour)
				if got := p.issuer.spent(); !p.issuer.good(p.disk.record(t).RefreshToken) || len(got) > spent+40 {
					t.Errorf("%d requests in a day", len(got)-spent)
				}
			})
		})
	}
}

// TestRests: after a lost answer the refresh token rests to the end of the
// access token, and is tried at each step from then on.
func TestRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := begin()
		s, obs := run(t, p)
		until := s.Token().until
		p.issuer.will(lostBefore, lostBefore, lostBefore, unavailable)
		pass(time.Hour - 11*time.Second)
		if value(s) != "access-1" || until.sub(now()) <= 0 {
			t.Fatalf("held %q", value(s))
		}
		wantSpent(t, p, "a.1", "a.2")
		if f := obs.last().Failure; f == nil || !errors.Is(f, ErrAnswerLost) || obs.count() > 3 {
			t.Fatalf("%d attempts, then %v", obs.count(), f)
		}
		wantState(t, p, true, ErrAnswerLost)
		pass(until.sub(now()))
		wantSpent(t, p, "a.1", "a.2", "a.2") // at its end, not a step later
		pass(time.Minute)
		wantSpent(t, p, "a.1", "a.2", "a.2", "a.2", "a.2", "a.2")
		if value(s) == "" {
			t.Error("no token")
		}
		wantState(t, p, true, nil)
	})
}

// TestGrace: within what the server forgives a lost answer is asked for again
// at once.
func TestGrace(t *testing.T) {
	for _, tc := range []struct {
		name     string
		outcomes []outcome
		forgives bool
		want     []string
		within   time.Duration
	}{
		{"at once", []outcome{lostAfter}, true, []string{"a.2", "a.2"}, time.Second},
		{"after three", []outcome{lostAfter, lostAfter, unavailable}, true, []string{"a.2", "a.2", "a.2", "a.2"}, 10 * time.Second},
		{"not forgiven after all", []outcome{lostAfter}, false, []string{"a.2", "a.2"}, time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := begin()
				p.grace = 30 * time.Second
				if tc.forgives {
					p.issuer.grace = p.grace
				}
				s, obs := run(t, p)
				p.issuer.will(tc.outcomes...)
				for len(p.issuer.spent()) < 2 {
					pass(time.Second)
				}
				pass(tc.within)
				if got := p.issuer.spent(); !slices.Equal(got[1:], tc.want) || value(s) == "" {
					t.Errorf("spent %v, held %q", got[1:], value(s))
				}
				if f := obs.last().Failure; tc.forgives != (f == nil) || f != nil && (!errors.Is(f, ErrEnded) || !errors.Is(f, ErrAnswerLost)) {
					t.Errorf("got %v", f)
				}
			})
		})
	}
}

// TestGraceEnds: after it the refresh token rests.
func TestGraceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := begin()
		p.grace = 5 * time.Second
		s, _ := run(t, p)
		p.issuer.will(slices.Repeat([]outcome{lostBefore}, 100)...)
		until := s.Token().until
		pass(until.sub(now()) - 1)
		got := p.issuer.requests()[1:]
		if n := len(got); n < 3 || n > 8 || got[n-1].at.Sub(got[0].at) > 5*time.Second || value(s) != "access-1" {
			t.Errorf("%d requests in %v", n, got[n-1].at.Sub(got[0].at))
		}
		n := len(got)
		pass(2)
		if len(p.issuer.spent()) != 1+n+1 {
			t.Error("not tried at the end of the access token")
		}
	})
}

// TestSuccessor: a source that replaces another waits for the refresh that the
// other has under way, and goes on from what it brought.
func TestSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := begin()
		p.issuer.delay = 9 * time.Second
		old, oldObs := run(t, p)
		pass(time.Second)
		old.Close()
		renamed := p.next() // another config of the same credential
		renamed.chain = p.chain
		s, obs := run(t, renamed)
		wantSpent(t, p, "a.1")
		pass(7 * time.Second)
		wantSpent(t, p, "a.1")
		pass(time.Second)
		wantSpent(t, p, "a.1", "a.2")
		if oldObs.count() != 0 || value(old) != "" {
			t.Errorf("the old one published: %+v", oldObs.attempts)
		}
		// it has all its time for its own request: what is cut short may be spent
		if left := p.issuer.requests()[1].left; left != DefaultTimeout {
			t.Errorf("sent with %v left", left)
		}
		pass(9 * time.Second)
		if value(s) != "access-2" || obs.last().Failure != nil {
			t.Errorf("held %q, %v", value(s), obs.last().Failure)
		}
		wantStored(t, p, "a.3")
	})
}

// TestSuccessorGivesUp: it waits no longer than a request may take.
func TestSuccessorGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := begin()
		p.issuer.delay = 20 * time.Second
		first := make(chan error, 1)
		go func() {
			_, err := p.refresh(t, false)
			first <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		_, err := p.chain.Refresh(ctx, Occasion{Limit: 5 * time.Second}, p.open)
		if f, ok := errors.AsType[*oauth.Failure](err); !ok || f.Kind != oauth.Unreachable || f.Lost || time.Since(began) != 5*time.Second {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		if err := <-first; err != nil {
			t.Error(err)
		}
		wantSpent(t, p, "a.1")
		wantStored(t, p, "a.2")
	})
}

// TestRefreshTimeout cuts a request short: its answer is lost.
func TestRefreshTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := begin()
		p.issuer.delay = time.Hour
		began := time.Now()
		_, err := p.refresh(t, false)
		if !errors.Is(err, ErrAnswerLost) || time.Since(began) != time.Minute {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
	})
}

// TestClose waits for the refresh under way and for what it saves.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := begin()
		p.slow = time.Second
		p.issuer.delay = 5 * time.Second
		s, _ := run(t, p)
		pass(4 * time.Second)
		s.Close()
		began := time.Now()
		p.chain.Close()
		if took := time.Since(began); took != 7*time.Second {
			t.Errorf("closed after %v", took)
		}
		wantStored(t, p, "a.2")
		if _, err := p.refresh(t, false); !errors.Is(err, ErrClosed) {
			t.Errorf("after it: got %v", err)
		}
		wantSpent(t, p, "a.1")
	})
}

// TestCloseWhileReading: a source that ends while its refresh waits for the
// storage does not make it look as if the storage failed.
func TestCloseWhileReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := begin()
		p.slow = time.Second
		s, _ := run(t, p)
		pass(time.Second / 2)
		s.Close()
		p.chain.Close()
		wantStored(t, p, "a.2")
		wantState(t, p, true, nil)
	})
}

// TestDrain: nothing is spent any more, and what is under way is finished.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := begin()
		p.issuer.delay = 5 * time.Second
		under, waiting := make(chan error, 1), make(chan error, 1)
		go func() { _, err := p.refresh(t, false); under <- err }()
		synctest.Wait()
		go func() { _, err := p.refresh(t, false); waiting <- err }()
		synctest.Wait()
		p.chain.Drain()
		if err := <-under; err != nil {
			t.Error(err)
		}
		if err := <-waiting; !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
		if _, err := p.refresh(t, false); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
		wantSpent(t, p, "a.1")
		wantStored(t, p, "a.2")
		p.chain.Close()
	})
}

// TestStale looks every 3s at most, and only for what was not tried.
func TestStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := begin()
		stale := func(want bool) {
			t.Helper()
			time.Sleep(lookEvery)
			before := len(p.log())
			if got := p.Stale(); got != want {
				t.Errorf("stale is %t", got)
			}
			if p.Stale() || len(p.log()) > before+1 {
				t.Error("looked twice")
			}
		}
		p.issuer.will(unavailable)
		stale(true)
		_, _ = p.refresh(t, false)
		stale(false)
		p.refreshed(t)
		p.issuer.will(lostBefore)
		_, _ = p.refresh(t, true)
		stale(false)
		p.login(t, "b")
		stale(true)
		p.initial = "a.1" // is known
		p.refreshed(t)
		p.issuer.will(unavailable)
		_, _ = p.refresh(t, false)
		stale(false)
		p.initial = p.issuer.issue("c")
		stale(true)
		p.initial = "a.1"
		if err := Forget(t.Context(), p.next(), ""); err != nil {
			t.Fatal(err)
		}
		stale(false)
		p.login(t, "d")
		p.down()
		stale(false)
	})
}

// TestConcurrent: whoever asks, one refresh token is spent at a time, each once.
func TestConcurrent(t *testing.T) {
	p := begin()
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			if _, err := p.refresh(t, i%2 == 0); err != nil {
				t.Error(err)
			}
			p.Stale()
			p.chain.State()
		})
	}
	wg.Wait()
	p.chain.Close()
	if got := p.issuer.spent(); len(got) != 40 || !p.issuer.good("a.41") {
		t.Errorf("spent %v", got)
	}
	wantStored(t, p, "a.41")
}

// TestSeenIsBounded: the oldest is forgotten first.
func TestSeenIsBounded(t *testing.T) {
	r := new(record)
	for n := range maxSeen + 5 {
		before := slices.Clone(r.Seen)
		shared := *r
		r.take(fmt.Sprint("a.", n))
		if !slices.Equal(shared.Seen, before) {
			t.Fatal("a copy has changed")
		}
	}
	if len(r.Seen) != maxSeen || r.Seen[0] != fingerprint("a.5") || r.RefreshToken != fmt.Sprint("a.", maxSeen+4) {
		t.Errorf("%d seen, the newest is %q", len(r.Seen), r.RefreshToken)
	}
	r.RefreshToken = "b"
	r.take("a.5")
	if r.RefreshToken != "b" {
		t.Error("taken again")
	}
}

// FuzzRecord: whatever is stored is a record or unreadable, and a record comes
// back as it was written.
func FuzzRecord(f *testing.F) {
	r := &record{RefreshToken: "a.1", Obtained: time.Now(), Seen: []string{fingerprint("a.1")}}
	f.Add(r.bytes())
	f.Add(r.marked("i").bytes())
	f.Add(r.marked("i").ended("invalid_grant", true).bytes())
	f.Add(r.answered("").bytes())
	f.Add([]byte(`{}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"refresh_token":1}`))
	f.Add([]byte(`{"obtained":"9999-12-31T23:59:59-23:59"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := parseRecord(raw)
		if err != nil {
			if !errors.Is(err, ErrUnreadable) || r != nil {
				t.Fatalf("got %v, %v", r, err)
			}
			return
		}
		written := r.bytes()
		again, err := parseRecord(written)
		if err != nil || string(again.bytes()) != string(written) {
			t.Fatalf("%s became %v, %v", written, again, err)
		}
	})
}

// Interface guards
var (
	_ Store     = (*process)(nil)
	_ Requester = (*process)(nil)
)

// TestForgetUnused: a logout before the first refresh keeps the configured
// refresh token from being taken.
func TestForgetUnused(t *testing.T) {
	p := begin()
	if err := Forget(t.Context(), p, "initial"); err != nil {
		t.Fatal(err)
	}
	rec, err := read(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if rec.take("initial"); rec.RefreshToken != "" {
		t.Error("the configured refresh token was taken after a logout")
	}
}
