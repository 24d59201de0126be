package main

import (
	"context"
	"encoding/base64"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// nginxStatic is Debian's nginx with a header that stands in its configuration.
func nginxStatic(ctx context.Context) subject {
	s := subject{name: "nginx, static header", key: "nginx", static: true, tokens: time.Hour}
	path, missing := fromDebian(ctx, "nginx-light", func() (string, bool) {
		path := firstOf("/usr/sbin/nginx", "/usr/bin/nginx")
		return path, path != ""
	})
	s.missing, s.command = missing, runNginx(path, nginxParts{location: `
			proxy_set_header Authorization "Bearer STATIC";`})
	return s
}

// nginxLua is nginx with the Lua that one finds where this is asked: a token in a
// shared dictionary until a second before its end, and whoever finds none there
// asks for one. Tokens are asked for with a subrequest, for which nothing more
// has to be installed.
func nginxLua(ctx context.Context) subject {
	s := subject{name: "nginx with Lua", key: "lua", tokens: tokensOfNginx}
	it, missing := fromDebian(ctx, "nginx-light libnginx-mod-http-lua lua-cjson", findNginxLua)
	basic := base64.StdEncoding.EncodeToString([]byte(clientID + ":" + secret))
	fill := strings.NewReplacer("MODULES", it.modules, "BASIC", basic)
	s.missing, s.command = missing, runNginx(it.path, nginxParts{
		modules: fill.Replace(luaModules), http: luaShared, server: fill.Replace(luaAsk), location: luaInject,
	})
	return s
}

// nginxParts are what is added to a configuration: before all, and to each of
// its sections.
type nginxParts struct{ modules, http, server, location string }

func runNginx(path string, parts nginxParts) func(*turn) (*exec.Cmd, error) {
	return func(t *turn) (*exec.Cmd, error) {
		conf := strings.NewReplacer("MODULES", parts.modules, "HTTP", parts.http, "SERVER", parts.server, "LOCATION", parts.location).Replace(nginxConf)
		file, err := t.write("nginx.conf", t.fill(conf))
		if err != nil {
			return nil, err
		}
		return exec.Command(path, "-p", t.dir, "-c", file, "-e", filepath.Join(t.dir, "log")), nil //nolint:gosec // found above
	}
}

// withLua is an nginx and the folder of its modules.
type withLua struct{ path, modules string }

func findNginxLua() (withLua, bool) {
	path := firstOf("/usr/sbin/nginx", "/usr/bin/nginx")
	cjson, err := filepath.Glob("/usr/lib/*/lua/5.1/cjson.so")
	if err != nil || len(cjson) == 0 || path == "" {
		return withLua{}, false
	}
	for _, modules := range []string{"/usr/lib/nginx/modules", "/usr/share/nginx/modules"} {
		if exists(modules+"/ndk_http_module.so") && exists(modules+"/ngx_http_lua_module.so") {
			return withLua{path, modules}, true
		}
	}
	return withLua{}, false
}

// firstOf is the first of these files that is there; "" if none is.
func firstOf(paths ...string) string {
	for _, path := range paths {
		if exists(path) {
			return path
		}
	}
	return ""
}

const (
	luaModules = `
load_module MODULES/ndk_http_module.so;
load_module MODULES/ngx_http_lua_module.so;`

	luaShared = `
	lua_package_path "/usr/share/lua/5.1/?.lua;;";
	lua_shared_dict tokens 1m;`

	luaAsk = `
		location = /_token {
			internal;
			proxy_pass TOKEN_URL;
			proxy_pass_request_headers off;
			proxy_set_header Content-Type application/x-www-form-urlencoded;
			proxy_set_header Authorization "Basic BASIC";
		}`

	luaInject = `
			access_by_lua_block {
				local tokens = ngx.shared.tokens
				local token = tokens:get("api")
				if not token then
					local res = ngx.location.capture("/_token", {
						method = ngx.HTTP_POST, body = "grant_type=client_credentials"
					})
					if res.status ~= 200 then
						return ngx.exit(503)
					end
					local answer = require("cjson").decode(res.body)
					token = answer.access_token
					tokens:set("api", token, answer.expires_in - 1)
				end
				ngx.req.set_header("Authorization", "Bearer " .. token)
			}`
)

// nginxConf has a worker for each processor that nginx may run on, connections
// to the API that are kept, and the headers that Caddy sends.
const nginxConf = `MODULES
user root;
daemon off;
worker_processes auto;
worker_rlimit_nofile 20000;
pid DIR/nginx.pid;
events {
	worker_connections 8192;
}
http {
	access_log off;
	client_body_temp_path DIR/body;
	proxy_temp_path DIR/proxy;
	fastcgi_temp_path DIR/fastcgi;
	scgi_temp_path DIR/scgi;
	uwsgi_temp_path DIR/uwsgi;HTTP
	upstream api {
		server API;
		keepalive 256;
	}
	server {
		listen PROXY backlog=4096;SERVER
		location / {
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host $http_host;
			proxy_set_header X-Forwarded-For $remote_addr;
			proxy_set_header X-Forwarded-Proto $scheme;
			proxy_set_header X-Forwarded-Host $http_host;LOCATION
			proxy_pass http://api;
		}
	}
}
`
