package grants

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func TestClientCredentials(t *testing.T) {
	info, err := caddy.GetModule(Namespace + ".client_credentials")
	if err != nil {
		t.Fatal(err)
	}
	grant, ok := info.New().(Grant)
	if !ok {
		t.Fatalf("%s is no Grant", info.ID)
	}
	if got := grant.GrantType(); got != "client_credentials" {
		t.Errorf("grant_type is %q (RFC 6749 §4.4.2)", got)
	}
	if got := grant.Parameters(); len(got) != 0 {
		t.Errorf("it sets %v", got)
	}
	if a, ok := grant.(ClientAuthenticated); !ok || !a.RequiresClientAuth() {
		t.Error("it asks for no client authentication, which RFC 6749 §4.4.2 demands")
	}
	refuse := func(string) (string, error) { return "", errors.New("nothing is to be resolved") }
	r := &Request{Params: url.Values{"scope": {"read"}}, Resolve: refuse, Secret: refuse}
	if err := grant.Prepare(t.Context(), r); err != nil {
		t.Error(err)
	}
	if len(r.Params) != 1 || r.Params.Get("scope") != "read" {
		t.Errorf("parameters are %v", r.Params)
	}
}

func TestClientCredentialsCaddyfile(t *testing.T) {
	for _, test := range []struct {
		input string
		want  []string // in the error; none where it is right
	}{
		{"client_credentials", nil},
		{"client_credentials {\n}", nil},
		{"client_credentials surplus", []string{"client_credentials", "no argument", "'surplus'", ":1"}},
		{"client_credentials {\ninner 1\n}", []string{"client_credentials", "no options", "'inner'", ":2"}},
	} {
		err := new(ClientCredentials).UnmarshalCaddyfile(caddyfile.NewTestDispenser(test.input))
		if (err != nil) != (test.want != nil) {
			t.Errorf("%q: error is %v", test.input, err)
			continue
		}
		for _, word := range test.want {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q: the error lacks %q: %v", test.input, word, err)
			}
		}
	}
	if err := caddy.StrictUnmarshalJSON([]byte(`{"bogus": 1}`), new(ClientCredentials)); err == nil {
		t.Error("an option is taken")
	}
}
