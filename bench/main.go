// Command bench measures the sidecar as its users run it: the real binary as a
// process of its own, an authorization server and an API that checks each token
// against its own clock, and a load at a fixed rate whose latency counts from
// the moment at which a request was meant to be sent.
//
//	go run ./bench            all scenarios
//	go run ./bench refresh    one of them
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"
)

var (
	length   = flag.Duration("for", time.Minute, "length of the scenarios refresh and reload")
	rate     = flag.Int("rate", 200, "requests a second")
	lifetime = flag.Duration("lifetime", 3*time.Second, "life of a token in the scenario refresh")
	tenants  = flag.Int("tenants", 1_000_000, "distinct values in the scenario tenants")
	binary   = flag.String("caddy", "", "the binary to measure (default: cmd/caddy, built for the run)")
)

// scenarios in the order in which they run.
var scenarios = []struct {
	name string
	what string
	run  func(context.Context, *stage) error
}{
	{"start", "from the start of the process to the first answer, and memory at rest, beside other proxies", start},
	{"cold", "60 callers at once on an authorization server that takes 500 ms", cold},
	{"down", "a start with the authorization server down for 5 s", down},
	{"refresh", "short tokens, renewed under load", refresh},
	{"reload", "20 reloads under load", reload},
	{"tenants", "a flood of distinct values on a template, while one of them is in regular use", flood},
	{"cliff", "short tokens, renewed under a heavy load, beside other proxies", cliff},
	{"outage", "the token endpoint fails while a token is held and after, beside other proxies", outage},
}

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, names []string) error {
	dir, err := os.MkdirTemp("", "upstream-auth-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if *binary == "" {
		if *binary, err = program(ctx, dir, "cmd/caddy"); err != nil {
			return err
		}
	}
	known := make([]string, 0, len(scenarios))
	for _, s := range scenarios {
		known = append(known, s.name)
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return fmt.Errorf("no scenario is called %s; there are %s", name, strings.Join(known, ", "))
		}
	}
	for _, s := range scenarios {
		if len(names) > 0 && !slices.Contains(names, s.name) {
			continue
		}
		fmt.Printf("%s: %s\n", s.name, s.what)
		if err := perform(ctx, dir, s.run); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// perform runs one scenario on a stage of its own.
func perform(ctx context.Context, dir string, scenario func(context.Context, *stage) error) error {
	s, err := newStage(dir)
	if err != nil {
		return err
	}
	defer s.close()
	return scenario(ctx, s)
}

func cold(ctx context.Context, s *stage) error {
	s.slowServer(500 * time.Millisecond)
	if err := s.start(ctx); err != nil {
		return err
	}
	l := s.volley(60)
	fmt.Printf("  %d answered, %d failed, slowest %s; token requests: %d\n", l.ok, l.failed, ms(l.slowest), s.auth.Requests())
	return nil
}

func down(ctx context.Context, s *stage) error {
	addr := s.server.Addr()
	if err := s.server.Close(); err != nil {
		return err
	}
	began := time.Now()
	if err := s.start(ctx); err != nil {
		return err
	}
	fmt.Printf("  Caddy listens %s after its start\n", ms(time.Since(began)))
	first := s.request()
	fmt.Printf("  a request meanwhile: %s after %s\n", first.says(), ms(first.took))
	second := s.request()
	fmt.Printf("  another one:         %s after %s\n", second.says(), ms(second.took))
	if wait := 5*time.Second - time.Since(began); wait > 0 {
		time.Sleep(wait)
	}
	returned := time.Now()
	if err := s.listen(addr); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if a := s.request(); a.status == 200 {
			fmt.Printf("  first good answer %s after the server's return\n", ms(time.Since(returned)))
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return ctx.Err()
}

func refresh(ctx context.Context, s *stage) error {
	s.renew(*lifetime)
	if err := s.start(ctx); err != nil {
		return err
	}
	s.request() // the first may wait
	before, err := s.outcomes()
	if err != nil {
		return err
	}
	l := s.load(ctx, *rate, *length)
	tokens := float64(s.auth.Requests())
	lives := l.length.Seconds() / lifetime.Seconds()
	fmt.Printf("  tokens of %s: %d requests in %s, %d failed; p50 %s, p99 %s, slowest %s\n", *lifetime, l.ok+l.failed, l.length.Round(time.Second), l.failed, ms(l.percentile(50)), ms(l.percentile(99)), ms(l.slowest))
	fmt.Printf("  by the API's clock: %d with an expired token, %d without one; least life left %s\n", s.api.Expired(), s.api.Missing()+s.api.Unknown(), ms(s.api.Smallest()))
	after, err := s.outcomes()
	if err != nil {
		return err
	}
	fmt.Printf("  waited for a token: %d; token requests: %.0f (%.2f a lifetime, at most %d at once)\n", after["waited"]-before["waited"], tokens, tokens/lives, s.auth.Peak())
	return nil
}

func reload(ctx context.Context, s *stage) error {
	if err := s.start(ctx); err != nil {
		return err
	}
	done := make(chan *load)
	go func() { done <- s.load(ctx, *rate, *length/4) }()
	for i := range 20 {
		time.Sleep(*length / 4 / 25)
		if err := s.reload(ctx, i); err != nil {
			return err
		}
	}
	l := <-done
	fmt.Printf("  %d requests, %d answered badly, %d connections reset; slowest %s; token requests: %d\n", l.ok+l.failed, l.failed, l.reset, ms(l.slowest), s.auth.Requests())
	return nil
}

func ms(d time.Duration) string { return d.Round(100 * time.Microsecond).String() }
