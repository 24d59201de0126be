// Package upstreamauth is the importable root of the plugin: a blank import of
// it, or xcaddy build --with, adds everything that package caddymodule
// registers to a Caddy binary.
package upstreamauth

import (
	// Registers the app, the handler, the transport, and the commands.
	_ "github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule"
)
