package main

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// subject is one of the proxies that are compared.
type subject struct {
	name string
	// ours has the goals count for it, and bare puts no token on, which shows
	// what the machine can do.
	ours, bare bool
	// tokens is how long a token lives in the scenario cliff: for each as long
	// as makes it ask for the next one about every 2.5 s.
	tokens time.Duration
	// command is what runs it, between the servers of a turn.
	command func(*turn) (*exec.Cmd, error)
	// missing says why it takes no part, and what to do about it.
	missing string
}

// subjects are all that are compared: a Caddy that puts no token on; the same
// with this module, as a handler and as a transport; a Caddy with a plain
// golang.org/x/oauth2 handler; nginx with Lua. Everything that is not about
// tokens is the same in the four, and Caddy's default.
func subjects(ctx context.Context, dir string) ([]subject, error) {
	peer, err := program(ctx, dir, "bench/peers/xoauth2")
	if err != nil {
		return nil, err
	}
	return []subject{
		{name: "reverse_proxy alone", bare: true, tokens: time.Hour, command: caddy(*binary, "", `
	reverse_proxy API`)},
		{name: "upstream_auth, handler", ours: true, tokens: 4 * time.Second, command: caddy(*binary, options, `
	upstream_auth api
	reverse_proxy API`)},
		{name: "upstream_auth, transport", ours: true, tokens: 4 * time.Second, command: caddy(*binary, options, `
	reverse_proxy API {
		transport upstream_auth api
	}`)},
		// the last 10 s of each life it does not use
		{name: "x/oauth2 handler", tokens: 12 * time.Second, command: caddy(peer, "", `
	route {
		xoauth2 TOKEN_URL CLIENT {$SECRET}
		reverse_proxy API
	}`)},
		nginx(ctx),
	}, nil
}

// options declare the credential; all is at its default.
const options = `
	upstream_auth {
		credential api {
			token_url TOKEN_URL
			client_id CLIENT
			client_auth client_secret_basic {env.SECRET}
		}
	}`

// caddy runs a Caddy with these global options and one site of these directives.
func caddy(path, global, site string) func(*turn) (*exec.Cmd, error) {
	return func(t *turn) (*exec.Cmd, error) {
		file, err := t.write("Caddyfile", t.fill(`{
	admin off
	persist_config off
	log {
		level WARN
	}`+global+`
}
http://PROXY {
	bind 127.0.0.1`+site+`
}
`))
		if err != nil {
			return nil, err
		}
		cmd := exec.Command(path, "run", "--config", file, "--adapter", "caddyfile")
		cmd.Env = append(os.Environ(), secretEnv+"="+secret)
		return cmd, nil
	}
}

// fill puts what is known of a turn in the place of the words in capitals.
func (t *turn) fill(text string) string {
	return strings.NewReplacer(
		"TOKEN_URL", t.server.URL()+authserver.TokenPath,
		"API", t.target.Addr(),
		"PROXY", t.proxy,
		"CLIENT", clientID,
		"SECRET", secretEnv,
		"DIR", t.dir,
	).Replace(text)
}
