package advice

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Token is what is known of a token that came, without the token.
type Token struct {
	Length   int           // in bytes
	Lifetime time.Duration // as the server gave it, or as it was assumed
	Assumed  bool          // the server gave no usable lifetime
	Type     string
	// Scopes are those that the server says it granted, Missing those that were
	// asked for and are not among them.
	Scopes, Missing []string
	// ServerTime is the server's clock when it answered, Received this machine's.
	ServerTime, Received time.Time
	Took                 time.Duration // the token request
	Margin               time.Duration // expiry_margin, as configured
	Bearer               bool          // a b64token of RFC 6750 §2.1
	JWTExpires           time.Time     // exp of a JWT, zero if it has none
}

const (
	large     = 7 << 10          // from here on a header nears the limits of servers
	shortLife = 30 * time.Second // below that, one slow answer is an outage
	early     = 60 * time.Second // by which a JWT may end before expires_in says
)

// Rejected is the advice for a token that an upstream refuses.
func Rejected(k Facts) Advice {
	return Advice{
		Wrong: "an upstream refuses the token, which is valid by its lifetime",
		Do:    "compare what the API asks for with the token's scopes, audience and subject: caddy upstream-auth check " + cmp.Or(k.Credential, "<credential>") + " shows what the server grants; if it is refused on some paths alone, its subject lacks a right there; if the server ends tokens early, as by a logout or a new token for the same client, find out who does that",
		Topic: tokenRefused,
	}.clean()
}

// Warnings are what may yet go wrong with a token; nil for nothing.
func Warnings(t Token, k Facts) []Advice {
	var all []Advice
	for _, look := range []func(Token, Facts) (Advice, bool){size, lifetime, assumed, endsEarly, missing, letters, clocks} {
		if a, ok := look(t, k); ok {
			all = append(all, a.clean())
		}
	}
	return all
}

// size is a token that servers may turn away: nginx and Apache take 8 KiB for a
// header's line, Tomcat 8 KiB and Node.js and HAProxy 16 KiB for all of them.
func size(t Token, _ Facts) (Advice, bool) {
	if t.Length < large {
		return Advice{}, false
	}
	a := Advice{Topic: tokenRefused, Wrong: "the token has " + kibibytes(t.Length) + ", which is near what many servers take in a header (nginx, Apache, Tomcat: 8 KiB)"}
	if t.Length >= 8<<10-len("Authorization: Bearer ") {
		a.Wrong = "the token has " + kibibytes(t.Length) + ", which is more than many servers take in a header (nginx, Apache, Tomcat: 8 KiB; Node.js, HAProxy: 16 KiB for all headers)"
	}
	need := 16
	for need<<10 < t.Length+2<<10 {
		need *= 2
	}
	kib := strconv.Itoa(need)
	a.Do = "if the upstream answers 400, 413 or 431, have the authorization server put less into the token (groups and roles are what makes it large; ask for fewer scopes), or raise the upstream's limit: nginx large_client_header_buffers 4 " + kib + "k; Apache LimitRequestFieldSize " + strconv.Itoa(need<<10) + "; Node.js --max-http-header-size=" + strconv.Itoa(need<<10)
	return a, true
}

func kibibytes(n int) string {
	return strconv.FormatFloat(float64(n)/(1<<10), 'f', 1, 64) + " KiB"
}

// lifetime is a token that lives too short for how it is kept.
func lifetime(t Token, k Facts) (Advice, bool) {
	if t.Lifetime <= 0 || t.Assumed {
		return Advice{}, false
	}
	a := Advice{Topic: shortLifetime}
	const longer = "have the server give tokens a longer life (an hour is usual)"
	switch {
	case t.Lifetime < 2*t.Took:
		a.Wrong = "the token lives " + span(t.Lifetime) + ", and the request for it took " + span(t.Took) + ": the next one may come too late"
		a.Do = longer + ", and find out why the token request is slow"
	case t.Lifetime < shortLife:
		a.Wrong = "the token lives " + span(t.Lifetime) + " alone: an answer that is late by so much turns requests away"
		a.Do = longer
	case t.Margin > t.Lifetime/10 && t.Lifetime < 2*(t.Took+t.Margin):
		a.Wrong = "the token lives " + span(t.Lifetime) + ", which is too short for expiry_margin " + span(t.Margin) + ": " + span(t.Lifetime/10) + " of it, a tenth, are kept as the margin"
		a.Do = longer + ", or " + k.in("") + "expiry_margin " + span((t.Lifetime / 10).Truncate(time.Second))
	default:
		return a, false
	}
	return a, true
}

// assumed is a token of which nobody knows how long it lives.
func assumed(t Token, k Facts) (Advice, bool) {
	return Advice{
		Wrong: "the server does not say, in a form that can be used, how long its token lives; " + span(t.Lifetime) + " is assumed",
		Do:    "if the lifetime stands elsewhere in the answer, " + k.in("response") + "expires_in <its path> (and expires_unit ms, if it counts milliseconds); else, with what its documentation says, " + k.in("") + "default_lifetime <duration>",
		Topic: shortLifetime,
	}, t.Assumed
}

// endsEarly is a JWT that ends before its answer says.
func endsEarly(t Token, k Facts) (Advice, bool) {
	from := t.ServerTime
	if from.IsZero() {
		from = t.Received
	}
	if t.JWTExpires.IsZero() || from.IsZero() || t.Assumed || t.Lifetime <= 0 {
		return Advice{}, false
	}
	life := t.JWTExpires.Sub(from)
	if t.Lifetime-life <= early {
		return Advice{}, false
	}
	if life <= 0 {
		return Advice{
			Wrong: "the token ended on " + date(t.JWTExpires) + " by its own word (exp), " + span(-life) + " before it came",
			Do:    "the server hands out tokens that are over, or its clock differs from that of what makes them: tell its operator",
			Topic: clock,
		}, true
	}
	percent := min(max(int(75*life/t.Lifetime), 10), 95)
	return Advice{
		Wrong: "the token ends " + span(t.Lifetime-life) + " earlier by its own word (exp: in " + span(life) + ") than by its answer (expires_in: " + span(t.Lifetime) + ")",
		Do:    "have the server's operator mend expires_in; until then, " + k.in("") + "refresh_at " + strconv.Itoa(percent),
		Topic: tokenRefused,
	}, true
}

// missing are scopes that were not granted.
func missing(t Token, k Facts) (Advice, bool) {
	if len(t.Missing) == 0 {
		return Advice{}, false
	}
	var rest []string
	for _, s := range k.Scopes {
		if !slices.Contains(t.Missing, s) {
			rest = append(rest, s)
		}
	}
	a := Advice{
		Wrong: "the server did not grant all scopes that were asked for; missing: " + quoted(t.Missing),
		Do:    "have them allowed for this client at the server",
		Topic: scopeRefused,
	}
	if len(rest) > 0 {
		a.Do += "; or, if they are not needed, " + k.in("") + "scopes " + strings.Join(rest, " ")
	}
	return a, true
}

// letters is a token that some upstreams may not read.
func letters(t Token, _ Facts) (Advice, bool) {
	return Advice{
		Wrong: "the token holds characters outside the b64token of RFC 6750, and some upstreams may refuse it",
		Do:    "nothing, unless an upstream answers 400 or 401: then show its operator this line",
		Topic: tokenRefused,
	}, !t.Bearer
}

// clocks are two that differ.
func clocks(t Token, k Facts) (Advice, bool) {
	here := t.Received
	if here.Sub(t.ServerTime) > 0 { // the answer's own time was on its way so long
		here = here.Add(-min(t.Took, here.Sub(t.ServerTime)))
	}
	wrong := offset(t.ServerTime, here)
	if wrong == "" {
		return Advice{}, false
	}
	if signsAssertion(k.Method) || k.Grant == "jwt_bearer" {
		return Advice{Wrong: wrong + ": what is signed here with the time in it may soon be refused", Do: setClock, Topic: clock}, true
	}
	return Advice{Wrong: wrong, Do: "tokens do not suffer from it, for their life is counted without that clock; certificates and logs do: " + setClock, Topic: clock}, true
}
