package oauth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// canned answers every request with one response.
type canned struct {
	status      int
	contentType string
	header      http.Header
	body        string
}

func (c canned) RoundTrip(req *http.Request) (*http.Response, error) {
	h := c.header.Clone()
	if h == nil {
		h = make(http.Header)
	}
	if c.contentType != "" {
		h.Set("Content-Type", c.contentType)
	}
	return &http.Response{StatusCode: c.status, Header: h, Body: io.NopCloser(strings.NewReader(c.body)), Request: req}, nil
}

func jwt(claims string) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"none"}`)) + "." + enc([]byte(claims)) + ".c2ln"
}

const answered = "Sat, 21 Nov 2026 10:00:00 GMT" // the Date of answers in these tests

func answeredUnix() int64 {
	t, _ := http.ParseTime(answered)
	return t.Unix()
}

// TestLifetimes is every form of a lifetime that a server was seen to give.
// None of them costs the token.
func TestLifetimes(t *testing.T) {
	now := answeredUnix()
	for name, tc := range map[string]struct {
		fields string // of the answer, beside the token
		token  string // "tok" unless set
		want   time.Duration
		shape  Fields
		noDate bool
	}{
		"number":                      {fields: `"expires_in":3600`, want: time.Hour},
		"string (Entra v1, PayPal)":   {fields: `"expires_in":"3599"`, want: 3599 * time.Second},
		"string with blanks":          {fields: `"expires_in":" 3600 "`, want: time.Hour},
		"float":                       {fields: `"expires_in":3600.0`, want: time.Hour},
		"fraction":                    {fields: `"expires_in":3599.5`, want: 3599500 * time.Millisecond},
		"string fraction":             {fields: `"expires_in":"3599.7"`, want: 3599700 * time.Millisecond},
		"exponent":                    {fields: `"expires_in":3.6e3`, want: time.Hour},
		"missing (Salesforce)":        {fields: `"scope":"all"`},
		"null":                        {fields: `"expires_in":null`},
		"zero":                        {fields: `"expires_in":0`},
		"negative":                    {fields: `"expires_in":-1`},
		"empty string":                {fields: `"expires_in":""`},
		"boolean":                     {fields: `"expires_in":true`},
		"word":                        {fields: `"expires_in":"never"`},
		"hexadecimal":                 {fields: `"expires_in":"0x10"`},
		"infinite":                    {fields: `"expires_in":"Inf"`},
		"not a number":                {fields: `"expires_in":"NaN"`},
		"over ten years":              {fields: `"expires_in":99999999999`},
		"far over ten years":          {fields: `"expires_in":1e20`},
		"beyond a float":              {fields: `"expires_in":1e999`},
		"object":                      {fields: `"expires_in":{"seconds":3600}`},
		"list":                        {fields: `"expires_in":[3600]`},
		"milliseconds, told so":       {fields: `"expires_in":3600000`, shape: Fields{ExpiresUnit: time.Millisecond}, want: time.Hour},
		"enveloped":                   {fields: `"data":{"ttl":60}`, shape: Fields{ExpiresIn: "data.ttl"}, want: time.Minute},
		"expires_on, epoch":           {fields: fmt.Sprintf(`"expires_on":%d`, now+60), want: time.Minute},
		"expires_on, epoch as string": {fields: fmt.Sprintf(`"expires_on":"%d"`, now+60), want: time.Minute},
		"expires_on, milliseconds":    {fields: fmt.Sprintf(`"expires_on":%d`, (now+60)*1000), want: time.Minute},
		"expires_on, RFC 3339":        {fields: `"expires_on":"2026-11-21T10:01:00Z"`, want: time.Minute},
		"expires_on, HTTP date":       {fields: `"expires_on":"Sat, 21 Nov 2026 10:01:00 GMT"`, want: time.Minute},
		"expires_on, App Service":     {fields: `"expires_on":"11/21/2026 10:01:00 +00:00"`, want: time.Minute},
		"expires_on, on Windows":      {fields: `"expires_on":"11/21/2026 10:01:00 AM +00:00"`, want: time.Minute},
		"expires_on, past":            {fields: `"expires_on":"2026-11-21T09:00:00Z"`},
		"expires_on, garbage":         {fields: `"expires_on":"tomorrow"`},
		"expires, a lifetime":         {fields: `"expires":5184000`, want: 60 * 24 * time.Hour},
		"expires_in wins":             {fields: fmt.Sprintf(`"expires_in":30,"expires_on":%d`, now+60), want: 30 * time.Second},
		"expires_on for a bad one":    {fields: fmt.Sprintf(`"expires_in":"soon","expires_on":%d`, now+60), want: time.Minute},
		"JWT":                         {token: jwt(fmt.Sprintf(`{"exp":%d,"iat":%d}`, now+300, now)), want: 5 * time.Minute},
		"JWT, without Date":           {token: jwt(`{"exp":2000000300,"iat":2000000000}`), noDate: true, want: 5 * time.Minute},
		"JWT, neither Date nor iat":   {token: jwt(`{"exp":2000000300}`), noDate: true},
		"JWT, Date after exp":         {token: jwt(fmt.Sprintf(`{"exp":%d,"iat":%d}`, now-10, now-310))},
		"JWT, expires_in wins":        {token: jwt(fmt.Sprintf(`{"exp":%d}`, now+300)), fields: `"expires_in":299`, want: 299 * time.Second},
		"JWT, exp a string":           {token: jwt(`{"exp":"later"}`)},
		"three parts, not a JWT":      {token: "a.b.c"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.token == "" {
				tc.token = "tok"
			}
			body := fmt.Sprintf(`{"access_token":%q`, tc.token)
			if tc.fields != "" {
				body += "," + tc.fields
			}
			answer := canned{status: 200, body: body + "}"}
			if !tc.noDate {
				answer.header = http.Header{"Date": {answered}}
			}
			res, err := (&Request{URL: "https://as.example.com/token", Fields: tc.shape}).Do(t.Context(), answer)
			if err != nil {
				t.Fatalf("the token was lost: %v", err)
			}
			if res.AccessToken != tc.token || res.ExpiresIn != tc.want {
				t.Errorf("got %q for %v, want %q for %v", res.AccessToken, res.ExpiresIn, tc.token, tc.want)
			}
		})
	}
}

func TestRefreshIn(t *testing.T) {
	res, err := (&Request{URL: "https://as.example.com"}).Do(t.Context(), canned{status: 200, body: `{"access_token":"t","expires_in":"86399","refresh_in":"43199"}`})
	if err != nil || res.RefreshIn != 43199*time.Second {
		t.Errorf("got %+v, %v", res, err)
	}
}

// TestAnswers is every answer that a server was seen to give: a token that is
// used, or a failure of one of the three kinds.
func TestAnswers(t *testing.T) {
	const form = "application/x-www-form-urlencoded"
	for name, tc := range map[string]struct {
		answer canned
		shape  Fields
		scope  string
		token  string // what is used; else:
		kind   Kind
		code   string
		says   string // part of the error's or the description's text
	}{
		"RFC 6749":                {answer: canned{status: 200, body: `{"access_token":"tok","token_type":"Bearer","expires_in":60}`}, token: "tok"},
		"bearer in lower case":    {answer: canned{status: 200, body: `{"access_token":"tok","token_type":"bearer"}`}, token: "tok"},
		"BearerToken (Apigee)":    {answer: canned{status: 200, body: `{"access_token":"tok","token_type":"BearerToken"}`}, token: "tok"},
		"type missing":            {answer: canned{status: 200, body: `{"access_token":"tok"}`}, token: "tok"},
		"type null":               {answer: canned{status: 200, body: `{"access_token":"tok","token_type":null}`}, token: "tok"},
		"201":                     {answer: canned{status: 201, body: `{"access_token":"tok"}`}, token: "tok"},
		"JSON as text/plain":      {answer: canned{status: 200, contentType: "text/plain", body: `{"access_token":"tok"}`}, token: "tok"},
		"JSON as HTML":            {answer: canned{status: 200, contentType: "text/html", body: `{"access_token":"tok"}`}, token: "tok"},
		"charset (Tencent)":       {answer: canned{status: 200, contentType: "application/json;charset=UTF-8", body: `{"access_token":"tok"}`}, token: "tok"},
		"byte order mark":         {answer: canned{status: 200, body: "\ufeff" + `{"access_token":"tok"}`}, token: "tok"},
		"blanks around":           {answer: canned{status: 200, body: "\r\n\t" + `{"access_token":"tok"}` + "\n"}, token: "tok"},
		"form encoded (GitHub)":   {answer: canned{status: 200, contentType: form + "; charset=utf-8", body: "access_token=tok&scope=repo%2Cgist&token_type=bearer"}, token: "tok"},
		"form as text/plain":      {answer: canned{status: 200, contentType: "text/plain", body: "access_token=tok&expires=5108"}, token: "tok"},
		"enveloped":               {answer: canned{status: 200, body: `{"code":0,"data":{"access_token":"tok"}}`}, shape: Fields{AccessToken: "data.access_token"}, token: "tok"},
		"errcode 0 (WeCom)":       {answer: canned{status: 200, body: `{"errcode":0,"errmsg":"ok","access_token":"tok"}`}, token: "tok"},
		"a code of success":       {answer: canned{status: 200, body: `{"errorCode":"SUCCESS","access_token":"tok"}`}, token: "tok"},
		"a code, no token":        {answer: canned{status: 200, body: `{"errorCode":"E1","errorMessage":"no"}`}, kind: Refused, code: "E1", says: "no"},
		"error empty":             {answer: canned{status: 200, body: `{"error":"","access_token":"tok"}`}, token: "tok"},
		"error null":              {answer: canned{status: 200, body: `{"error":null,"access_token":"tok"}`}, token: "tok"},
		"ok true (Slack)":         {answer: canned{status: 200, body: `{"ok":true,"access_token":"tok"}`}, token: "tok"},
		"16 KiB (Entra groups)":   {answer: canned{status: 200, body: `{"access_token":"` + strings.Repeat("t", 16<<10) + `"}`}, token: strings.Repeat("t", 16<<10)},
		"not b64token":            {answer: canned{status: 200, body: `{"access_token":"00D!AQ#x"}`}, token: "00D!AQ#x"},
		"with an ID token":        {answer: canned{status: 200, body: `{"id_token":"id","access_token":"tok"}`}, token: "tok"},
		"only an ID token":        {answer: canned{status: 200, body: `{"id_token":"id"}`}, kind: Malformed, says: "no access_token"},
		"token empty":             {answer: canned{status: 200, body: `{"access_token":""}`}, kind: Malformed, says: "empty"},
		"token null":              {answer: canned{status: 200, body: `{"access_token":null}`}, kind: Malformed, says: "no access_token"},
		"token a number":          {answer: canned{status: 200, body: `{"access_token":12345}`}, kind: Malformed, says: "not a string"},
		"token a list":            {answer: canned{status: 200, body: `{"access_token":["tok"]}`}, kind: Malformed, says: "not a string"},
		"CR LF in the token":      {answer: canned{status: 200, body: `{"access_token":"tok\r\nX-Evil: 1"}`}, kind: Malformed, says: "visible ASCII"},
		"LF at its end":           {answer: canned{status: 200, body: `{"access_token":"tok\n"}`}, kind: Malformed, says: "visible ASCII"},
		"blank in the token":      {answer: canned{status: 200, body: `{"access_token":"to k"}`}, kind: Malformed, says: "visible ASCII"},
		"NUL in the token":        {answer: canned{status: 200, body: `{"access_token":"tok\u0000"}`}, kind: Malformed, says: "visible ASCII"},
		"umlaut in the token":     {answer: canned{status: 200, body: `{"access_token":"tök"}`}, kind: Malformed, says: "visible ASCII"},
		"type mac":                {answer: canned{status: 200, body: `{"access_token":"tok","token_type":"mac"}`}, kind: Malformed, says: "token_type"},
		"type N_A":                {answer: canned{status: 200, body: `{"access_token":"tok","token_type":"N_A"}`}, kind: Malformed, says: "token_type"},
		"type DPoP":               {answer: canned{status: 200, body: `{"access_token":"tok","token_type":"DPoP"}`}, kind: Malformed, says: "token_type"},
		"type an object":          {answer: canned{status: 200, body: `{"access_token":"tok","token_type":{}}`}, kind: Malformed, says: "token_type"},
		"empty body":              {answer: canned{status: 200}, kind: Malformed, says: "empty"},
		"blank body":              {answer: canned{status: 200, body: " \n"}, kind: Malformed, says: "empty"},
		"204":                     {answer: canned{status: 204}, kind: Malformed},
		"206":                     {answer: canned{status: 206, body: `{"access_token":"tok"}`}, kind: Malformed},
		"301":                     {answer: canned{status: 301, header: http.Header{"Location": {"https://evil.example.com"}}}, kind: Malformed, says: "redirect"},
		"302":                     {answer: canned{status: 302, header: http.Header{"Location": {"/login"}}}, kind: Malformed, says: "redirect"},
		"307":                     {answer: canned{status: 307, header: http.Header{"Location": {"https://evil.example.com"}}}, kind: Malformed, says: "redirect"},
		"308":                     {answer: canned{status: 308}, kind: Malformed, says: "redirect"},
		"304":                     {answer: canned{status: 304}, kind: Malformed},
		"HTML page":               {answer: canned{status: 200, contentType: "text/html", body: "<html>Please log in</html>"}, kind: Malformed, says: "page"},
		"HTML, type unsaid":       {answer: canned{status: 200, body: "<!doctype html><p>hi"}, kind: Malformed, says: "page"},
		"truncated JSON":          {answer: canned{status: 200, body: `{"access_token":"tok","expi`}, kind: Malformed, says: "cut short"},
		"two objects":             {answer: canned{status: 200, body: `{"access_token":"tok"}{"access_token":"other"}`}, kind: Malformed, says: "more than one"},
		"a list":                  {answer: canned{status: 200, body: `["tok"]`}, kind: Malformed, says: "not a JSON object"},
		"a string":                {answer: canned{status: 200, body: `"tok"`}, kind: Malformed, says: "not a JSON object"},
		"null":                    {answer: canned{status: 200, body: `null`}, kind: Malformed, says: "not a JSON object"},
		"plain words":             {answer: canned{status: 200, contentType: "text/plain", body: "OK"}, kind: Malformed, says: "not a JSON object"},
		"1 MiB":                   {answer: canned{status: 200, body: `{"access_token":"` + strings.Repeat("t", 1<<20) + `"}`}, kind: Malformed, says: "1 MiB"},
		"exactly 1 MiB":           {answer: canned{status: 200, body: `{"access_token":"tok","x":"` + strings.Repeat("x", 1<<20-29) + `"}`}, kind: Malformed, says: "1 MiB"},
		"deep JSON":               {answer: canned{status: 200, body: strings.Repeat(`{"a":`, 20000)}, kind: Malformed},
		"error under 200":         {answer: canned{status: 200, body: `{"error":"invalid_client","error_description":"no"}`}, kind: Refused, code: "invalid_client", says: "no"},
		"error beside a token":    {answer: canned{status: 200, body: `{"error":"invalid_scope","access_token":"tok"}`}, kind: Refused, code: "invalid_scope"},
		"WeChat":                  {answer: canned{status: 200, body: `{"errcode":40013,"errmsg":"invalid appid"}`}, kind: Refused, code: "40013", says: "invalid appid"},
		"Slack":                   {answer: canned{status: 200, body: `{"ok":false,"error":"invalid_auth"}`}, kind: Refused, code: "invalid_auth"},
		"Slack without a word":    {answer: canned{status: 200, body: `{"ok":false}`}, kind: Refused, code: "not_ok"},
		"GitHub's error":          {answer: canned{status: 200, contentType: form, body: "error=incorrect_client_credentials&error_description=The+client_id"}, kind: Refused, code: "incorrect_client_credentials", says: "client_id"},
		"server_error under 200":  {answer: canned{status: 200, body: `{"error":"server_error"}`}, kind: Unreachable, code: "server_error"},
		"400 invalid_client":      {answer: canned{status: 400, body: `{"error":"invalid_client"}`}, kind: Refused, code: "invalid_client"},
		"401 invalid_client":      {answer: canned{status: 401, body: `{"error":"invalid_client","error_description":"bad secret"}`}, kind: Refused, code: "invalid_client", says: "bad secret"},
		"401 invalid_grant":       {answer: canned{status: 401, body: `{"error":"invalid_grant"}`}, kind: Refused, code: "invalid_grant"},
		"OneAccess":               {answer: canned{status: 400, body: `{"error_code":"IAM.0001","error_msg":"bad client"}`}, kind: Refused, code: "IAM.0001", says: "bad client"},
		"403, empty (glewlwyd)":   {answer: canned{status: 403}, kind: Refused, says: "HTTP 403"},
		"404 page":                {answer: canned{status: 404, contentType: "text/html", body: "<html>not found"}, kind: Refused, says: "token endpoint"},
		"error an object":         {answer: canned{status: 401, body: `{"error":{"code":401,"message":"denied","status":"UNAUTHENTICATED"}}`}, kind: Refused, code: "401", says: "denied"},
		"error true":              {answer: canned{status: 400, body: `{"error":true,"message":"nope"}`}, kind: Refused, code: "error", says: "nope"},
		"problem details":         {answer: canned{status: 422, body: `{"type":"about:blank","title":"Unprocessable","detail":"bad audience"}`}, kind: Refused, code: "Unprocessable", says: "bad audience"},
		"Spring":                  {answer: canned{status: 404, body: `{"timestamp":"2026-11-21","status":404,"error":"Not Found","path":"/token"}`}, kind: Refused, code: "Not Found"},
		"own fields":              {answer: canned{status: 400, body: `{"problem":{"id":"E7","why":"no"}}`}, shape: Fields{Error: "problem.id", ErrorDescription: "problem.why"}, kind: Refused, code: "E7", says: "no"},
		"temporarily_unavailable": {answer: canned{status: 400, body: `{"error":"temporarily_unavailable"}`}, kind: Unreachable, code: "temporarily_unavailable"},
		"400 server_error":        {answer: canned{status: 400, body: `{"error":"server_error"}`}, kind: Unreachable, code: "server_error"},
		"408":                     {answer: canned{status: 408}, kind: Unreachable},
		"425":                     {answer: canned{status: 425}, kind: Unreachable},
		"429":                     {answer: canned{status: 429}, kind: Unreachable},
		"500 dex":                 {answer: canned{status: 500, body: `{"error":"invalid_request"}`}, kind: Unreachable, code: "invalid_request"},
		"502 page":                {answer: canned{status: 502, contentType: "text/html", body: "<html>Bad Gateway"}, kind: Unreachable},
		"503 with a token":        {answer: canned{status: 503, body: `{"access_token":"tok"}`}, kind: Unreachable},
		"599":                     {answer: canned{status: 599}, kind: Unreachable},
	} {
		t.Run(name, func(t *testing.T) {
			req := &Request{URL: "https://as.example.com/token", Fields: tc.shape, Params: url.Values{}}
			res, err := req.Do(t.Context(), tc.answer)
			if tc.token != "" {
				if err != nil || res.AccessToken != tc.token {
					t.Fatalf("got %+v, %v; want the token", res, err)
				}
				return
			}
			f, ok := errors.AsType[*Failure](err)
			if !ok {
				t.Fatalf("got %+v, %v; want a failure", res, err)
			}
			if f.Kind != tc.kind || f.Code != tc.code || f.Status != tc.answer.status {
				t.Errorf("got %v, code %q, status %d; want %v, %q, %d", f.Kind, f.Code, f.Status, tc.kind, tc.code, tc.answer.status)
			}
			if said := f.Error() + "\n" + f.Description; !strings.Contains(said, tc.says) {
				t.Errorf("it says %q, which does not tell %q", said, tc.says)
			}
			if strings.Contains(f.Error(), f.Description) && f.Description != "" {
				t.Errorf("the server's words are in the error: %q", f.Error())
			}
		})
	}
}

func TestBearer(t *testing.T) {
	for token, want := range map[string]bool{"abc-._~+/09Z==": true, "a=b": false, "00D!AQ": false, "a,b": false, "=": false} {
		res, err := (&Request{URL: "https://as.example.com"}).Do(t.Context(), canned{status: 200, body: fmt.Sprintf(`{"access_token":%q}`, token)})
		if err != nil || res.Bearer != want {
			t.Errorf("%q: got %+v, %v; want %v", token, res, err, want)
		}
	}
}

func TestScopes(t *testing.T) {
	for name, tc := range map[string]struct {
		asked, scope   string
		granted, lacks []string
	}{
		"not said":      {"read write", `null`, nil, nil},
		"all":           {"read write", `"write read"`, []string{"write", "read"}, nil},
		"narrowed":      {"read write", `"read"`, []string{"read"}, []string{"write"}},
		"a list":        {"read write", `["read"]`, []string{"read"}, []string{"write"}},
		"commas":        {"repo gist", `"repo,gist"`, []string{"repo", "gist"}, nil},
		"one, a comma":  {"a,b", `"a,b"`, []string{"a,b"}, nil},
		"none asked":    {"", `"all"`, []string{"all"}, nil},
		"more than was": {"read", `"read openid"`, []string{"read", "openid"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			req := &Request{URL: "https://as.example.com", Params: url.Values{"scope": {tc.asked}}}
			res, err := req.Do(t.Context(), canned{status: 200, body: `{"access_token":"t","scope":` + tc.scope + `}`})
			if err != nil || !slices.Equal(res.Scopes, tc.granted) || !slices.Equal(res.Missing, tc.lacks) {
				t.Errorf("got %+v, %v; want %v without %v", res, err, tc.granted, tc.lacks)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"":                              0,
		"120":                           2 * time.Minute,
		" 3 ":                           3 * time.Second,
		"1.5":                           1500 * time.Millisecond,
		"0":                             0,
		"-5":                            0,
		"86400":                         24 * time.Hour,
		"99999999999999":                24 * time.Hour,
		"soon":                          0,
		"Sat, 21 Nov 2026 10:02:00 GMT": 2 * time.Minute, // against the answer's Date
		"Sat, 21 Nov 2026 09:00:00 GMT": 0,
	} {
		_, err := (&Request{URL: "https://as.example.com"}).Do(t.Context(), canned{status: 429, header: http.Header{"Retry-After": {value}, "Date": {answered}}})
		if f, ok := errors.AsType[*Failure](err); !ok || f.RetryAfter != want {
			t.Errorf("%q: got %v, want %v", value, err, want)
		}
	}
}

// TestWords: of the server's words little is kept, and nothing that was sent.
func TestWords(t *testing.T) {
	const secret = `p+a%s/w=d "&!~:x`
	echo := "you sent " + secret + ", " + url.QueryEscape(secret) + "\x1b[31m\nand\tmore " + strings.Repeat("ü", 300)
	body, err := json.Marshal(map[string]string{"error": "bad\x07 " + secret + strings.Repeat("x", 100), "error_description": echo})
	if err != nil {
		t.Fatal(err)
	}
	_, err = (&Request{URL: "https://as.example.com", Secrets: []string{secret}}).Do(t.Context(), canned{status: 400, body: string(body)})
	f, ok := errors.AsType[*Failure](err)
	if !ok {
		t.Fatal(err)
	}
	if len(f.Code) > 64 || len([]rune(f.Description)) > 200 {
		t.Errorf("too long: code %d, description %d", len(f.Code), len(f.Description))
	}
	for _, s := range []string{f.Code, f.Description, f.Error(), fmt.Sprintf("%+v", f)} {
		if strings.Contains(s, secret) || strings.Contains(s, url.QueryEscape(secret)) {
			t.Errorf("the secret is in %q", s)
		}
		if strings.ContainsAny(s, "\x1b\x07\n\t") {
			t.Errorf("control characters in %q", s)
		}
	}
	if !strings.HasPrefix(f.Code, "bad ***x") || !strings.HasPrefix(f.Description, "you sent ***, ***") {
		t.Errorf("got %q and %q", f.Code, f.Description)
	}
}

func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"access_token":"tok","expires_in":3600,"token_type":"Bearer","scope":"a b"}`,
		`{"error":"invalid_client","error_description":"no"}`, `{"error":{"code":1}}`, `{"errcode":0,"errmsg":"ok"}`,
		"access_token=tok&expires=1", "\ufeff{}", `{"access_token":"` + jwt(`{"exp":1,"iat":2}`) + `"}`, `{"expires_on":"11/21/2026 10:01:00 AM +00:00"}`, "<html>", "",
	} {
		f.Add(200, "application/json", seed, "12")
		f.Add(429, "text/plain", seed, "Sat, 21 Nov 2026 10:02:00 GMT")
	}
	f.Fuzz(func(t *testing.T, status int, contentType, body, retryAfter string) {
		if status < 100 || status > 999 {
			return
		}
		answer := canned{status: status, body: body, header: http.Header{"Content-Type": {contentType}, "Retry-After": {retryAfter}, "Date": {answered}}}
		res, err := (&Request{URL: "https://as.example.com", Secrets: []string{"s3cret"}}).Do(context.Background(), answer)
		if err != nil {
			failure, ok := errors.AsType[*Failure](err)
			if !ok || failure.Kind == 0 || failure.RetryAfter < 0 {
				t.Fatalf("not one of the three failures: %#v", err)
			}
			if strings.Contains(failure.Code+failure.Description, "s3cret") {
				t.Fatal("a secret came through")
			}
			return
		}
		if res.AccessToken == "" || strings.ContainsFunc(res.AccessToken, func(r rune) bool { return r < 0x21 || r > 0x7e }) {
			t.Fatalf("an unusable token: %q", res.AccessToken)
		}
		if res.ExpiresIn < 0 || res.ExpiresIn > maxLifetime || status < 200 || status > 299 {
			t.Fatalf("got %+v of status %d", res, status)
		}
	})
}
