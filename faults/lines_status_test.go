package faults

import (
	"net/http"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// Each status that has a rule. A redirect leads to a server of another origin,
// which must see nothing.
var statusLines = []line{
	{name: "200, empty", how: status(200), want: malformed, says: "the answer is empty"},
	{name: "204", how: status(204), want: malformed},
	{name: "206 with a token", how: answers{another(206)}, want: malformed},
	{name: "201 with a token", how: answers{another(201)}, want: used},
	{name: "301", how: astray(301), want: malformed, says: "a redirect, which is never followed"},
	{name: "302", how: astray(302), want: malformed, says: "a redirect, which is never followed"},
	{name: "303", how: astray(303), want: malformed, says: "a redirect, which is never followed"},
	{name: "307", how: astray(307), want: malformed, says: "a redirect, which is never followed"},
	{name: "308", how: astray(308), want: malformed, says: "a redirect, which is never followed"},
	{name: "400, empty", how: status(400), want: refused},
	{name: "400 invalid_request", how: problem(400, "invalid_request"), want: refused, says: `"code":"invalid_request"`},
	{name: "400 invalid_scope", how: problem(400, "invalid_scope"), want: refused, says: `"code":"invalid_scope"`},
	{name: "400 unauthorized_client", how: problem(400, "unauthorized_client"), want: refused},
	{name: "400 temporarily_unavailable", how: problem(400, "temporarily_unavailable"), want: unreachable},
	{name: "400 server_error", how: problem(400, "server_error"), want: unreachable},
	{name: "401 invalid_client", how: problem(401, "invalid_client"), want: refused, says: `"code":"invalid_client"`},
	{name: "401, empty", how: status(401), want: refused},
	{name: "403, empty", how: status(403), want: refused, says: `"status":403`},
	{name: "404", how: status(404), want: refused},
	{name: "405", how: status(405), want: refused},
	{name: "408", how: status(408), want: unreachable},
	{name: "413", how: status(413), want: refused},
	{name: "425", how: status(425), want: unreachable},
	{name: "429", how: status(429), want: unreachable},
	{name: "429, Retry-After 2", how: answers{authserver.TooMany("2")}, want: unreachable, floor: 2 * time.Second},
	{name: "429, Retry-After a date", how: answers{inThreeSeconds}, want: unreachable, floor: 2 * time.Second},
	{name: "429, Retry-After a date gone by", how: answers{authserver.TooMany("Wed, 21 Oct 2015 07:28:00 GMT")}, want: unreachable},
	{name: "429, Retry-After a day", how: answers{authserver.TooMany("86400")}, want: unreachable, floor: 10 * time.Minute},
	{name: "429, Retry-After garbage", how: answers{authserver.TooMany(mark(ofAnswer, "soon"))}, want: unreachable},
	{name: "429, Retry-After -1", how: answers{authserver.TooMany("-1")}, want: unreachable},
	{name: "500", how: status(500), want: unreachable},
	{name: "500 invalid_request", how: problem(500, "invalid_request"), want: unreachable},
	{name: "500 invalid_client", how: problem(500, "invalid_client"), want: unreachable},
	{name: "501", how: status(501), want: unreachable},
	{name: "502, a page", how: said(502, "text/html", "<html><h1>Bad Gateway</h1>"), want: unreachable, says: "a page (HTML or XML)"},
	{name: "503", how: answers{authserver.Down()}, want: unreachable},
	{name: "503, Retry-After 2", how: answers{authserver.Status(503, "Retry-After", "2")}, want: unreachable, floor: 2 * time.Second},
	{name: "504", how: status(504), want: unreachable},
	{name: "599", how: status(599), want: unreachable},
}

func status(code int) answers { return answers{authserver.Status(code)} }

// problem is an error of RFC 6749 §5.2.
func problem(code int, name string) answers {
	return raw(code, `{"error":"`+name+`"}`)
}

// another gives a healthy answer another status.
func another(code int) authserver.Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(restatus{w, code}, r)
	}
}

type restatus struct {
	http.ResponseWriter
	code int
}

func (w restatus) WriteHeader(int) { w.ResponseWriter.WriteHeader(w.code) }

// astray redirects to another origin.
func astray(code int) answersOf {
	return func(c *cell) authserver.Fault {
		return authserver.Redirect(code, c.column.thief.URL()+"/"+c.name+"?state="+c.made(ofAnswer))
	}
}

// inThreeSeconds is at least two away, for a date has whole seconds.
func inThreeSeconds(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	now := time.Now()
	w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
	w.Header().Set("Retry-After", now.Add(3*time.Second).UTC().Format(http.TimeFormat))
	w.WriteHeader(http.StatusTooManyRequests)
}
