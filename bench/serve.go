package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

var (
	serveRounds  = flag.Int("slices", 60, "rounds of slices in the scenario serve")
	sliceLength  = flag.Duration("slice", 120*time.Millisecond, "length of a slice in the scenario serve")
	sliceCallers = flag.Int("connections", 32, "callers, with a connection each, of a slice in the scenario serve")
	sliceOthers  = flag.Float64("slice-others", mostForeignSlice, "the share of the processors that others may have in a slice in the scenario serve, before it is thrown away")
	serveSeed    = flag.Uint64("seed", 0, "what the order of slices in the scenario serve comes from (default: another one each time)")
)

// serve measures what a proxied request costs: in processor time, within one
// Caddy and between all that are compared; in latency at a fixed rate; in memory
// with many connections. All proxies of a part run at once, and are idle but for
// the one whose slice it is.
func serve(ctx context.Context, s *stage) error {
	all, err := subjects(ctx, s.dir)
	if err != nil {
		return err
	}
	if all, err = chosen(all, func(s subject) bool { return s.name == referenceName }); err != nil {
		return err
	}
	if *only == "" {
		also, err := logged(ctx, s.dir)
		if err != nil {
			return err
		}
		all = append(all, also)
	}
	sites, err := oneSites()
	if err != nil {
		return err
	}
	one, err := oneCaddy(ctx, s.dir, sites)
	if err != nil {
		return err
	}
	// this process is the callers and the servers: it is to be in the way less
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	pins, unpin := pin() // when all is built
	defer unpin()
	seed := *serveSeed
	if seed == 0 {
		seed = rand.Uint64() //nolint:gosec // no secret
	}
	v := &serving{dir: s.dir, pins: pins, seed: seed, random: rand.New(rand.NewPCG(seed, 0))} //nolint:gosec // likewise
	fmt.Printf("  seed %d; %s\n", seed, pins.note)
	set := &result.Set{Scenario: "serve", Command: "go run ./bench serve"}
	for _, part := range []func(context.Context, *result.Set) error{
		func(ctx context.Context, set *result.Set) error { return v.one(ctx, set, one, sites) },
		func(ctx context.Context, set *result.Set) error { return v.peers(ctx, set, all) },
		func(ctx context.Context, set *result.Set) error { return v.memory(ctx, set, all) },
	} {
		began := time.Now()
		if err := part(ctx, set); err != nil {
			return err
		}
		t := set.Tables[len(set.Tables)-1]
		fmt.Printf("  %s: %s\n", t.Name, time.Since(began).Round(time.Second))
	}
	return publish(set)
}

// serving is one run of the scenario serve.
type serving struct {
	dir    string
	pins   pins
	seed   uint64
	random *rand.Rand
}

// running is a proxy that runs, before an API of its own.
type running struct {
	subject
	turn   *turn
	target *target
}

// start starts a proxy. Its tokens outlive the run.
func (v *serving) start(ctx context.Context, s subject) (*running, error) {
	api, err := listenTarget(targetBody)
	if err != nil {
		return nil, err
	}
	t, err := newTurnBefore(v.dir, time.Hour, func(*turn) (listener, error) { return api, nil })
	if err != nil {
		_ = api.Close()
		return nil, err
	}
	t.pins = v.pins
	if err := t.run(ctx, s); err != nil {
		t.close()
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return &running{s, t, api}, nil
}

// contest is one between these lanes.
func (v *serving) contest(lanes []*lane) *contest {
	again := *lanes[0]
	again.name += againSuffix
	lanes = append([]*lane{lanes[0], &again}, lanes[1:]...)
	return &contest{lanes: lanes, rounds: *serveRounds, length: *sliceLength, random: v.random}
}

// againSuffix is behind the reference's name, where it is compared with itself.
const againSuffix = ", again"

// note says how the slices of a contest were taken.
func (v *serving) note(c *contest) string {
	return fmt.Sprintf("Slices of %s with %d connections, %d rounds, in an order of chance (seed %d); %s. ×: of the first line's in the same round, the median and its 95%% interval. Thrown away: slices in which others had more than %.0f%% of the processors.",
		c.length, *sliceCallers, c.rounds, v.seed, v.pins.note, 100**sliceOthers)
}

// one compares the ways to put a token on within one process.
func (v *serving) one(ctx context.Context, set *result.Set, s subject, sites []site) error {
	r, err := v.start(ctx, s)
	if err != nil {
		return err
	}
	defer r.turn.close()
	var lanes []*lane
	for _, site := range sites {
		g, err := gather(site.addr, *sliceCallers)
		if err != nil {
			return err
		}
		defer g.close()
		lanes = append(lanes, &lane{name: site.name, bare: site.bare, ours: site.ours, group: r.turn.cmd.Process.Pid, target: r.target, crowd: g})
	}
	c := v.contest(lanes)
	if err := c.run(ctx); err != nil {
		return err
	}
	table := result.Table{
		Name:  "one",
		Note:  "Ways to put a token on, within one Caddy (bench/peers/onecaddy): processor time of a request. " + v.note(c),
		Heads: []string{"way", "µs a request (least–most)", "×", "failed", "thrown away"},
	}
	for _, l := range c.lanes {
		table.Rows = append(table.Rows, []string{
			l.name, spread(l.figures((*slice).each)), estimateOf(l.beside(c.lanes[0], (*slice).each)).String(), fmt.Sprint(l.failed), fmt.Sprint(l.thrown),
		})
	}
	set.Tables = append(set.Tables, table)
	v.judge(set, "one", c)
	return nil
}

// judge has the run be void if a contest is.
func (v *serving) judge(set *result.Set, name string, c *contest) {
	fmt.Printf("  %s: beside itself the reference is %s; %s of the processors went to processes that were not seen\n", name, estimateOf(c.lanes[1].beside(c.lanes[0], (*slice).each)), c.hidden())
	if void := c.void(); void != "" {
		set.Void = strings.TrimPrefix(set.Void+"; "+name+": "+void, "; ")
	}
}
