package main

import (
	"context"
	"os/exec"
	"time"
)

// haproxy is Debian's, with a header that stands in its configuration.
func haproxy(ctx context.Context) subject {
	s := subject{name: "HAProxy, static header", key: "haproxy", static: true, tokens: time.Hour}
	const path = "/usr/sbin/haproxy"
	if _, s.missing = fromDebian(ctx, "haproxy", func() (string, bool) { return path, exists(path) }); s.missing != "" {
		return s
	}
	s.command = func(t *turn) (*exec.Cmd, error) {
		file, err := t.write("haproxy.cfg", t.fill(haproxyConf))
		if err != nil {
			return nil, err
		}
		return exec.Command(path, "-db", "-f", file), nil
	}
	return s
}

// haproxyConf is about what the others do. HAProxy makes a thread for each
// processor that it may run on, and keeps connections to the API, which callers
// share.
const haproxyConf = `
global
	maxconn 8192
defaults
	mode http
	timeout connect 5s
	timeout client 60s
	timeout server 60s
frontend callers
	bind PROXY
	backlog 4096
	option forwardfor
	http-request set-header X-Forwarded-Proto http
	http-request set-header X-Forwarded-Host %[req.hdr(host)]
	http-request set-header Authorization "Bearer STATIC"
	default_backend api
backend api
	http-reuse always
	server api API
`
