// Command servers is an authorization server on loopback for the interop tests,
// made with one of three libraries:
//
//	servers --server=fosite|zitadel|go-oauth2 [--port=0] [--ttl=10] [--delay=0] [--client-key=<file>]
//
// ttl is the life of its access tokens in seconds, delay what each token
// request takes longer in milliseconds, client-key a file with the public keys
// (a JWK Set) of the clients that sign what they send.
//
// It prints one line of JSON on stdout when it listens, and ends when its
// standard input does, so that it never outlives the test that started it. What
// it granted is kept in memory: it is the clients that are killed.
//
// /authorize, /token, /introspect and /revoke are the library's own, as far as
// it has them. Nobody is asked at /authorize: it redirects until the
// redirect_uri has a code. /stats, /initial and /fault are for the tests.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// config is what each library is told.
type config struct {
	issuer string
	ttl    time.Duration     // of access tokens
	keys   []jose.JSONWebKey // public ones of the clients that sign
}

// library is a server made with one of them.
type library struct {
	http.Handler
	clients  map[string]client
	scope    string     // what /initial asks for, so that a refresh token is in the answer
	rawBasic bool       // id and secret are not form-encoded in Basic
	revoked  func() int // chains ended because a spent refresh token came again; nil where that is not detected
}

var libraries = map[string]func(config) (library, error){
	"fosite":    newFosite,
	"go-oauth2": newGoOAuth2,
	"zitadel":   newZitadel,
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "servers:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("servers", flag.ExitOnError)
	name := flags.String("server", "", "fosite, zitadel or go-oauth2")
	port := flags.Int("port", 0, "port to listen on; any where it is 0")
	ttl := flags.Int("ttl", 10, "life of access tokens in seconds")
	delay := flags.Int("delay", 0, "milliseconds that a token request takes longer")
	keyFile := flags.String("client-key", "", "file with a JWK Set, the public keys of clients")
	if err := flags.Parse(args); err != nil {
		return err
	}
	build, known := libraries[*name]
	if !known {
		return fmt.Errorf("--server %q: want fosite, zitadel or go-oauth2", *name)
	}
	keys, err := readKeys(*keyFile)
	if err != nil {
		return fmt.Errorf("--client-key: %w", err)
	}

	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		return err
	}
	issuer := "http://" + listener.Addr().String()
	lib, err := build(config{issuer, time.Duration(*ttl) * time.Second, keys})
	if err != nil {
		return fmt.Errorf("%s: %w", *name, err)
	}
	server := &http.Server{
		Handler:           newAuthority(issuer, lib, time.Duration(*delay)*time.Millisecond),
		ReadHeaderTimeout: time.Minute,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		ended <- err
	}()
	ready := map[string]any{"issuer": issuer, "port": listener.Addr().(*net.TCPAddr).Port}
	if err := json.NewEncoder(os.Stdout).Encode(ready); err != nil {
		return err
	}
	return <-ended
}
