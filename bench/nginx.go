package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// nginxPackages are Debian's.
const nginxPackages = "nginx-light libnginx-mod-http-lua lua-cjson"

// nginx is nginx with the Lua that one finds where this is asked: a token in a
// shared dictionary until a second before its end, and whoever finds none there
// asks for one. With -install, as root on Debian, it is installed if it is not
// there.
func nginx(ctx context.Context) subject {
	s := subject{name: "nginx with Lua", tokens: tokensOfNginx}
	path, modules := findNginx()
	if path == "" && *install && os.Geteuid() == 0 {
		fmt.Printf("  installing %s\n", nginxPackages)
		args := append([]string{"install", "-q", "-y", "--no-install-recommends"}, strings.Fields(nginxPackages)...)
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			s.missing = fmt.Sprintf("apt-get: %v: %s; after apt-get update, ", err, lastLine(out))
		}
		path, modules = findNginx()
	}
	if path == "" {
		s.missing += "as root: apt-get install " + nginxPackages
		return s
	}
	s.missing = ""
	s.command = func(t *turn) (*exec.Cmd, error) {
		basic := base64.StdEncoding.EncodeToString([]byte(clientID + ":" + secret))
		conf := strings.NewReplacer("MODULES", modules, "BASIC", basic).Replace(nginxConf)
		file, err := t.write("nginx.conf", t.fill(conf))
		if err != nil {
			return nil, err
		}
		return exec.Command(path, "-p", t.dir, "-c", file, "-e", filepath.Join(t.dir, "log")), nil //nolint:gosec // found above
	}
	return s
}

// findNginx returns where nginx and the folder of its modules are, or nothing
// if something that is needed is not there.
func findNginx() (path, modules string) {
	for _, path := range []string{"/usr/sbin/nginx", "/usr/bin/nginx"} {
		for _, modules := range []string{"/usr/lib/nginx/modules", "/usr/share/nginx/modules"} {
			cjson, err := filepath.Glob("/usr/lib/*/lua/5.1/cjson.so")
			if err == nil && len(cjson) > 0 && exists(path) && exists(modules+"/ndk_http_module.so") && exists(modules+"/ngx_http_lua_module.so") {
				return path, modules
			}
		}
	}
	return "", ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func lastLine(out []byte) string {
	text := strings.TrimSpace(string(out))
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// nginxConf has a worker for each processor, and connections to the API that
// are kept, as Caddy has. Tokens are asked for with a subrequest, for which
// nothing more has to be installed.
const nginxConf = `
load_module MODULES/ndk_http_module.so;
load_module MODULES/ngx_http_lua_module.so;
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
	uwsgi_temp_path DIR/uwsgi;
	lua_package_path "/usr/share/lua/5.1/?.lua;;";
	lua_shared_dict tokens 1m;
	upstream api {
		server API;
		keepalive 256;
	}
	server {
		listen PROXY backlog=4096;
		location = /_token {
			internal;
			proxy_pass TOKEN_URL;
			proxy_pass_request_headers off;
			proxy_set_header Content-Type application/x-www-form-urlencoded;
			proxy_set_header Authorization "Basic BASIC";
		}
		location / {
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
			}
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_pass http://api;
		}
	}
}
`
