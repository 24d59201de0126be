package grants

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/go-jose/go-jose/v4"
)

// testKeys are made once: RSA takes its time.
var testKeys = sync.OnceValue(func() map[string]crypto.Signer {
	rsaKey, errRSA := rsa.GenerateKey(rand.Reader, 2048)
	ecKey, errEC := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(errRSA, errEC); err != nil {
		panic(err)
	}
	return map[string]crypto.Signer{"RSA": rsaKey, "P-256": ecKey}
})

func keyPEM(t *testing.T, name string) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(testKeys()[name])
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// tokenRequest is a token request whose placeholders and files are given.
func tokenRequest(values, files map[string]string) (r *Request, secrets *[]string) {
	secrets = new([]string)
	r = &Request{
		ClientID: "app", TokenURL: "https://idp.example.com/token", Params: url.Values{"scope": {"read"}},
		Resolve: func(value string) (string, error) {
			if v, ok := values[value]; ok {
				return v, nil
			}
			if strings.Contains(value, "{") {
				return "", errors.New("unrecognized placeholder " + value)
			}
			return value, nil
		},
	}
	r.Secret = func(value string) (string, error) {
		v, err := r.Resolve(value)
		if err == nil {
			*secrets = append(*secrets, v)
		}
		return v, err
	}
	r.ReadFile = func(path string) ([]byte, error) {
		path, err := r.Resolve(path)
		if err != nil {
			return nil, err
		}
		if content, ok := files[path]; ok {
			return []byte(content), nil
		}
		return nil, errors.New("open " + path + ": no such file")
	}
	return r, secrets
}

// checkError wants an error that holds words, and no secret.
func checkError(t *testing.T, err error, want []string, secrets ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, expected one with %q", want)
	}
	for _, word := range want {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error lacks %q: %v", word, err)
		}
	}
	for _, secret := range append(secrets, "PRIVATE KEY-----", "%!") {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error holds %q: %v", secret, err)
		}
	}
}

const secretJWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzM2NyM3QifQ.c2lnbmF0dXJl"

func TestJWTBearerAssertion(t *testing.T) {
	for _, configured := range []string{secretJWT, "{file./run/jwt}"} {
		r, secrets := tokenRequest(map[string]string{"{file./run/jwt}": secretJWT}, nil)
		if err := (&JWTBearer{Assertion: configured}).Prepare(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if want := (url.Values{"scope": {"read"}, "assertion": {secretJWT}}); !reflect.DeepEqual(r.Params, want) {
			t.Errorf("parameters are %v", r.Params)
		}
		if !slices.Contains(*secrets, secretJWT) {
			t.Error("the assertion is not masked")
		}
	}
	r, _ := tokenRequest(nil, nil)
	checkError(t, (&JWTBearer{Assertion: "{env.NOT_SET}"}).Prepare(t.Context(), r), []string{"assertion", "{env.NOT_SET}"})
	if r.Params.Has("assertion") {
		t.Error("an assertion is sent")
	}
}

func TestJWTBearerSigned(t *testing.T) {
	google := map[string]any{"type": "service_account", "private_key": keyPEM(t, "RSA"), "private_key_id": "g-1", "client_email": "app@project.example.com"}
	files := map[string]string{
		"/run/rsa.pem": keyPEM(t, "RSA"), "/run/google.json": marshal(t, google),
		"/run/ec.jwk": marshal(t, jose.JSONWebKey{Key: testKeys()["P-256"], KeyID: "jwk-1"}),
	}
	values := map[string]string{
		"{env.KEY}": "/run/ec.jwk", "{env.V}": "from the environment", "{http.request.header.X-Tenant}": "t-1",
	}
	const tokenURL, issuer = "https://idp.example.com/token", "https://idp.example.com"
	for _, test := range []struct {
		name          string
		grant         JWTBearer
		noID          bool
		issuer        string
		key, alg, kid string
		life          time.Duration
		claims        map[string]any // beside iat, exp and jti
	}{
		{
			name: "the least", grant: JWTBearer{KeyFile: "/run/rsa.pem"}, key: "RSA", alg: "RS256", life: time.Minute,
			claims: map[string]any{"iss": "app", "sub": "app", "aud": tokenURL},
		},
		{
			name: "audience of an issuer", grant: JWTBearer{KeyFile: "/run/rsa.pem"}, issuer: issuer, key: "RSA", alg: "RS256", life: time.Minute,
			claims: map[string]any{"iss": "app", "sub": "app", "aud": issuer},
		},
		{
			name: "audience token_endpoint", grant: JWTBearer{KeyFile: "/run/rsa.pem", Audience: "token_endpoint"}, issuer: issuer, key: "RSA", alg: "RS256", life: time.Minute,
			claims: map[string]any{"iss": "app", "sub": "app", "aud": tokenURL},
		},
		{
			name: "all of it", grant: JWTBearer{
				KeyFile: "/run/rsa.pem", KeyID: "k1", Alg: "PS512", Issuer: "someone", Subject: "user@example.com", Audience: "https://login.example.com",
				Lifetime: caddy.Duration(5 * time.Minute), Claims: map[string]string{"scope": "read write", "level": "3"},
			}, key: "RSA", alg: "PS512", kid: "k1", life: 5 * time.Minute,
			claims: map[string]any{"iss": "someone", "sub": "user@example.com", "aud": "https://login.example.com", "scope": "read write", "level": "3"},
		},
		{
			name: "placeholders", grant: JWTBearer{
				KeyFile: "{env.KEY}", KeyID: "{env.V}", Issuer: "{env.V}", Subject: "{env.V}", Audience: "{env.V}",
				Claims: map[string]string{"tenant": "{http.request.header.X-Tenant}"},
			}, key: "P-256", alg: "ES256", kid: "from the environment", life: time.Minute,
			claims: map[string]any{"iss": "from the environment", "sub": "from the environment", "aud": "from the environment", "tenant": "t-1"},
		},
		{
			name: "JWK", grant: JWTBearer{KeyFile: "/run/ec.jwk"}, key: "P-256", alg: "ES256", kid: "jwk-1", life: time.Minute,
			claims: map[string]any{"iss": "app", "sub": "app", "aud": tokenURL},
		},
		{
			name: "Google", grant: JWTBearer{KeyFile: "/run/google.json", Claims: map[string]string{"scope": "https://scope.example.com/x"}},
			noID: true, key: "RSA", alg: "RS256", kid: "g-1", life: time.Minute,
			claims: map[string]any{"iss": "app@project.example.com", "aud": tokenURL, "scope": "https://scope.example.com/x"},
		},
		{
			name: "Google beside a client_id", grant: JWTBearer{KeyFile: "/run/google.json"}, key: "RSA", alg: "RS256", kid: "g-1", life: time.Minute,
			claims: map[string]any{"iss": "app@project.example.com", "aud": tokenURL},
		},
		{
			name: "Google with an issuer", grant: JWTBearer{KeyFile: "/run/google.json", Issuer: "someone"}, key: "RSA", alg: "RS256", kid: "g-1", life: time.Minute,
			claims: map[string]any{"iss": "someone", "aud": tokenURL},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, secrets := tokenRequest(values, files)
				r.Issuer = test.issuer
				if test.noID {
					r.ClientID = ""
				}
				if err := test.grant.Prepare(t.Context(), r); err != nil {
					t.Fatal(err)
				}
				assertion := r.Params.Get("assertion")
				if !slices.Contains(*secrets, assertion) {
					t.Error("the assertion is not masked")
				}
				signed, err := jose.ParseSignedCompact(assertion, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(test.alg)})
				if err != nil {
					t.Fatal(err)
				}
				payload, err := signed.Verify(testKeys()[test.key].Public())
				if err != nil {
					t.Fatal(err)
				}
				if got := signed.Signatures[0].Protected.KeyID; got != test.kid {
					t.Errorf("kid is %q", got)
				}
				var claims map[string]any
				if err := json.Unmarshal(payload, &claims); err != nil {
					t.Fatal(err)
				}
				if jti, ok := claims["jti"].(string); !ok || len(jti) < 22 {
					t.Errorf("jti is %v", claims["jti"])
				}
				delete(claims, "jti")
				now := time.Now()
				want := map[string]any{"iat": float64(now.Unix() - 5), "exp": float64(now.Add(test.life).Unix())}
				maps.Copy(want, test.claims)
				if !maps.Equal(claims, want) {
					t.Errorf("the claims are %v, expected %v", claims, want)
				}
			})
		})
	}
}

// TestJWTBearerIsFresh: each attempt has a jti of its own, and reads the key
// anew.
func TestJWTBearerIsFresh(t *testing.T) {
	files := map[string]string{"/run/key": keyPEM(t, "P-256")}
	r, _ := tokenRequest(nil, files)
	seen := make(map[string]bool)
	for _, alg := range []jose.SignatureAlgorithm{"ES256", "ES256", "RS256"} {
		if alg == "RS256" {
			files["/run/key"] = keyPEM(t, "RSA")
		}
		if err := (&JWTBearer{KeyFile: "/run/key"}).Prepare(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		signed, err := jose.ParseSignedCompact(r.Params.Get("assertion"), []jose.SignatureAlgorithm{alg})
		if err != nil {
			t.Fatal(err)
		}
		var claims struct {
			ID string `json:"jti"`
		}
		if err := json.Unmarshal(signed.UnsafePayloadWithoutVerification(), &claims); err != nil {
			t.Fatal(err)
		}
		seen[claims.ID] = true
	}
	if len(seen) != 3 || len(r.Params["assertion"]) != 1 {
		t.Errorf("%d different jti, %d assertions", len(seen), len(r.Params["assertion"]))
	}
}

func TestJWTBearerFails(t *testing.T) {
	files := map[string]string{"/run/rsa.pem": keyPEM(t, "RSA"), "/run/garbage": "s3cr3t-hunter2"}
	values := map[string]string{"{env.KEY}": keyPEM(t, "P-256")}
	for name, test := range map[string]struct {
		grant JWTBearer
		want  []string
	}{
		"no file":        {JWTBearer{KeyFile: "/run/missing"}, []string{"key_file", "/run/missing", "no such file"}},
		"the key itself": {JWTBearer{KeyFile: "{env.KEY}"}, []string{"key_file", "{env.KEY}", "path"}},
		"garbage":        {JWTBearer{KeyFile: "/run/garbage"}, []string{"key_file", "/run/garbage", "neither PEM nor JSON"}},
		"alg":            {JWTBearer{KeyFile: "/run/rsa.pem", Alg: "ES256"}, []string{"alg is ES256", "RSA"}},
		"kid":            {JWTBearer{KeyFile: "/run/rsa.pem", KeyID: "{env.NOT_SET}"}, []string{"key_id", "{env.NOT_SET}"}},
		"issuer":         {JWTBearer{KeyFile: "/run/rsa.pem", Issuer: "{env.NOT_SET}"}, []string{"issuer", "{env.NOT_SET}"}},
		"no issuer":      {JWTBearer{KeyFile: "/run/rsa.pem"}, []string{"issuer is missing", "write issuer", "client_id"}},
		"subject":        {JWTBearer{KeyFile: "/run/rsa.pem", Issuer: "a", Subject: "{env.NOT_SET}"}, []string{"subject", "{env.NOT_SET}"}},
		"audience":       {JWTBearer{KeyFile: "/run/rsa.pem", Issuer: "a", Audience: "issuer"}, []string{"audience is issuer", "token_endpoint"}},
		"claim": {
			JWTBearer{KeyFile: "/run/rsa.pem", Issuer: "a", Claims: map[string]string{"tenant": "{http.request.header.X-Tenant}"}},
			[]string{"claim tenant", "{http.request.header.X-Tenant}"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := tokenRequest(values, files)
			r.ClientID = ""
			checkError(t, test.grant.Prepare(t.Context(), r), test.want, "s3cr3t-hunter2")
			if len(r.Params) != 1 {
				t.Errorf("parameters are %v", r.Params)
			}
		})
	}
}

func TestJWTBearerModule(t *testing.T) {
	grant := module(t, "jwt_bearer")
	if got := grant.GrantType(); got != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		t.Errorf("grant_type is %q (RFC 7523 §2.1)", got)
	}
	if got := grant.Parameters(); !slices.Equal(got, []string{"assertion"}) {
		t.Errorf("it sets %v", got)
	}
	if g, ok := grant.(Templated); !ok || !slices.Equal(g.TemplateOptions(), []string{"claims"}) {
		t.Error("placeholders of a request are not allowed in claims alone")
	}
	if g, ok := grant.(Identifying); !ok || !g.ClientIDOptional() {
		t.Error("it wants a client_id")
	}
	if _, ok := grant.(ClientAuthenticated); ok {
		t.Error("it wants a client_auth")
	}
}

// module makes a grant as Caddy does.
func module(t *testing.T, name string) Grant {
	t.Helper()
	info, err := caddy.GetModule(Namespace + "." + name)
	if err != nil {
		t.Fatal(err)
	}
	grant, ok := info.New().(Grant)
	if !ok {
		t.Fatalf("%s is no Grant", info.ID)
	}
	return grant
}

// caddyfileRow is a form of a grant in a Caddyfile.
type caddyfileRow struct {
	input, json string
	want        []string // in the error, in place of JSON
}

// checkCaddyfile reads a row, and its JSON again.
func checkCaddyfile(t *testing.T, row caddyfileRow, secret string) {
	t.Helper()
	name, _, _ := strings.Cut(row.input, " ")
	grant := module(t, name)
	err := grant.(caddyfile.Unmarshaler).UnmarshalCaddyfile(caddyfile.NewTestDispenser(row.input))
	if row.want != nil {
		checkError(t, err, row.want, secret)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	raw := marshal(t, grant)
	if raw != row.json {
		t.Errorf("JSON is %s, expected %s", raw, row.json)
	}
	again := module(t, name)
	if err := caddy.StrictUnmarshalJSON([]byte(raw), again); err != nil || !reflect.DeepEqual(again, grant) {
		t.Errorf("read again it is %+v (%v), not %+v", again, err, grant)
	}
	if err := again.(caddy.Validator).Validate(); err != nil {
		t.Errorf("it is not valid: %v", err)
	}
}

func TestJWTBearerCaddyfile(t *testing.T) {
	const key = "\nkey_file /run/key.pem\n"
	for _, row := range []caddyfileRow{
		{input: "jwt_bearer {\nassertion {file./run/jwt}\n}", json: `{"assertion":"{file./run/jwt}"}`},
		{input: "jwt_bearer {" + key + "}", json: `{"key_file":"/run/key.pem"}`},
		{
			input: "jwt_bearer {" + key + "key_id k\nalg PS256\nissuer i\nsubject s\naudience a\nlifetime 1h\nclaim scope \"a b\"\nclaim https://example.com/n {http.request.header.X-N}\n}",
			json:  `{"key_file":"/run/key.pem","key_id":"k","alg":"PS256","issuer":"i","subject":"s","audience":"a","lifetime":3600000000000,"claims":{"https://example.com/n":"{http.request.header.X-N}","scope":"a b"}}`,
		},
		{input: "jwt_bearer", want: []string{"jwt_bearer", "assertion", "key_file", ":1"}},
		{input: "jwt_bearer {\n}", want: []string{"jwt_bearer", "assertion", "key_file", ":1"}},
		{input: "jwt_bearer " + secretJWT, want: []string{"jwt_bearer", "no argument", "block", ":1"}},
		{input: "jwt_bearer {\nbogus\n}", want: []string{"jwt_bearer", "'bogus'", "alg, assertion, audience, claim, issuer, key_file, key_id, lifetime, subject", ":2"}},
		{input: "jwt_bearer {\nassertion " + secretJWT + key + "}", want: []string{"jwt_bearer", "key_file", "beside assertion", ":3"}},
		{input: "jwt_bearer {\nassertion " + secretJWT + "\nassertion " + secretJWT + "\n}", want: []string{"assertion", "twice", ":3"}},
		{input: "jwt_bearer {\nassertion\n}", want: []string{"assertion", "argument", ":2"}},
		{input: "jwt_bearer {\nassertion a " + secretJWT + "\n}", want: []string{"assertion", "argument too many", ":2"}},
		{input: "jwt_bearer {\nassertion " + secretJWT + "\nalg RS256\n}", want: []string{"alg stands beside assertion", "key_file", ":3"}},
		{input: "jwt_bearer {\nassertion " + secretJWT + "\nkey_id k\n}", want: []string{"key_id stands beside assertion", ":3"}},
		{input: "jwt_bearer {\nassertion " + secretJWT + "\nissuer i\n}", want: []string{"issuer stands beside assertion", ":3"}},
		{input: "jwt_bearer {\nassertion " + secretJWT + "\nsubject s\n}", want: []string{"subject stands beside assertion", ":3"}},
		{input: "jwt_bearer {\nassertion " + secretJWT + "\naudience a\n}", want: []string{"audience stands beside assertion", ":3"}},
		{input: "jwt_bearer {\nassertion " + secretJWT + "\nlifetime 1m\n}", want: []string{"lifetime stands beside assertion", ":3"}},
		{input: "jwt_bearer {\nassertion " + secretJWT + "\nclaim a b\n}", want: []string{"claim stands beside assertion", ":3"}},
		{input: "jwt_bearer {\nkey_file {file./run/key.pem}\n}", want: []string{"key_file", "path", "without {file.", ":2"}},
		{input: "jwt_bearer {" + key + "alg HS256\n}", want: []string{"alg is 'HS256'", "RS256", ":3"}},
		{input: "jwt_bearer {" + key + "lifetime soon\n}", want: []string{"lifetime", "'soon'", "duration", ":3"}},
		{input: "jwt_bearer {" + key + "lifetime 0s\n}", want: []string{"lifetime", "0s", "out of range", "1s", "1h", ":3"}},
		{input: "jwt_bearer {" + key + "lifetime 61m\n}", want: []string{"lifetime", "out of range", ":3"}},
		{input: "jwt_bearer {" + key + "lifetime\n}", want: []string{"lifetime", "argument", ":3"}},
		{input: "jwt_bearer {" + key + "claim a\n}", want: []string{"claim", "two arguments", ":3"}},
		{input: "jwt_bearer {" + key + "claim a b c\n}", want: []string{"claim", "two arguments", ":3"}},
		{input: "jwt_bearer {" + key + "claim a b\nclaim a c\n}", want: []string{"claim a", "twice", ":4"}},
		{input: "jwt_bearer {" + key + "claim {env.N} b\n}", want: []string{"claim {env.N}", "no placeholder", ":3"}},
		{input: "jwt_bearer {" + key + "claim a b {\n}\n}", want: []string{"claim", "no block", ":4"}},
		{input: "jwt_bearer {" + key + "claim a b\nclaim sub c\n}", want: []string{"claim sub", "set by subject", ":4"}},
		{input: "jwt_bearer {" + key + "claim jti c\n}", want: []string{"claim jti", "not to be set", ":3"}},
	} {
		t.Run(strings.ReplaceAll(row.input, "\n", " "), func(t *testing.T) { checkCaddyfile(t, row, secretJWT) })
	}
}

func TestJWTBearerValidate(t *testing.T) {
	for _, test := range []struct {
		grant JWTBearer
		want  []string
	}{
		{JWTBearer{}, []string{"assertion", "key_file"}},
		{JWTBearer{Assertion: secretJWT, KeyFile: "/run/key"}, []string{"key_file", "one of the two"}},
		{JWTBearer{Assertion: secretJWT, Claims: map[string]string{"a": "b"}}, []string{"claim", "key_file alone"}},
		{JWTBearer{KeyFile: keyPEM(t, "P-256")}, []string{"key_file", "path"}},
		{JWTBearer{KeyFile: "/run/key", Alg: "none"}, []string{"alg", "'none'"}},
		{JWTBearer{KeyFile: "/run/key", Lifetime: caddy.Duration(time.Millisecond)}, []string{"lifetime", "1ms", "out of range", "1s", "1h0m0s"}},
		{JWTBearer{KeyFile: "/run/key", Lifetime: -1}, []string{"lifetime", "out of range"}},
		{JWTBearer{KeyFile: "/run/key", Lifetime: caddy.Duration(time.Hour + 1)}, []string{"lifetime", "out of range"}},
		{JWTBearer{KeyFile: "/run/key", Claims: map[string]string{"exp": "1"}}, []string{"claim exp", "lifetime"}},
		{JWTBearer{KeyFile: "/run/key", Claims: map[string]string{"": "1"}}, []string{"claim", "without a name"}},
	} {
		checkError(t, test.grant.Validate(), append(test.want, "jwt_bearer: "), secretJWT)
	}
}
