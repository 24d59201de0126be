package clientauth

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// mounted is a JWT with any claims.
func mounted(claims string) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"RS256","kid":"k1"}`)) + "." + enc([]byte(claims)) + "." + enc([]byte("signature"))
}

func TestJWTFile(t *testing.T) {
	const own = `"aud":["https://idp.example.com"],"iss":"https://kubernetes.default.svc","sub":"system:serviceaccount:default:app"`
	inSeconds := func(d time.Duration) string { return fmt.Sprintf(`"exp":%d`, time.Now().Add(d).Unix()) }
	for name, test := range map[string]struct {
		claims      func() string
		end         string // of the file
		anyAudience bool
		want        []string // in the error; none where it is sent
	}{
		"projected":          {claims: func() string { return own + "," + inSeconds(time.Hour) }},
		"newline":            {claims: func() string { return own }, end: "\n"},
		"newline of Windows": {claims: func() string { return own }, end: "\r\n"},
		"two newlines":       {claims: func() string { return own }, end: "\n\n", want: []string{"not a JWT"}},
		"SPIFFE": {claims: func() string {
			return `"aud":["https://idp.example.com"],"sub":"spiffe://example.com/app",` + inSeconds(time.Minute)
		}},
		"Entra":                {claims: func() string { return `"aud":"api://AzureADTokenExchange","iss":"https://oidc.example.com"` }},
		"ended within skew":    {claims: func() string { return own + "," + inSeconds(-time.Minute) }},
		"ended":                {claims: func() string { return own + "," + inSeconds(-time.Minute-time.Second) }, want: []string{"ended at 1999-12-31T23:58:59Z", "kubelet"}},
		"ended, any audience":  {claims: func() string { return own + "," + inSeconds(-time.Hour) }, anyAudience: true, want: []string{"ended at 1999-12-31T23:00:00Z"}},
		"no audience":          {claims: func() string { return `"sub":"a"` }, want: []string{"no audience", "projected token", "audience of its own", "allow_any_audience"}},
		"empty audience":       {claims: func() string { return `"aud":[]` }, want: []string{"no audience"}},
		"no audience, allowed": {claims: func() string { return `"sub":"a"` }, anyAudience: true},
		"bad claims":           {claims: func() string { return `"aud":1` }, want: []string{"aud"}},
		"bad claims, allowed":  {claims: func() string { return `"exp":"tomorrow"` }, anyAudience: true, want: []string{"exp is not a number"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				jwt := mounted("{" + test.claims() + "}")
				r, secrets := requestWithFiles("", nil, map[string][]byte{"/run/jwt": []byte(jwt + test.end)})
				method := &JWTFile{File: "/run/jwt", AllowAnyAudience: test.anyAudience}
				err := method.Authenticate(t.Context(), r)
				if test.want != nil {
					if err == nil {
						t.Fatal("no error")
					}
					checkError(t, err, append(test.want, "jwt_file", "/run/jwt"), strings.Split(jwt, ".")[1])
					if len(r.Params) != 1 {
						t.Errorf("parameters are %v", r.Params)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				want := url.Values{"grant_type": {"client_credentials"}, "client_assertion_type": {assertionType}, "client_assertion": {jwt}}
				if !reflect.DeepEqual(r.Params, want) || !slices.Contains(*secrets, jwt) {
					t.Errorf("parameters are %v, expected %v, and masked is %q", r.Params, want, *secrets)
				}
			})
		})
	}
}

// TestJWTFileForKubernetes: whoever gets such a token can use the cluster.
func TestJWTFileForKubernetes(t *testing.T) {
	for _, claims := range []string{
		`{"aud":"https://kubernetes.default.svc"}`,
		`{"aud":["https://kubernetes.default.svc.cluster.local","k3s"]}`,
		`{"aud":["https://idp.example.com","kubernetes.default.svc"]}`,
		`{"aud":"https://kubernetes.default.svc:443/"}`,
		`{"aud":"HTTPS://Kubernetes.Default.SVC"}`,
		`{"aud":"kubernetes.default.svc."}`,
		`{"aud":"https://kubernetes.default"}`,
		`{"aud":"api"}`,
		`{"aud":["https://oidc.example.com/cluster"],"iss":"https://oidc.example.com/cluster"}`,
	} {
		files := map[string][]byte{"/run/jwt": []byte(mounted(claims))}
		r, _ := requestWithFiles("app", nil, files)
		err := (&JWTFile{File: "/run/jwt"}).Authenticate(t.Context(), r)
		if err == nil {
			t.Errorf("%s is sent", claims)
			continue
		}
		checkError(t, err, []string{"/run/jwt", "Kubernetes API", "projected token", "audience of its own", "allow_any_audience"}, "idp.example.com")
		if err := (&JWTFile{File: "/run/jwt", AllowAnyAudience: true}).Authenticate(t.Context(), r); err != nil {
			t.Errorf("%s: %v", claims, err)
		}
	}
	for _, claims := range []string{
		`{"aud":"https://idp.example.com/kubernetes.default.svc"}`,
		`{"aud":"https://kubernetes.default.example.com"}`,
		`{"aud":"api://app"}`,
		`{"aud":""}`,
	} {
		r, _ := requestWithFiles("app", nil, map[string][]byte{"/run/jwt": []byte(mounted(claims))})
		if err := (&JWTFile{File: "/run/jwt"}).Authenticate(t.Context(), r); err != nil {
			t.Errorf("%s: %v", claims, err)
		}
	}
}

func TestJWTFileReadEachTime(t *testing.T) {
	files := map[string][]byte{"/run/jwt": []byte(mounted(`{"aud":"a"}`))}
	values := map[string]string{"{env.JWT_FILE}": "/run/jwt", "{env.JWT}": mounted(`{"aud":"a"}`)}
	r, _ := requestWithFiles("app", values, files)
	method := &JWTFile{File: "{env.JWT_FILE}"}
	for _, claims := range []string{`{"aud":"a"}`, `{"aud":"b"}`} {
		files["/run/jwt"] = []byte(mounted(claims))
		if err := method.Authenticate(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if got := r.Params["client_assertion"]; !slices.Equal(got, []string{mounted(claims)}) {
			t.Errorf("client_assertion is %q", got)
		}
	}
	if got := r.Params.Get("client_id"); got != "app" {
		t.Errorf("client_id is %q", got)
	}
	for file, want := range map[string]string{"/run/missing": "no such file", "{env.NOT_SET}": "{env.NOT_SET}", "{env.JWT}": "expected the path"} {
		err := (&JWTFile{File: file}).Authenticate(t.Context(), r)
		if err == nil {
			t.Fatalf("%s: no error", file)
		}
		checkError(t, err, []string{"jwt_file", want}, mounted(`{"aud":"a"}`))
	}
}
