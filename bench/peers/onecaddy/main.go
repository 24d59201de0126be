// Command onecaddy is a Caddy with all the ways there are to put a token on a
// request, so that bench compares them within one process: what differs
// between two of its sites is the way, and not a heap or where code came to lie.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-upstream-auth/caddy-upstream-auth"
	_ "github.com/caddy-upstream-auth/caddy-upstream-auth/bench/peers/xoauth2/handler"
)

func main() {
	caddycmd.Main()
}
