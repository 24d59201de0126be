// Command storages is this repository's Caddy with storages that tests can have
// be slow, fail, and lie.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-upstream-auth/caddy-upstream-auth"
)

func main() {
	caddycmd.Main()
}
