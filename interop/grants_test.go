package interop

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// The cells that a server can do are in a file for each kind of server.

// client is one at a server, with a way to prove itself.
type client struct {
	credential
	method   string // client authentication
	as       string // what the server counts it as, where that is another one
	what     string // in the table
	tokenURL string // where it is another than that of the server's other clients
	jwtFile  jwtFiles
}

func byBasicAuth(id, secret, encoding, what string) client {
	auth := "client_secret_basic {env.SECRET} {\n\tencoding " + encoding + "\n}"
	return client{credential: credential{id, secret, auth, nil}, method: "client_secret_basic", what: what}
}

func bySecretPost(id, secret, what string) client {
	return client{credential: credential{id, secret, "client_secret_post {env.SECRET}", nil}, method: "client_secret_post", what: what}
}

// bySecretJWT signs with the secret; the options are lines of the method's block.
func bySecretJWT(id, secret, what string, options ...string) client {
	auth := block("client_secret_jwt {env.SECRET}", options)
	return client{credential: credential{id, secret, auth, nil}, method: "client_secret_jwt", what: what}
}

// byPrivateKey signs with the key in the file.
func byPrivateKey(id, what, keyFile string, options ...string) client {
	auth := block("private_key_jwt", append([]string{"key_file " + keyFile}, options...))
	return client{credential: credential{id, "", auth, nil}, method: "private_key_jwt", what: what}
}

// byJWTFile has another JWT made for each request.
func byJWTFile(t *testing.T, id, what string, jwt func() string) client {
	t.Helper()
	return client{
		credential: credential{id, "", "jwt_file {env." + jwtFileVariable + "}", nil},
		method:     "jwt_file", as: "private_key_jwt", what: what,
		jwtFile: jwtFiles{renewedFile(t, jwt), renewedFile(t, jwt)},
	}
}

func byNothing(id string) client {
	return client{credential: credential{id, "", "none", nil}, method: "none"}
}

// block is an option with lines of its own.
func block(option string, lines []string) string {
	if len(lines) == 0 {
		return option
	}
	return option + " {\n\t" + strings.Join(lines, "\n\t") + "\n}"
}

// jwkFile writes the private key of a PEM file as a JWK, beside it.
func jwkFile(t *testing.T, pemFile, keyID string) string {
	t.Helper()
	text, err := json.Marshal(jose.JSONWebKey{Key: readKey(t, pemFile), KeyID: keyID})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), keyID+".jwk")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// renewedFile is a file that something else writes, anew twice in each second, as a
// kubelet does in an hour: no JWT in it is sent twice.
func renewedFile(t *testing.T, jwt func() string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "jwt")
	write := func() {
		if err := os.WriteFile(file+".new", []byte(jwt()+"\n"), 0o600); err != nil {
			t.Error(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Error(err)
		}
	}
	write()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				write()
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return file
}
