package caddymodule

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "upstream-auth",
		Usage: "<command>",
		Short: "Puts OAuth access tokens on upstream requests",
		Long: `
Obtains access tokens from an OAuth 2.0 authorization server, keeps them fresh,
and puts them on requests to an upstream, for programs that know no OAuth.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(demoCommand(), proxyCommand(), loginCommand(), logoutCommand(), statusCommand(), refreshCommand(), checkCommand(), versionCommand())
		},
	})
}
