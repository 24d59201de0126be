package faults

import (
	"flag"
	"io"
	"os"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-upstream-auth/caddy-upstream-auth"
)

// asCaddy has the test's own binary be caddy, so that it has been built with
// the race detector if the test has.
const asCaddy = "UPSTREAM_AUTH_FAULTS_AS_CADDY"

var matrixFile = flag.String("matrix", "", "file to write the table to, by its path in the repository")

func TestMain(m *testing.M) {
	if os.Getenv(asCaddy) != "" {
		go func() { // the test's end is this one's, however that ends
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(1)
		}()
		caddycmd.Main()
		return
	}
	flag.Parse()
	os.Exit(m.Run())
}
