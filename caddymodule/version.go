package caddymodule

import (
	"runtime/debug"
	"sync"
)

const modulePath = "github.com/caddy-upstream-auth/caddy-upstream-auth"

// version is that of the plugin in this binary, as the Go toolchain stamped it.
var version = sync.OnceValue(func() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == modulePath && m.Version != "" {
			return m.Version
		}
	}
	return "unknown"
})
