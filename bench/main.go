// Command bench measures the sidecar as its users run it: the real binary as a
// process of its own, an authorization server and an API that checks each token
// against its own clock, and a load at a fixed rate whose latency counts from
// the moment at which a request was meant to be sent.
//
//	go run ./bench            all scenarios
//	go run ./bench refresh    one of them
//	go run ./bench pgo        make the profile by which Go builds our programs
//	go run ./bench report     write the figures kept in bench/results into the documentation
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/report"
)

var (
	length   = flag.Duration("for", time.Minute, "length of the scenario refresh; reload takes a quarter of it")
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
	{"cold", "1,000 callers at once on an authorization server that takes 500 ms", cold},
	{"down", "a start with the authorization server down for 5 s", down},
	{"refresh", "short tokens, renewed under load", refresh},
	{"reload", "20 reloads under load", reload},
	{"count", "allocations and instructions of a proxied request, and of the injection alone", countCost},
	{"grow", "how cost grows: tokens, credentials, routes, processors, header fields, bodies, instances", grow},
	{"serve", "what a proxied request costs, beside other proxies: processor time, latency, memory", serve},
	{"profile", "where the processor's time of a request goes, by owner", profiles},
	{"tenants", "a flood of distinct values on a template, while one of them is in regular use", flood},
	{"cliff", "short tokens, renewed under a heavy load, beside other proxies", cliff},
	{"outage", "the token endpoint fails while a token is held and after, beside other proxies", outage},
}

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, names []string) error {
	if slices.Equal(names, []string{"report"}) {
		return report.Write(".")
	}
	dir, err := os.MkdirTemp("", "upstream-auth-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if slices.Equal(names, []string{"pgo"}) {
		return pgo(ctx, dir)
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
	if *write {
		return report.Write(".")
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

// command is what gives a scenario's figures again, with the flags that were set,
// but for those that change no figure.
func command(scenario string) string {
	args := "go run ./bench"
	flag.Visit(func(f *flag.Flag) {
		if !slices.Contains([]string{"write", "strict", "install", "caddy"}, f.Name) {
			args += " -" + f.Name + " " + f.Value.String()
		}
	})
	return args + " " + scenario
}
