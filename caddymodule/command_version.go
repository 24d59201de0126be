package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version [--json]",
		Short: "Tells which version of the plugin this binary holds, and what it was built from",
		Long: `
Prints one line: the version of the plugin and the commit that it was built from,
as far as they are known, and those of Caddy and Go.`,
	}
	cmd.Flags().Bool("json", false, "Print it as JSON")
	cmd.RunE = caddycmd.WrapCommandFuncForCobra(func(fl caddycmd.Flags) (int, error) {
		if fl.NArg() > 0 {
			return 1, errors.New("expected no argument")
		}
		if err := printVersion(os.Stdout, thisBuild(), fl.Bool("json")); err != nil {
			return 1, err
		}
		return 0, nil
	})
	return cmd
}

func printVersion(out io.Writer, b *build, asJSON bool) error {
	if !asJSON {
		_, err := fmt.Fprintln(out, b)
		return err
	}
	raw, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, string(raw))
	return err
}
