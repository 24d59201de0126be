package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

// credentialsMost is the most that stand in one file: each asks for a token of
// its own at the start, and a file of 100,000 is one of 20 MB.
const credentialsMost = 10_000

const credentialsRest = 4 * time.Second

// credentials are those of a file, each with a token of its own and used by no
// site, but for one. The first row is the same file without any.
func (g *growth) credentials(ctx context.Context) error {
	t := result.Table{
		Name:  "credentials",
		Note:  "Credentials that stand in the Caddyfile, each of which asks for a token of its own at the start. Adapted: the time in which Caddy makes JSON of the file, which is a part of loading. Listening: from the start of the process. All tokens: until the last token request has come. Reload: of the same file. The first row is a file without any.",
		Heads: []string{"credentials", "adapted, ms", "listening, ms", "all tokens, ms", "CPU until then, ms", "reload, ms", "CPU, ms", "heap, MiB", "KiB each", "resident, MiB", "goroutines", "at rest, ms/s"},
	}
	times := result.Plot{Name: "credentials-time", Title: "Credentials in a file", X: "credentials", Y: "ms", LogX: true, LogY: true,
		Series: []result.Series{{Name: "from the start until it listens"}, {Name: "reload, nothing changed"}, {Name: "of that, the Caddyfile adapted"}}}
	memory := result.Plot{Name: "credentials-memory", Title: "Memory of credentials in a file, each with a token", X: "credentials", Y: "live heap, MiB", LogX: true, LogY: true,
		Series: []result.Series{{Name: "process"}}}
	var none float64
	for _, n := range append([]int{0}, powers(min(*growMost, credentialsMost))...) {
		row, err := g.manyCredentials(ctx, n)
		if err != nil {
			return fmt.Errorf("%d: %w", n, err)
		}
		each, all := "–", "–"
		if n == 0 {
			none = row.heap
		} else {
			each = fmt.Sprintf("%.1f", (row.heap-none)/float64(n)/1024)
			all = millis(row.all)
			for i, d := range []time.Duration{row.listening, row.reload, row.adapted} {
				times.Series[i].Points = append(times.Series[i].Points, growPoint(float64(n), micros(d)/1000))
			}
			memory.Series[0].Points = append(memory.Series[0].Points, growPoint(float64(n), row.heap/(1<<20)))
		}
		t.Rows = append(t.Rows, []string{grouped(n), millis(row.adapted), millis(row.listening), all, millis(row.startCPU), millis(row.reload), millis(row.reloadCPU), mib(row.heap), each, mib(row.resident), grouped(row.goroutines), fmt.Sprintf("%.3f", row.idle.Seconds()*1000)})
	}
	g.table(t)
	g.plot(times)
	g.plot(memory)
	return nil
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f", micros(d)/1000) }

type credentialsRow struct {
	adapted, listening, all, reload, idle time.Duration
	startCPU, reloadCPU                   time.Duration
	heap, resident                        float64
	goroutines                            int
}

func (g *growth) manyCredentials(ctx context.Context, n int) (row credentialsRow, err error) {
	scene, err := newGrowScene(1)
	if err != nil {
		return row, err
	}
	defer scene.close()
	var file strings.Builder
	file.WriteString("{\n")
	directive := ""
	if n > 0 {
		file.WriteString("\tupstream_auth {")
		for i := range n {
			file.WriteString(scene.credential(fmt.Sprint("c", i), 86400, ""))
		}
		file.WriteString("\n\t}\n")
		directive = fmt.Sprintf("\tupstream_auth c%d\n", n/2)
	}
	file.WriteString("}" + scene.site(0, directive+"\treverse_proxy API"))

	began := time.Now()
	p, err := startGrowing(ctx, g.dir, file.String(), scene.sites, pins{})
	if err != nil {
		return row, err
	}
	defer p.close()
	row.listening = time.Since(began)
	if err := eventually(ctx, time.Minute, "a token for each credential", func() bool { return scene.issuer.requests() >= n }); err != nil {
		return row, err
	}
	row.all, row.startCPU = time.Since(began), p.cpu()
	config := p.config(file.String())
	began = time.Now()
	if _, err := p.admin(ctx, http.MethodPost, "/adapt", config); err != nil {
		return row, err
	}
	row.adapted = time.Since(began)
	row.idle = p.idle(ctx, credentialsRest)
	if row.heap, row.resident, err = p.live(ctx); err != nil {
		return row, err
	}
	if row.goroutines, _, err = p.goroutines(ctx); err != nil {
		return row, err
	}
	began = time.Now()
	before := p.cpu()
	if _, err := p.admin(ctx, http.MethodPost, "/load", config); err != nil {
		return row, err
	}
	row.reload, row.reloadCPU = time.Since(began), p.cpu()-before
	c := &caller{addr: scene.sites[0], request: growGet("/auth", scene.sites[0])}
	if n == 0 {
		c.request = growGet("/plain", scene.sites[0])
	}
	defer c.hangUp()
	one := c.call(time.Now())
	if one.status == 0 { // Caddy resets what waits at a listener that it gives up
		one = c.call(time.Now())
	}
	if !one.good() {
		return row, fmt.Errorf("%w: %d after a reload; %s", errNotAll, one.status, p.log())
	}
	if asked := scene.issuer.requests(); asked != n {
		return row, fmt.Errorf("%d token requests for %d credentials, with a reload", asked, n)
	}
	return row, nil
}
