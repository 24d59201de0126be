package challenge

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestChallenges(t *testing.T) {
	type params = map[string]string
	for name, test := range map[string]struct {
		values []string
		want   []Challenge
	}{
		"nothing":           {nil, nil},
		"empty":             {[]string{"", " ", ",", " , ,"}, nil},
		"a scheme":          {[]string{"Bearer"}, []Challenge{{Scheme: "Bearer"}}},
		"schemes":           {[]string{"Bearer, Negotiate , DPoP"}, []Challenge{{Scheme: "Bearer"}, {Scheme: "Negotiate"}, {Scheme: "DPoP"}}},
		"a parameter":       {[]string{`Bearer realm="api"`}, []Challenge{{Scheme: "Bearer", Params: params{"realm": "api"}}}},
		"several":           {[]string{`Bearer realm="api", error="invalid_token", error_description="The token expired"`}, []Challenge{{Scheme: "Bearer", Params: params{"realm": "api", "error": "invalid_token", "error_description": "The token expired"}}}},
		"RFC 9449 §9":       {[]string{`DPoP error="use_dpop_nonce", error_description="Resource server requires nonce in DPoP proof"`}, []Challenge{{Scheme: "DPoP", Params: params{"error": "use_dpop_nonce", "error_description": "Resource server requires nonce in DPoP proof"}}}},
		"RFC 9110 §11.6.1":  {[]string{`Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\""`}, []Challenge{{Scheme: "Basic", Params: params{"realm": "simple"}}, {Scheme: "Newauth", Params: params{"realm": "apps", "type": "1", "title": `Login to "apps"`}}}},
		"two fields":        {[]string{`Bearer error="invalid_token"`, `DPoP algs="ES256 PS256"`}, []Challenge{{Scheme: "Bearer", Params: params{"error": "invalid_token"}}, {Scheme: "DPoP", Params: params{"algs": "ES256 PS256"}}}},
		"token68":           {[]string{"Negotiate oYH1MIHyoAMKAQE=, Basic realm=x"}, []Challenge{{Scheme: "Negotiate", Token68: "oYH1MIHyoAMKAQE="}, {Scheme: "Basic", Params: params{"realm": "x"}}}},
		"token68 at last":   {[]string{"NTLM TlRMTVNTUAACAA== "}, []Challenge{{Scheme: "NTLM", Token68: "TlRMTVNTUAACAA=="}}},
		"blanks":            {[]string{"  Bearer   realm = \"a\" \t,\terror\t=\tb  "}, []Challenge{{Scheme: "Bearer", Params: params{"realm": "a", "error": "b"}}}},
		"no blanks":         {[]string{`Bearer realm="a",error="b",DPoP error="c"`}, []Challenge{{Scheme: "Bearer", Params: params{"realm": "a", "error": "b"}}, {Scheme: "DPoP", Params: params{"error": "c"}}}},
		"empty elements":    {[]string{`,, Bearer realm="a",, ,error="b",`}, []Challenge{{Scheme: "Bearer", Params: params{"realm": "a", "error": "b"}}}},
		"names in any case": {[]string{`bEARER Error="b"`}, []Challenge{{Scheme: "bEARER", Params: params{"error": "b"}}}},
		"repeated":          {[]string{`Bearer error="a", ERROR="b"`}, []Challenge{{Scheme: "Bearer", Params: params{"error": "a"}}}},
		"empty value":       {[]string{`Bearer realm="", error="b"`}, []Challenge{{Scheme: "Bearer", Params: params{"realm": "", "error": "b"}}}},
		"comma in a string": {[]string{`Bearer realm="a, Basic error=\"x\", b\\", error="c"`}, []Challenge{{Scheme: "Bearer", Params: params{"realm": `a, Basic error="x", b\`, "error": "c"}}}},
		"URL, no quotes":    {[]string{`Bearer resource_metadata=https://api.example.com/x?a=b, error=c`}, []Challenge{{Scheme: "Bearer", Params: params{"resource_metadata": "https://api.example.com/x?a=b", "error": "c"}}}},
		"missing comma":     {[]string{`Bearer realm="a" error="b"`}, []Challenge{{Scheme: "Bearer", Params: params{"realm": "a", "error": "b"}}}},
		"comma too many":    {[]string{`Bearer, error="b"`}, []Challenge{{Scheme: "Bearer", Params: params{"error": "b"}}}},
		"not closed":        {[]string{`Bearer error="invalid_token, DPoP`}, []Challenge{{Scheme: "Bearer", Params: params{"error": "invalid_token, DPoP"}}}},
		"backslash at last": {[]string{`Bearer error="a\`}, []Challenge{{Scheme: "Bearer", Params: params{"error": `a\`}}}},
		"no scheme":         {[]string{`error="a"`, `realm=x, Bearer error=b`}, []Challenge{{Scheme: "Bearer", Params: params{"error": "b"}}}},
		"fields are apart":  {[]string{"Bearer", `error="a"`}, []Challenge{{Scheme: "Bearer"}}},
		"garbage":           {[]string{`@@@ x="y, Bearer", "a, Basic b=c", Bearer error=b`}, []Challenge{{Scheme: "Bearer", Params: params{"error": "b"}}}},
		"slash in a scheme": {[]string{"Bearer/x, DPoP"}, []Challenge{{Scheme: "Bearer"}, {Scheme: "DPoP"}}},
		"beyond ASCII":      {[]string{"Bearer realm=\"ü\x80\", error=b"}, []Challenge{{Scheme: "Bearer", Params: params{"realm": "ü\x80", "error": "b"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Challenges(test.values); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, expected %+v", got, test.want)
			}
		})
	}
}

func TestIs(t *testing.T) {
	c := &Challenge{Scheme: "dpop"}
	if !c.Is("DPoP") || c.Is("DPo") || c.Is("Bearer") {
		t.Error("schemes are compared wrongly")
	}
}

// write writes challenges as a server may.
func write(challenges []Challenge) string {
	var list []string
	for _, c := range challenges {
		text := c.Scheme
		if c.Token68 != "" {
			text += " " + c.Token68
		}
		for i, name := range slices.Sorted(maps.Keys(c.Params)) {
			if i > 0 || c.Token68 != "" {
				text += ","
			}
			text += " " + name + `="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(c.Params[name]) + `"`
		}
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

// FuzzChallenges: nothing panics, and what was read is read the same when it is
// written anew.
func FuzzChallenges(f *testing.F) {
	for _, value := range []string{
		"", ",", "=", `"`, `\`, "Bearer", `Bearer realm="a", error="b"`, "Negotiate abc==, Basic realm=x", "a b c=d", "a =b", "a b==c", "a \t=,b", `a b="\"`, "a =, b=",
	} {
		f.Add(value, "Bearer")
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		got := Challenges([]string{first, second})
		for _, c := range got {
			if c.Scheme == "" || strings.ContainsFunc(c.Scheme, func(r rune) bool { return r > '~' || !isToken(byte(r)) }) {
				t.Errorf("scheme %q", c.Scheme)
			}
			for name := range c.Params {
				if name == "" || name != strings.ToLower(name) {
					t.Errorf("parameter %q", name)
				}
			}
		}
		if again := Challenges([]string{write(got)}); !reflect.DeepEqual(again, got) {
			t.Errorf("%q and %q are read as\n%+v, and written as %q\n%+v", first, second, got, write(got), again)
		}
	})
}
