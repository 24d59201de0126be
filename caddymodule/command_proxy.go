package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func proxyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "proxy --to <url> --token-url <url> --client-id <id> --client-secret-file <path>",
		Short: "A sidecar in one line: a proxy that puts an access token on every request",
		Long: `
Listens on a loopback address or a unix socket, obtains an access token with the
client_credentials grant, keeps it fresh, and passes every request on with it.

The secret is given as a file or as the name of an environment variable, never
on the command line, where every process of the machine can read it. The file
is read again for each token, so that a rotated secret needs no restart.

Only requests with a loopback Host (localhost, 127.0.0.1, ::1) are answered. The
admin API listens on a unix socket of mode 0600. With --status there is a page
that tells how the token stands, and for programs the same as JSON: 200 while a
valid one is held, else 503.`,
		Example: `  caddy upstream-auth proxy --to https://api.example.com \
    --token-url https://idp.example.com/token --client-id app \
    --client-secret-file /run/secrets/app --scope read`,
		Args: cobra.NoArgs,
		RunE: caddycmd.WrapCommandFuncForCobra(runProxy),
	}
	f := cmd.Flags()
	f.StringP("from", "f", "127.0.0.1:8080", "Where to listen: a loopback address or unix//path/to/socket")
	f.StringSliceP("to", "t", nil, "The API: https://host, http://127.0.0.1:port or unix//path/to/socket (may repeat)")
	f.String("token-url", "", "The authorization server's token endpoint")
	f.String("client-id", "", "The client's identifier")
	f.String("client-secret-file", "", "The file that holds the client secret")
	f.String("client-secret-env", "", "The environment variable that holds the client secret")
	f.String("client-auth", "client_secret_basic", "How the client proves who it is: client_secret_basic, client_secret_post or none")
	f.String("basic-encoding", "", "What client_secret_basic does to id and secret first: form (RFC 6749) or raw")
	f.StringArray("scope", nil, "A scope to ask for (may repeat)")
	f.String("audience", "", "The audience to ask for")
	f.StringArray("resource", nil, "The URI of an API that the token is for, RFC 8707 (may repeat)")
	f.StringArray("param", nil, "A further parameter of the token request, name=value (may repeat)")
	f.String("ca", "", "A file of certificates in PEM to trust for the authorization server, in place of the system's")
	f.String("header", "", "The header field that carries the token (default Authorization)")
	f.String("scheme", "", "The scheme before the token (default Bearer)")
	f.String("client-authorization", "", "What becomes of the field as the program sent it: replace (default), keep or reject")
	f.String("unavailable", "", "What becomes of a request without a token: reject (default) or pass")
	f.Duration("wait", defaultWait, "How long a request waits for a token that is being fetched")
	f.Bool("insecure-token-url", false, "Allow a token URL that is http to another host than a loopback one")
	f.Bool("insecure-upstream", false, "Allow an upstream that is http to another host than a loopback one")
	f.String("status", "", "Where the status page is, such as 127.0.0.1:8081: a loopback address or unix//path/to/socket (default: nowhere)")
	f.String("admin", "", "Where the admin API listens, or off (default: a unix socket in the runtime or temporary directory)")
	f.Bool("access-log", false, "Log each request")
	f.BoolP("debug", "v", false, "Log at debug level")
	return cmd
}

func runProxy(fl caddycmd.Flags) (int, error) {
	caddy.TrapSignals()
	s, err := proxyFromFlags(fl)
	if err == nil {
		err = s.run()
	}
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	select {}
}

// proxyFromFlags makes a sidecar of the command line.
func proxyFromFlags(fl caddycmd.Flags) (*sidecar, error) {
	c, err := credentialFromFlags(fl)
	if err != nil {
		return nil, err
	}
	s := &sidecar{
		from: fl.String("from"), credential: c, status: fl.String("status"), admin: fl.String("admin"),
		insecure: fl.Bool("insecure-upstream"), accessLog: fl.Bool("access-log"), level: "INFO",
	}
	if s.to, err = fl.GetStringSlice("to"); err != nil {
		return nil, err
	}
	if s.admin == "" {
		s.admin = adminSocket()
	}
	if fl.Bool("debug") {
		s.level = "DEBUG"
	}
	wait := caddy.Duration(fl.Duration("wait"))
	s.injection = Injection{
		Header:              fl.String("header"),
		ClientAuthorization: fl.String("client-authorization"),
		Unavailable:         fl.String("unavailable"),
		Wait:                &wait,
	}
	if fl.Changed("scheme") {
		scheme := fl.String("scheme")
		s.injection.Scheme = &scheme
	}
	return s, nil
}

func credentialFromFlags(fl caddycmd.Flags) (*Credential, error) {
	for _, required := range []string{"to", "token-url", "client-id"} {
		if !fl.Changed(required) {
			return nil, fmt.Errorf("--%s is missing", required)
		}
	}
	c := &Credential{
		TokenURL: fl.String("token-url"), ClientID: fl.String("client-id"), Audience: fl.String("audience"),
		InsecureTokenURL: fl.Bool("insecure-token-url"),
	}
	if ca := fl.String("ca"); ca != "" {
		c.TLS = &TLS{CA: ca}
	}
	var err error
	if c.Scopes, err = fl.GetStringArray("scope"); err != nil {
		return nil, err
	}
	if c.Resource, err = fl.GetStringArray("resource"); err != nil {
		return nil, err
	}
	params, err := fl.GetStringArray("param")
	if err != nil {
		return nil, err
	}
	for _, p := range params {
		name, value, ok := strings.Cut(p, "=")
		if !ok {
			return nil, fmt.Errorf("--param: '%s' is not name=value", p)
		}
		if c.Param == nil {
			c.Param = make(map[string][]string)
		}
		c.Param[name] = append(c.Param[name], value)
	}
	c.ClientAuthRaw, err = clientAuthFromFlags(fl)
	return c, err
}

func clientAuthFromFlags(fl caddycmd.Flags) (json.RawMessage, error) {
	method := fl.String("client-auth")
	file, env := fl.String("client-secret-file"), fl.String("client-secret-env")
	auth := map[string]string{"method": method}
	switch {
	case file != "" && env != "":
		return nil, errors.New("--client-secret-file and --client-secret-env are given: expected one of them")
	case method == "none" && file+env != "":
		return nil, errors.New("--client-auth none takes no secret")
	case method == "none":
	case file != "":
		path, err := filepath.Abs(file)
		if err != nil {
			return nil, fmt.Errorf("--client-secret-file: %w", err)
		}
		auth["secret"] = "{file." + path + "}"
	case env != "":
		auth["secret"] = "{env." + env + "}"
	default:
		return nil, fmt.Errorf("--client-secret-file is missing: --client-auth %s needs a secret", method)
	}
	if encoding := fl.String("basic-encoding"); encoding != "" {
		auth["encoding"] = encoding
	}
	return caddyconfig.JSON(auth, nil), nil
}
