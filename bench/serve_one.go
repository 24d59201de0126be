package main

import (
	"context"
	"os"
	"os/exec"
	"strings"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

// site is one address of the one Caddy of bench/peers/onecaddy, which puts a
// token on in a way of its own.
type site struct {
	name string
	addr string
	// directives are those of the site, with the words of turn.fill.
	directives string
	// bare puts no token on, ours is this module.
	bare, ours bool
}

// oneSites are the ways that are compared within one process. The first is the
// reference.
func oneSites() ([]site, error) {
	sites := []site{
		{name: "reverse_proxy alone", bare: true, directives: `
	reverse_proxy API`},
		{name: "static header_up", directives: `
	reverse_proxy API {
		header_up Authorization "Bearer STATIC"
	}`},
		{name: "static handler", directives: `
	static_token "Bearer STATIC"
	reverse_proxy API`},
		{name: "x/oauth2 handler", directives: `
	xoauth2 TOKEN_URL CLIENT {$SECRET}
	reverse_proxy API`},
		{name: "upstream_auth, handler", ours: true, directives: `
	upstream_auth api
	reverse_proxy API`},
		{name: "upstream_auth, transport", ours: true, directives: `
	reverse_proxy API {
		transport upstream_auth api
	}`},
	}
	for i := range sites {
		addr, err := freeport.Take()
		if err != nil {
			return nil, err
		}
		sites[i].addr = addr
	}
	return sites, nil
}

// oneCaddyfile has each site in place of turn.proxy. What is not about tokens
// is at its default, and the same in all.
func oneCaddyfile(t *turn, sites []site) string {
	var b strings.Builder
	b.WriteString(t.fill(`{
	admin off
	persist_config off
	log {
		level WARN
	}` + options + `
}
`))
	for _, s := range sites {
		b.WriteString("http://" + s.addr + " {\n\tbind 127.0.0.1" + t.fill(s.directives) + "\n}\n")
	}
	return b.String()
}

// oneCaddy is the process of all these sites, whose first is the turn's proxy.
func oneCaddy(ctx context.Context, dir string, sites []site) (subject, error) {
	path, err := program(ctx, dir, "bench/peers/onecaddy")
	if err != nil {
		return subject{}, err
	}
	return subject{name: "one Caddy", command: func(t *turn) (*exec.Cmd, error) {
		t.proxy = sites[0].addr
		file, err := t.write("Caddyfile", oneCaddyfile(t, sites))
		if err != nil {
			return nil, err
		}
		cmd := exec.Command(path, "run", "--config", file, "--adapter", "caddyfile")
		cmd.Env = append(os.Environ(), secretEnv+"="+secret)
		return cmd, nil
	}}, nil
}
