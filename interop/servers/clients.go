package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// The methods by which clients prove themselves at the token endpoint.
const (
	secretBasic   = "client_secret_basic"
	secretPost    = "client_secret_post"
	privateKeyJWT = "private_key_jwt"
	none          = "none"
)

// client is registered with each of the libraries that know its method.
type client struct {
	id     string
	secret string
	method string
	key    *jose.JSONWebKey // of private_key_jwt
	jwt    bool             // gets JWTs for access tokens, where the library can
}

// Secrets with what form-encoding changes: "+", "%", "/", "=", a blank, "&" and "!". The
// second has no "%": sent raw it still decodes, but to another secret.
const (
	odd     = "p+a%s/w=d &!~:x"
	oddPlus = "p+a/s=w+d"
)

// redirectURI is that of all clients, with any port (RFC 8252 section 7.3).
const redirectURI = "http://127.0.0.1/callback"

// scopes are granted to all clients that ask for them.
var scopes = []string{"read", "write"}

// upstream may introspect.
var upstream = client{id: "upstream", secret: "secret-of-upstream", method: secretBasic}

// clientsByID are all that there are: one for each key, and those with fixed
// names. They can all use each grant that they can prove themselves for.
func clientsByID(keys []jose.JSONWebKey) map[string]client {
	all := []client{
		{id: "basic", secret: "secret-of-basic", method: secretBasic},
		{id: "basic-odd", secret: odd, method: secretBasic},
		{id: "basic-plus", secret: oddPlus, method: secretBasic},
		{id: "post", secret: "secret-of-post", method: secretPost},
		{id: "post-odd", secret: odd, method: secretPost},
		{id: "jwt", secret: "secret-of-jwt", method: secretBasic, jwt: true},
		{id: "public", method: none},
		upstream,
	}
	for _, key := range keys {
		all = append(all, client{id: "key-" + strings.ToLower(key.Algorithm), method: privateKeyJWT, key: &key})
	}
	byID := make(map[string]client, len(all))
	for _, c := range all {
		byID[c.id] = c
	}
	return byID
}

// readKeys reads a JWK Set; without a name there are no keys.
func readKeys(name string) ([]jose.JSONWebKey, error) {
	if name == "" {
		return nil, nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("%s: want a JWK Set: %w", name, err)
	}
	for _, key := range set.Keys {
		if !key.IsPublic() || key.KeyID == "" || key.Algorithm == "" {
			return nil, errors.New(name + ": want public keys, each with kid and alg")
		}
	}
	return set.Keys, nil
}
