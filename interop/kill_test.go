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
	// Access tokens are renewed ten times in their life: they outlive a machine
	// that stands still for some time.
	killTTL   = 15 * time.Second
	killAt    = "10%"
	killLife  = 2 * time.Second       // between two kills, at most
	killThere = 20 * time.Millisecond // a token request's way to the server
	killDelay = 40 * time.Millisecond // the server's time for it
	killBack  = 20 * time.Millisecond // the answer's way
	killTrip  = killThere + killDelay + killBack

	killGrace = 5 * time.Second // grace_period
)

// rotating is a server whose refresh tokens rotate.
type rotating struct {
	name     string
	ttl      time.Duration // of access tokens
	tokenURL string
	initial  func(*testing.T) string
	stats    func(*testing.T) serverStats
}

// startRotating starts one, with the life of its access tokens, and the time
// that it takes for a token request.
type startRotating func(t *testing.T, ttl, delay time.Duration) *rotating

func rotatingServer(kind string) startRotating {
	return func(t *testing.T, ttl, delay time.Duration) *rotating {
		t.Helper()
		s := startServer(t, kind, ttl, delay)
		return &rotating{serverNames[kind], ttl, s.tokenURL(), func(t *testing.T) string {
			t.Helper()
			return s.initial(t, "basic")
		}, s.stats}
	}
}

func rotatingProvider(t *testing.T, ttl, delay time.Duration) *rotating {
	t.Helper()
	p := startFullProvider(t, fullOptions{ttl: ttl, delay: delay})
	return &rotating{providerName, ttl, p.tokenURL(), func(t *testing.T) string {
		t.Helper()
		return p.initial(t, "basic")
	}, p.stats}
}

func rotatingGlewlwyd(t *testing.T, ttl, delay time.Duration) *rotating {
	t.Helper()
	g := startGlewlwyd(t, glewlwydOptions{ttl: ttl, delay: delay})
	return &rotating{glewlwydName, ttl, g.tokenURL(), func(t *testing.T) string {
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

	result row // of the table of all tests
}

// How an answer was cut.
const (
	onTheWay  = "on its way"  // the server gave it, and its client had gone
	lastGasps = "last moment" // it was passed on, and Caddy was killed before it was used
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
// the test's name give the moments of the kills; what names them.
func newVictim(t *testing.T, server *rotating, refreshAt, what string) *victim {
	t.Helper()
	t.Logf("-interop.seed=%d", seed())
	name := fnv.New64()
	_, _ = io.WriteString(name, t.Name()) // no Write of a hash fails
	v := &victim{
		server: server, chance: rand.New(rand.NewPCG(seed(), name.Sum64())), lost: make(map[string]int),
		result: row{server: server.name, grant: "refresh_token", method: "client_secret_basic", what: what},
	}
	results.add(t, &v.result) // first, so that it knows all that went wrong
	w := startWitness(t, server.tokenURL, killThere, killBack)
	v.mortal = newMortal(t, w, server.initial(t), refreshAt)
	return v
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

// awaitRefresh waits for a token request to be under way.
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
	if why := v.cutBy(refused.spent); why != "" {
		v.lost[why]++
	} else {
		v.others++
		t.Errorf("after %d kills a chain is lost, and no answer was cut; the server says %s; its token requests:\n%s", len(v.kills), refused.code, v.history(refused.spent))
	}
	told := 1
	for _, c := range v.complaints() {
		if c.Kind != "refused" {
			continue // a token that came too late, say
		}
		if !strings.Contains(c.Cause, "the answer to a refresh was lost") || !strings.Contains(c.Advice, "write a new one into the grant refresh_token") {
			told = 0
			t.Errorf("after %d kills, of an answer that was lost caddy gives the cause %q and the advice %q", len(v.kills), c.Cause, c.Advice)
		}
	}
	v.told += told

	v.rest(t, cmp.Or(v.absent, v.random(3*killLife/4)))
	v.begin(t, v.server.initial(t))
	began := time.Now()
	poll(t, startDeadline, "the new chain in use", v.serves)
	v.longest.pickUp = max(v.longest.pickUp, time.Since(began))
}

// history is what the witness knows of a refresh token.
func (v *victim) history(spent string) string {
	var text strings.Builder
	var first time.Time
	for _, s := range v.witness.seen() {
		if s.spent != spent && s.next != spent {
			continue
		}
		if first.IsZero() {
			first = s.begun
		}
		fmt.Fprintf(&text, "%s: spent %.8s, status %d %s, next %.8s; passed on after %s, read after %s, answered after %s; used: %t\n",
			s.begun.Format("05.000"), s.spent, s.status, s.code, s.next, s.passed.Sub(s.begun), s.read.Sub(s.begun), s.answered.Sub(s.begun), s.used)
	}
	for _, dying := range v.kills {
		if dying.to.Before(first) {
			continue
		}
		fmt.Fprintf(&text, "killed from %s to %s\n", dying.from.Format("05.000"), dying.to.Format("05.000"))
	}
	return text.String()
}

// cutBy tells how the answer to a refresh was cut, "" where it was not.
func (v *victim) cutBy(spent string) string {
	if v.unsaved != "" && spent == v.unsaved {
		return unstored
	}
	all := v.witness.seen()
	all = slices.DeleteFunc(all, func(s spend) bool { return s.spent != spent || s.passed.IsZero() })
	n := slices.IndexFunc(all, func(s spend) bool { return s.granted() })
	switch {
	case n < 0:
		return ""
	case all[n].answered.IsZero():
		return onTheWay
	case n+1 < len(all) && !all[n].used && v.killedBetween(all[n].answered, all[n+1].begun):
		return lastGasps
	}
	return ""
}

// killedBetween tells whether Caddy was killed after an answer and before it
// spent the same refresh token again: what is saved is used at once, and nothing
// is used before that.
func (v *victim) killedBetween(answered, again time.Time) bool {
	return slices.ContainsFunc(v.kills, func(dying span) bool {
		return answered.Before(dying.to) && dying.from.Before(again)
	})
}

// refreshed waits for a refresh to begin, and for its token to be used.
func (v *victim) refreshed(t *testing.T) spend {
	t.Helper()
	_, before := v.witness.last()
	var done spend
	poll(t, startDeadline, "a new token in use", func(context.Context) error {
		after := v.witness.seen()[before:]
		// one that came too late is not used
		n := slices.IndexFunc(after, func(s spend) bool { return s.used })
		if n < 0 {
			return fmt.Errorf("of %d since then none is", len(after))
		}
		done = after[n]
		return nil
	})
	return done
}

// isWell: it serves, and refreshes, to the end; and the server has given, and
// refused, what the witness saw and no more.
func (v *victim) isWell(t *testing.T) {
	t.Helper()
	for range 2 {
		v.refreshed(t)
	}
	v.ends(time.Now())
	poll(t, startDeadline, v.server.name+" counts what the witness does", func(context.Context) error {
		stats := v.server.stats(t)
		if granted, refused := v.witness.answers(); stats.Granted != granted || stats.refused() != refused {
			return fmt.Errorf("it granted %d and refused %d; the witness saw %d and %d", stats.Granted, stats.refused(), granted, refused)
		}
		return nil
	})
	if v.tooSlow() {
		t.Log("the machine is too slow for tokens that end so soon: whether each request is served is not known")
		return
	}
	for n, between := range v.serving {
		for _, s := range v.sampled(between.from, between.to) {
			if s.status != http.StatusOK {
				t.Errorf("life %d, %s after caddy had come back: %s: status %d; want 200", n+1, s.began.Sub(between.from), s.way, s.status)
				break
			}
		}
	}
}

// tooSlow tells whether tokens had ended before they arrived: then requests may
// be turned away.
func (v *victim) tooSlow() bool {
	return slices.ContainsFunc(v.all, func(p *process) bool {
		return strings.Contains(p.output.String(), "the token had expired when it arrived")
	})
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

func (v *victim) row(t *testing.T, took time.Duration) killed {
	t.Helper()
	files, err := v.remains()
	if err != nil {
		t.Error(err)
	}
	stats := v.server.stats(t)
	r := &v.result
	r.tokens, r.refused = stats.Granted, stats.refused()
	for _, between := range v.serving {
		for _, s := range v.sampled(between.from, between.to) {
			r.requests++
			if s.status != http.StatusOK {
				r.failures++
			}
			r.longest = max(r.longest, s.ended.Sub(s.began))
		}
	}
	return killed{
		r.server, r.what, len(v.kills), v.hits, stats.Rotations, v.lost, v.told, v.others,
		v.longest.back, v.longest.pickUp, r.requests, files, took,
	}
}

func printKilled(t *testing.T, rows []killed) {
	t.Helper()
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "server\twhat\tkills\tin a refresh\trefreshes\tlost: on its way\tlast moment\tnot stored\ttold\tother losses\tback within\tpicked up within\trequests\tfiles left\ttook")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%d\t%d\t%s\n", r.server, r.what, r.kills, r.hits, r.refreshes,
			r.lost[onTheWay], r.lost[lastGasps], r.lost[unstored], r.told, r.others,
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
	servers := map[string]startRotating{
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
			v := newVictim(t, start(t, killTTL, killDelay), killAt, "killed at random moments")
			began := time.Now()
			v.start(t)
			for n := range kills {
				release := func() {}
				if n%4 == 0 { // in the refresh, however late the kill comes
					release = v.witness.hold()
				}
				if n%2 == 0 {
					v.awaitRefresh(t)
					v.rest(t, v.random(killTrip+killTrip/2))
				} else {
					v.rest(t, v.random(killLife))
				}
				v.kill(t)
				release()
				v.live(t)
				v.comeBack(t)
			}
			v.isWell(t)
			row := v.row(t, time.Since(began))
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
	for name, start := range map[string]startRotating{
		"oidc-provider": rotatingProvider,
		"fosite":        rotatingServer(fosite),
	} {
		tests[name] = func(t *testing.T) killed {
			t.Helper()
			v := newVictim(t, start(t, killTTL, killDelay), killAt, "killed again and again")
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
			return v.row(t, time.Since(began))
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
	for name, start := range map[string]startRotating{
		"oidc-provider": rotatingProvider,
		"fosite":        rotatingServer(fosite),
	} {
		tests[name] = func(t *testing.T) killed {
			t.Helper()
			v := newVictim(t, start(t, killTTL, delay), killAt, "stopped in a refresh")
			began := time.Now()
			v.start(t)
			for n := range stops {
				// so that the answer comes after the stop, however late that comes
				release := v.witness.hold()
				defer release()
				v.awaitRefresh(t)
				v.rest(t, v.random(delay/2))
				held := v.random(delay)
				if n == stops/2 {
					held = killGrace + time.Second
				}
				v.stopIn(t, held, release)
				v.live(t)
				// the next stop meets a later refresh, or else the first of a life
				if n%2 == 0 {
					v.comeBack(t)
				}
			}
			v.comeBack(t)
			v.isWell(t)
			row := v.row(t, time.Since(began))
			if lost := len(row.lost) + row.others; lost != 0 {
				t.Errorf("%d chains lost; want none", lost)
			}
			return row
		}
	}
	atOnce(t, tests)
}

// stopIn ends the process while a refresh is under way, whose answer is held
// back for some more time.
func (v *victim) stopIn(t *testing.T, held time.Duration, release func()) {
	t.Helper()
	if !v.witness.inFlight() {
		t.Fatal("no refresh is under way")
	}
	v.hits++
	v.ends(time.Now())
	time.AfterFunc(held, release)
	v.kills = append(v.kills, v.die(t, syscall.SIGTERM))
	if !v.cmd.ProcessState.Success() {
		t.Errorf("caddy ended: %s", v.cmd.ProcessState)
	}
	done, _ := v.witness.last()
	kept, err := v.stored()
	if err != nil || !done.granted() || done.answered.IsZero() || fingerprint(kept.RefreshToken) != done.next || kept.Mark != nil {
		t.Errorf("after %d stops, stored is %.8s, marked: %t, %v; want what the refresh brought; its token requests:\n%s", len(v.kills), fingerprint(kept.RefreshToken), kept.Mark != nil, err, v.history(done.spent))
	}
}
