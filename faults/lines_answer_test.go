package faults

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// Answers of a server that is well, in its own way: what each comes to.
var answerLines = []line{
	// expires_in, RFC 6749 §5.1
	{name: `expires_in "3599"`, how: odd("expires_in", "3599"), want: used, lifetime: 3599 * time.Second},
	{name: "expires_in 3600.0", how: odd("expires_in", json.RawMessage("3600.0")), want: used},
	{name: "expires_in 3599.7", how: odd("expires_in", json.RawMessage("3599.7")), want: used},
	{name: "expires_in 3.6e3", how: odd("expires_in", json.RawMessage("3.6e3")), want: used},
	{name: `expires_in " 3600 "`, how: odd("expires_in", " 3600 "), want: used},
	{name: `expires_in ""`, how: odd("expires_in", ""), want: used, lifetime: assumed, says: noLifetime},
	{name: "expires_in true", how: odd("expires_in", true), want: used, lifetime: assumed, says: noLifetime},
	{name: "expires_in 1e20", how: odd("expires_in", json.RawMessage("1e20")), want: used, lifetime: assumed, says: noLifetime},
	{name: "expires_in 99999999999", how: odd("expires_in", 99999999999), want: used, lifetime: assumed, says: noLifetime},
	{name: "expires_in missing", how: odd("expires_in", nil), want: used, lifetime: assumed, says: noLifetime},
	{name: "expires_in null", how: odd("expires_in", json.RawMessage("null")), want: used, lifetime: assumed, says: noLifetime},
	{name: "expires_in 0", how: odd("expires_in", 0), want: used, lifetime: assumed, says: noLifetime},
	{name: "expires_in negative", how: odd("expires_in", -3600), want: used, lifetime: assumed, says: noLifetime},
	{name: "expires_in an object", how: odd("expires_in", map[string]any{"s": 3600}), want: used, lifetime: assumed, says: noLifetime},
	{name: "expires_in one short of round", how: odd("expires_in", 3599), want: used, lifetime: 3599 * time.Second},
	{name: "expires_in in ms", how: odd("expires_in", 3600000), want: used, lifetime: 3600000 * time.Second},
	{name: "expires_in in ms, as configured", how: texts{}, health: func(seconds int) authserver.Fault { return lives(1000 * seconds) }, want: used, options: "response {\nexpires_unit ms\n}"},
	{name: "expires_on, epoch", how: moment("expires_on", 0, epochSeconds), want: used},
	{name: "expires_on, epoch as text", how: moment("expires_on", 0, func(t time.Time) any { return fmt.Sprint(t.Unix()) }), want: used},
	{name: "expires_on, epoch in ms", how: moment("expires_on", 0, func(t time.Time) any { return t.UnixMilli() }), want: used},
	{name: "expires, RFC 3339", how: moment("expires", 0, layout(time.RFC3339)), want: used},
	{name: "expires, HTTP date", how: moment("expires", 0, layout(http.TimeFormat)), want: used},
	{name: "expires_on, App Service on Linux", how: moment("expires_on", 0, layout("01/02/2006 15:04:05 -07:00")), want: used},
	{name: "expires_on, App Service on Windows", how: moment("expires_on", 0, layout("1/2/2006 3:04:05 PM -07:00")), want: used},
	{name: "expires, ISO 8601 without a colon", how: moment("expires", 0, layout("2006-01-02T15:04:05.999-0700")), want: used},
	{name: "expires, with blanks", how: moment("expires", 0, layout("2006-01-02 15:04:05 -0700")), want: used},
	{name: "expires_on by a clock an hour ahead", how: moment("expires_on", time.Hour, epochSeconds), want: used},
	{name: "expires_on by a clock an hour behind", how: moment("expires_on", -time.Hour, epochSeconds), want: used},
	{name: "expires, gone by", how: answers{authserver.Answer(func(a map[string]any) {
		delete(a, "expires_in")
		a["expires"] = "2015-10-21T07:28:00Z"
	})}, want: used, lifetime: assumed, says: noLifetime},
	{name: "lifetime in the JWT alone", how: odd("expires_in", nil), text: jwt(0), want: used},
	{name: "lifetime in the JWT, clock an hour ahead", how: answers{shifted(time.Hour, without("expires_in"))}, text: jwt(time.Hour), want: used},
	{name: "lifetime in the JWT, clock an hour behind", how: answers{shifted(-time.Hour, without("expires_in"))}, text: jwt(-time.Hour), want: used},
	{name: "refresh_in", how: odd("refresh_in", 1800), want: used},
	{name: "refresh_in garbage", how: odd("refresh_in", "tomorrow"), want: used},

	// token_type, RFC 6749 §7.1
	{name: "token_type bearer", how: odd("token_type", "bearer"), want: used},
	{name: "token_type BEARER, in capitals", how: odd("token_type", "BEARER"), want: used},
	{name: "token_type BearerToken", how: odd("token_type", "BearerToken"), want: used},
	{name: "token_type missing", how: odd("token_type", nil), want: used},
	{name: "token_type null", how: odd("token_type", json.RawMessage("null")), want: used},
	{name: "token_type N_A", how: odd("token_type", "N_A"), want: malformed},
	{name: "token_type DPoP", how: odd("token_type", "DPoP"), want: malformed},
	{name: "token_type mac", how: odd("token_type", "mac"), want: malformed},
	{name: "token_type a number", how: odd("token_type", 1), want: malformed},

	// access_token, RFC 6749 A.12
	{name: "token with CR and LF", how: texts{}, text: func(t string) string { return t + "\r\nX-Evil: 1" }, want: malformed, says: "outside visible ASCII"},
	{name: "token with LF at its end", how: texts{}, text: func(t string) string { return t + "\n" }, want: malformed, says: "outside visible ASCII"},
	{name: "token with a blank", how: texts{}, text: func(t string) string { return t + " x" }, want: malformed},
	{name: "token with NUL", how: texts{}, text: func(t string) string { return t + "\x00" }, want: malformed},
	{name: "token not ASCII", how: texts{}, text: func(t string) string { return t + "é" }, want: malformed},
	{name: "token outside b64token", how: texts{}, text: func(t string) string { return t + "!{}x" }, want: used, says: "outside the b64token"},
	{name: "token of 16 KiB", how: texts{}, text: func(t string) string { return t + strings.Repeat("x", 16<<10) }, want: used},
	{name: "token a number", how: odd("access_token", 12345), want: malformed},
	{name: "token empty", how: odd("access_token", ""), want: malformed},
	{name: "token null", how: odd("access_token", json.RawMessage("null")), want: malformed},
	{name: "token an object", how: odd("access_token", map[string]any{"token": mark(ofAccess, "object")}), want: malformed},
	{name: "token missing", how: odd("access_token", nil), want: malformed},
	{name: "id_token alone", how: answers{authserver.Answer(func(a map[string]any) {
		a["id_token"] = a["access_token"]
		delete(a, "access_token")
	})}, want: malformed},
	{name: "id_token beside it", how: odd("id_token", mark(ofID, "beside")), want: used},
	{name: "refresh_token beside it", how: odd("refresh_token", mark(ofRefresh, "beside")), want: used},

	// scope, RFC 6749 §3.3
	{name: "scope narrowed", how: odd("scope", "read"), options: "scopes read write", guise: bare, want: used, says: "granted fewer scopes"},
	{name: "scope an array", how: odd("scope", []string{"read", "write"}), options: "scopes read write", want: used},
	{name: "scope with commas", how: odd("scope", "read,write"), options: "scopes read write", want: used},
	{name: "scope a number", how: odd("scope", 7), options: "scopes read write", want: used},

	// the body
	{name: "body: a form", how: answers{reshaped("application/x-www-form-urlencoded", func(m map[string]any) string {
		form := url.Values{}
		for name, value := range m {
			form.Set(name, fmt.Sprint(value))
		}
		return form.Encode()
	})}, want: used},
	{name: "body: JSON as text/plain", how: answers{authserver.AnswerHeader("Content-Type", "text/plain")}, want: used},
	{name: "body: JSON as text/html", how: answers{authserver.AnswerHeader("Content-Type", "text/html")}, want: used},
	{name: "body: no content type", how: answers{authserver.AnswerHeader("Content-Type", "")}, want: used},
	{name: "body: BOM", how: answers{reshaped("application/json", func(m map[string]any) string { return "\ufeff" + compact(m) })}, want: used},
	{name: "body: two objects", how: answers{reshaped("application/json", func(m map[string]any) string { return compact(m) + compact(m) })}, want: malformed},
	{name: "body: truncated", how: answers{reshaped("application/json", func(m map[string]any) string { return compact(m)[:40] })}, want: malformed, says: "cut short"},
	{name: "body: an array", how: answers{reshaped("application/json", func(m map[string]any) string { return "[" + compact(m) + "]" })}, want: malformed},
	{name: "body: null", how: raw(200, "null"), want: malformed},
	{name: "body: a million braces", how: raw(200, strings.Repeat(`{"a":`, 200000)), want: malformed},
	{name: "body: HTML", how: said(200, "text/html", "<html>log in"), want: malformed, says: "a page (HTML or XML)"},
	{name: "body: HTML under 403", how: said(403, "text/html", "<html>the firewall says no"), want: refused},
	{name: "body: {data: …} envelope", how: answers{enveloped}, want: malformed},
	{name: "body: {data: …} envelope, as configured", how: texts{}, health: func(seconds int) authserver.Fault {
		return authserver.Chain(enveloped, lives(seconds))
	}, want: used,
		options: "response {\naccess_token data.access_token\nexpires_in data.expires_in\n}"},

	// errors in other words
	{name: "error under 200: errcode", how: raw(200, `{"errcode":40013,"errmsg":"invalid appid"}`), want: refused, says: `"code":"40013"`},
	{name: "error under 200: ok false", how: raw(200, `{"ok":false,"error":"invalid_auth"}`), want: refused, says: `"code":"invalid_auth"`},
	{name: "error under 200: RFC 6749", how: raw(200, `{"error":"invalid_client"}`), want: refused},
	{name: "error an object", how: raw(400, `{"error":{"code":"invalid_client","message":"no"}}`), want: refused, says: `"code":"invalid_client"`},
	{name: "error an object under 200", how: raw(200, `{"error":{"code":"invalid_client","message":"no"}}`), want: refused},
	{name: "error true", how: raw(400, `{"error":true,"message":"no"}`), want: refused},
	{name: "error of RFC 7807", how: said(400, "application/problem+json", `{"type":"about:blank","title":"No such client","detail":"app"}`), want: refused, says: "No such client"},
	{name: "error of Spring", how: raw(401, `{"timestamp":"2026-01-01T00:00:00Z","status":401,"error":"Unauthorized","path":"/token"}`), want: refused, says: `"code":"Unauthorized"`},
	{name: "error_code and error_msg", how: raw(400, `{"error_code":"APIGW.0301","error_msg":"Incorrect authentication"}`), want: refused, says: "APIGW.0301"},
	{name: "invalid_grant under 401", how: raw(401, `{"error":"invalid_grant"}`), want: refused},
	{name: "error with control characters", how: raw(400, `{"error":"in\u0000va\u001b[31mlid\r\n","error_description":"\u202ea\r\nb"}`), want: refused},
	{name: "error that echoes the secret", how: answers{echoed}, want: refused, says: "***"},
	{name: "error that echoes the request", how: answers{echoedWhole}, want: refused, says: "***"},
	{name: tokenEchoed, how: answersOf(echoedToken), want: refused},
}

const tokenEchoed = "error that echoes the token"

const noLifetime = "no usable lifetime"

// odd sets a member of the answer; nil takes it away.
func odd(name string, value any) answers {
	return answers{authserver.Answer(func(a map[string]any) {
		a[name] = value
		if value == nil {
			delete(a, name)
		}
	})}
}

func without(name string) authserver.Fault { return odd(name, nil).Fault }

func raw(code int, body string) answers { return said(code, "application/json", body) }

// said is a body of the line's own, with more in it that is nobody's business.
func said(code int, contentType, body string) answers {
	switch {
	case strings.HasPrefix(body, `{"`):
		body = `{"trace":"` + mark(ofBody, "raw") + `",` + body[1:]
	case strings.HasPrefix(body, "<html>"):
		body += "<p>" + mark(ofBody, "page")
	}
	return answers{authserver.Raw(code, contentType, body)}
}

// shifted is a server whose clock is off, by its own Date.
func shifted(by time.Duration, fault authserver.Fault) authserver.Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		w.Header().Set("Date", time.Now().Add(by).UTC().Format(http.TimeFormat))
		fault(w, r, next)
	}
}

// moment gives the end of the token, an hour from now by the server's clock, in
// place of its lifetime.
func moment(name string, off time.Duration, format func(time.Time) any) answers {
	return answers{shifted(off, authserver.Answer(func(a map[string]any) {
		delete(a, "expires_in")
		a[name] = format(time.Now().Add(off + time.Hour))
	}))}
}

func epochSeconds(t time.Time) any { return t.Unix() }

func layout(l string) func(time.Time) any {
	return func(t time.Time) any { return t.UTC().Format(l) }
}

// jwt makes tokens that are JWTs of an hour's life, by a clock that is off.
func jwt(off time.Duration) func(string) string {
	return func(healthy string) string {
		part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
		now := time.Now().Add(off)
		return strings.Join([]string{part(`{"alg":"none"}`), part(fmt.Sprintf(`{"jti":%q,"iat":%d,"exp":%d}`, healthy, now.Unix(), now.Add(time.Hour).Unix())), marker}, ".")
	}
}

// reshaped writes the members of a healthy answer in another way.
func reshaped(contentType string, shape func(map[string]any) string) authserver.Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		authserver.Answer(func(members map[string]any) {
			body := shape(members)
			clear(members)
			members["body"] = body
		})(&unwrapped{ResponseWriter: w, contentType: contentType}, r, next)
	}
}

// unwrapped sends what stands in body.
type unwrapped struct {
	http.ResponseWriter
	contentType string
}

func (w *unwrapped) WriteHeader(code int) {
	w.Header().Set("Content-Type", w.contentType)
	w.ResponseWriter.WriteHeader(code)
}

func (w *unwrapped) Write(b []byte) (int, error) {
	var members struct{ Body string }
	if err := json.Unmarshal(b, &members); err != nil {
		return 0, err
	}
	return io.WriteString(w.ResponseWriter, members.Body)
}

func compact(m map[string]any) string { return string(must(json.Marshal(m))) }

func enveloped(w http.ResponseWriter, r *http.Request, next http.Handler) {
	reshaped("application/json", func(m map[string]any) string { return compact(map[string]any{"data": m}) })(w, r, next)
}

// echoed is an error that holds what proves the client, in several spellings.
func echoed(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, "", http.StatusTeapot)
		return
	}
	secret := r.PostForm.Get("client_secret") + r.PostForm.Get("client_assertion")
	if _, password, ok := r.BasicAuth(); ok {
		secret, _ = url.QueryUnescape(password)
	}
	text := strings.Join([]string{secret, url.QueryEscape(secret), url.PathEscape(secret)}, " ")
	raw(http.StatusBadRequest, compact(map[string]any{"error": secret, "error_description": text})).Fault(w, r, next)
}

// echoedWhole is one that holds all that was sent.
func echoedWhole(w http.ResponseWriter, r *http.Request, next http.Handler) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "", http.StatusTeapot)
		return
	}
	text := []string{r.Header.Get(apiKeyHeader), r.Header.Get("Authorization"), r.Header.Get("DPoP"), string(body)}
	raw(http.StatusBadRequest, compact(map[string]any{"error": text[0], "error_description": strings.Join(text, " ")})).Fault(w, r, next)
}

// echoedToken is one that holds the token that was issued last, as if somebody
// had to know which one was meant.
func echoedToken(c *cell) authserver.Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		held := "none"
		if n := c.auth.Issued(); n > 0 {
			held = mark(ofAccess, fmt.Sprintf("%s-%d", c.name, n))
		}
		raw(http.StatusBadRequest, compact(map[string]any{"error": held, "error_description": "another token was issued: " + held})).Fault(w, r, next)
	}
}

// gzipped answers with n bytes that are a thousand times fewer on the wire.
func gzipped(n int64) authserver.Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Encoding", "gzip")
		for part, left := zipped(), n; left > 0; left -= 1 << 20 { // members of one stream (RFC 1952 §2.2)
			if _, err := w.Write(part); err != nil {
				return
			}
		}
	}
}

// zipped are a million blanks, compressed.
var zipped = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(bytes.Repeat([]byte(" "), 1<<20))
	_ = z.Close()
	return b.Bytes()
})
