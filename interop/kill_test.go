package interop

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"
)

var killSeed = flag.Uint64("interop.seed", 0, "seed of the moments at which Caddy is killed; the clock gives one where it is 0")

const (
	killTTL   = 2 * time.Second       // of access tokens
	killThere = 20 * time.Millisecond // a token request's way to the server
	killDelay = 40 * time.Millisecond // the server's time for it
	killBack  = 20 * time.Millisecond // the answer's way
	killTrip  = killThere + killDelay + killBack

	killGrace = 5 * time.Second // grace_period

	// what the README promises of a new refresh token
	pickUpLimit = 5 * time.Second
)

// rotating is a server whose refresh tokens rotate.
type rotating struct {
	name     string
	tokenURL string
	initial  func(*testing.T) string
	stats    func(*testing.T) serverStats
}

func rotatingServer(kind string) func(*testing.T, time.Duration) *rotating {
	return func(t *testing.T, delay time.Duration) *rotating {
		t.Helper()
		s := startServer(t, kind, killTTL, delay)
		return &rotating{serverNames[kind], s.tokenURL(), func(t *testing.T) string {
			t.Helper()
			return s.initial(t, "basic")
		}, s.stats}
	}
}

func rotatingProvider(t *testing.T, delay time.Duration) *rotating {
	t.Helper()
	p := startFullProvider(t, fullOptions{ttl: killTTL, delay: delay})
	return &rotating{providerName, p.tokenURL(), func(t *testing.T) string {
		t.Helper()
		return p.initial(t, "basic")
	}, p.stats}
}

func rotatingGlewlwyd(t *testing.T, delay time.Duration) *rotating {
	t.Helper()
	g := startGlewlwyd(t, glewlwydOptions{ttl: killTTL, delay: delay})
	return &rotating{glewlwydName, g.tokenURL(), func(t *testing.T) string {
		t.Helper()
		return g.initial(t, "basic", nil)
	}, func(*testing.T) serverStats { return g.stats() }}
}

// victim is a mortal Caddy with all that is around it, and what became of its
// chains.
type victim struct {
	*mortal
	server  *rotating
	chance  *rand.Rand
	serving []span // in which each request has to succeed
	kills   []span

	absent  time.Duration  // before a new chain is begun; a moment where it is 0
	unsaved string         // hash of what was spent for what could not be stored
	hits    int            // kills with a token request under way
	lost    map[string]int // chains, by who knows that the answer was cut
	told    int            // of those, as answers lost
	others  int            // chains lost for another reason
	longest struct{ back, pickUp time.Duration }
}

// Who knows that an answer was cut.
const (
	byServer  = "server"      // it answered when its client had gone
	onTheWay  = "on its way"  // the witness had it, or waited for it
	lastGasps = "last moment" // it was given, and Caddy was killed before it was used
	unstored  = "not stored"  // it was used, and could not be stored
)

// seed is one for all tests.
var seed = sync.OnceValue(func() uint64 {
	if *killSeed != 0 {
		return *killSeed
	}
	return uint64(time.Now().Unix())
})

// newVictim makes one that is not started, with a chain of its own. The seed and
// the test's name give the moments of the kills.
func newVictim(t *testing.T, server *rotating) *victim {
	t.Helper()
	t.Logf("-interop.seed=%d", seed())
	name := fnv.New64()
	_, _ = io.WriteString(name, t.Name()) // no Write of a hash fails
	w := startWitness(t, server.tokenURL, killThere, killBack)
	return &victim{
		mortal: newMortal(t, w, server.initial(t)),
		server: server, chance: rand.New(rand.NewPCG(seed(), name.Sum64())), lost: make(map[string]int),
	}
}

// start has it serve, under a load.
func (v *victim) start(t *testing.T) {
	t.Helper()
	v.live(t)
	v.comeBack(t)
	v.load(t)
}

// random is a part of a time.
func (v *victim) random(limit time.Duration) time.Duration {
	return time.Duration(v.chance.Int64N(int64(limit)))
}

// rest waits, unless Caddy ends by itself.
func (v *victim) rest(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-v.ended:
		t.Fatalf("caddy ended by itself: %s\n%s", v.cmd.ProcessState, v.ownLines())
	}
}

// awaitRefresh waits for a token request to begin.
func (v *victim) awaitRefresh(t *testing.T) *spend {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startDeadline)
	defer cancel()
	s, err := v.witness.next(ctx)
	if err != nil {
		t.Fatalf("no token request within %s: %v", startDeadline, err)
	}
	return s
}

// kill ends the process, in whatever it is doing.
func (v *victim) kill(t *testing.T) {
	t.Helper()
	if v.witness.inFlight() {
		v.hits++
	}
	dying := v.die(t, syscall.SIGKILL)
	v.kills = append(v.kills, dying)
	v.ends(dying.from)
}

// ends says that a request may fail from now on.
func (v *victim) ends(at time.Time) {
	if n := len(v.serving); n > 0 && v.serving[n-1].to.IsZero() {
		v.serving[n-1].to = at
	}
}

// comeBack waits for a 200 after a start. If the chain is lost, it wants to be
// told so, and begins a new one.
func (v *victim) comeBack(t *testing.T) {
	t.Helper()
	began := time.Now()
	lost := false
	poll(t, startDeadline, "a 200 after a restart, or a refusal in the log", func(ctx context.Context) error {
		select {
		case <-v.ended:
			t.Fatalf("caddy ended by itself: %s\n%s", v.cmd.ProcessState, v.ownLines())
		default:
		}
		err := v.serves(ctx)
		if err == nil {
			return nil
		}
		for _, c := range v.complaints() {
			if c.Kind == "refused" {
				lost = true
				return nil
			}
		}
		return err
	})
	if lost {
		v.mourn(t)
	} else {
		v.longest.back = max(v.longest.back, time.Since(began))
	}
	v.serving = append(v.serving, span{from: time.Now()})
}

// serves asks for one answer of 200.
func (v *victim) serves(ctx context.Context) error {
	s, err := v.get(ctx, ways[0])
	if err == nil && s.status != http.StatusOK {
		err = fmt.Errorf("status %d", s.status)
	}
	return err
}

// mourn looks why a chain is lost and what is said of it, and begins a new one.
func (v *victim) mourn(t *testing.T) {
	t.Helper()
	refused := v.witness.refusal()
	if refused.spent == "" {
		t.Fatalf("caddy says %+v, and the server refused nothing", v.complaints())
	}
	if why := v.cutBy(t, refused.spent); why != "" {
		v.lost[why]++
	} else {
		v.others++
		t.Errorf("after %d kills a chain is lost, and no answer was cut; the server says %s; its token requests:\n%s", len(v.kills), refused.code, v.history(refused.spent))
	}
	told := 1
	for _, c := range v.complaints() {
		if !strings.Contains(c.Cause, "the answer to a refresh was lost") || !strings.Contains(c.Advice, "write a new one into the grant refresh_token") {
			told = 0
			t.Errorf("after %d kills, of an answer that was lost caddy gives the cause %q and the advice %q", len(v.kills), c.Cause, c.Advice)
		}
	}
	v.told += told

	v.rest(t, cmp.Or(v.absent, v.random(3*killTTL/4)))
	v.begin(t, v.server.initial(t))
	began := time.Now()
	poll(t, startDeadline, "the new chain in use", v.serves)
	took := time.Since(began)
	v.longest.pickUp = max(v.longest.pickUp, took)
	if took > pickUpLimit {
		t.Errorf("a new refresh token was used after %s; want %s", took, pickUpLimit)
	}
}

// history is what the witness knows of a refresh token.
func (v *victim) history(spent string) string {
	var text strings.Builder
	for _, s := range v.witness.seen() {
		if s.spent != spent && s.next != spent {
			continue
		}
		fmt.Fprintf(&text, "%s: spent %.8s, status %d %s, next %.8s; passed on after %s, read after %s, answered after %s; used: %t\n",
			s.begun.Format("05.000"), s.spent, s.status, s.code, s.next, s.passed.Sub(s.begun), s.read.Sub(s.begun), s.answered.Sub(s.begun), s.used)
	}
	for _, dying := range v.kills {
		fmt.Fprintf(&text, "killed from %s to %s\n", dying.from.Format("05.000"), dying.to.Format("05.000"))
	}
	return text.String()
}

// cutBy tells who knows that the answer to a refresh was cut, "" for nobody.
func (v *victim) cutBy(t *testing.T, spent string) string {
	t.Helper()
	if v.unsaved != "" && spent == v.unsaved {
		return unstored
	}
	stats := v.server.stats(t)
	for _, c := range append(stats.Gone, stats.Lost...) {
		if c.Spent == spent && c.Error == "" {
			return byServer
		}
	}
	why := ""
	for _, s := range v.witness.seen() {
		switch {
		case s.spent != spent || s.passed.IsZero() || s.code != "":
		case !s.granted():
			why = onTheWay // as far as is known
		case s.answered.IsZero():
			return onTheWay
		case !s.used && v.killedAfter(s.answered):
			return lastGasps
		default:
			return ""
		}
	}
	return why
}

// killedAfter tells whether Caddy was killed in the moment after an answer: what
// is saved is used at once, and nothing is used before that.
func (v *victim) killedAfter(answered time.Time) bool {
	return slices.ContainsFunc(v.kills, func(dying span) bool {
		return answered.Before(dying.to) && dying.from.Sub(answered) < time.Second
	})
}

// refreshed waits for a refresh to begin, and to be done with.
func (v *victim) refreshed(t *testing.T) spend {
	t.Helper()
	under := v.awaitRefresh(t)
	var done spend
	poll(t, startDeadline, "the new token in use", func(context.Context) error {
		v.witness.note(func() { done = *under })
		if !done.used {
			return fmt.Errorf("the server says %d %s", done.status, done.code)
		}
		return nil
	})
	return done
}

// isWell: it serves, and refreshes, to the end.
func (v *victim) isWell(t *testing.T) {
	t.Helper()
	for range 2 {
		v.refreshed(t)
	}
	v.ends(time.Now())
	for n, between := range v.serving {
		for _, s := range v.sampled(between.from, between.to) {
			if s.status != http.StatusOK {
				t.Errorf("life %d, %s after caddy had come back: %s: status %d; want 200", n+1, s.began.Sub(between.from), s.way, s.status)
				break
			}
		}
	}
}

// killed is a row of the table of the kills.
type killed struct {
	server, what    string
	kills, hits     int
	refreshes       int
	lost            map[string]int
	told, others    int
	back, pickUp    time.Duration
	requests, files int
	took            time.Duration
}

func (v *victim) row(t *testing.T, what string, took time.Duration) killed {
	t.Helper()
	files, err := v.remains()
	if err != nil {
		t.Error(err)
	}
	stats := v.server.stats(t)
	r := row{
		server: v.server.name, grant: "refresh_token", method: "client_secret_basic", what: what,
		tokens: stats.Granted, refused: stats.refused(),
	}
	for _, between := range v.serving {
		for _, s := range v.sampled(between.from, between.to) {
			r.requests++
			if s.status != http.StatusOK {
				r.failures++
			}
			r.longest = max(r.longest, s.ended.Sub(s.began))
		}
	}
	results.add(t, &r)
	return killed{
		v.server.name, what, len(v.kills), v.hits, stats.Rotations, v.lost, v.told, v.others,
		v.longest.back, v.longest.pickUp, r.requests, files, took,
	}
}

func printKilled(t *testing.T, rows []killed) {
	t.Helper()
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "server\twhat\tkills\tin a refresh\trefreshes\tlost: server knows\ton its way\tlast moment\tnot stored\ttold\tother losses\tback within\tpicked up within\trequests\tfiles left\ttook")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%d\t%d\t%s\n", r.server, r.what, r.kills, r.hits, r.refreshes,
			r.lost[byServer], r.lost[onTheWay], r.lost[lastGasps], r.lost[unstored], r.told, r.others,
			r.back.Round(10*time.Millisecond), r.pickUp.Round(10*time.Millisecond), r.requests, r.files, r.took.Round(time.Second))
	}
	w.Flush()
	t.Logf("\n%s", &text)
}

// atOnce runs subtests side by side, more of them than there are processors:
// most of the time they wait.
func atOnce(t *testing.T, tests map[string]func(*testing.T) killed) {
	t.Helper()
	var mu sync.Mutex
	var rows []killed
	var all sync.WaitGroup
	for name, test := range tests {
		all.Go(func() {
			t.Run(name, func(t *testing.T) {
				row := test(t)
				mu.Lock()
				defer mu.Unlock()
				rows = append(rows, row)
			})
		})
	}
	all.Wait()
	printKilled(t, rows)
}

// TestKill: SIGKILL at random moments, many in the middle of a refresh. No chain
// is lost but those whose answer was cut, and those are told apart.
func TestKill(t *testing.T) {
	t.Parallel()
	const kills = 50
	servers := map[string]func(*testing.T, time.Duration) *rotating{
		"oidc-provider": rotatingProvider,
		"glewlwyd":      rotatingGlewlwyd,
	}
	for _, kind := range serverKinds {
		servers[kind] = rotatingServer(kind)
	}
	tests := make(map[string]func(*testing.T) killed)
	for name, start := range servers {
		tests[name] = func(t *testing.T) killed {
			t.Helper()
			v := newVictim(t, start(t, killDelay))
			began := time.Now()
			v.start(t)
			for n := range kills {
				if n%2 == 0 {
					v.awaitRefresh(t)
					v.rest(t, v.random(killTrip+killTrip/2))
				} else {
					v.rest(t, v.random(killTTL))
				}
				v.kill(t)
				v.live(t)
				v.comeBack(t)
			}
			v.isWell(t)
			row := v.row(t, "killed at random moments", time.Since(began))
			if row.hits < kills/5 {
				t.Errorf("%d of %d kills met a refresh; want a fifth at least", row.hits, kills)
			}
			return row
		}
	}
	atOnce(t, tests)
}

// TestKillRestarts: several kills after one another, of processes that have
// hardly begun.
func TestKillRestarts(t *testing.T) {
	t.Parallel()
	const rounds = 8
	tests := make(map[string]func(*testing.T) killed)
	for name, start := range map[string]func(*testing.T, time.Duration) *rotating{
		"oidc-provider": rotatingProvider,
		"fosite":        rotatingServer(fosite),
	} {
		tests[name] = func(t *testing.T) killed {
			t.Helper()
			v := newVictim(t, start(t, killDelay))
			began := time.Now()
			v.start(t)
			for range rounds {
				for range 2 + v.chance.IntN(4) {
					v.kill(t)
					v.live(t)
					if v.chance.IntN(2) == 0 {
						v.awaitRefresh(t)
						v.rest(t, v.random(killTrip))
					} else {
						v.rest(t, v.random(time.Second/2))
					}
				}
				v.kill(t)
				v.live(t)
				v.comeBack(t)
			}
			v.isWell(t)
			return v.row(t, "killed again and again", time.Since(began))
		}
	}
	atOnce(t, tests)
}

// TestStopInRefresh: SIGTERM in the middle of a refresh. Caddy waits for the
// answer and saves it, though it come later than grace_period.
func TestStopInRefresh(t *testing.T) {
	t.Parallel()
	const (
		stops = 20
		delay = 300 * time.Millisecond
	)
	tests := make(map[string]func(*testing.T) killed)
	for name, start := range map[string]func(*testing.T, time.Duration) *rotating{
		"oidc-provider": rotatingProvider,
		"fosite":        rotatingServer(fosite),
	} {
		tests[name] = func(t *testing.T) killed {
			t.Helper()
			v := newVictim(t, start(t, delay))
			began := time.Now()
			v.start(t)
			for n := range stops {
				release := func() {}
				if n == stops/2 {
					release = v.witness.hold()
					defer release()
				}
				under := v.awaitRefresh(t)
				v.rest(t, v.random(delay/2))
				time.AfterFunc(killGrace+time.Second, release)
				v.stopIn(t, under)
				v.live(t)
				// the next stop meets a later refresh, or else the first of a life
				if n%2 == 0 {
					v.comeBack(t)
				}
			}
			v.comeBack(t)
			v.isWell(t)
			row := v.row(t, "stopped in a refresh", time.Since(began))
			if lost := len(row.lost) + row.others; lost != 0 {
				t.Errorf("%d chains lost; want none", lost)
			}
			return row
		}
	}
	atOnce(t, tests)
}

// stopIn ends the process while a refresh is under way.
func (v *victim) stopIn(t *testing.T, under *spend) {
	t.Helper()
	if !v.witness.inFlight() {
		t.Fatal("no refresh is under way")
	}
	v.hits++
	v.ends(time.Now())
	v.kills = append(v.kills, v.die(t, syscall.SIGTERM))
	if !v.cmd.ProcessState.Success() {
		t.Errorf("caddy ended: %s", v.cmd.ProcessState)
	}
	var done spend
	v.witness.note(func() { done = *under })
	kept, err := v.stored()
	if err != nil || !done.granted() || done.answered.IsZero() || fingerprint(kept.RefreshToken) != done.next || kept.Mark != nil {
		t.Errorf("after %d stops, stored is %.8s, marked: %t, %v; want what the refresh brought; its token requests:\n%s", len(v.kills), fingerprint(kept.RefreshToken), kept.Mark != nil, err, v.history(done.spent))
	}
}
