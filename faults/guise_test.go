package faults

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"strings"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// guise is how a cell's credential proves itself, and what it asks with. Each
// line has each method in one column or another, and each grant but refresh_token,
// which a quarter of the lines have in one column.
type guise struct {
	method string
	grant  string
	dpop   bool // with the transport alone
}

// The grants, as they are called in a Caddyfile.
const (
	clientCredentials = "client_credentials"
	jwtBearer         = "jwt_bearer"
	tokenExchange     = "token_exchange"
	refreshToken      = "refresh_token"
)

var (
	methods = []string{authserver.Basic, authserver.Post, authserver.SecretJWT, authserver.PrivateKeyJWT}
	grants  = []string{clientCredentials, jwtBearer, tokenExchange, refreshToken}
)

// guiseOf is that of the n-th line in a column.
func (col *column) guiseOf(l line, n int) guise {
	g := guise{method: methods[(n+col.number)%len(methods)], grant: grants[(n/len(methods)+col.number)%len(grants)]}
	g.dpop = (n+2*col.number)%5 == 0
	if g.grant == refreshToken && col.when != atRefresh {
		g.grant = clientCredentials // each of them writes to the storage before and after each request
	}
	if l.text != nil || l.health != nil || strings.HasPrefix(l.name, "token_type") {
		bare(&g)
	}
	if l.guise != nil {
		l.guise(&g)
	}
	switch l.how.(type) {
	case secretFile, secretSwapped: // what comes of them is told for a secret that is sent
		g.method, g.grant = authserver.Basic, clientCredentials
	}
	return g
}

// bare takes away what the line cannot do with: a type of token of its own, and
// a refresh token, which has to be in every answer, asks for no scope and always
// holds.
func bare(g *guise) {
	g.dpop = false
	if g.grant == refreshToken {
		g.grant = clientCredentials
	}
}

// configure has the server know the guise.
func (c *cell) configure(config *authserver.Config) {
	config.ClientSecret = c.secret
	config.Methods = methods
	config.ClientKeys = authserver.PublicKeys(c.column.key.Public())
	config.Assertion = c.made(ofAssertion)
	config.Late = time.Hour // the gates hold a request for as long as a column takes
	config.SubjectTokens = func(text string) (string, bool) { return "user", text == mark(ofSubject, c.name) }
	if c.guise.dpop {
		config.DPoP = authserver.DPoPAllowed
	}
	if c.guise.grant == refreshToken {
		config.RefreshTokens, config.Rotate, config.Grace = true, authserver.RotateAlways, time.Hour
	}
}

// made is a secret of the cell's own.
func (c *cell) made(kind kindOf) string { return c.column.canary.mark(kind, c.name) }

// proves is client_auth in the Caddyfile.
func (c *cell) proves(secret string) string {
	if c.guise.method == authserver.PrivateKeyJWT {
		return "client_auth private_key_jwt {\n\t\t\t\tkey_file " + c.column.keyFile() + "\n\t\t\t}"
	}
	return "client_auth " + c.guise.method + " " + secret
}

// asks is grant in the Caddyfile, and what else of a request is secret.
func (c *cell) asks() []string {
	lines := []string{"request {\n\t\t\t\theader " + apiKeyHeader + " {env." + c.variable("HEADER") + "}\n\t\t\t}"}
	if c.guise.dpop {
		lines = append(lines, "dpop {\n\t\t\t\tkey_file "+c.column.keyFile()+"\n\t\t\t}")
	}
	switch c.guise.grant {
	case jwtBearer:
		lines = append(lines, "grant jwt_bearer {\n\t\t\t\tassertion {env."+c.variable("ASSERTION")+"}\n\t\t\t}")
	case tokenExchange:
		lines = append(lines, "grant token_exchange {\n\t\t\t\tsubject_token {env."+c.variable("SUBJECT")+"}\n\t\t\t\tactor_token {env."+c.variable("ACTOR")+"}\n\t\t\t}")
	case refreshToken:
		lines = append(lines, "grant refresh_token {env."+c.variable("REFRESH")+"} {\n\t\t\t\tretry_grace 1h\n\t\t\t}")
	}
	return lines
}

// apiKeyHeader is one that some servers want, with a secret in it.
const apiKeyHeader = "X-Api-Key"

// environ are the secrets in Caddy's environment.
func (c *cell) environ() []string {
	return []string{
		c.variable("SECRET") + "=" + c.secret, c.variable("REFRESH") + "=" + c.refresh,
		c.variable("HEADER") + "=" + c.made(ofHeader), c.variable("ASSERTION") + "=" + mark(ofAssertion, c.name),
		c.variable("SUBJECT") + "=" + c.made(ofSubject), c.variable("ACTOR") + "=" + c.made(ofActor),
	}
}

// keyFile is the column's private key, which all of its clients have.
func (col *column) keyFile() string { return col.dir + "/cells/key.pem" }

// newKey makes it. Each of its lines is a secret.
func (col *column) newKey() error {
	var err error
	if col.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(col.key)
	if err != nil {
		return err
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	lines := strings.Split(text, "\n")
	for _, l := range lines[2 : len(lines)-2] { // the first is the same for each key of the curve, as is the armour
		col.canary.learn(ofKey, l)
	}
	scalar, err := col.key.Bytes()
	if err != nil {
		return err
	}
	col.canary.learn(ofKey, string(scalar))
	col.canary.learn(ofKey, new(big.Int).SetBytes(scalar).String()) // as Go prints it
	if !col.canary.pass(text)[ofKey] {
		return fmt.Errorf("the key is not found in its own file")
	}
	return os.WriteFile(col.keyFile(), []byte(text), 0o600)
}
