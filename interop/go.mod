// Its own module, so that users of the plugin inherit nothing of it.
module github.com/caddy-upstream-auth/caddy-upstream-auth/interop

go 1.26.0

ignore ./oidc-provider/node_modules
