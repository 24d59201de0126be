package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

var only = flag.String("only", "", "take these alone, separated by commas, and what they are measured against, in the scenarios start, cliff and outage: "+
	"plain, header_up, xoauth2, handler, transport, sidecar, httputil, dapr, nginx, lua, haproxy")

// subject is one of the proxies that are compared.
type subject struct {
	name string
	// key is its short name, for -only.
	key string
	// ours has the goals count for it, and bare puts no token on, which shows
	// what the machine can do. static puts the same one on each request, and asks
	// nobody for it.
	ours, bare, static bool
	// tokens is how long a token lives in the scenario cliff: for each as long
	// as makes it ask for the next one about every 2.5 s.
	tokens time.Duration
	// command is what runs it, between the servers of a turn.
	command func(*turn) (*exec.Cmd, error)
	// missing says why it takes no part, and what to do about it.
	missing string
}

// subjects are all that are compared. Everything that is not about tokens is the
// same in all, or at its default where a default is what one meets: connections
// to the API are kept, as many callers may wait to be let in, nothing is logged
// of a request that went well, the host's name is passed on, and the API learns
// whom a request is from. Each has a thread for each processor that it is given.
//
// The sidecar has the same Caddyfile as cmd/caddy, and, as in
// deploy/sidecar/Caddyfile, no log of reverse_proxy's own. What that file has on
// top, a second port and an answer to other hosts, no request here comes by; and
// the host is looked at here, too.
func subjects(ctx context.Context, dir string) ([]subject, error) {
	paths := make(map[string]string)
	for _, from := range []string{"cmd/sidecar", "bench/peers/xoauth2", "bench/peers/httputil"} {
		path, err := program(ctx, dir, from)
		if err != nil {
			return nil, err
		}
		paths[from] = path
	}
	path, err := ours(ctx, dir)
	if err != nil {
		return nil, err
	}
	paths["cmd/caddy"] = path
	return []subject{
		{name: "reverse_proxy alone", key: "plain", bare: true, tokens: time.Hour, command: caddy(paths["cmd/caddy"], "", `
	reverse_proxy API`)},
		{name: "static header_up", key: "header_up", static: true, tokens: time.Hour, command: caddy(paths["cmd/caddy"], "", `
	reverse_proxy API {
		header_up Authorization "Bearer STATIC"
	}`)},
		// the last 10 s of each life x/oauth2 does not use
		{name: "x/oauth2 handler", key: "xoauth2", tokens: 12 * time.Second, command: caddy(paths["bench/peers/xoauth2"], "", `
	xoauth2 TOKEN_URL CLIENT {$SECRET}
	reverse_proxy API`)},
		{name: "upstream_auth, handler", key: "handler", ours: true, tokens: 4 * time.Second, command: caddy(paths["cmd/caddy"], options, `
	upstream_auth api
	reverse_proxy API`)},
		{name: "upstream_auth, transport", key: "transport", ours: true, tokens: 4 * time.Second, command: caddy(paths["cmd/caddy"], options, transport)},
		{name: "upstream_auth, sidecar", key: "sidecar", ours: true, tokens: 4 * time.Second, command: caddyLogging(paths["cmd/sidecar"], "level WARN\n\t\texclude http.handlers.reverse_proxy", options, transport)},
		{name: "httputil, oauth2.Transport", key: "httputil", tokens: 12 * time.Second, command: peer(paths["bench/peers/httputil"])},
		dapr(ctx, dir),
		nginxStatic(ctx),
		nginxLua(ctx),
		haproxy(ctx),
	}, nil
}

// logged is the sidecar where reverse_proxy has its log, too, for which Caddy
// encodes each request, though it writes the line at level DEBUG alone: the
// sidecar's program, with the Caddyfile of the others.
func logged(ctx context.Context, dir string) (subject, error) {
	path, err := program(ctx, dir, "cmd/sidecar")
	return subject{
		name: sidecarName + ", same Caddyfile", key: "logged", ours: true, tokens: 4 * time.Second,
		command: caddy(path, options, transport),
	}, err
}

// dapr is Dapr's middleware, in a module of its own: where that cannot be had,
// it takes no part.
func dapr(ctx context.Context, dir string) subject {
	s := subject{name: "Dapr's middleware", key: "dapr", tokens: tokensOfDapr}
	path, err := program(ctx, dir, "bench/peers/dapr")
	if err != nil {
		s.missing = "it could not be built: " + lastLine([]byte(err.Error()))
		return s
	}
	s.command = peer(path)
	return s
}

// chosen are those that the flag only names, and those that are always wanted;
// all without it.
func chosen(all []subject, always func(subject) bool) ([]subject, error) {
	if *only == "" {
		return all, nil
	}
	keys := strings.Split(*only, ",")
	for _, key := range keys {
		if !slices.ContainsFunc(all, func(s subject) bool { return s.key == key }) {
			return nil, fmt.Errorf("-only %s: no proxy that is compared here is called so", key)
		}
	}
	return slices.DeleteFunc(all, func(s subject) bool { return !slices.Contains(keys, s.key) && !always(s) }), nil
}

// transport is the sidecar's site.
const transport = `
	reverse_proxy API {
		transport upstream_auth api
	}`

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
	return caddyLogging(path, "level WARN", global, site)
}

// caddyLogging is caddy with other options of the log.
func caddyLogging(path, log, global, site string) func(*turn) (*exec.Cmd, error) {
	return func(t *turn) (*exec.Cmd, error) {
		file, err := t.write("Caddyfile", t.fill(`{
	admin off
	persist_config off
	log {
		`+log+`
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

// peer runs one of those of bench/peers that are told all in four arguments.
func peer(path string) func(*turn) (*exec.Cmd, error) {
	return func(t *turn) (*exec.Cmd, error) {
		cmd := exec.Command(path, strings.Fields(t.fill("PROXY http://API TOKEN_URL CLIENT"))...) //nolint:gosec // our own binary
		cmd.Env = append(os.Environ(), "CLIENT_SECRET="+secret)
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
		"STATIC", fixedToken,
		"DIR", t.dir,
	).Replace(text)
}

// tokenBytes is how long each token is: a JWT of an authorization server that
// one meets.
const tokenBytes = 909

// fixedToken is that of those that ask for none.
var fixedToken = newToken(0)

// newToken makes the text of a token, for authserver.Config.Issue.
func newToken(int) string {
	random := make([]byte, tokenBytes) // more than enough
	_, _ = rand.Read(random)           // it does not fail
	return base64.RawURLEncoding.EncodeToString(random)[:tokenBytes]
}
