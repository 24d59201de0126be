package signing

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckPath(t *testing.T) {
	for _, path := range []string{"/run/key.pem", "key.json", "{env.KEY_FILE}", "{env.DIR}/key.pem", "./a b/key", `C:\keys\key.pem`} {
		if err := CheckPath(path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, path := range []string{
		string(pkcs8(t, "P-256")), "-----BEGIN PRIVATE KEY----- MIIB", string(jwk(t, "P-256", nil)), `{ "kty": "EC" }`,
		"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhcHAifQ.c2lnbmF0dXJl", "a\nb", strings.Repeat("A", 2000),
	} {
		checkError(t, CheckPath(path), path, "path")
	}
	checkError(t, CheckPath("{file./run/key.pem}"), "", "path", "without {file.…}")
}

func TestLoadKey(t *testing.T) {
	files := map[string][]byte{"/run/key.pem": pkcs8(t, "P-256"), "/run/cert.pem": certificate(t)}
	values := map[string]string{
		"{env.KEY_FILE}": "/run/key.pem", "{env.CERT_FILE}": "/run/cert.pem",
		"{env.KEY}": string(pkcs8(t, "P-256")), "{env.JWK}": string(jwk(t, "P-256", nil)), "{env.MISSING}": "/run/missing",
	}
	resolve := func(value string) (string, error) {
		if value == "{env.NOT_SET}" {
			return "", errors.New("{env.NOT_SET} is empty")
		}
		if v, ok := values[value]; ok {
			return v, nil
		}
		return value, nil
	}
	read := func(path string) ([]byte, error) {
		path, err := resolve(path)
		if err != nil {
			return nil, err
		}
		if content, ok := files[path]; ok {
			return content, nil
		}
		return nil, errors.New("open " + path + ": no such file")
	}
	for _, path := range []string{"/run/key.pem", "{env.KEY_FILE}"} {
		key, err := LoadKey(path, resolve, read)
		if err != nil || key.Thumbprint() != parse(t, pkcs8(t, "P-256")).Thumbprint() {
			t.Errorf("%s: %v", path, err)
		}
	}
	for path, want := range map[string][]string{
		"{env.NOT_SET}":   {"{env.NOT_SET}", "empty"},
		"{env.KEY}":       {"{env.KEY}", "path"},
		"{env.JWK}":       {"{env.JWK}", "path"},
		"{env.MISSING}":   {"/run/missing", "no such file"},
		"{env.CERT_FILE}": {"{env.CERT_FILE}", "certificate"},
		"/run/cert.pem":   {"/run/cert.pem", "certificate"},
	} {
		_, err := LoadKey(path, resolve, read)
		checkError(t, err, values[path], want...)
	}
}
