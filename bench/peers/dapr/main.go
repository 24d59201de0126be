// Command dapr is Dapr's middleware for client credentials in front of the
// standard library's reverse proxy, the way from an application to an API that
// Dapr's sidecar makes of it. It is a peer for the comparisons of bench, and
// nothing to use.
package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"

	"github.com/dapr/components-contrib/metadata"
	"github.com/dapr/components-contrib/middleware"
	"github.com/dapr/components-contrib/middleware/http/oauth2clientcredentials"
	"github.com/dapr/kit/logger"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: dapr <listen address> <upstream> <token_url> <client_id>, with CLIENT_SECRET in the environment")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(address, to, tokenURL, clientID string) error {
	upstream, err := url.Parse(to)
	if err != nil {
		return err
	}
	// It logs each failure, as Caddy does. What it would log of each request is
	// for debugging, and off at Dapr's default; "warn" is Caddy's level here.
	log := logger.NewLogger("bench")
	log.SetOutputLevel(logger.WarnLevel)
	// The metadata of Dapr's documentation. It demands a scope.
	token, err := oauth2clientcredentials.NewOAuth2ClientCredentialsMiddleware(log).GetHandler(context.Background(), middleware.Metadata{
		Base: metadata.Base{Properties: map[string]string{
			"clientID":     clientID,
			"clientSecret": os.Getenv("CLIENT_SECRET"),
			"scopes":       "api",
			"tokenURL":     tokenURL,
			"headerName":   "Authorization",
		}},
	})
	if err != nil {
		return err
	}
	// as many connections to the API are kept as Caddy keeps
	connections := http.DefaultTransport.(*http.Transport).Clone()
	connections.MaxIdleConnsPerHost = 32
	proxy := &httputil.ReverseProxy{
		Transport: connections,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(upstream)
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
	}
	return http.ListenAndServe(address, token(proxy)) //nolint:gosec // a peer: all is at its default
}
