package main

import (
	"context"
	"fmt"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

// growSites are the Caddyfile of four sites that lead to one API: without
// injection, twice, by the handler and by the transport.
func (s *growScene) growSites() string {
	return "{\n\tupstream_auth {" + s.credential("api", 86400, "") + "\n\t}\n}" +
		s.site(0, "\treverse_proxy API") + s.site(1, "\treverse_proxy API") +
		s.site(2, "\tupstream_auth api\n\treverse_proxy API") +
		s.site(3, "\treverse_proxy API {\n\t\ttransport upstream_auth api\n\t}")
}

// headers are how many fields a request has.
func (g *growth) headers(ctx context.Context) error {
	scene, err := newGrowScene(4)
	if err != nil {
		return err
	}
	defer scene.close()
	on, free := pin()
	defer free()
	p, err := startGrowing(ctx, g.dir, scene.growSites(), scene.sites, on)
	if err != nil {
		return err
	}
	defer p.close()
	t := result.Table{
		Name:  "headers",
		Note:  "Header fields of a request, of some 40 bytes each. CPU of a request: beside the same proxy without injection; the floor is that one beside itself.",
		Heads: []string{"header fields", "no injection, µs", "handler", "transport", "floor"},
	}
	plot := result.Plot{Name: "headers-cpu", Title: "CPU of a request, by its header fields", X: "header fields", Y: "µs", Series: []result.Series{{Name: "no injection"}, {Name: "upstream_auth, handler"}, {Name: "upstream_auth, transport"}}}
	for _, n := range []int{2, 5, 10, 20, 40} {
		arm := func(site int, name, path string) *growArm {
			var fields []string
			for i := range n - 2 { // Host and User-Agent are there
				fields = append(fields, fmt.Sprintf("X-Field-%02d: value-of-some-length-%02d\r\n", i, i))
			}
			return &growArm{name: name, process: p, addr: scene.sites[site], requests: [][]byte{growGet(path, scene.sites[site], fields...)}}
		}
		plain, again := arm(0, "no injection", "/plain"), arm(1, "no injection, again", "/plain")
		handler, transport := arm(2, "handler", "/auth"), arm(3, "transport", "/auth")
		if err := g.compare(ctx, usualLoad(), plain, again, handler, transport); err != nil {
			return err
		}
		t.Rows = append(t.Rows, []string{grouped(n), plain.of(cpuOf).wide(), handler.beside(plain, cpuOf).String(), transport.beside(plain, cpuOf).String(), again.beside(plain, cpuOf).String()})
		for i, a := range []*growArm{plain, handler, transport} {
			plot.Series[i].Points = append(plot.Series[i].Points, a.of(cpuOf).at(float64(n)))
		}
	}
	g.table(t)
	g.plot(plot)
	return nil
}
