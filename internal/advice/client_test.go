package advice

import (
	"strings"
	"testing"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

func TestClient(t *testing.T) {
	by := func(method string) Facts {
		return with(func(k *Facts) {
			if k.Method = method; method != "client_secret_basic" {
				k.Encoding = ""
			}
		})
	}
	holding := func(secret string) Facts { return with(func(k *Facts) { k.Secret = SecretShape(secret) }) }
	tried := func(k Facts, ways ...string) Facts {
		k.Tried = make(map[string]bool)
		for _, way := range ways {
			way, ok := strings.CutSuffix(way, "!")
			k.Tried[way] = ok
		}
		return k
	}
	listed := func(k Facts, methods ...string) Facts { k.Methods = methods; return k }
	refused := says(t, 401, "invalid_client")
	const inBlock = "in the block client_auth client_secret_basic of the credential crm write: "

	for name, c := range map[string]advised{
		"nothing known": {
			failure: refused, facts: crm, as: "invalid_client", wrong: []string{"refuses the client (invalid_client, HTTP 401)"},
			do: []string{"most likely the secret has expired or was rotated", "or client_id is another client's", "run: caddy upstream-auth check"},
		},
		"403, empty":      {failure: answered(t, 403, "", ""), facts: crm, as: "403", wrong: []string{"refuses the client (HTTP 403)"}},
		"401, empty":      {failure: answered(t, 401, "", ""), facts: crm, as: "401", wrong: []string{"refuses the client (HTTP 401)"}},
		"Keycloak's word": {failure: says(t, 401, "unauthorized_client"), facts: crm, wrong: []string{"refuses the client (unauthorized_client"}},
		"Auth0's word":    {failure: says(t, 401, "access_denied"), facts: crm, wrong: []string{"refuses the client (access_denied"}},
		"WeChat's number": {failure: answered(t, 200, "application/json", `{"errcode":40125,"errmsg":"x"}`), facts: by("client_secret_post"), wrong: []string{"refuses the client (40125)"}},
		"Spring's words":  {failure: answered(t, 401, "application/json", `{"status":401,"error":"Unauthorized"}`), facts: crm, wrong: []string{"refuses the client (Unauthorized"}},

		"another method is taken": {
			failure: refused, facts: tried(crm, "client_secret_post!", "client_secret_basic raw"),
			wrong: []string{"refuses the client by client_secret_basic form", "takes it by client_secret_post"}, do: []string{"in the credential crm write: client_auth client_secret_post <the secret as now>"}, not: []string{"expired"},
		},
		"raw is taken":   {failure: refused, facts: tried(crm, "client_secret_post", "client_secret_basic raw!"), do: []string{inBlock + "encoding raw"}, not: []string{"expired"}},
		"basic is taken": {failure: refused, facts: tried(by("client_secret_post"), "client_secret_basic raw!"), do: []string{"client_auth client_secret_basic <the secret as now>, and in its block: encoding raw"}},
		"the other audience is taken": {
			failure: refused, facts: tried(by("private_key_jwt"), "private_key_jwt audience token_endpoint!"),
			do: []string{"in the block client_auth private_key_jwt of the credential crm write: audience token_endpoint"},
		},
		"invalid_request, and another is taken": {failure: says(t, 400, "invalid_request"), facts: tried(crm, "client_secret_post!"), wrong: []string{"takes it by client_secret_post"}},
		"nothing is taken": {
			failure: refused, facts: tried(holding("abcDEF123"), "client_secret_post", "client_secret_basic raw"),
			do: []string{"looks in order", "in every way that was tried", "expired"}, not: []string{"run: caddy upstream-auth check"},
		},
		"method not among theirs": {
			failure: refused, facts: listed(crm, "private_key_jwt", "client_secret_post", "mark; rm -rf"),
			wrong: []string{"does not take client_secret_basic, by its metadata: it takes client_secret_post, private_key_jwt"}, do: []string{"in the credential crm write: client_auth client_secret_post"}, not: []string{"mark"},
		},
		"none not among theirs":      {failure: refused, facts: listed(by("none"), "client_secret_post"), wrong: []string{"sends none"}},
		"jwt_file not among theirs":  {failure: refused, facts: listed(by("jwt_file"), "client_secret_post"), wrong: []string{"by its metadata: it takes client_secret_post"}},
		"a good look":                {failure: refused, facts: holding("abcDEF123"), do: []string{"the secret looks in order, so that most likely"}, not: []string{"was tried", "check"}},
		"method among theirs":        {failure: refused, facts: listed(crm, "client_secret_basic"), do: []string{"expired"}},
		"jwt_file is listed as key":  {failure: refused, facts: listed(by("jwt_file"), "private_key_jwt"), do: []string{"issuer, subject and audience"}},
		"self-signed is one of them": {failure: refused, facts: listed(by("tls_client_auth"), "self_signed_tls_client_auth"), do: []string{"thumbprint"}},

		"line end":         {failure: refused, facts: holding("secret-value\n"), wrong: []string{"begins or ends with a blank or a line end"}, do: []string{"printf %s", "od -c"}, not: []string{"expired", "secret-value"}},
		"blank":            {failure: refused, facts: holding(" secret-value"), wrong: []string{"begins or ends with a blank"}},
		"byte order mark":  {failure: refused, facts: holding("\ufeffsecret-value"), wrong: []string{"byte order mark"}},
		"quoted":           {failure: refused, facts: holding(`"secret-value"`), wrong: []string{"quotation marks"}, do: []string{"without the marks"}},
		"base64":           {failure: refused, facts: holding("c2VjcmV0LXZhbHVlLTEyMw=="), wrong: []string{"encoded twice"}, do: []string{"stringData"}},
		"placeholder":      {failure: refused, facts: holding("${CRM_SECRET}"), wrong: []string{"a placeholder that nothing has replaced"}, do: []string{"{env.NAME} and {file./path/to/secret}"}},
		"form, maybe raw":  {failure: refused, facts: holding("a+b/c=!"), wrong: []string{"that servers read in two ways"}, do: []string{inBlock + "encoding raw", "if that is refused, too"}},
		"raw, maybe form":  {failure: refused, facts: with(func(k *Facts) { k.Encoding, k.Secret = "raw", SecretShape("a+b") }), do: []string{inBlock + "encoding form"}},
		"raw was tried":    {failure: refused, facts: tried(holding("a+b/c=!"), "client_secret_basic raw"), do: []string{"looks in order"}, not: []string{"encoding raw"}},
		"post has no form": {failure: refused, facts: with(func(k *Facts) { k.Method, k.Encoding, k.Secret = "client_secret_post", "", SecretShape("a+b/c") }), do: []string{"expired"}, not: []string{"encoding"}},
		"the ID of a secret": {
			failure: refused, facts: with(func(k *Facts) {
				k.Endpoint, k.Secret = "https://login.microsoftonline.com/t/oauth2/v2.0/token", SecretShape("3f2504e0-4f89-11d3-9a0c-0305e82c3301")
			}),
			do: []string{"as long as the ID of a secret"},
		},

		"private_key_jwt": {failure: refused, facts: by("private_key_jwt"), wrong: []string{"signed assertion"}, do: []string{"key_id", "audience <the server's issuer>", "clock"}, not: []string{"secret"}},
		"private_key_jwt, with an issuer": {
			failure: refused, facts: with(func(k *Facts) { k.Method, k.Issuer = "private_key_jwt", "https://idp.example.com" }),
			do: []string{"in the block client_auth private_key_jwt of the credential crm write: audience token_endpoint"},
		},
		"client_secret_jwt": {failure: refused, facts: by("client_secret_jwt"), do: []string{"expired", "JWT that is signed with the secret"}},
		"jwt_file":          {failure: refused, facts: by("jwt_file"), do: []string{"issuer, subject and audience", "base64 -d"}, not: []string{"secret"}},
		"tls_client_auth":   {failure: refused, facts: by("tls_client_auth"), wrong: []string{"client's certificate"}, do: []string{"openssl x509", "mtls_endpoint_aliases"}, not: []string{"secret"}},
		"none":              {failure: refused, facts: by("none"), wrong: []string{"client_auth none sends none"}, do: []string{"client_auth client_secret_basic {file./path/to/secret}"}},
		"another's method":  {failure: refused, facts: by("example_signature"), do: []string{"what the method example_signature sends"}},
		"no method":         {failure: refused, do: []string{"client_id"}},
	} {
		c.topic = clientRefused
		t.Run(name, c.check)
	}
}

func TestSecretShape(t *testing.T) {
	for secret, want := range map[string]Secret{
		"Vn9Kz-4_x.Q7":           {},
		"":                       {},
		" abc":                   {Blank: true, Escaped: true},
		"abc\n":                  {Blank: true, Control: true, Escaped: true},
		"abc\r":                  {Blank: true, Control: true, Escaped: true},
		"\ufeffabc":              {Control: true, Escaped: true},
		"ab\x00c":                {Control: true, Escaped: true},
		"ab\u200bc":              {Control: true, Escaped: true},
		"ab\xffc":                {Control: true, Escaped: true},
		"ab c":                   {Escaped: true},
		"p+a%s/w=d&":             {Escaped: true},
		"a~b":                    {},
		`"abc"`:                  {Quoted: true, Escaped: true},
		"'abc'":                  {Quoted: true, Escaped: true},
		`"`:                      {Escaped: true},
		`"abc`:                   {Escaped: true},
		"c2VjcmV0LXZhbHVl":       {Base64: true},
		"c2VjcmV0LXZhbHVlCg==":   {Base64: true, Escaped: true},
		"mZx8Qk3vTr6LwYb2":       {},
		"c2Vj":                   {},
		"${CRM_SECRET}":          {Placeholder: true, Escaped: true},
		"$CRM_SECRET":            {Placeholder: true, Escaped: true},
		"$(CRM_SECRET)":          {Placeholder: true, Escaped: true},
		"{env.CRM_SECRET}":       {Placeholder: true, Escaped: true},
		"{{ .Values.secret }}":   {Placeholder: true, Escaped: true},
		"%CRM_SECRET%":           {Placeholder: true, Escaped: true},
		"<client secret>":        {Placeholder: true, Escaped: true},
		"changeme":               {Placeholder: true},
		"CHANGE_ME":              {Placeholder: true},
		"your-client-secret":     {Placeholder: true},
		"REDACTED":               {Placeholder: true},
		"$2a$10$N9qo8uLOickgx2Z": {Escaped: true},
		"secretive":              {},
		"pa{ss}w":                {Escaped: true},
	} {
		want.Length = len(secret)
		if got := *SecretShape(secret); got != want {
			t.Errorf("%q: got %+v, want %+v", secret, got, want)
		}
	}
}

// TestTellsNothing: of what a server says its code alone is repeated, whatever it
// echoes.
func TestTellsNothing(t *testing.T) {
	const secret = "s3cret-that-was-sent"
	for name, body := range map[string]string{
		"description": `{"error":"invalid_client","error_description":"the words of a server"}`,
		"page":        `<html><title>the words of a server</title>`,
		"own fields":  `{"errcode":"7","errmsg":"the words of a server"}`,
		"plain":       "the words of a server",
		"title":       `{"title":"x","detail":"the words of a server"}`,
		"echo":        `{"error":"` + secret + `","error_description":"` + secret + `"}`,
	} {
		for _, status := range []int{200, 302, 400, 401, 403, 404, 405, 415, 429, 500, 503} {
			f := askFor(t, answering(status, body), &oauth.Request{URL: "https://idp.example.com/token?key=" + secret, Secrets: []string{secret}})
			a := For(f, with(func(k *Facts) {
				k.Endpoint = "https://app:" + secret + "@idp.example.com/token?key=" + secret + "#" + secret
			}))
			for _, never := range []string{"the words of a server", secret} {
				if strings.Contains(a.Wrong+a.Do, never) {
					t.Errorf("%s, %d: got %+v, want no %q", name, status, a, never)
				}
			}
		}
	}
}
