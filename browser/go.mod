// Its own module, so that users of the plugin inherit nothing of it.
module github.com/caddy-upstream-auth/caddy-upstream-auth/browser

go 1.26.0

replace github.com/caddy-upstream-auth/caddy-upstream-auth => ..

require (
	github.com/caddy-upstream-auth/caddy-upstream-auth v0.0.0-00010101000000-000000000000
	github.com/chromedp/cdproto v0.159.0
	github.com/chromedp/chromedp v0.23.0
)

require (
	github.com/go-jose/go-jose/v4 v4.1.6 // indirect
	github.com/go-json-experiment/json v0.0.0-20260213210345-44df1a37e875 // indirect
)
