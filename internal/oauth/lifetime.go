package oauth

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxLifetime is the longest that is believed: more is a slip of units.
const maxLifetime = 10 * 365 * 24 * time.Hour

// lifetime is how long the token lives and when the server wants it renewed,
// 0 for what the answer does not say in a form that can be used. Sources in
// their order: expires_in (RFC 6749 §5.1), the moment in expires_on or expires
// (Entra, managed identities), the exp of a JWT. Moments are measured against
// the answer's own Date, so that a wrong clock here ends no token.
func (f *Fields) lifetime(doc document, token string, date time.Time) (expiresIn, refreshIn time.Duration) {
	unit := f.ExpiresUnit
	if unit == 0 {
		unit = time.Second
	}
	refreshIn = span(doc.lookup("refresh_in"), unit)
	if d := span(doc.lookup(or(f.ExpiresIn, "expires_in")), unit); d > 0 {
		return d, refreshIn
	}
	for _, name := range []string{"expires_on", "expires"} {
		if d := until(doc.lookup(name), date); d > 0 {
			return d, refreshIn
		}
	}
	return jwtLifetime(token, date), refreshIn
}

// span reads a number of units: 3599, "3599", 3599.7, 3.6e3, " 3600 ".
func span(v any, unit time.Duration) time.Duration {
	n, ok := number(v)
	if !ok {
		return 0
	}
	return believable(n * float64(unit))
}

func believable(ns float64) time.Duration {
	if !(ns > 0) || ns > float64(maxLifetime) {
		return 0
	}
	return time.Duration(ns)
}

func number(v any) (float64, bool) {
	s := strings.TrimSpace(word(v))
	if s == "" || strings.Trim(s, "+-.0123456789eE") != "" {
		return 0, false
	}
	n, err := strconv.ParseFloat(s, 64)
	return n, err == nil && !math.IsInf(n, 0) && !math.IsNaN(n)
}

// momentFormats are the ways in which servers write a moment as text.
var momentFormats = []string{
	time.RFC3339,
	http.TimeFormat,
	"01/02/2006 15:04:05 -07:00",   // Azure App Service on Linux
	"1/2/2006 3:04:05 PM -07:00",   // and on Windows
	"2006-01-02T15:04:05.999-0700", // ISO 8601 without a colon in the zone
	"2006-01-02 15:04:05 -0700",
}

// until reads a moment, as text or as seconds or milliseconds since 1970, and
// tells how far off it is. A number too small to be a moment is a lifetime.
func until(v any, date time.Time) time.Duration {
	if n, ok := number(v); ok {
		switch {
		case n <= maxLifetime.Seconds():
			return believable(n * float64(time.Second))
		case n > 1e11:
			n /= 1000
		}
		return since(time.Unix(0, int64(n*float64(time.Second))), date)
	}
	s, _ := v.(string)
	for _, layout := range momentFormats {
		if t, err := time.Parse(layout, strings.TrimSpace(s)); err == nil {
			return since(t, date)
		}
	}
	return 0
}

func since(t, date time.Time) time.Duration {
	if date.IsZero() {
		date = time.Now()
	}
	return believable(float64(t.Sub(date)))
}

// jwtLifetime reads the exp of a token that happens to be a JWT (RFC 7519
// §4.1.4), unverified: it is a hint, and the upstream is the judge.
func jwtLifetime(token string, date time.Time) time.Duration {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return 0
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return 0
	}
	var claims struct {
		Exp float64 `json:"exp"`
		Iat float64 `json:"iat"`
	}
	if json.Unmarshal(payload, &claims) != nil || claims.Exp <= 0 {
		return 0
	}
	if !date.IsZero() {
		return believable((claims.Exp - float64(date.Unix())) * float64(time.Second))
	}
	if claims.Iat <= 0 {
		return 0
	}
	return believable((claims.Exp - claims.Iat) * float64(time.Second))
}

// maxRetryAfter bounds the number only; what is made of it is for the caller.
const maxRetryAfter = 24 * time.Hour

// parseRetryAfter reads Retry-After (RFC 9110 §10.2.3): seconds or a date,
// the latter against the answer's own Date.
func parseRetryAfter(s string, date time.Time) time.Duration {
	s = strings.TrimSpace(s)
	if s == "" {
		return 0
	}
	if n, ok := number(s); ok {
		return believable(min(n, maxRetryAfter.Seconds()) * float64(time.Second))
	}
	if t, err := http.ParseTime(s); err == nil {
		return since(t, date)
	}
	return 0
}
