package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

// powers are powers of ten up to a number.
func powers(most int) []int {
	var out []int
	for n := 1; n <= most; n *= 10 {
		out = append(out, n)
	}
	return out
}

const (
	tokenRate   = 900 // new values a second; max_new allows 1,000
	tokenRest   = 8 * time.Second
	memoryMost  = 1.15
	idleMost    = 0.1 // ms of processor time a second
	tokenGoalAt = 10_000
)

// growScene are a token endpoint, an API, and addresses for sites.
type growScene struct {
	issuer *growIssuer
	server *authserver.Listener
	target *growTarget
	sites  []string
}

func newGrowScene(sites int) (*growScene, error) {
	s := &growScene{issuer: newGrowIssuer()}
	var err error
	if s.server, err = authserver.Listen("127.0.0.1:0", s.issuer); err != nil {
		return nil, err
	}
	if s.target, err = newGrowTarget(); err != nil {
		_ = s.server.Close()
		return nil, err
	}
	for range sites {
		site, err := freeport.Take()
		if err != nil {
			s.close()
			return nil, err
		}
		s.sites = append(s.sites, site)
	}
	return s, nil
}

func (s *growScene) close() {
	_ = s.server.Close()
	s.target.close()
}

// credential is one of a Caddyfile. life is that of its tokens in seconds.
func (s *growScene) credential(name string, life int, more string) string {
	return fmt.Sprintf(`
		credential %s {
			token_url %s/token/%d
			client_id %s
			client_auth client_secret_basic {env.%s}
			%s
		}`, name, s.server.URL(), life, name, secretEnv, more)
}

// site is one of a Caddyfile, that leads to the API.
func (s *growScene) site(n int, directives string) string {
	return "\nhttp://" + s.sites[n] + " {\n\tbind 127.0.0.1\n" + strings.ReplaceAll(directives, "API", s.target.addr()) + "\n}\n"
}

// tokens are those that one template credential holds. The process gets new
// values at a steady rate, and is looked at with each number of them; the memory
// of a token is measured in this process besides.
func (g *growth) tokens(ctx context.Context) error {
	scene, err := newGrowScene(2)
	if err != nil {
		return err
	}
	defer scene.close()
	file := "{\n\tupstream_auth {" + scene.credential("api", 86400, fmt.Sprintf(`param tenant {header.X-Tenant}
			max_tokens %d
			max_new 1000
			idle_timeout 24h`, *growMost+10)) + "\n\t}\n}" +
		scene.site(0, "\treverse_proxy API") + scene.site(1, "\tupstream_auth api\n\treverse_proxy API")
	on, free := pin()
	defer free()
	// what Caddy takes by itself, with no credential at all
	bare, err := startGrowing(ctx, g.dir, "{\n}"+scene.site(0, "\treverse_proxy API"), scene.sites[:1], on)
	if err != nil {
		return err
	}
	still := bare.idle(ctx, tokenRest)
	bare.close()
	p, err := startGrowing(ctx, g.dir, file, scene.sites, on)
	if err != nil {
		return err
	}
	defer p.close()

	t := result.Table{
		Name:  "tokens",
		Note:  "Distinct tokens of 909 bytes that one template credential holds. Memory: live heap, in bytes for each token, of a map that holds them and nothing else, and of this module's table (both in one process, after a collection); then what the proxy's process holds after a collection, over what it held with none. Goroutines: all of the process, and those that are in this module's code. At rest: processor time of the process over the %REST% of the same Caddy without any credential. CPU of a request: with one of these tokens beside the same proxy without injection.",
		Heads: []string{"tokens", "map, bytes each", "table, bytes each", "table / map", "goroutines more", "process: heap, bytes each", "heap, MiB", "resident, MiB", "goroutines", "ours", "at rest, ms/s", "CPU of a request"},
	}
	memory := result.Plot{Name: "tokens-memory", Title: "Memory of a token that is held", X: "tokens", Y: "bytes of live heap for each", LogX: true, LogY: true,
		Series: []result.Series{{Name: "the tokens in a map"}, {Name: "this module's table"}}}
	work := result.Plot{Name: "tokens-cpu", Title: "CPU of a request, beside no injection", X: "tokens held", Y: "ratio", LogX: true, Series: []result.Series{{Name: "template credential"}}}
	none, _, err := p.live(ctx)
	if err != nil {
		return err
	}
	t.Note = strings.Replace(t.Note, "%REST%", fmt.Sprintf("%.3f ms/s", still.Seconds()*1000), 1)
	had, ours := 0, map[int]int{}
	for _, n := range powers(*growMost) {
		if err := fillTokens(ctx, scene.sites[1], had, n); err != nil {
			return fmt.Errorf("%d tokens: %w; %s", n, err, p.log())
		}
		had = n
		in, err := holdTokens(ctx, n)
		if err != nil {
			return err
		}
		plain := &growArm{name: "no injection", process: p, addr: scene.sites[0], requests: tenantRequests("/plain", scene.sites[0], n)}
		with := &growArm{name: "template", process: p, addr: scene.sites[1], requests: tenantRequests("/auth", scene.sites[1], n)}
		if err := g.compare(ctx, usualLoad(), plain, with); err != nil {
			return err
		}
		if asked := scene.issuer.requests(); asked != n {
			return fmt.Errorf("%d token requests for %d values", asked, n)
		}
		idle := p.idle(ctx, tokenRest) // a collection that was forced leaves work behind
		heap, resident, err := p.live(ctx)
		if err != nil {
			return err
		}
		all, mine, err := p.goroutines(ctx)
		if err != nil {
			return err
		}
		ours[n] = mine
		ratio := with.beside(plain, cpuOf)
		each := "–"
		if n >= 1000 { // less is lost in what else is live
			each = fmt.Sprintf("%.0f", (heap-none)/float64(n))
		}
		t.Rows = append(t.Rows, []string{
			grouped(n), fmt.Sprintf("%.0f", in.themselves), fmt.Sprintf("%.0f", in.table), fmt.Sprintf("%.2f", in.table/in.themselves), fmt.Sprint(in.goroutines),
			each, mib(heap), mib(resident), fmt.Sprint(all), fmt.Sprint(mine), fmt.Sprintf("%+.3f", (idle-still).Seconds()*1000), ratio.String(),
		})
		memory.Series[0].Points = append(memory.Series[0].Points, growPoint(float64(n), in.themselves))
		memory.Series[1].Points = append(memory.Series[1].Points, growPoint(float64(n), in.table))
		work.Series[0].Points = append(work.Series[0].Points, ratio.at(float64(n)))
		if n >= tokenGoalAt {
			g.goal("P7", fmt.Sprintf("memory of %s live tokens, of the tokens themselves", grouped(n)), in.table/in.themselves, memoryMost, "%.2f")
			g.goal("P7", fmt.Sprintf("goroutines of this module with %s live tokens, more than with one", grouped(n)), float64(mine-ours[1]), 0, "%.0f")
		}
		if n == tokenGoalAt {
			g.goal("P7", "CPU at rest with 10,000 live tokens, over that of the same Caddy without any credential, ms a second", max(0, idle-still).Seconds()*1000, idleMost, "%.3f")
		}
	}
	g.table(t)
	g.plot(memory)
	g.plot(work)
	return nil
}

// fillTokens has a template ask for the values from one number to another, at a
// steady rate.
func fillTokens(ctx context.Context, addr string, from, to int) error {
	const callers = 16
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		wrong = map[int]int{}
		began = time.Now()
	)
	for i := range callers {
		wg.Go(func() {
			c := &caller{addr: addr}
			defer c.hangUp()
			for n := from + i; n < to && ctx.Err() == nil; n += callers {
				sleep(ctx, time.Until(began.Add(time.Duration(n-from)*time.Second/tokenRate)))
				if status := askFor(ctx, c, n); status != http.StatusOK {
					mu.Lock()
					wrong[status]++
					mu.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	if len(wrong) > 0 {
		return fmt.Errorf("%w: %v", errNotAll, wrong)
	}
	return ctx.Err()
}

// askFor sends a request with a value, and again while the limits turn it away:
// after a pause of the machine more come at once than a second may bring.
func askFor(ctx context.Context, c *caller, n int) (status int) {
	c.request = tenantRequest("/auth", c.addr, n)
	for {
		one := c.call(time.Now())
		if one.status != http.StatusServiceUnavailable || ctx.Err() != nil {
			return one.status
		}
		sleep(ctx, 100*time.Millisecond)
	}
}

func tenantRequest(path, addr string, n int) []byte {
	return growGet(path, addr, "X-Tenant: tenant-", strconv.Itoa(n), "\r\n")
}

// tenantRequests are those of a thousand values at most, from all over.
func tenantRequests(path, addr string, n int) [][]byte {
	var out [][]byte
	for i := range min(n, 1000) {
		out = append(out, tenantRequest(path, addr, i*n/min(n, 1000)))
	}
	return slices.Clip(out)
}
