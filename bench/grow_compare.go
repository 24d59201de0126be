package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

// growArm is one of those that are compared: a site, and what is sent to it.
type growArm struct {
	name    string
	process *growProcess
	addr    string
	// requests are what is sent, one of them by chance.
	requests [][]byte

	rounds []growSlice // those that count
}

// growSlice is what came of one slice of load.
type growSlice struct {
	cpu      float64 // µs of the process for a request
	rate     float64 // requests a second
	p50, p99 float64 // ms
	requests int
}

// growLoad is what a comparison is made with.
type growLoad struct {
	callers int
	slice   time.Duration
	rounds  int
	// whole counts what the process does in the whole of a round, and not in its
	// own slice alone: for processes that do something by themselves.
	whole bool
}

// compare has the arms take turns, and leaves in each the rounds that count.
func (g *growth) compare(ctx context.Context, l growLoad, arms ...*growArm) error {
	var crowds [][]*caller
	for _, a := range arms {
		var callers []*caller
		for range l.callers {
			c := &caller{addr: a.addr}
			defer c.hangUp()
			callers = append(callers, c)
		}
		crowds = append(crowds, callers)
		if _, err := a.run(callers, l.slice/2); err != nil { // connections, and a token
			return err
		}
	}
	var all [][]growSlice // of each round
	var good [][]growSlice
	for round := 0; len(good) < l.rounds && round < 2*l.rounds; round++ {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w, err := watchMachine()
		if err != nil {
			return err
		}
		slices := make([]growSlice, len(arms))
		began := make([]time.Duration, len(arms))
		for i, a := range arms {
			began[i] = a.process.cpu()
		}
		for _, i := range rand.Perm(len(arms)) { //nolint:gosec // no secret is chosen
			s, err := arms[i].run(crowds[i], l.slice)
			if err != nil {
				return err
			}
			slices[i] = s
		}
		if l.whole {
			for i, a := range arms {
				slices[i].cpu = micros(a.process.cpu()-began[i]) / float64(slices[i].requests)
			}
		}
		all = append(all, slices)
		others, err := othersSince(w, arms, began)
		if err != nil {
			return err
		}
		if others > mostForeign {
			g.thrown++
			continue
		}
		g.kept++
		good = append(good, slices)
	}
	if len(good) < max(1, l.rounds/2) {
		good = all // the run is void, and says so
	}
	for i, a := range arms {
		a.rounds = nil
		for _, s := range good {
			a.rounds = append(a.rounds, s[i])
		}
	}
	return nil
}

// run sends for a while, each caller one request after the other.
func (a *growArm) run(callers []*caller, length time.Duration) (growSlice, error) {
	var (
		mu    sync.Mutex
		took  []time.Duration
		wrong = map[int]int{}
		wg    sync.WaitGroup
	)
	time.Sleep(settling)
	began, before := time.Now(), a.process.cpu()
	for _, c := range callers {
		wg.Go(func() {
			var mine []time.Duration
			bad := map[int]int{}
			for time.Since(began) < length || len(mine) == 0 {
				c.request = a.requests[rand.IntN(len(a.requests))] //nolint:gosec // no secret is chosen
				one := c.call(time.Now())
				if !one.good() {
					bad[one.status]++
					break
				}
				mine = append(mine, one.took())
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
			for status, n := range bad {
				wrong[status] += n
			}
		})
	}
	wg.Wait()
	lasted := time.Since(began)
	time.Sleep(settling)
	used := a.process.cpu() - before
	if len(wrong) > 0 {
		return growSlice{}, fmt.Errorf("%s: %w: statuses (0: no answer) and how often: %v; %s", a.name, errNotAll, wrong, a.process.log())
	}
	slices.Sort(took)
	n := float64(len(took))
	return growSlice{
		cpu: micros(used) / n, rate: n / lasted.Seconds(), requests: len(took),
		p50: micros(at(took, 50)) / 1000, p99: micros(at(took, 99)) / 1000,
	}, nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// of are one figure of all rounds.
func (a *growArm) of(figure func(growSlice) float64) estimate {
	var values []float64
	for _, s := range a.rounds {
		values = append(values, figure(s))
	}
	return estimateOf(values)
}

// beside are the ratios to another's of the same round.
func (a *growArm) beside(other *growArm, figure func(growSlice) float64) estimate {
	var values []float64
	for i, s := range a.rounds {
		values = append(values, figure(s)/figure(other.rounds[i]))
	}
	return estimateOf(values)
}

func cpuOf(s growSlice) float64  { return s.cpu }
func rateOf(s growSlice) float64 { return s.rate }
func p50Of(s growSlice) float64  { return s.p50 }
func p99Of(s growSlice) float64  { return s.p99 }

// wide writes an estimate with two decimals, for what is not close to 1.
func (e estimate) wide() string { return fmt.Sprintf("%.2f (%.2f–%.2f)", e.median, e.low, e.high) }

// at is a point of a plot.
func (e estimate) at(x float64) result.Point {
	return result.Point{X: x, Y: e.median, Low: e.low, High: e.high}
}

// othersSince is the share of the processors that went to processes that are
// neither this one nor measured.
func othersSince(w watch, arms []*growArm, began []time.Duration) (share, error) {
	first := arms[0].process.cmd.Process.Pid // the leader of its group
	seen, err := w.end(first)
	if err != nil {
		return 0, err
	}
	counted := map[int]bool{first: true}
	for i, a := range arms {
		if pid := a.process.cmd.Process.Pid; !counted[pid] {
			counted[pid] = true
			seen.others -= a.process.cpu() - began[i]
		}
	}
	return seen.foreign(), nil
}

// growGet is a request without a body.
func growGet(path, host string, headers ...string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: bench\r\n" + strings.Join(headers, "") + "\r\n")
}

// usualLoad is that of most comparisons.
func usualLoad() growLoad {
	return growLoad{callers: 4, slice: 100 * time.Millisecond, rounds: *growRounds}
}
