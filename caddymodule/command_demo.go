package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

func demoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Shows the whole on this machine: an authorization server, an API, and the proxy between",
		Long: `
Starts an embedded authorization server whose tokens live seconds, an API that
demands them, the proxy that puts them on, and a client that knows no OAuth and
calls the API through the proxy. All of it listens on loopback alone. A line is
printed for each token, and a page shows how the credential stands.`,
		Args: cobra.NoArgs,
		RunE: caddycmd.WrapCommandFuncForCobra(runDemo),
	}
	cmd.Flags().String("from", "127.0.0.1:8080", "Where the proxy listens; another port is taken if that one is in use")
	cmd.Flags().String("status", "127.0.0.1:8081", "Where the status page is; another port is taken if that one is in use")
	cmd.Flags().Duration("lifetime", 5*time.Second, "How long a token lives, in whole seconds")
	cmd.Flags().Int("rate", 10, "Requests a second that the client makes, 0 for none")
	cmd.Flags().Duration("for", 0, "How long to run, 0 for until it is interrupted")
	return cmd
}

// demo is what the command runs.
type demo struct {
	out      io.Writer
	from     string
	status   string
	lifetime time.Duration
	rate     int

	mu      sync.Mutex
	ok      int
	failed  int
	slowest time.Duration
	tokens  int
	ends    time.Time // of the newest token
}

func runDemo(fl caddycmd.Flags) (int, error) {
	caddy.TrapSignals()
	d := &demo{out: os.Stdout, from: fl.String("from"), status: fl.String("status"), lifetime: fl.Duration("lifetime"), rate: fl.Int("rate")}
	ctx := context.Background()
	if length := fl.Duration("for"); length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, length)
		defer cancel()
	}
	if err := d.run(ctx); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	return caddy.ExitCodeSuccess, nil
}

// run ends with its context, and then tells whether a request failed.
func (d *demo) run(ctx context.Context) error {
	if d.lifetime < time.Second || d.rate < 0 || d.rate > 1000 {
		return errors.New("expected a --lifetime of 1s or more, and a --rate from 0 to 1000")
	}
	const clientID, secretEnv, secret = "demo", "DEMO_CLIENT_SECRET", "demo-secret" //nolint:gosec // a make-believe secret
	if err := os.Setenv(secretEnv, secret); err != nil {
		return err
	}
	auth := authserver.New(authserver.Config{
		ClientID: clientID, ClientSecret: secret, Lifetime: d.lifetime, OnIssue: d.issued,
	})
	server, err := authserver.Listen("127.0.0.1:0", auth)
	if err != nil {
		return err
	}
	defer server.Close()
	api, err := authserver.Listen("127.0.0.1:0", authserver.NewUpstream(auth))
	if err != nil {
		return err
	}
	defer api.Close()

	if d.from, err = freeAddress("--from", d.from); err != nil {
		return err
	}
	if d.status, err = freeAddress("--status", d.status); err != nil {
		return err
	}
	d.printAddresses(server.URL()+authserver.TokenPath, api.URL())
	s := &sidecar{
		from: d.from, to: []string{api.URL()}, status: d.status, admin: "off", level: "ERROR",
		credential: &Credential{
			TokenURL: server.URL() + authserver.TokenPath, ClientID: clientID,
			ClientAuthRaw: caddyconfig.JSON(map[string]string{"method": "client_secret_basic", "secret": "{env." + secretEnv + "}"}, nil),
		},
	}
	if err := s.run(); err != nil {
		return err
	}
	defer func() { _ = caddy.Stop() }()

	d.call(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.printf("%d tokens; %s\n", d.tokens, d.tally())
	if d.failed > 0 {
		return fmt.Errorf("%d requests failed", d.failed)
	}
	return nil
}

// freeAddress is the address that was asked for, or another port if it is taken.
func freeAddress(flag, address string) (string, error) {
	if err := checkListen(address); err != nil {
		return "", fmt.Errorf("%s: %w", flag, err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return "", err
		}
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (d *demo) printf(format string, args ...any) { fmt.Fprintf(d.out, format, args...) }

func (d *demo) printAddresses(server, api string) {
	d.printf(`
  authorization server  %s  (its tokens live %s)
  API                   %s        (demands such a token)
  proxy                 http://%s         (puts it on)
  status                http://%s         (in a browser; curl gets JSON)

Try it from another terminal:

  curl -i %s/hello         is turned away: 401
  curl -i http://%s/hello          is answered: 200

`, server, d.lifetime, api, d.from, d.status, api, d.from)
	if d.rate > 0 {
		d.printf("A client that knows no OAuth calls the API through the proxy %d times a second.\n", d.rate)
	}
	d.printf("Stop with Ctrl-C.\n\n")
}

// issued prints a line for a token. The authorization server calls it.
func (d *demo) issued(n int, lifetime time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := time.Now()
	what := "obtained"
	if !d.ends.IsZero() {
		what = fmt.Sprintf("obtained %.1fs before the last one ends", d.ends.Sub(t).Seconds())
	}
	d.tokens, d.ends = n, t.Add(lifetime)
	d.printf("%s  token #%d %s; %s\n", t.Format(time.TimeOnly), n, what, d.tally())
}

// tally tells how the client fares. Called with the lock.
func (d *demo) tally() string {
	return fmt.Sprintf("%d requests answered, %d failed, slowest %s", d.ok, d.failed, d.slowest.Round(100*time.Microsecond))
}

// call is the client that knows no OAuth.
func (d *demo) call(ctx context.Context) {
	if d.rate == 0 {
		<-ctx.Done()
		return
	}
	tick := time.NewTicker(time.Second / time.Duration(d.rate))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			start := time.Now()
			err := get("http://" + d.from + "/hello")
			took := time.Since(start)
			d.mu.Lock()
			d.slowest = max(d.slowest, took)
			if err != nil {
				d.failed++
				d.printf("%s  a request failed: %v\n", time.Now().Format(time.TimeOnly), err)
			} else {
				d.ok++
			}
			d.mu.Unlock()
		}
	}
}

func get(url string) error {
	res, err := http.Get(url) //nolint:gosec // the proxy is our own
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}
