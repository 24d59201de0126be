// Command soak runs the sidecar for a while against a world that breaks all the
// time, and judges at the end whether anybody noticed who should not have.
//
//	go run ./bench/soak -for 20m -seed 1
//
// All are processes of their own: Caddy as it is built from cmd/caddy,
// oidc-provider with short tokens (interop/oidc-provider; needs Node 20), and an
// upstream that checks each token against its own clock and by introspection. A
// load at a fixed rate goes through the transport and the handler with each of
// four credentials. Between Caddy and the token endpoint stands a proxy, which
// does the faults, by a schedule that the seed alone decides, and knows who was
// given which token. What it does is in the table at the end; the secret that is
// rotated is the proxy's own, for oidc-provider reads its clients only once.
//
// The run fails, with exit status 1, if
//
//  1. a request reached the upstream with a token that had ended by the
//     upstream's clock before the client began the request;
//  2. a request was turned away for want of a token while its process held a
//     valid one: see [hands.fails] and [book.holdings];
//  3. a 401 reached a client that no revocation explains: see [rejections];
//  4. the first good answer after an outage came later than a step of the
//     backoff: see [longestOutage];
//  5. there were far more token requests than lifetimes;
//  6. memory, goroutines or open files grew, from the first minute of a process
//     to its last: see [growth];
//  7. a secret or a token stood in Caddy's log, or a panic or a data race did;
//  8. Caddy ended with another status than 0;
//  9. a refresh token was refused of which no answer had been lost, and which
//     nobody had revoked.
//
// No speed of the machine decides: what the times that were noted cannot tell is
// counted as unclear, and so is all that went wrong while Caddy was slow to answer
// requests that need no token.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"time"
)

var (
	length    = flag.Duration("for", time.Minute, "length of the run; it goes on a little until all is well again")
	seed      = flag.Uint64("seed", 1, "the schedule of faults")
	rate      = flag.Int("rate", 200, "requests a second")
	lifetime  = flag.Duration("lifetime", 10*time.Second, "life of a token in whole seconds, 10 at least: less than that and expiry_margin is shorter than the second to which the server knows a token's end")
	instances = flag.Int("instances", 1, "how many Caddys")
	share     = flag.Bool("share", false, "they use one storage, and share their tokens")
	race      = flag.Bool("race", false, "build Caddy with the race detector")
	binary    = flag.String("caddy", "", "the binary to run (default: cmd/caddy, built for the run)")
	keep      = flag.Bool("keep", false, "keep the folder with Caddy's log")
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == upstreamCommand {
		fmt.Fprintln(os.Stderr, upstreamMain(os.Args[2:]))
		os.Exit(1)
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	well, err := run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
	}
	if err != nil || !well {
		os.Exit(1)
	}
}

func run(ctx context.Context) (well bool, err error) {
	if *lifetime < 10*time.Second || *lifetime%time.Second != 0 || *rate < 1 || *instances < 1 {
		return false, fmt.Errorf("-lifetime has to be 10s at least and whole seconds, -rate and -instances 1 at least")
	}
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return false, err
	}
	defer func() {
		if well && !*keep {
			os.RemoveAll(dir)
			return
		}
		fmt.Println("Caddy's log, and all token requests, are in", dir)
	}()
	if err := install(ctx); err != nil {
		return false, err
	}
	if *binary == "" {
		if *binary, err = build(ctx, dir); err != nil {
			return false, err
		}
	}
	events := plan(*seed, *length, *lifetime)
	fmt.Printf("seed %d, for %s: %d faults\n%s", *seed, *length, len(events), outline(events))
	s, err := newStage(ctx, dir, *binary, *instances, *share, *lifetime)
	if err == nil {
		s.work(ctx, events)
	}
	s.close()
	if err != nil {
		return false, err
	}
	if ctx.Err() != nil {
		fmt.Println("interrupted; what there is:")
	}
	well = s.book.judge(*lifetime, *share).report(os.Stdout, *lifetime, *instances, *race)
	return well, s.book.write(filepath.Join(dir, "token-requests"))
}

// build makes the binary that is tried.
func build(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "caddy")
	args := []string{"build", "-pgo=off", "-o", path} // a profile would have all compiled once more
	if *race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/caddy")...) //nolint:gosec // the folder is ours
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building cmd/caddy: %w\n%s", err, out)
	}
	return path, nil
}

// work runs the load while the schedule is performed, and until all is well
// again behind it.
func (s *stage) work(ctx context.Context, events []event) {
	s.book.with(func() { s.book.began = time.Now() })
	loading, stop := context.WithCancel(ctx)
	var at sync.WaitGroup
	at.Go(func() { s.drive(loading, *rate) })
	at.Go(func() { s.weigh(loading) })
	at.Go(func() { s.listen(loading) })
	s.perform(ctx, events)
	over := time.Now()
	rest(ctx, time.Until(s.book.began.Add(*length)))
	// one lifetime and more, so that each has had to renew its token
	since := later(over, time.Now().Add(-*lifetime))
	for ctx.Err() == nil && time.Since(over) < longestOutage && !s.book.settled(since, *instances) {
		rest(ctx, 200*time.Millisecond)
	}
	stop()
	at.Wait()
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
