package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func refreshCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "refresh <credential> [--address <address>] [--config <path>] [--json]",
		Short: "Has a running Caddy ask for another token now",
		Long: `
Asks a running Caddy, through its admin API, to obtain another token for a
credential at once, and waits for what comes of it. Requests are not disturbed:
they go on with the token held, also if no other one comes. It can be done once
in 5s, and not while the authorization server has asked to be left alone
(Retry-After). If a token request is under way already, it waits for that one.

The process is found as caddy reload finds it: by --address, by the admin
address in --config or the Caddyfile of this folder, by the environment variable
CADDY_ADMIN, or at localhost:2019.

It ends with
  0  a new token has come
  1  none has: the request failed, or none could be made now
  2  no process could be asked, or it has no such credential`,
		Example: `  caddy upstream-auth refresh crm
  caddy upstream-auth refresh crm --address unix//run/caddy/admin.sock`,
	}
	adminFlags(cmd)
	asksProcess(cmd, runRefresh)
	return cmd
}

// longestRefresh is more than a token request takes with the longest timeout
// that a credential may have, and the lock that it may have to wait for.
const longestRefresh = 15 * time.Minute

func runRefresh(fl caddycmd.Flags, out io.Writer) (bool, error) {
	if fl.NArg() != 1 {
		return false, errors.New("expected the name of one credential")
	}
	ctx, stop := interruptible()
	defer stop()
	p, err := findProcess(fl)
	if err != nil {
		return false, err
	}
	name, asked := fl.Arg(0), time.Now()
	r, err := p.ask(ctx, longestRefresh, http.MethodPost, credentialPath(name)+"/refresh")
	if err != nil {
		return false, err
	}
	took := time.Since(asked).Round(time.Millisecond)
	if r.status == http.StatusNotFound {
		return false, errors.New(onlyPrintable(r.errorText()))
	}
	if fl.Bool("json") {
		_, err := out.Write(r.body)
		return r.status == http.StatusOK, err
	}
	if r.status != http.StatusOK {
		return false, p.tellFailure(ctx, out, name, r)
	}
	one, err := decoded[report](p, r)
	if err != nil {
		return false, err
	}
	valid := ""
	if one.Token != nil {
		valid = ", valid for " + shortSpan(one.Token.Expires.Sub(r.at))
	}
	_, err = fmt.Fprintf(out, "%s: new token%s, in %s\n", onlyPrintable(one.Name), valid, took)
	return true, err
}

// tellFailure says what came in place of a token: of a failed request with the
// advice, as status does.
func (p *process) tellFailure(ctx context.Context, out io.Writer, name string, r *reply) error {
	if r.status == http.StatusBadGateway {
		if now, err := p.ask(ctx, askTimeout, http.MethodGet, credentialPath(name)); err == nil && now.status == http.StatusOK {
			if one, err := decoded[report](p, now); err == nil && one.Failure != nil {
				return (&statusTable{out: out, now: now.at}).failed(one)
			}
		}
	}
	_, err := fmt.Fprintf(out, "%s: %s\n", onlyPrintable(name), onlyPrintable(r.errorText()))
	return err
}
