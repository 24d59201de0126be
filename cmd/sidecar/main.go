// Command sidecar is the binary of the image: Caddy with the upstream_auth
// plugin and those of Caddy's modules that have to do with passing requests on.
// What serves files, renders pages, compresses, or issues certificates to others
// is left out, for it costs a sidecar memory and time at each start and is of no
// use to it. docs/image.md lists it; cmd/caddy has it all.
//
// Caddy's adapter for Caddyfiles imports the modules for TLS and for a PKI, so
// these are here, whether a sidecar serves HTTPS or not.
package main

import (
	"os"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	// the process: events, storage, logs, metrics
	_ "github.com/caddyserver/caddy/v2/modules/caddyevents"
	_ "github.com/caddyserver/caddy/v2/modules/caddyevents/eventsconfig"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	_ "github.com/caddyserver/caddy/v2/modules/logging"
	_ "github.com/caddyserver/caddy/v2/modules/metrics"

	// what is done with requests and answers
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/intercept"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/logging"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/map"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/requestbody"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy/forwardauth"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/timeouts"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/tracing"

	_ "github.com/caddy-upstream-auth/caddy-upstream-auth"
	_ "github.com/caddy-upstream-auth/caddy-upstream-auth/cmd/sidecar/heap"
)

func main() {
	os.Args = watch(os.Args)
	caddycmd.Main()
}
