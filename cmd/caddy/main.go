// Command caddy is stock Caddy with the upstream_auth plugin.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-upstream-auth/caddy-upstream-auth"
)

func main() {
	caddycmd.Main()
}
