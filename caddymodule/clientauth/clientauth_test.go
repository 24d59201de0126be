package clientauth

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// The id and the secret hold what RFC 6749 §2.3.1 has encoded, and the colon
// at which a server splits them.
const (
	oddID     = "app:1 +%/ü"
	oddSecret = "p+a%s/w=d &!~:x"
)

// request is a token request whose placeholders resolve as given.
func request(id string, values map[string]string) (r *Request, secrets *[]string) {
	secrets = new([]string)
	resolve := func(value string) (string, error) {
		if v, ok := values[value]; ok {
			return v, nil
		}
		if strings.Contains(value, "{") {
			return "", errors.New("unrecognized placeholder " + value)
		}
		return value, nil
	}
	return &Request{
		ClientID: id, TokenURL: "https://idp.example.com/token",
		Params: url.Values{"grant_type": {"client_credentials"}}, Header: http.Header{"User-Agent": {"test"}},
		Resolve: resolve,
		Secret: func(value string) (string, error) {
			v, err := resolve(value)
			if err == nil {
				*secrets = append(*secrets, v)
			}
			return v, err
		},
	}, secrets
}

func basic(pair string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(pair)) }

func TestAuthenticate(t *testing.T) {
	const placeholder = "{file./run/secrets/crm}"
	files := map[string]string{placeholder: oddSecret}
	for _, test := range []struct {
		name          string
		method        Method
		id            string
		authorization string
		params        url.Values
		secrets       []string // what has to be masked
	}{
		{
			name: "basic, form by default", method: &ClientSecretBasic{Secret: oddSecret}, id: oddID,
			authorization: basic("app%3A1+%2B%25%2F%C3%BC:p%2Ba%25s%2Fw%3Dd+%26%21~%3Ax"),
			secrets:       []string{oddSecret, strings.TrimPrefix(basic("app%3A1+%2B%25%2F%C3%BC:p%2Ba%25s%2Fw%3Dd+%26%21~%3Ax"), "Basic ")},
		},
		{
			name: "basic, form", method: &ClientSecretBasic{Secret: oddSecret, Encoding: "form"}, id: "app",
			authorization: basic("app:p%2Ba%25s%2Fw%3Dd+%26%21~%3Ax"),
			secrets:       []string{oddSecret},
		},
		{
			name: "basic, raw", method: &ClientSecretBasic{Secret: oddSecret, Encoding: "raw"}, id: oddID,
			authorization: basic(oddID + ":" + oddSecret),
			secrets:       []string{oddSecret, strings.TrimPrefix(basic(oddID+":"+oddSecret), "Basic ")},
		},
		{
			name: "basic, nothing to encode", method: &ClientSecretBasic{Secret: "s-3.c_R"}, id: "app-1.x_Y",
			authorization: basic("app-1.x_Y:s-3.c_R"),
			secrets:       []string{"s-3.c_R"},
		},
		{
			name: "basic, from a file", method: &ClientSecretBasic{Secret: placeholder}, id: "app",
			authorization: basic("app:p%2Ba%25s%2Fw%3Dd+%26%21~%3Ax"),
			secrets:       []string{oddSecret},
		},
		{
			name: "post", method: &ClientSecretPost{Secret: oddSecret}, id: oddID,
			params:  url.Values{"client_id": {oddID}, "client_secret": {oddSecret}},
			secrets: []string{oddSecret},
		},
		{
			name: "post, from a file", method: &ClientSecretPost{Secret: placeholder}, id: "app",
			params:  url.Values{"client_id": {"app"}, "client_secret": {oddSecret}},
			secrets: []string{oddSecret},
		},
		{name: "none", method: &None{}, id: oddID, params: url.Values{"client_id": {oddID}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, secrets := request(test.id, files)
			if err := test.method.Authenticate(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if got := r.Header.Get("Authorization"); got != test.authorization {
				t.Errorf("Authorization is %q, expected %q", got, test.authorization)
			}
			if want := 1 + min(1, len(test.authorization)); len(r.Header) != want || r.Header.Get("User-Agent") != "test" {
				t.Errorf("headers are %v", r.Header)
			}
			want := url.Values{"grant_type": {"client_credentials"}}
			maps.Copy(want, test.params)
			if !reflect.DeepEqual(r.Params, want) {
				t.Errorf("parameters are %v, expected %v", r.Params, want)
			}
			for _, secret := range test.secrets {
				if !slices.Contains(*secrets, secret) {
					t.Errorf("%q is not masked, only %q", secret, *secrets)
				}
			}
			for name := range test.params {
				if !slices.Contains(test.method.Parameters(), name) {
					t.Errorf("Parameters() = %v lacks %s, which is set", test.method.Parameters(), name)
				}
			}
		})
	}
}

// TestAuthenticateTwice: each attempt asks for the secret anew, so that one
// that was rotated is used, and a retry sends one proof and not two.
func TestAuthenticateTwice(t *testing.T) {
	values := map[string]string{"{env.S}": "old"}
	r, _ := request("app", values)
	for _, method := range []Method{&ClientSecretBasic{Secret: "{env.S}"}, &ClientSecretPost{Secret: "{env.S}"}} {
		values["{env.S}"] = "old"
		if err := method.Authenticate(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		values["{env.S}"] = "new"
		if err := method.Authenticate(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.Header.Values("Authorization"); !slices.Equal(got, []string{basic("app:new")}) {
		t.Errorf("Authorization is %q", got)
	}
	if got := r.Params["client_secret"]; !slices.Equal(got, []string{"new"}) {
		t.Errorf("client_secret is %q", got)
	}
}

// TestSecretThatDoesNotResolve: nothing is set, least of all an empty secret.
func TestSecretThatDoesNotResolve(t *testing.T) {
	for _, method := range []Method{
		&ClientSecretBasic{Secret: "{env.NOT_SET}"}, &ClientSecretBasic{Secret: "{env.NOT_SET}", Encoding: "raw"}, &ClientSecretPost{Secret: "{env.NOT_SET}"},
	} {
		r, _ := request("app", nil)
		err := method.Authenticate(t.Context(), r)
		if err == nil || !strings.Contains(err.Error(), "{env.NOT_SET}") || !strings.Contains(err.Error(), "secret") {
			t.Errorf("%T: error is %v", method, err)
		}
		if len(r.Header) != 1 || len(r.Params) != 1 {
			t.Errorf("%T: the request has %v and %v", method, r.Header, r.Params)
		}
	}
}

func TestParameters(t *testing.T) {
	for _, test := range []struct {
		method Method
		want   []string
	}{
		{&ClientSecretBasic{}, []string{"client_id", "client_secret"}}, // sent otherwise, and not twice
		{&ClientSecretPost{}, []string{"client_id", "client_secret"}},
		{&None{}, []string{"client_id"}},
	} {
		if got := test.method.Parameters(); !slices.Equal(got, test.want) {
			t.Errorf("%T: %v, expected %v", test.method, got, test.want)
		}
	}
}

func TestConfiguredSecret(t *testing.T) {
	for _, method := range []Method{&ClientSecretBasic{Secret: "{env.S}"}, &ClientSecretPost{Secret: "{env.S}"}} {
		holder, ok := method.(SecretHolder)
		if !ok {
			t.Errorf("%T holds a secret and does not tell", method)
		} else if got := holder.ConfiguredSecret(); got != "{env.S}" {
			t.Errorf("%T: %q", method, got)
		}
	}
	if _, ok := Method(new(None)).(SecretHolder); ok {
		t.Error("none holds a secret")
	}
}

func TestValidate(t *testing.T) {
	const secret = "s3cr3t-hunter2"
	for _, test := range []struct {
		method caddy.Validator
		want   []string // in the error; none where it is right
	}{
		{&ClientSecretBasic{Secret: secret}, nil},
		{&ClientSecretBasic{Secret: secret, Encoding: "form"}, nil},
		{&ClientSecretBasic{Secret: secret, Encoding: "raw"}, nil},
		{&ClientSecretBasic{Secret: secret, Encoding: "Raw"}, []string{"client_secret_basic", "encoding", "'Raw'", "form", "raw"}},
		{&ClientSecretBasic{Secret: secret, Encoding: "utf8"}, []string{"client_secret_basic", "encoding", "'utf8'", "form", "raw"}},
		{&ClientSecretBasic{}, []string{"client_secret_basic", "secret", "{file.", "{env."}},
		{&ClientSecretBasic{Encoding: "raw"}, []string{"client_secret_basic", "secret"}},
		{&ClientSecretPost{Secret: secret}, nil},
		{&ClientSecretPost{}, []string{"client_secret_post", "secret", "{file.", "{env."}},
	} {
		err := test.method.Validate()
		if (err != nil) != (test.want != nil) {
			t.Errorf("%+v: error is %v", test.method, err)
			continue
		}
		checkError(t, err, test.want, secret)
	}
}

func checkError(t *testing.T, err error, want []string, secret string) {
	t.Helper()
	if err == nil {
		return
	}
	for _, word := range want {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error lacks %q: %v", word, err)
		}
	}
	if strings.Contains(err.Error(), secret) {
		t.Errorf("the error holds the secret: %v", err)
	}
}

func TestUnmarshalCaddyfile(t *testing.T) {
	const secret = "s3cr3t-hunter2"
	for _, test := range []struct {
		input, json string
		want        []string // in the error, in place of JSON
	}{
		{input: "client_secret_basic " + secret, json: `{"secret":"` + secret + `"}`},
		{input: "client_secret_basic {env.S}", json: `{"secret":"{env.S}"}`},
		{input: "client_secret_basic `" + oddSecret + "` {\nencoding raw\n}", json: `{"secret":"p+a%s/w=d \u0026!~:x","encoding":"raw"}`},
		{input: "client_secret_basic x {\nencoding form\n}", json: `{"secret":"x","encoding":"form"}`},
		{input: "client_secret_basic x {\n}", json: `{"secret":"x"}`},
		{input: "client_secret_basic", want: []string{"client_secret_basic", "secret", "{file.", "{env.", ":1"}},
		{input: "client_secret_basic {\nencoding raw\n}", want: []string{"client_secret_basic", "secret", ":1"}},
		{input: "client_secret_basic " + secret + " " + secret, want: []string{"client_secret_basic", "one argument", ":1"}},
		{input: "client_secret_basic " + secret + " {\nbogus\n}", want: []string{"client_secret_basic", "'bogus'", "encoding", ":2"}},
		{input: "client_secret_basic " + secret + " {\nencoding\n}", want: []string{"encoding", "form", "raw", ":2"}},
		{input: "client_secret_basic " + secret + " {\nencoding utf8\n}", want: []string{"encoding", "form", "raw", "'utf8'", ":2"}},
		{input: "client_secret_basic " + secret + " {\nencoding form raw\n}", want: []string{"encoding", "form", "raw", ":2"}},
		{input: "client_secret_basic " + secret + " {\nencoding form\nencoding form\n}", want: []string{"encoding", "twice", ":3"}},
		{input: "client_secret_post " + secret, json: `{"secret":"` + secret + `"}`},
		{input: "client_secret_post", want: []string{"client_secret_post", "secret", "{file.", "{env.", ":1"}},
		{input: "client_secret_post " + secret + " " + secret, want: []string{"client_secret_post", "one argument", ":1"}},
		{input: "client_secret_post " + secret + " {\nencoding raw\n}", want: []string{"client_secret_post", "no options", "'encoding'", ":2"}},
		{input: "none", json: `{}`},
		{input: "none " + secret, want: []string{"none", "no secret", ":1"}},
		{input: "none {\nencoding raw\n}", want: []string{"none", "no options", "'encoding'", ":2"}},
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

// module makes a method as Caddy does.
func module(t *testing.T, name string) Method {
	t.Helper()
	info, err := caddy.GetModule(Namespace + "." + name)
	if err != nil {
		t.Fatal(err)
	}
	method, ok := info.New().(Method)
	if !ok {
		t.Fatalf("%s is no Method", info.ID)
	}
	if again := info.New(); reflect.TypeOf(again).Elem().Size() > 0 && again == any(method) {
		t.Errorf("%s: New gives the same value twice", info.ID)
	}
	return method
}
