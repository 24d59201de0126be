package clientauth

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// TestInterfaces: what each method tells of itself.
func TestInterfaces(t *testing.T) {
	for name, test := range map[string]struct {
		registered  []string
		parameters  []string
		secret      bool
		idOptional  bool
		certificate bool
	}{
		"client_secret_basic": {registered: []string{"client_secret_basic"}, parameters: []string{"client_id", "client_secret"}, secret: true},
		"client_secret_post":  {registered: []string{"client_secret_post"}, parameters: []string{"client_id", "client_secret"}, secret: true},
		"client_secret_jwt":   {registered: []string{"client_secret_jwt"}, parameters: assertionParameters(), secret: true},
		"private_key_jwt":     {registered: []string{"private_key_jwt"}, parameters: assertionParameters()},
		"jwt_file":            {registered: []string{"private_key_jwt"}, parameters: assertionParameters(), idOptional: true},
		"tls_client_auth":     {registered: []string{"tls_client_auth", "self_signed_tls_client_auth"}, parameters: []string{"client_id"}, certificate: true},
		"none":                {registered: []string{"none"}, parameters: []string{"client_id"}},
	} {
		method := module(t, name)
		if r, ok := method.(Registered); !ok || !slices.Equal(r.RegisteredNames(), test.registered) {
			t.Errorf("%s is not registered as %v", name, test.registered)
		}
		if got := method.Parameters(); !slices.Equal(got, test.parameters) {
			t.Errorf("%s: parameters are %v", name, got)
		}
		if _, ok := method.(SecretHolder); ok != test.secret {
			t.Errorf("%s: SecretHolder is %t", name, ok)
		}
		if i, ok := method.(Identifying); ok != test.idOptional || ok && !i.ClientIDOptional() {
			t.Errorf("%s: Identifying is %t", name, ok)
		}
		if _, ok := method.(CertificateHolder); ok != test.certificate {
			t.Errorf("%s: CertificateHolder is %t", name, ok)
		}
	}
	for _, info := range caddy.GetModules(Namespace) {
		if _, ok := info.New().(Registered); !ok {
			t.Errorf("%s is not Registered", info.ID)
		}
	}
}

func TestNoneWithoutClientID(t *testing.T) {
	r, _ := request("", nil)
	if err := (None{}).Authenticate(t.Context(), r); err != nil || r.Params.Has("client_id") {
		t.Errorf("error is %v, parameters are %v", err, r.Params)
	}
}

func TestValidateAssertions(t *testing.T) {
	const secret = "s3cr3t-hunter2"
	key := string(keyPEM(t, "P-256"))
	for _, test := range []struct {
		method caddy.Validator
		want   []string // in the error; none where it is right
	}{
		{&ClientSecretJWT{Secret: secret}, nil},
		{&ClientSecretJWT{Secret: secret, Alg: "HS512", Audience: "issuer"}, nil},
		{&ClientSecretJWT{}, []string{"client_secret_jwt", "secret", "{file.", "{env."}},
		{&ClientSecretJWT{Secret: secret, Alg: "RS256"}, []string{"client_secret_jwt", "alg is 'RS256'", "HS256, HS384, HS512"}},
		{&PrivateKeyJWT{KeyFile: "/run/key.pem"}, nil},
		{&PrivateKeyJWT{KeyFile: "{env.KEY_FILE}", KeyID: "k", Alg: "EdDSA", Audience: "token_endpoint"}, nil},
		{&PrivateKeyJWT{}, []string{"private_key_jwt", "key_file is missing", "path"}},
		{&PrivateKeyJWT{KeyFile: "{file./run/key.pem}"}, []string{"private_key_jwt", "key_file", "path", "without {file."}},
		{&PrivateKeyJWT{KeyFile: key}, []string{"private_key_jwt", "key_file", "path"}},
		{&PrivateKeyJWT{KeyFile: "/run/key.pem", Alg: "HS256"}, []string{"private_key_jwt", "alg is 'HS256'", "RS256", "EdDSA"}},
		{&JWTFile{File: "/run/jwt"}, nil},
		{&JWTFile{}, []string{"jwt_file", "path", "required"}},
		{&JWTFile{File: "{file./run/jwt}"}, []string{"jwt_file", "path", "without {file."}},
		{&JWTFile{File: mounted(`{}`)}, []string{"jwt_file", "path"}},
		{&TLSClientAuth{Cert: "/run/c", Key: "/run/k"}, nil},
		{&TLSClientAuth{Cert: "/run/c"}, []string{"tls_client_auth", "key is missing", "private key"}},
		{&TLSClientAuth{Key: "/run/k"}, []string{"tls_client_auth", "cert is missing", "certificate"}},
		{&TLSClientAuth{Cert: "/run/c", Key: key}, []string{"tls_client_auth", "key", "path"}},
	} {
		err := test.method.Validate()
		if (err != nil) != (test.want != nil) {
			t.Errorf("%+v: error is %v", test.method, err)
			continue
		}
		checkError(t, err, test.want, secret)
		checkError(t, err, nil, "PRIVATE KEY-----")
	}
}

func TestUnmarshalCaddyfileAssertions(t *testing.T) {
	const secret = "s3cr3t-hunter2"
	const key = "\nkey_file /run/key.pem\n"
	for _, test := range []struct {
		input, json string
		want        []string // in the error, in place of JSON
	}{
		{input: "client_secret_jwt " + secret, json: `{"secret":"` + secret + `"}`},
		{input: "client_secret_jwt {env.S} {\nalg HS384\naudience https://idp.example.com\n}", json: `{"secret":"{env.S}","alg":"HS384","audience":"https://idp.example.com"}`},
		{input: "client_secret_jwt {env.S} {\n}", json: `{"secret":"{env.S}"}`},
		{input: "client_secret_jwt", want: []string{"client_secret_jwt", "secret", "{file.", ":1"}},
		{input: "client_secret_jwt {\nalg HS256\n}", want: []string{"client_secret_jwt", "secret", ":1"}},
		{input: "client_secret_jwt " + secret + " " + secret, want: []string{"client_secret_jwt", "one argument", ":1"}},
		{input: "client_secret_jwt " + secret + " {\nbogus 1\n}", want: []string{"client_secret_jwt", "'bogus'", "alg, audience", ":2"}},
		{input: "client_secret_jwt " + secret + " {\naudience x\nalg RS256\n}", want: []string{"client_secret_jwt", "alg is 'RS256'", "HS256, HS384, HS512", ":3"}},
		{input: "client_secret_jwt " + secret + " {\nalg\n}", want: []string{"alg", "argument", ":2"}},
		{input: "client_secret_jwt " + secret + " {\nalg HS256 HS384\n}", want: []string{"alg", "argument too many", ":2"}},
		{input: "client_secret_jwt " + secret + " {\nalg HS256\nalg HS256\n}", want: []string{"alg", "twice", ":3"}},

		{input: "private_key_jwt {" + key + "}", json: `{"key_file":"/run/key.pem"}`},
		{input: "private_key_jwt {" + key + "key_id k1\nalg PS256\naudience issuer\n}", json: `{"key_file":"/run/key.pem","key_id":"k1","alg":"PS256","audience":"issuer"}`},
		{input: "private_key_jwt", want: []string{"private_key_jwt", "key_file is missing", "path", ":1"}},
		{input: "private_key_jwt {\n}", want: []string{"private_key_jwt", "key_file is missing", ":1"}},
		{input: "private_key_jwt {\nalg RS256\n}", want: []string{"private_key_jwt", "key_file is missing", ":1"}},
		{input: "private_key_jwt " + secret, want: []string{"private_key_jwt", "no argument", "block", ":1"}},
		{input: "private_key_jwt {" + key + "bogus\n}", want: []string{"private_key_jwt", "'bogus'", "alg, audience, key_file, key_id", ":3"}},
		{input: "private_key_jwt {" + key + "key_file b\n}", want: []string{"key_file", "twice", "line 2", ":3"}},
		{input: "private_key_jwt {\nkey_file\n}", want: []string{"key_file", "argument", ":2"}},
		{input: "private_key_jwt {\nkey_file \"\"\n}", want: []string{"key_file", "argument", ":2"}},
		{input: "private_key_jwt {\nkey_file a b\n}", want: []string{"key_file", "argument too many", ":2"}},
		{input: "private_key_jwt {\nkey_file a {\nb c\n}\n}", want: []string{"key_file", "no block", "'b'", ":3"}},
		{input: "private_key_jwt {\nkey_file a {\n}\n}", want: []string{"key_file", "no block", ":3"}},
		{input: "private_key_jwt {\naudience x\nkey_file {file./run/key}\n}", want: []string{"key_file", "path", "without {file.", ":3"}},
		{input: "private_key_jwt {" + key + "alg none\n}", want: []string{"alg is 'none'", "RS256", ":3"}},

		{input: "jwt_file /run/jwt", json: `{"file":"/run/jwt"}`},
		{input: "jwt_file /run/jwt {\nallow_any_audience\n}", json: `{"file":"/run/jwt","allow_any_audience":true}`},
		{input: "jwt_file", want: []string{"jwt_file", "path", ":1"}},
		{input: "jwt_file \"\"", want: []string{"jwt_file", "path", ":1"}},
		{input: "jwt_file {\nallow_any_audience\n}", want: []string{"jwt_file", "path", ":1"}},
		{input: "jwt_file a b", want: []string{"jwt_file", "one argument", ":1"}},
		{input: "jwt_file {file./run/jwt}", want: []string{"jwt_file", "path", "without {file.", ":1"}},
		{input: "jwt_file a {\nbogus\n}", want: []string{"jwt_file", "'bogus'", "allow_any_audience", ":2"}},
		{input: "jwt_file a {\nallow_any_audience yes\n}", want: []string{"allow_any_audience", "no argument", ":2"}},
		{input: "jwt_file a {\nallow_any_audience\nallow_any_audience\n}", want: []string{"allow_any_audience", "twice", ":3"}},

		{input: "tls_client_auth {\ncert /run/c.pem\nkey /run/k.pem\n}", json: `{"cert":"/run/c.pem","key":"/run/k.pem"}`},
		{input: "tls_client_auth", want: []string{"tls_client_auth", "cert is missing", ":1"}},
		{input: "tls_client_auth {\ncert a\n}", want: []string{"tls_client_auth", "key is missing", ":1"}},
		{input: "tls_client_auth {\nkey a\n}", want: []string{"tls_client_auth", "cert is missing", ":1"}},
		{input: "tls_client_auth a b", want: []string{"tls_client_auth", "no argument", "block", ":1"}},
		{input: "tls_client_auth {\nca a\n}", want: []string{"tls_client_auth", "'ca'", "cert, key", ":2"}},
		{input: "tls_client_auth {\ncert a\ncert b\n}", want: []string{"cert", "twice", ":3"}},
		{input: "tls_client_auth {\ncert a\nkey {file./run/key}\n}", want: []string{"key", "path", "without {file.", ":3"}},
	} {
		t.Run(strings.ReplaceAll(test.input, "\n", " "), func(t *testing.T) {
			name, _, _ := strings.Cut(test.input, " ")
			method := module(t, name)
			err := method.(caddyfile.Unmarshaler).UnmarshalCaddyfile(caddyfile.NewTestDispenser(test.input))
			if (err != nil) != (test.want != nil) {
				t.Fatalf("error is %v", err)
			}
			checkError(t, err, test.want, secret)
			if err != nil {
				return
			}
			raw, err := json.Marshal(method)
			if err != nil || string(raw) != test.json {
				t.Errorf("JSON is %s (%v), expected %s", raw, err, test.json)
			}
			again := module(t, name)
			if err := caddy.StrictUnmarshalJSON(raw, again); err != nil || !reflect.DeepEqual(again, method) {
				t.Errorf("read again it is %+v (%v), not %+v", again, err, method)
			}
		})
	}
}
