package grants

import (
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const (
	uriPrefix    = "urn:ietf:params:oauth:token-type:"
	subjectToken = "subject-s3cr3t"
	actorToken   = "actor-s3cr3t"
)

func TestTokenExchange(t *testing.T) {
	values := map[string]string{
		"{file./run/token}": subjectToken, "{env.ACTOR}": actorToken, "{env.TYPE}": "saml2", "{http.request.header.X-Token}": "from the request",
	}
	for name, test := range map[string]struct {
		grant TokenExchange
		sent  string // by the client
		want  url.Values
		mask  []string
	}{
		"the least": {
			grant: TokenExchange{SubjectToken: subjectToken},
			want:  url.Values{"subject_token": {subjectToken}, "subject_token_type": {uriPrefix + "access_token"}},
			mask:  []string{subjectToken},
		},
		"all of it": {
			grant: TokenExchange{SubjectToken: "{file./run/token}", SubjectTokenType: "id_token", ActorToken: "{env.ACTOR}", ActorTokenType: "jwt", RequestedTokenType: "https://example.com/own-type"},
			want: url.Values{
				"subject_token": {subjectToken}, "subject_token_type": {uriPrefix + "id_token"},
				"actor_token": {actorToken}, "actor_token_type": {uriPrefix + "jwt"}, "requested_token_type": {"https://example.com/own-type"},
			},
			mask: []string{subjectToken, actorToken},
		},
		"actor's type by default": {
			grant: TokenExchange{SubjectToken: subjectToken, ActorToken: actorToken},
			want: url.Values{
				"subject_token": {subjectToken}, "subject_token_type": {uriPrefix + "access_token"},
				"actor_token": {actorToken}, "actor_token_type": {uriPrefix + "access_token"},
			},
			mask: []string{subjectToken, actorToken},
		},
		"type from a placeholder": {
			grant: TokenExchange{SubjectToken: subjectToken, SubjectTokenType: "{env.TYPE}"},
			want:  url.Values{"subject_token": {subjectToken}, "subject_token_type": {uriPrefix + "saml2"}},
		},
		"placeholder of the request": {
			grant: TokenExchange{SubjectToken: "{http.request.header.X-Token}"},
			want:  url.Values{"subject_token": {"from the request"}, "subject_token_type": {uriPrefix + "access_token"}},
			mask:  []string{"from the request"},
		},
		"the client's": {
			grant: TokenExchange{SubjectToken: "request", Audience: "api"}, sent: "client-token",
			want: url.Values{"subject_token": {"client-token"}, "subject_token_type": {uriPrefix + "access_token"}},
		},
		"what a client sends is not expanded": {
			grant: TokenExchange{SubjectToken: "request"}, sent: "{env.ACTOR}",
			want: url.Values{"subject_token": {"{env.ACTOR}"}, "subject_token_type": {uriPrefix + "access_token"}},
		},
		"the client's is not sent in place of another": {
			grant: TokenExchange{SubjectToken: subjectToken}, sent: "client-token",
			want: url.Values{"subject_token": {subjectToken}, "subject_token_type": {uriPrefix + "access_token"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, secrets := tokenRequest(values, nil)
			r.SubjectToken = test.sent
			if err := test.grant.Prepare(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			test.want.Set("scope", "read")
			if !reflect.DeepEqual(r.Params, test.want) {
				t.Errorf("parameters are %v, expected %v", r.Params, test.want)
			}
			for _, secret := range test.mask {
				if !slices.Contains(*secrets, secret) {
					t.Errorf("%q is not masked", secret)
				}
			}
			for parameter := range r.Params {
				if parameter != "scope" && !slices.Contains(test.grant.Parameters(), parameter) {
					t.Errorf("Parameters() lacks %s", parameter)
				}
			}
		})
	}
}

func TestTokenTypes(t *testing.T) {
	for _, word := range []string{"access_token", "refresh_token", "id_token", "jwt", "saml1", "saml2"} {
		if got, err := tokenType(word); err != nil || got != uriPrefix+word {
			t.Errorf("%s: %s, %v", word, got, err)
		}
	}
	for _, uri := range []string{uriPrefix + "txn_token", "https://example.com/type", "urn:example:type"} {
		if got, err := tokenType(uri); err != nil || got != uri {
			t.Errorf("%s: %s, %v", uri, got, err)
		}
	}
	for _, wrong := range []string{"", "bearer", "Access_Token", "/type", "//example.com/type", "example.com/type", "https://", "urn:", "%zz:", "saml3"} {
		if got, err := tokenType(wrong); err == nil {
			t.Errorf("%q becomes %q", wrong, got)
		}
	}
}

func TestTokenExchangeFails(t *testing.T) {
	values := map[string]string{"{env.TYPE}": "s3cr3t-hunter2"}
	for name, test := range map[string]struct {
		grant TokenExchange
		want  []string
	}{
		"no bearer token": {TokenExchange{SubjectToken: "request"}, []string{"subject_token", "no bearer token"}},
		"subject":         {TokenExchange{SubjectToken: "{env.NOT_SET}"}, []string{"subject_token", "{env.NOT_SET}"}},
		"actor":           {TokenExchange{SubjectToken: subjectToken, ActorToken: "{env.NOT_SET}"}, []string{"actor_token", "{env.NOT_SET}"}},
		"type":            {TokenExchange{SubjectToken: subjectToken, SubjectTokenType: "{env.TYPE}"}, []string{"subject_token_type", "access_token", "absolute URI"}},
		"actor's type":    {TokenExchange{SubjectToken: subjectToken, ActorToken: actorToken, ActorTokenType: "{env.NOT_SET}"}, []string{"actor_token_type", "{env.NOT_SET}"}},
		"requested type":  {TokenExchange{SubjectToken: subjectToken, RequestedTokenType: "{env.TYPE}"}, []string{"requested_token_type", "absolute URI"}},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := tokenRequest(values, nil)
			checkError(t, test.grant.Prepare(t.Context(), r), test.want, "s3cr3t")
			if len(r.Params) != 1 {
				t.Errorf("parameters are %v", r.Params)
			}
		})
	}
}

func TestTokenExchangeModule(t *testing.T) {
	grant := module(t, "token_exchange")
	if got := grant.GrantType(); got != "urn:ietf:params:oauth:grant-type:token-exchange" {
		t.Errorf("grant_type is %q (RFC 8693 §2.1)", got)
	}
	if g, ok := grant.(Templated); !ok || !slices.Equal(g.TemplateOptions(), []string{"subject_token"}) {
		t.Error("placeholders of a request are not allowed in subject_token alone")
	}
	for configured, from := range map[string]bool{"request": true, "Request": false, subjectToken: false} {
		g := Exchanging(&TokenExchange{SubjectToken: configured, Audience: "api"})
		if g.FromRequest() != from || g.SubjectAudience() != "api" {
			t.Errorf("%s: %t, %s", configured, g.FromRequest(), g.SubjectAudience())
		}
	}
}

func TestTokenExchangeCaddyfile(t *testing.T) {
	const secret = "s3cr3t-hunter2"
	const subject = "\nsubject_token " + secret + "\n"
	for _, row := range []caddyfileRow{
		{input: "token_exchange {\nsubject_token request\n}", json: `{"subject_token":"request"}`},
		{
			input: "token_exchange {\nsubject_token {http.request.header.X-Token}\nsubject_token_type jwt\nactor_token {env.A}\nactor_token_type {env.T}\nrequested_token_type urn:example:t\n}",
			json:  `{"subject_token":"{http.request.header.X-Token}","subject_token_type":"jwt","actor_token":"{env.A}","actor_token_type":"{env.T}","requested_token_type":"urn:example:t"}`,
		},
		{input: "token_exchange {\nsubject_token request\nsubject_audience api\n}", json: `{"subject_token":"request","subject_audience":"api"}`},
		{input: "token_exchange", want: []string{"token_exchange", "subject_token is missing", "{file.", "request", ":1"}},
		{input: "token_exchange {\n}", want: []string{"token_exchange", "subject_token is missing", ":1"}},
		{input: "token_exchange " + secret, want: []string{"token_exchange", "no argument", "block", ":1"}},
		{input: "token_exchange {\nbogus\n}", want: []string{"token_exchange", "'bogus'", "actor_token, actor_token_type, requested_token_type, subject_audience, subject_token, subject_token_type", ":2"}},
		{input: "token_exchange {" + subject + "subject_token x\n}", want: []string{"subject_token", "twice", ":3"}},
		{input: "token_exchange {\nsubject_token\n}", want: []string{"subject_token", "argument", ":2"}},
		{input: "token_exchange {\nsubject_token a " + secret + "\n}", want: []string{"subject_token", "argument too many", ":2"}},
		{input: "token_exchange {" + subject + "actor_token_type jwt\n}", want: []string{"actor_token_type", "without actor_token", ":3"}},
		{input: "token_exchange {" + subject + "subject_audience api\n}", want: []string{"subject_audience", "subject_token request", ":3"}},
		{input: "token_exchange {\nsubject_token request\nsubject_audience {env.A}\n}", want: []string{"subject_audience", "no placeholder", ":3"}},
		{input: "token_exchange {" + subject + "subject_token_type " + secret + "\n}", want: []string{"subject_token_type", "access_token, refresh_token, id_token, jwt, saml1, saml2", "absolute URI", ":3"}},
		{input: "token_exchange {" + subject + "actor_token a\nactor_token_type b\n}", want: []string{"actor_token_type", "absolute URI", ":4"}},
		{input: "token_exchange {" + subject + "requested_token_type b\n}", want: []string{"requested_token_type", "absolute URI", ":3"}},
	} {
		t.Run(strings.ReplaceAll(row.input, "\n", " "), func(t *testing.T) { checkCaddyfile(t, row, secret) })
	}
}
