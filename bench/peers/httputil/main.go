// Command httputil is what one writes in ten lines of Go: the standard library's
// reverse proxy, and the transport of golang.org/x/oauth2, which asks for a token
// and keeps it. It is a peer for the comparisons of bench, and nothing to use.
package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: httputil <listen address> <upstream> <token_url> <client_id>, with CLIENT_SECRET in the environment")
		os.Exit(2)
	}
	upstream, err := url.Parse(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	config := clientcredentials.Config{TokenURL: os.Args[3], ClientID: os.Args[4], ClientSecret: os.Getenv("CLIENT_SECRET")}
	// As many connections to the API are kept as Caddy keeps. The default, 2,
	// would have this one open and close them all the time.
	connections := http.DefaultTransport.(*http.Transport).Clone()
	connections.MaxIdleConnsPerHost = 32
	proxy := &httputil.ReverseProxy{
		Transport: &oauth2.Transport{Source: config.TokenSource(context.Background()), Base: connections},
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(upstream)
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
	}
	fmt.Fprintln(os.Stderr, http.ListenAndServe(os.Args[1], proxy)) //nolint:gosec // a peer: all is at its default
	os.Exit(1)
}
