package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

const routesMost = 1000

// routes are handles of one site, with a matcher of the path each, of which a
// request takes the last.
func (g *growth) routes(ctx context.Context) error {
	t := result.Table{
		Name:  "routes",
		Note:  "Routes of a site, each with a matcher of the path, an upstream_auth and a reverse_proxy; the request takes the last. CPU of a request: beside the same site without upstream_auth, in the same process; the floor is that site beside itself. Start: until the process listens. Memory: live heap.",
		Heads: []string{"routes", "CPU of a request, plain, µs", "handler / plain", "floor", "start, plain, ms", "start, handler, ms", "reload, plain, ms", "reload, handler, ms", "heap, plain, MiB", "heap, handler, MiB"},
	}
	work := result.Plot{Name: "routes-cpu", Title: "CPU of a request, by routes", X: "routes", Y: "µs", LogX: true, LogY: true, Series: []result.Series{{Name: "no injection"}, {Name: "upstream_auth, handler"}}}
	load := result.Plot{Name: "routes-load", Title: "Loading a site, by routes", X: "routes", Y: "ms to reload", LogX: true, LogY: true, Series: []result.Series{{Name: "no injection"}, {Name: "upstream_auth, handler"}}}
	for _, n := range powers(routesMost) {
		scene, err := newGrowScene(2)
		if err != nil {
			return err
		}
		row, arms, err := g.manyRoutes(ctx, scene, n)
		scene.close()
		if err != nil {
			return fmt.Errorf("%d: %w", n, err)
		}
		plain, again, with := arms[0], arms[1], arms[2]
		t.Rows = append(t.Rows, append([]string{grouped(n), fmt.Sprintf("%.1f", plain.of(cpuOf).median), with.beside(plain, cpuOf).String(), again.beside(plain, cpuOf).String()}, row.cells()...))
		work.Series[0].Points = append(work.Series[0].Points, plain.of(cpuOf).at(float64(n)))
		work.Series[1].Points = append(work.Series[1].Points, with.of(cpuOf).at(float64(n)))
		for i := range 2 {
			load.Series[i].Points = append(load.Series[i].Points, growPoint(float64(n), micros(row[i].reload)/1000))
		}
	}
	g.table(t)
	g.plot(work)
	g.plot(load)
	return nil
}

// routesRows are the figures without injection, and with it.
type routesRows [2]struct {
	start, reload time.Duration
	heap          float64
}

func (r routesRows) cells() []string {
	return []string{millis(r[0].start), millis(r[1].start), millis(r[0].reload), millis(r[1].reload), mib(r[0].heap), mib(r[1].heap)}
}

func (g *growth) manyRoutes(ctx context.Context, scene *growScene, n int) (rows routesRows, arms []*growArm, err error) {
	global := "{\n\tupstream_auth {" + scene.credential("api", 86400, "") + "\n\t}\n}"
	var sites [2]string
	for i, directive := range []string{"", "upstream_auth api"} {
		var s strings.Builder
		for r := range n {
			fmt.Fprintf(&s, "\thandle /*/r%d {\n\t\t%s\n\t\treverse_proxy API\n\t}\n", r, directive)
		}
		sites[i] = scene.site(i, s.String())
	}
	for i := range sites {
		began := time.Now()
		p, err := startGrowing(ctx, g.dir, global+sites[i], scene.sites[i:i+1], pins{})
		if err != nil {
			return rows, nil, err
		}
		rows[i].start = time.Since(began)
		began = time.Now()
		_, err = p.admin(ctx, http.MethodPost, "/load", p.config(global+sites[i]))
		rows[i].reload = time.Since(began)
		if err == nil {
			rows[i].heap, _, err = p.live(ctx)
		}
		p.close()
		if err != nil {
			return rows, nil, err
		}
	}
	on, free := pin()
	defer free()
	p, err := startGrowing(ctx, g.dir, global+sites[0]+sites[1], scene.sites, on)
	if err != nil {
		return rows, nil, err
	}
	defer p.close()
	to := func(name, path string, site int) *growArm {
		return &growArm{name: name, process: p, addr: scene.sites[site], requests: [][]byte{growGet(fmt.Sprintf("%s/r%d", path, n-1), scene.sites[site])}}
	}
	arms = []*growArm{to("no injection", "/plain", 0), to("no injection, again", "/plain", 0), to("handler", "/auth", 1)}
	return rows, arms, g.compare(ctx, usualLoad(), arms...)
}
