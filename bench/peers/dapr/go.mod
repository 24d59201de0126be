// Its own module, so that users of the plugin inherit nothing of it.
module github.com/caddy-upstream-auth/caddy-upstream-auth/bench/peers/dapr

go 1.26.0

require (
	github.com/dapr/components-contrib v1.14.0-rc.6
	github.com/dapr/kit v0.13.1-0.20240402103809-0c7cfce53d9e
)

require (
	github.com/gogo/protobuf v1.3.2 // indirect
	github.com/golang/protobuf v1.5.4 // indirect
	github.com/mitchellh/mapstructure v1.5.1-0.20220423185008-bf980b35cac4 // indirect
	github.com/patrickmn/go-cache v2.1.0+incompatible // indirect
	github.com/sirupsen/logrus v1.9.3 // indirect
	github.com/spf13/cast v1.5.1 // indirect
	golang.org/x/oauth2 v0.17.0 // indirect
	golang.org/x/sys v0.21.0 // indirect
	google.golang.org/appengine v1.6.8 // indirect
	google.golang.org/protobuf v1.33.0 // indirect
	gopkg.in/inf.v0 v0.9.1 // indirect
	k8s.io/apimachinery v0.26.10 // indirect
)
