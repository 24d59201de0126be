package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [<credential>...] [--config <path>] [--spend] [--probe] [--value <name>=<value>] [--json]",
		Short: "Asks for a token with every credential of a configuration, and says what is wrong",
		Long: `
Asks for a token with every credential of a configuration, those written in
place in routes included, or with those that are named. It tells what came, and
where none came, what is wrong and what to do about it. Nothing else of the
configuration is started, so it can be that of a running Caddy. With "share" the
token is asked for under the storage's lock and stored: what runs uses it.

A credential with a refresh token is only inspected, for a token request may
spend it: what is stored is told, and its server is reached. With --spend a
token is asked for; the refresh token that comes with it is stored, where the
running Caddy finds it.

A credential whose token depends on a request's values is inspected, too, unless
--value gives them. The client's own token, which is exchanged, comes from a
file: --value subject_token=@/path.

After a refusal of the client (invalid_client), --probe tries the other ways to
send what proves it, each once, and names the one that the server takes. It is
off unless asked for, since servers may lock a client out after some failures.

Of the server's words the error code and its description are shown, secrets
masked; no token and no secret is.

Exit codes:
  0  no credential failed; warnings do not count
  1  one failed, or the check was interrupted
  2  nothing was checked: the configuration could not be loaded, a flag is wrong,
     or a credential that was named does not exist

With --json an array is printed with an object for each credential:
  credential, places  its name, and where it is written in place
  grant, client_auth  as configured
  result, reason      ok, warning, inspected or failed; why it was only inspected
  token               type, lifetime_seconds, lifetime_assumed, scopes,
                      missing_scopes, length (in bytes)
  refresh_token       stored, configured, obtained, usable, ended,
                      unanswered_since, sealed, place
  took_seconds        the token request
  failure             kind (unreachable, refused, malformed), status, code,
                      message, description
  findings            an array: severity (error, warning), wrong, do, topic,
                      runbook`,
		Example: `  caddy upstream-auth check --config /etc/caddy/Caddyfile
  caddy upstream-auth check crm --probe
  caddy upstream-auth check tenants --value http.request.header.X-Tenant=acme`,
	}
	configFlags(cmd)
	f := cmd.Flags()
	f.Bool("spend", false, "Ask for a token also where that spends a refresh token")
	f.Bool("probe", false, "After a refusal of the client, try other ways to send its proof")
	f.Duration("timeout", 0, "How long one token request may take (default: each credential's own)")
	f.StringArray("value", nil, "What a placeholder of a request stands for, name=value (may repeat)")
	f.Bool("json", false, "Print JSON")
	asksProcess(cmd, runCheck)
	return cmd
}

func runCheck(fl caddycmd.Flags, out io.Writer) (bool, error) {
	ctx, stop := interruptible()
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	k, err := checkupFromFlags(fl)
	if err != nil {
		return false, err
	}
	k.progress = newProgress(os.Stderr, isTerminal(os.Stderr), len(k.candidates))
	all := k.run(ctx)
	if fl.Bool("json") {
		err = printJSON(out, all)
	} else {
		err = (&checkTable{statusTable{out: out, colour: coloured(out)}}).all(all)
	}
	k.close() // which waits for what is being stored
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(all, func(r *checked) bool { return r.Result == checkedFailed }), nil
}

// checkupFromFlags loads what is to be checked.
func checkupFromFlags(fl caddycmd.Flags) (*checkup, error) {
	k := &checkup{spend: fl.Bool("spend"), probe: fl.Bool("probe"), timeout: fl.Duration("timeout")}
	if k.timeout < 0 || k.timeout > maxTimeout {
		return nil, fmt.Errorf("--timeout: %s is out of range: expected up to %s", k.timeout, maxTimeout)
	}
	values, err := fl.GetStringArray("value")
	if err != nil {
		return nil, err
	}
	if err := k.takeValues(values); err != nil {
		return nil, fmt.Errorf("--value: %w", err)
	}
	raw, err := readConfig(fl)
	if err != nil {
		return nil, err
	}
	if k.roster, err = provisionAll(raw); err != nil {
		return nil, err
	}
	if err = k.only(fl.Args()); err == nil {
		err = k.checkValues()
	}
	if err != nil {
		k.close()
		return nil, err
	}
	return k, nil
}

// takeValues reads name=value. A client's token on the command line could be
// read by every process of the machine.
func (k *checkup) takeValues(values []string) error {
	k.values = make(map[string]string)
	for _, v := range values {
		name, value, ok := strings.Cut(v, "=")
		name = strings.TrimSuffix(strings.TrimPrefix(name, "{"), "}")
		if !ok || name == "" {
			return errors.New("expected <name>=<value>, as in http.request.header.X-Tenant=acme")
		}
		if name != subjectTokenValue {
			k.values[name] = value
			continue
		}
		path, ok := strings.CutPrefix(value, "@")
		if !ok {
			return errors.New("subject_token is a secret, which the command line shows to every process: write it into a file, and subject_token=@<its path>")
		}
		content, err := newResolver(nil).secretFile(path)
		if err != nil {
			return fmt.Errorf("subject_token: %w", err)
		}
		if k.subjectToken, err = bearerToken(map[string][]string{"Authorization": {"Bearer " + trimNewline(content)}}); err != nil {
			return fmt.Errorf("subject_token: %s holds no bearer token: expected up to 16 KiB of visible ASCII", path)
		}
	}
	return nil
}

// checkValues refuses a value that nothing would use.
func (k *checkup) checkValues() error {
	known := k.placeholders()
	given := sorted(k.values)
	if k.subjectToken != "" {
		given = append(given, subjectTokenValue)
	}
	for _, name := range given {
		if slices.Contains(known, name) {
			continue
		}
		if len(known) == 0 {
			return fmt.Errorf("--value: none of the credentials that are checked depends on a request's values, so %s is of no use", clipped(name, 100))
		}
		return fmt.Errorf("--value: '%s' is of no use; expected one of %s", clipped(name, 100), strings.Join(known, ", "))
	}
	return nil
}

// maxTimeout is the longest that a credential's timeout may be, too.
const maxTimeout = 10 * time.Minute
