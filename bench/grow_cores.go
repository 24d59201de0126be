package main

import (
	"context"
	"fmt"
	"runtime"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

const coresCallers = 32

// cores are the processors that the proxy has. With all of them it shares them
// with those who send and answer.
func (g *growth) cores(ctx context.Context) error {
	if runtime.NumCPU() < 2 {
		return fmt.Errorf("there is one processor alone")
	}
	t := result.Table{
		Name:  "cores",
		Note:  fmt.Sprintf("%d callers, each with one request after the other. On one processor the proxy has it for itself, and callers, API and token endpoint have another. With two it shares both with them, on a machine that has no more: its requests a second are then those of all together, and say less of the proxy than its CPU of a request.", coresCallers),
		Heads: []string{"processors", "", "requests/s", "beside no injection", "CPU of a request, µs", "beside no injection", "p50, ms", "p99, ms"},
	}
	plot := result.Plot{Name: "cores-rate", Title: "Requests a second, by processors", X: "processors of the proxy", Y: "requests/s", Series: []result.Series{{Name: "no injection"}, {Name: "upstream_auth, handler"}, {Name: "upstream_auth, transport"}}}
	for _, n := range []int{1, 2} {
		arms, err := g.onProcessors(ctx, n)
		if err != nil {
			return err
		}
		for _, i := range []int{0, 1, 2, 3} {
			a := arms[i]
			t.Rows = append(t.Rows, []string{
				fmt.Sprint(n), a.name, fmt.Sprintf("%.0f", a.of(rateOf).median), a.beside(arms[0], rateOf).String(),
				fmt.Sprintf("%.1f", a.of(cpuOf).median), a.beside(arms[0], cpuOf).String(),
				fmt.Sprintf("%.2f", a.of(p50Of).median), fmt.Sprintf("%.2f", a.of(p99Of).median),
			})
		}
		for i, a := range []*growArm{arms[0], arms[2], arms[3]} {
			plot.Series[i].Points = append(plot.Series[i].Points, a.of(rateOf).at(float64(n)))
		}
	}
	g.table(t)
	g.plot(plot)
	return nil
}

func (g *growth) onProcessors(ctx context.Context, n int) ([]*growArm, error) {
	scene, err := newGrowScene(4)
	if err != nil {
		return nil, err
	}
	defer scene.close()
	var on pins
	if n == 1 {
		var free func()
		on, free = pin()
		defer free()
	}
	p, err := startGrowing(ctx, g.dir, scene.growSites(), scene.sites, on)
	if err != nil {
		return nil, err
	}
	defer p.close()
	arms := []*growArm{
		{name: "no injection", requests: [][]byte{growGet("/plain", scene.sites[0])}},
		{name: "no injection, again", requests: [][]byte{growGet("/plain", scene.sites[1])}},
		{name: "handler", requests: [][]byte{growGet("/auth", scene.sites[2])}},
		{name: "transport", requests: [][]byte{growGet("/auth", scene.sites[3])}},
	}
	for i, a := range arms {
		a.process, a.addr = p, scene.sites[i]
	}
	l := usualLoad()
	l.callers = coresCallers
	return arms, g.compare(ctx, l, arms...)
}
