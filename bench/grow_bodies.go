package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

const (
	bodiesAtOnce = 16
	// bodiesKept is how much of a body the last site keeps, the most that it may.
	bodiesKept = "16MiB"
)

var bodySizes = []int{0, 1 << 10, 10 << 10, 64 << 10, 100 << 10, 1 << 20, 10 << 20}

// bodies are how large those of requests are, and whether they are kept, so that
// the request can be made again.
func (g *growth) bodies(ctx context.Context) error {
	t := result.Table{
		Name: "bodies",
		Note: "Bodies of requests (PUT, of a known length), through the transport: with no replay, with the default, which keeps bodies of up to 64 KiB, and with replay { max_body " + bodiesKept + " }. CPU: beside the same proxy without injection. Latency: the median. Allocated: for a request. At peak: memory over that before, with " +
			fmt.Sprint(bodiesAtOnce) + " requests under way at once whose bodies have all been sent.",
		Heads: []string{"body", "", "CPU of a request, µs", "beside no injection", "latency, ms", "allocated, KiB", "at peak, MiB"},
	}
	work := result.Plot{Name: "bodies-cpu", Title: "CPU of a request, by its body", X: "KiB", Y: "µs", LogX: true, LogY: true}
	peak := result.Plot{Name: "bodies-memory", Title: fmt.Sprintf("Memory with %d requests at once, by their bodies", bodiesAtOnce), X: "KiB", Y: "MiB more", LogX: true, LogY: true}
	for _, name := range bodyArms {
		work.Series = append(work.Series, result.Series{Name: name})
		peak.Series = append(peak.Series, result.Series{Name: name})
	}
	for _, size := range bodySizes {
		rows, err := g.bodiesOf(ctx, size)
		if err != nil {
			return fmt.Errorf("%s: %w", bytesOf(size), err)
		}
		for i, r := range rows {
			t.Rows = append(t.Rows, []string{
				bytesOf(size), bodyArms[i], fmt.Sprintf("%.0f", r.arm.of(cpuOf).median), r.arm.beside(rows[0].arm, cpuOf).wide(),
				fmt.Sprintf("%.2f", r.arm.of(p50Of).median), fmt.Sprintf("%.1f", r.allocated/1024), mib(r.peak),
			})
			if size > 0 { // a logarithm has no place for it
				x := float64(size) / 1024
				work.Series[i].Points = append(work.Series[i].Points, r.arm.of(cpuOf).at(x))
				peak.Series[i].Points = append(peak.Series[i].Points, growPoint(x, max(r.peak, 1<<16)/(1<<20)))
			}
		}
	}
	g.table(t)
	g.plot(work)
	g.plot(peak)
	return nil
}

// bodyArms are the sites, in this order.
var bodyArms = []string{"no injection", "replay off", "replay", "replay, max_body " + bodiesKept}

// bodySites is the Caddyfile of them.
func (s *growScene) bodySites() string {
	with := func(options string) string {
		return "\treverse_proxy API {\n\t\ttransport upstream_auth api " + options + "\n\t}"
	}
	return "{\n\tupstream_auth {" + s.credential("api", 86400, "") + "\n\t}\n}" +
		s.site(0, "\treverse_proxy API") + s.site(1, with("{\n\t\t\treplay off\n\t\t}")) + s.site(2, with("")) +
		s.site(3, with("{\n\t\t\treplay {\n\t\t\t\tmax_body "+bodiesKept+"\n\t\t\t}\n\t\t}"))
}

type bodyRow struct {
	arm       *growArm
	allocated float64 // bytes a request
	peak      float64 // bytes
}

func (g *growth) bodiesOf(ctx context.Context, size int) ([]bodyRow, error) {
	scene, err := newGrowScene(len(bodyArms))
	if err != nil {
		return nil, err
	}
	defer scene.close()
	on, free := pin()
	defer free()
	p, err := startGrowing(ctx, g.dir, scene.bodySites(), scene.sites, on)
	if err != nil {
		return nil, err
	}
	defer p.close()
	var rows []bodyRow
	var arms []*growArm
	for i, name := range bodyArms {
		a := &growArm{name: name, process: p, addr: scene.sites[i], requests: [][]byte{growPut(bodyPath(i), scene.sites[i], size)}}
		rows, arms = append(rows, bodyRow{arm: a}), append(arms, a)
	}
	l := usualLoad()
	if size >= 1<<20 {
		l.slice *= 2 // a few dozen requests are to fit
	}
	if err := g.compare(ctx, l, arms...); err != nil {
		return nil, err
	}
	for i := range rows {
		if rows[i].allocated, err = growAllocated(ctx, scene, arms[i], size); err != nil {
			return nil, err
		}
		if rows[i].peak, err = g.peakOf(ctx, i, size, on); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

func bodyPath(arm int) string {
	if arm == 0 {
		return "/plain"
	}
	return "/auth"
}

// growPut is a request with a body.
func growPut(path, host string, size int) []byte {
	head := fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nContent-Length: %d\r\n\r\n", path, host, size)
	return append([]byte(head), bytes.Repeat([]byte("b"), size)...)
}

// growAllocated is what the process allocates for a request, less what it does for
// telling that.
func growAllocated(ctx context.Context, scene *growScene, a *growArm, size int) (float64, error) {
	const name = "go_memstats_alloc_bytes_total"
	requests := max(20, min(1000, (64<<20)/max(size, 1)))
	c := &caller{addr: a.addr, request: a.requests[0]}
	defer c.hangUp()
	c.call(time.Now()) // opens connections
	var told [3]float64
	before := scene.target.body.Load()
	for i := range told {
		m, err := a.process.metrics(ctx)
		if err != nil {
			return 0, err
		}
		if told[i] = m[name]; told[i] == 0 {
			return 0, errors.New("the process does not tell " + name)
		}
		for range requests {
			if i != 1 {
				break
			}
			if one := c.call(time.Now()); !one.good() {
				return 0, fmt.Errorf("%w: %d", errNotAll, one.status)
			}
		}
	}
	if got := scene.target.body.Load() - before; got != int64(requests*size) {
		return 0, fmt.Errorf("the API got %d bytes of %d bodies of %d", got, requests, size)
	}
	return (told[2] - told[1] - (told[1] - told[0])) / float64(requests), nil
}

// peakOf is how much more memory a fresh process has at most while so many
// requests are under way at once.
func (g *growth) peakOf(ctx context.Context, arm, size int, on pins) (float64, error) {
	// the sites' addresses are taken by the other process
	own, err := newGrowScene(len(bodyArms))
	if err != nil {
		return 0, err
	}
	defer own.close()
	p, err := startGrowing(ctx, g.dir, own.bodySites(), own.sites, on)
	if err != nil {
		return 0, err
	}
	defer p.close()
	var callers []*caller
	for range bodiesAtOnce {
		c := &caller{addr: own.sites[arm], request: growGet(bodyPath(arm), own.sites[arm])}
		defer c.hangUp()
		if one := c.call(time.Now()); !one.good() { // opens connections
			return 0, fmt.Errorf("%w: %d", errNotAll, one.status)
		}
		callers = append(callers, c)
	}
	before, err := p.status("VmRSS")
	if err != nil {
		return 0, err
	}
	if err := p.resetPeak(); err != nil {
		return 0, err
	}
	own.target.holding(bodiesAtOnce)
	var wg sync.WaitGroup
	statuses := make([]int, len(callers))
	request := growPut(bodyPath(arm)+"/hold", own.sites[arm], size)
	for i, c := range callers {
		c.request = request
		wg.Go(func() { statuses[i] = c.call(time.Now()).status })
	}
	wg.Wait()
	for _, status := range statuses {
		if status != 200 {
			return 0, fmt.Errorf("%w: %v", errNotAll, statuses)
		}
	}
	if got := own.target.body.Load(); got != int64(bodiesAtOnce*size) {
		return 0, fmt.Errorf("the API got %d bytes of %d bodies of %d", got, bodiesAtOnce, size)
	}
	after, err := p.status("VmHWM")
	return max(0, after-before), err
}
