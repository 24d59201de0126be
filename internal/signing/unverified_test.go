package signing

import (
	"encoding/base64"
	"reflect"
	"strings"
	"testing"
	"time"
)

// token is a JWT with any header and payload.
func token(header, payload string) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(header)) + "." + enc([]byte(payload)) + ".c2lnbmF0dXJl"
}

const header = `{"alg":"RS256","kid":"k1"}`

func TestUnverified(t *testing.T) {
	for name, test := range map[string]struct {
		payload string
		want    Claims
	}{
		"nothing": {`{}`, Claims{}},
		"Kubernetes": {
			`{"aud":["https://idp.example.com"],"exp":1700003607,"iss":"https://kubernetes.default.svc","sub":"system:serviceaccount:default:app"}`,
			Claims{Issuer: "https://kubernetes.default.svc", Subject: "system:serviceaccount:default:app", Audience: []string{"https://idp.example.com"}, Expires: time.Unix(1700003607, 0)},
		},
		"SPIFFE": {
			`{"aud":["a","b"],"exp":1.700003607e9,"sub":"spiffe://example.com/app"}`,
			Claims{Subject: "spiffe://example.com/app", Audience: []string{"a", "b"}, Expires: time.Unix(1700003607, 0)},
		},
		"aud a string": {`{"aud":"a"}`, Claims{Audience: []string{"a"}}},
		"no aud in it": {`{"aud":[]}`, Claims{}},
		"nulls":        {`{"aud":null,"exp":null}`, Claims{}},
		"a fraction":   {`{"exp":1700003607.9}`, Claims{Expires: time.Unix(1700003607, 0)}},
		"far away":     {`{"exp":1e300}`, Claims{Expires: time.Unix(latest, 0)}},
		"long ago":     {`{"exp":-1e300}`, Claims{Expires: time.Unix(0, 0)}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Unverified(token(header, test.payload))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(*got, test.want) {
				t.Errorf("got %+v, expected %+v", *got, test.want)
			}
		})
	}
}

func TestUnverifiedFails(t *testing.T) {
	good := token(header, `{"sub":"a-subject-of-some-length"}`)
	parts := strings.Split(good, ".")
	for name, test := range map[string]struct{ token, want string }{
		"empty":                  {"", "three parts"},
		"opaque":                 {"s3cr3t-hunter2-s3cr3t-hunter2", "three parts"},
		"two parts":              {parts[0] + "." + parts[1], "three parts"},
		"four parts":             {good + ".AAAA", "three parts"},
		"encrypted":              {good + ".AAAA.AAAA", "encrypted"},
		"header not base64url":   {"a+b/." + parts[1] + "." + parts[2], "header is not base64url"},
		"payload padded":         {parts[0] + "." + base64.URLEncoding.EncodeToString([]byte(`{"a":12}`)) + "." + parts[2], "payload is not base64url"},
		"newline in the payload": {parts[0] + ".\n" + parts[1] + "." + parts[2], "payload is not base64url"},
		"a second one":           {good + "\n" + good, "encrypted"},
		"newline at the end":     {good + "\n", "signature is not base64url"},
		"blank before it":        {" " + good, "header is not base64url"},
		"no signature":           {parts[0] + "." + parts[1] + ".", "signature is not base64url"},
		"no payload":             {parts[0] + ".." + parts[2], "payload is not base64url"},
		"header not JSON":        {token("hello", "{}"), "header is not a JSON object"},
		"header null":            {token("null", "{}"), "header is not a JSON object"},
		"payload not JSON":       {token(header, "hello"), "payload is not a JSON object"},
		"payload a list":         {token(header, "[]"), "payload is not a JSON object"},
		"payload null":           {token(header, "null"), "payload is not a JSON object"},
		"payload cut":            {token(header, `{"sub":"x"`), "payload is not a JSON object"},
		"exp a string":           {token(header, `{"exp":"1700003607"}`), "exp is not a number"},
		"aud a number":           {token(header, `{"aud":1}`), "aud"},
		"aud with a number":      {token(header, `{"aud":["a",1]}`), "aud"},
		"iss a number":           {token(header, `{"iss":1}`), "iss is not a string"},
		"sub an object":          {token(header, `{"sub":{}}`), "sub is not a string"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Unverified(test.token)
			checkError(t, err, test.token, test.want)
		})
	}
}

// FuzzUnverified: nothing panics, what is taken can stand in a header and a
// form, and no error shows what was read.
func FuzzUnverified(f *testing.F) {
	for _, payload := range []string{`{}`, `{"aud":["a","b"],"exp":1.7e9,"iss":"i","sub":"s"}`, `{"aud":"a","exp":-1}`, `[]`, `{"aud":[[]]}`, `{"exp":1e999}`} {
		f.Add(token(header, payload))
	}
	f.Add("")
	f.Add("..")
	f.Add("a.b.c.d.e")
	f.Fuzz(func(t *testing.T, token string) {
		claims, err := Unverified(token)
		if err != nil {
			checkError(t, err, token)
			return
		}
		if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' || r == '{' || r == '}' }) {
			t.Errorf("%q is taken", token)
		}
		if y := claims.Expires.UTC().Year(); !claims.Expires.IsZero() && (y < 1970 || y > 9999) {
			t.Errorf("exp is %v", claims.Expires)
		}
	})
}
