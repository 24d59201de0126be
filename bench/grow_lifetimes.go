package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

const (
	shortLife     = 8 // seconds
	longLife      = 3600
	coldCallers   = 1000
	coldDelay     = 500 * time.Millisecond
	renewing      = 40 // credentials that are looked at for how often they ask
	lifetimeSpan  = 24 * time.Second
	lifetimeSlice = 150 * time.Millisecond
	mostRequests  = 1.5 // a lifetime
	mostSlower    = 1.05
)

// lifetimes is what is asked of the token endpoint, and whether short tokens cost
// requests anything.
func (g *growth) lifetimes(ctx context.Context) error {
	t := result.Table{Name: "token-requests", Heads: []string{"what", "figure"},
		Note: fmt.Sprintf("A cold start: %s callers at once, no token, and a token endpoint that takes %s. Short tokens: %d credentials with tokens of %d s for %s, and two proxies, one with tokens of %d s and one with tokens of an hour, that get the same load in turn; the CPU is all that each used meanwhile, renewals with it.",
			grouped(coldCallers), coldDelay, renewing, shortLife, lifetimeSpan, shortLife)}
	requests, slowest, err := g.coldStart(ctx)
	if err != nil {
		return fmt.Errorf("a cold start: %w", err)
	}
	t.Rows = append(t.Rows,
		[]string{"token requests at a cold start with " + grouped(coldCallers) + " callers", fmt.Sprint(requests)},
		[]string{"the slowest of them", brief(slowest)})
	g.goal("P6", "token requests at a cold start with 1,000 callers", float64(requests), 1, "%.0f")

	var (
		wg       sync.WaitGroup
		lifetime float64
		atOnce   int
		gaps     int
		renewed  error
	)
	wg.Go(func() { lifetime, atOnce, gaps, renewed = g.renewals(ctx) })
	short, long, err := g.shortAndLong(ctx)
	wg.Wait()
	if err != nil {
		return err
	}
	if renewed != nil {
		return renewed
	}
	cpu, p50, p99 := short.beside(long, cpuOf), short.beside(long, p50Of), short.beside(long, p99Of)
	t.Rows = append(t.Rows,
		[]string{fmt.Sprintf("token requests a lifetime, of %d s, over %d renewals", shortLife, gaps), fmt.Sprintf("%.2f", lifetime)},
		[]string{"of one credential under way at once", fmt.Sprint(atOnce)},
		[]string{fmt.Sprintf("CPU of a request with tokens of %d s, beside tokens of an hour", shortLife), cpu.String()},
		[]string{"median latency, likewise", p50.String()},
		[]string{"p99, likewise", p99.String()})
	g.table(t)
	g.goal("P6", "token requests a lifetime", lifetime, mostRequests, "%.2f")
	g.goal("P6", "token requests of a credential under way at once", float64(atOnce), 1, "%.0f")
	slower := result.Goal{ID: "P6", What: fmt.Sprintf("CPU of a request with tokens of %d s, beside tokens of an hour", shortLife),
		Want: "no slower: the 95% interval reaches down to 1, or the ratio is ≤ " + fmt.Sprintf("%.2f", mostSlower), Figure: cpu.String(), Met: cpu.low <= 1 || cpu.median <= mostSlower}
	g.set.Goals = append(g.set.Goals, slower)
	return nil
}

// coldStart has all callers come before there is a token.
func (g *growth) coldStart(ctx context.Context) (requests int, slowest time.Duration, err error) {
	scene, err := newGrowScene(1)
	if err != nil {
		return 0, 0, err
	}
	defer scene.close()
	scene.issuer.delay = coldDelay
	p, err := startGrowing(ctx, g.dir, "{\n\tupstream_auth {"+scene.credential("api", longLife, "")+"\n\t}\n}"+scene.site(0, "\tupstream_auth api\n\treverse_proxy API"), scene.sites, pins{})
	if err != nil {
		return 0, 0, err
	}
	defer p.close()
	var wg sync.WaitGroup
	made := make([]call, coldCallers)
	for i := range made {
		wg.Go(func() {
			c := &caller{addr: scene.sites[0], request: growGet("/auth", scene.sites[0])}
			defer c.hangUp()
			made[i] = c.call(time.Now())
		})
	}
	wg.Wait()
	if n := failures(made); n > 0 {
		return 0, 0, fmt.Errorf("%w: %d; %s", errNotAll, n, p.log())
	}
	return scene.issuer.requests(), at(times(made), 100), nil
}

// renewals is how often credentials ask for a token in one lifetime of it, and
// how many of such requests of one credential were under way at once.
func (g *growth) renewals(ctx context.Context) (lifetime float64, atOnce, gaps int, err error) {
	scene, err := newGrowScene(1)
	if err != nil {
		return 0, 0, 0, err
	}
	defer scene.close()
	var file strings.Builder
	file.WriteString("{\n\tupstream_auth {")
	for i := range renewing {
		file.WriteString(scene.credential(fmt.Sprint("c", i), shortLife, ""))
	}
	file.WriteString("\n\t}\n}" + scene.site(0, "\treverse_proxy API"))
	p, err := startGrowing(ctx, g.dir, file.String(), scene.sites, pins{})
	if err != nil {
		return 0, 0, 0, err
	}
	defer p.close()
	sleep(ctx, lifetimeSpan)
	mean, gaps := scene.issuer.gap()
	if gaps == 0 {
		return 0, 0, 0, fmt.Errorf("no token was renewed in %s", lifetimeSpan)
	}
	_, atOnce = scene.issuer.most()
	return float64(shortLife*time.Second) / float64(mean), atOnce, gaps, nil
}

// shortAndLong are two proxies, one with short tokens and one with long ones.
func (g *growth) shortAndLong(ctx context.Context) (short, long *growArm, err error) {
	on, free := pin()
	defer free()
	arm := func(name string, life int) (*growArm, func(), error) {
		scene, err := newGrowScene(1)
		if err != nil {
			return nil, nil, err
		}
		p, err := startGrowing(ctx, g.dir, "{\n\tupstream_auth {"+scene.credential("api", life, "")+"\n\t}\n}"+scene.site(0, "\tupstream_auth api\n\treverse_proxy API"), scene.sites, on)
		if err != nil {
			scene.close()
			return nil, nil, err
		}
		end := func() {
			p.close()
			scene.close()
		}
		return &growArm{name: name, process: p, addr: scene.sites[0], requests: [][]byte{growGet("/auth", scene.sites[0])}}, end, nil
	}
	short, end, err := arm("short tokens", shortLife)
	if err != nil {
		return nil, nil, err
	}
	defer end()
	long, end, err = arm("long tokens", longLife)
	if err != nil {
		return nil, nil, err
	}
	defer end()
	l := usualLoad()
	l.slice, l.whole = lifetimeSlice, true
	l.rounds = int(lifetimeSpan / (2 * l.slice))
	if *growRounds < 15 { // a short look
		l.rounds = l.rounds * *growRounds / 15
	}
	return short, long, g.compare(ctx, l, short, long)
}
