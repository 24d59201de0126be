// Command xoauth2 is stock Caddy with the handler of package handler. It is a
// peer for the comparisons of bench, and nothing to use.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-upstream-auth/caddy-upstream-auth/bench/peers/xoauth2/handler"
)

func main() {
	caddycmd.Main()
}
