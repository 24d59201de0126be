package advice

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

const page = "<!doctype html><html><title>Please log in</title>"

func TestAnswers(t *testing.T) {
	proxied := with(func(k *Facts) { k.Proxy = "proxy.example.com:3128" })
	issued := with(func(k *Facts) { k.Issuer = "https://idp.example.com" })
	at := func(endpoint string) Facts { return with(func(k *Facts) { k.Endpoint = endpoint }) }
	typed := func(wanted, body string) *oauth.Failure {
		return askFor(t, new(http.Transport), &oauth.Request{URL: answers(t, 200, "application/json", body), Params: url.Values{"a": {"b"}}, TokenType: wanted})
	}
	for name, c := range map[string]advised{
		"429 with Retry-After": {
			failure: answered(t, 429, "", "", "Retry-After", "120"), facts: crm,
			as: "429", wrong: []string{"idp.example.com gets more token requests than it allows (HTTP 429)"}, do: []string{"no request is made for 2m or more", "in the credential crm write: share"}, topic: tooMany,
		},
		"429":                       {failure: says(t, 429, "slow_down"), facts: crm, as: "429", wrong: []string{"(slow_down, HTTP 429)"}, do: []string{"tried again by itself"}, not: []string{"no request is made"}, topic: tooMany},
		"408":                       {failure: answered(t, 408, "", ""), facts: crm, as: "408", wrong: []string{"did not get the whole token request in time"}, topic: unreachable},
		"500":                       {failure: says(t, 500, "invalid_request"), facts: crm, as: "500", wrong: []string{"failed at the token request (invalid_request, HTTP 500)"}, do: []string{"tried again", "parameter"}, topic: unreachable},
		"502, a page":               {failure: answered(t, 502, "text/html", page), facts: proxied, as: "502", wrong: []string{"gateway before idp.example.com", "by a page"}, do: []string{"proxy.example.com:3128", "NO_PROXY"}, topic: unreachable},
		"503":                       {failure: answered(t, 503, "", "", "Retry-After", "5"), facts: crm, as: "503", wrong: []string{"cannot serve now"}, do: []string{"no request is made for 5s or more"}, topic: unreachable},
		"504":                       {failure: answered(t, 504, "", ""), facts: crm, as: "504", wrong: []string{"gateway"}, not: []string{"page"}, topic: unreachable},
		"511":                       {failure: answered(t, 511, "text/html", page), facts: crm, as: "511", wrong: []string{"the network demands a login"}, topic: unreachable},
		"busy, under 400":           {failure: says(t, 400, "temporarily_unavailable"), facts: crm, as: "unreachable", wrong: []string{"cannot serve now (temporarily_unavailable, HTTP 400)"}, do: []string{"tried again"}, topic: unreachable},
		"busy, under 200":           {failure: says(t, 200, "server_error"), facts: crm, as: "unreachable", wrong: []string{"failed at the token request (server_error)"}, topic: unreachable},
		"404":                       {failure: answered(t, 404, "text/html", page), facts: crm, as: "404", wrong: []string{"no token endpoint at https://idp.example.com/token"}, do: []string{"correct the path in token_url", "curl -s https://idp.example.com/.well-known/openid-configuration"}, topic: wrongAnswer},
		"404 of metadata":           {failure: answered(t, 404, "", ""), facts: issued, as: "404", do: []string{"from the metadata of https://idp.example.com"}, topic: wrongAnswer},
		"405":                       {failure: answered(t, 405, "", ""), facts: crm, as: "405", wrong: []string{"by the method that is used"}, do: []string{"in the block request of the credential crm write: method GET"}, topic: wrongAnswer},
		"407":                       {failure: answered(t, 407, "", ""), facts: crm, as: "407", wrong: []string{"wants a user and a password"}, do: []string{"proxy http://<user>:<password>@"}, topic: unreachable},
		"413":                       {failure: answered(t, 413, "", ""), facts: crm, as: "413", wrong: []string{"larger than"}, do: []string{"body form"}, topic: wrongAnswer},
		"415":                       {failure: answered(t, 415, "", ""), facts: crm, as: "415", do: []string{"in the block request of the credential crm write: body json"}, topic: wrongAnswer},
		"406":                       {failure: answered(t, 406, "", ""), facts: crm, as: "406", do: []string{"header Accept */*"}, topic: wrongAnswer},
		"421":                       {failure: answered(t, 421, "", ""), facts: crm, as: "421", do: []string{"server_name"}, topic: tlsTopic},
		"400, empty":                {failure: answered(t, 400, "", ""), facts: crm, as: "400", wrong: []string{"without a word of why"}, do: []string{"in this order: a parameter"}, topic: clientRefused},
		"TLS at an http address":    {failure: ask(t, new(http.Transport), strings.Replace(secure(t, nil), "https", "http", 1)), facts: at("http://127.0.0.1:8443/token"), as: "400", do: []string{"it speaks TLS at this port: write https://"}, topic: wrongAnswer},
		"a page at an http address": {failure: answered(t, 400, "text/html", page), facts: at("http://idp.example.com/token"), as: "a page", do: []string{"most likely it speaks TLS at this port"}, topic: wrongAnswer},
		"503, a page, no proxy":     {failure: answered(t, 503, "text/html", page), facts: crm, as: "a page", wrong: []string{"by a page"}, not: []string{"proxy"}, topic: unreachable},
		"403, a page":               {failure: answered(t, 403, "text/html", page), facts: crm, as: "403", wrong: []string{"a page for browsers"}, do: []string{"a firewall before the server"}, topic: wrongAnswer},
		"401, a page":               {failure: answered(t, 401, "text/html", page), facts: crm, as: "401", wrong: []string{"refuses the client (HTTP 401), by a page"}, do: []string{"expired", "or a gateway", "grep -i '<title'"}, topic: clientRefused},

		"redirect from http":   {failure: answered(t, 301, "", "", "Location", "https://mark.example.com"), facts: at("http://idp.example.com/token"), as: "redirect", wrong: []string{"a secret never follows"}, do: []string{"write https:// in token_url", "grep -i ^location"}, not: []string{"mark"}, topic: wrongAnswer},
		"redirect to a login":  {failure: answered(t, 302, "", "", "Location", "/login"), facts: crm, as: "302", do: []string{"most likely to a login page"}, topic: wrongAnswer},
		"redirect for a slash": {failure: answered(t, 308, "", "", "Location", "/token/"), facts: crm, as: "308", do: []string{"with or without a slash at the end"}, not: []string{"login"}, topic: wrongAnswer},
		"redirect for browsers": {
			failure: answered(t, 302, "", "", "Location", "/login"), facts: at("https://idp.example.com/oauth2/authorize"), as: "302",
			do: []string{"this is the address for browsers"}, topic: wrongAnswer,
		},

		"a page":                {failure: answered(t, 200, "text/html", page), facts: crm, as: "a page", wrong: []string{"a page for browsers came in place of a token (HTTP 200)"}, do: []string{"either token_url is another page", "curl -si -d grant_type=none https://idp.example.com/token"}, not: []string{"Please log in"}, topic: wrongAnswer},
		"a proxy's page":        {failure: answered(t, 200, "text/html", page), facts: proxied, as: "a page", do: []string{"most likely it is the proxy's (proxy.example.com:3128)", "put idp.example.com into NO_PROXY"}, topic: wrongAnswer},
		"a page for browsers":   {failure: answered(t, 200, "text/html", page), facts: at("https://idp.example.com/login"), as: "a page", do: []string{"token_url is the address for browsers"}, topic: wrongAnswer},
		"a page at an issuer's": {failure: answered(t, 200, "text/html", page), facts: issued, as: "a page", do: []string{"something between here and the server"}, not: []string{"token_url"}, topic: wrongAnswer},

		"no token":            {failure: answered(t, 200, "application/json", `{"data":{"access_token":"mark"}}`), facts: crm, as: "no access_token", wrong: []string{"the answer has no access_token"}, do: []string{"in the block response of the credential crm write: access_token <its path"}, not: []string{"mark"}, topic: wrongAnswer},
		"a number as token":   {failure: answered(t, 200, "application/json", `{"access_token":7}`), facts: crm, as: "not a string", do: []string{"access_token <its path"}, topic: wrongAnswer},
		"an empty token":      {failure: answered(t, 200, "application/json", `{"access_token":""}`), facts: crm, as: "access_token is empty", do: []string{"the server is broken"}, topic: wrongAnswer},
		"a split token":       {failure: answered(t, 200, "application/json", `{"access_token":"a\r\nb"}`), facts: crm, as: "visible ASCII", do: []string{"the server is broken"}, topic: wrongAnswer},
		"another type":        {failure: answered(t, 200, "application/json", `{"access_token":"a","token_type":"mac"}`), facts: crm, as: "is not Bearer", do: []string{"in the block dpop of the credential crm write: key_file"}, topic: wrongAnswer},
		"bearer, not bound":   {failure: typed("DPoP", `{"access_token":"a","token_type":"Bearer"}`), facts: crm, as: "is not DPoP", do: []string{"have DPoP enabled"}, topic: wrongAnswer},
		"no JSON":             {failure: answered(t, 200, "text/plain", "hello"), facts: crm, as: "not a JSON object", wrong: []string{"not a JSON object"}, topic: wrongAnswer},
		"half of JSON":        {failure: answered(t, 200, "application/json", `{"access_token":"a`), facts: crm, as: "cut short", do: []string{"cuts answers"}, topic: wrongAnswer},
		"empty":               {failure: answered(t, 200, "application/json", ""), facts: crm, as: "the answer is empty", do: []string{"another endpoint"}, topic: wrongAnswer},
		"204":                 {failure: answered(t, 204, "", ""), facts: crm, as: "204", do: []string{"another endpoint"}, topic: wrongAnswer},
		"a MiB":               {failure: answered(t, 200, "application/json", `{"access_token":"`+strings.Repeat("a", 1<<20)), facts: crm, as: "1 MiB", do: []string{"no token is this large"}, topic: wrongAnswer},
		"error without words": {failure: says(t, 200, "quota"), facts: crm, as: "refused", wrong: []string{"in a word of its own: quota"}, topic: clientRefused},
	} {
		t.Run(name, c.check)
	}
}

// TestMetadata: what an issuer says of itself, or does not.
func TestMetadata(t *testing.T) {
	discover := func(status int, body string) *oauth.Failure {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(strings.ReplaceAll(body, "SELF", "http://"+r.Host)))
		}))
		t.Cleanup(s.Close)
		_, err := oauth.Discover(t.Context(), new(http.Transport), s.URL, func(u string) error {
			if strings.Contains(u, "forbidden") {
				return errors.New("is http, and not on this machine")
			}
			return nil
		})
		f, ok := errors.AsType[*oauth.Failure](err)
		if !ok {
			t.Fatalf("got %v, want a failure", err)
		}
		return f
	}
	k := Facts{Credential: "crm", Issuer: "https://idp.example.com"}
	for name, c := range map[string]advised{
		"none": {
			failure: discover(404, ""), facts: k, as: "no metadata found", wrong: []string{"no metadata found", "HTTP 404"},
			do: []string{"curl -s https://idp.example.com/.well-known/openid-configuration", "in the credential crm write: token_url"},
		},
		"pages": {failure: discover(200, page), facts: k, as: "no metadata found", wrong: []string{"a page (HTML or XML)"}, do: []string{"token_url"}},
		"another issuer": {
			failure: discover(200, `{"issuer":"https://other.example.com","token_endpoint":"SELF/token"}`), facts: k, as: "it is for the issuer",
			wrong: []string{"it is for the issuer https://other.example.com"}, do: []string{"letter for letter"},
		},
		"a slash": {
			failure: discover(200, `{"issuer":"SELF/","token_endpoint":"SELF/token"}`), facts: k, as: "trailing slash",
			wrong: []string{"the trailing slash alone: write issuer"},
		},
		"no token endpoint": {failure: discover(200, `{"issuer":"SELF"}`), facts: k, as: "has no token_endpoint", do: []string{"in the credential crm write: token_url"}, not: []string{"operator"}},
		"a forbidden one": {
			failure: discover(200, `{"issuer":"SELF","token_endpoint":"http://forbidden.example.com/token"}`), facts: k, as: "forbidden.example.com",
			wrong: []string{"is http, and not on this machine"}, do: []string{"operator correct it"},
		},
		"down":     {failure: discover(503, ""), facts: k, as: "metadata at", wrong: []string{"metadata is not to be had", "cannot serve now (HTTP 503)"}, do: []string{"tried again"}, topic: unreachable},
		"too many": {failure: discover(429, ""), facts: k, as: "metadata at", wrong: []string{"HTTP 429"}, topic: tooMany},
	} {
		if c.topic == "" {
			c.topic = wrongAnswer
		}
		t.Run(name, c.check)
	}
}
