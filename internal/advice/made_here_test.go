package advice

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/signing"
)

func TestMadeHere(t *testing.T) {
	refused := func(err error) *oauth.Failure { return &oauth.Failure{Kind: oauth.Refused, Err: err} }
	missing := filepath.Join(t.TempDir(), "crm")
	_, notThere := os.Stat(missing)
	forbidden := &fs.PathError{Op: "open", Path: "/run/secrets/crm", Err: syscall.EACCES}

	_, pair := certificate(t, &x509.Certificate{Subject: pkix.Name{CommonName: "app"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}, nil)
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	_, ended := signing.Certificate(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), time.Now())
	methods := (&oauth.Metadata{TokenEndpointAuthMethods: []string{"private_key_jwt"}}).SupportsMethod("client_secret_basic")

	for name, c := range map[string]advised{
		"no file": {
			failure: refused(fmt.Errorf("client secret: {file.%s}: %w", missing, notThere)), facts: crm,
			as: "no such file", wrong: []string{"client secret: {file." + missing}, do: []string{"put the file there", "ls -l " + missing, "without a reload"},
		},
		"no right": {
			failure: refused(fmt.Errorf("client secret: {file./run/secrets/crm}: %w", forbidden)), facts: crm,
			as: "permission denied", do: []string{"chmod 0440 /run/secrets/crm", "fsGroup"},
		},
		"too many files": {failure: refused(&fs.PathError{Op: "open", Path: "/x", Err: syscall.EMFILE}), facts: crm, as: "too many open files", do: []string{"LimitNOFILE"}},
		"empty variable": {
			failure: refused(errors.New("client secret: evaluated placeholder {env.CRM_SECRET} is empty")), facts: crm,
			wrong: []string{"{env.CRM_SECRET} is empty"}, do: []string{"set the variable CRM_SECRET", "start Caddy anew"},
		},
		"empty file":               {failure: refused(errors.New("client secret: {file./run/secrets/crm}: /run/secrets/crm is empty")), facts: crm, do: []string{"write the value into it"}},
		"unknown placeholder":      {failure: refused(errors.New("client_id: unrecognized placeholder {envv.X}")), facts: crm, do: []string{"correct the placeholder"}},
		"anything else":            {failure: refused(errors.New("jwt_file: /run/jwt holds no JWT")), facts: crm, wrong: []string{"jwt_file: /run/jwt holds no JWT"}, do: []string{"in the credential crm", "caddy reload"}},
		"anything else, somewhere": {failure: refused(errors.New("request body: unknown")), do: []string{"correct it in the credential, then"}},
		"a file system hangs":      {failure: &oauth.Failure{Kind: oauth.Unreachable, Err: errors.New("the files of the credential cannot be read: their file system hangs")}, facts: crm, do: []string{"network mount"}},
		"certificate ended":        {failure: refused(fmt.Errorf("client_auth: %w", ended)), facts: crm, as: "the certificate ended on", do: []string{"openssl x509", "without a reload"}, topic: tlsTopic},
		"method not theirs":        {failure: refused(fmt.Errorf("client_auth: %w", methods)), facts: crm, as: "is not among the methods", wrong: []string{"private_key_jwt"}, do: []string{"client_auth with one of these methods"}, topic: clientRefused},
		"bad address": {
			failure: ask(t, answering(200, ""), "https://idp.example.com/%zz"), facts: crm,
			as: "token URL", do: []string{"correct token_url"}, topic: wrongAnswer,
		},
		"bad issuer": {failure: refused(errors.New("issuer: is not a URL: expected https://host or https://host/path")), facts: Facts{Issuer: "https://idp.example.com"}, do: []string{"correct issuer"}, topic: wrongAnswer},
	} {
		if c.topic == "" {
			c.topic = files
		}
		t.Run(name, c.check)
	}
}
