package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status [<credential>] [--wait <duration>] [--address <address>] [--config <path>] [--json]",
		Short: "Tells how the credentials of a running Caddy stand",
		Long: `
Asks a running Caddy through its admin API, and prints a table of its
credentials; for each that is not well, what is wrong and what to do. With the
name of one, all that is known of it. No token and no secret is shown.

The process is found as caddy reload finds it: by --address, by the admin
address in --config or the Caddyfile of this folder, by the environment variable
CADDY_ADMIN, or at localhost:2019.

With --wait it asks once a second, also while no process listens yet, until every
credential that counts holds a valid token (or the one named does), and prints
what it has found then; or once that time is over, as it is then. So it holds a
pod's other containers back as a postStart hook.

It ends with
  0  every credential that counts holds a valid token (or the one named does)
  1  one does not; with --wait, not within that time
  2  no process could be asked, or it has no such credential; with --wait, not
     within that time
A credential counts if a route uses it, or its token is written to a file, and if
it has one token: not one for each value that requests bring.`,
		Example: `  caddy upstream-auth status
  caddy upstream-auth status crm --address unix//run/caddy/admin.sock
  caddy upstream-auth status --wait 2m --address unix//run/caddy/admin.sock
  caddy upstream-auth status --json --config /etc/caddy/Caddyfile`,
	}
	adminFlags(cmd)
	cmd.Flags().String("wait", "", "Wait until all is well, for so long at most, as in 30s or 10m")
	asksProcess(cmd, runStatus)
	return cmd
}

// exitUnasked is the exit code of a command that could not ask any process.
const exitUnasked = 2

// errTold ends a command with 1 that has said itself what is wrong.
var errTold = errors.New("not all is well")

// asksProcess has a command end with 0 if all is well, with 1 if not, which it
// has told, and with 2 and a line in the log if it could not find out.
func asksProcess(cmd *cobra.Command, run func(fl caddycmd.Flags, out io.Writer) (well bool, err error)) {
	unasked := func(err error) (int, error) { return exitUnasked, err }
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		well := false
		err := caddycmd.WrapCommandFuncForCobra(func(fl caddycmd.Flags) (int, error) {
			var err error
			if well, err = run(fl, os.Stdout); err != nil {
				return unasked(err)
			}
			return 0, nil
		})(cmd, args)
		if err == nil && !well {
			cmd.SilenceErrors = true
			return errTold
		}
		return err
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return unasked(err) })(cmd, nil)
	})
}

// askTimeout is for what a process tells at once.
const askTimeout = 30 * time.Second

func runStatus(fl caddycmd.Flags, out io.Writer) (bool, error) {
	if fl.NArg() > 1 {
		return false, errors.New("expected one credential, or none for all of them")
	}
	ctx, stop := interruptible()
	defer stop()
	p, err := findProcess(fl)
	if err != nil {
		return false, err
	}
	path := credentialsPath
	if fl.NArg() == 1 {
		path = credentialPath(fl.Arg(0))
	}
	look := &statusWait{process: p, path: path, one: fl.NArg() == 1}
	if err := look.readFlags(fl); err != nil {
		return false, err
	}
	r, err := look.answer(ctx)
	if err != nil {
		return false, err
	}
	if r.status != http.StatusOK {
		return false, errors.New(onlyPrintable(r.errorText()))
	}
	t := &statusTable{out: out, colour: coloured(out), now: r.at}
	if fl.Bool("json") {
		t = &statusTable{out: io.Discard}
		if _, err := out.Write(r.body); err != nil {
			return false, err
		}
	}
	if fl.NArg() == 1 {
		one, err := decoded[report](p, r)
		if err != nil {
			return false, err
		}
		return well(one), t.one(one)
	}
	all, err := decoded[overview](p, r)
	if err != nil {
		return false, err
	}
	return all.Ready, t.all(all)
}

func credentialPath(name string) string { return credentialsPath + "/" + url.PathEscape(name) }

// well tells of a credential that somebody named whether it is ready: a template
// holds no token before a request comes.
func well(r *report) bool { return r.Ready || r.Template != nil && r.State == stateOK }

// decoded reads a document of the admin API.
func decoded[V any](p *process, r *reply) (*V, error) {
	v := new(V)
	if err := json.Unmarshal(r.body, v); err != nil {
		return nil, fmt.Errorf("what the admin API at %s answers cannot be read; its plugin may be of another version than this one: %w", p.address, err)
	}
	return v, nil
}

// coloured tells whether a person looks at it who wants colours
// (https://no-color.org).
func coloured(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
