package authserver

import (
	"net/http"
	"net/url"
)

// Returned lets edit change what a browser takes back from the authorization
// endpoint, before it is sent there. An answer that is no redirect stays.
func Returned(edit func(url.Values)) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		good := capture(r, next)
		if target, err := url.Parse(good.header.Get("Location")); err == nil && target.RawQuery != "" {
			query := target.Query()
			edit(query)
			target.RawQuery = query.Encode()
			good.header.Set("Location", target.String())
		}
		good.send(w)
	}
}

// Denied has the person say no (RFC 6749 §4.1.2.1).
func Denied() Fault {
	return Returned(func(query url.Values) {
		query.Del("code")
		query.Set("error", "access_denied")
		query.Set("error_description", "the person said no")
	})
}

// WrongState returns another state than was sent, as one who forges a login.
func WrongState() Fault {
	return Returned(func(query url.Values) { query.Set("state", "forged") })
}

// WrongIssuer returns another iss (RFC 9207 §2.4), as a server that mixes up
// logins; "" is none.
func WrongIssuer(iss string) Fault {
	return Returned(func(query url.Values) {
		query.Set("iss", iss)
		if iss == "" {
			query.Del("iss")
		}
	})
}
