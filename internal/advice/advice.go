// Package advice says of a token request that failed, in plain words, what is
// wrong and what to do. It knows no network and keeps no state: what it says
// comes from the failure and from what is known of the credential. Of a server's
// words it repeats the error code alone, and of its certificate the names and
// dates; no secret ever reaches it.
package advice

import (
	"cmp"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// Facts are what is known of a credential beside its failure. The zero value of
// each is "not known".
type Facts struct {
	Credential string // its name
	Grant      string // "client_credentials", …
	Method     string // client authentication: "client_secret_basic", …
	Encoding   string // of client_secret_basic: "form" or "raw"
	// Login is what brings a new refresh token, as "run: caddy upstream-auth
	// login crm"; "" where the grant has none.
	Login    string
	Endpoint string        // the token endpoint, as scheme://host[:port]/path
	Issuer   string        // as configured, "" where token_url is
	Proxy    string        // the host of the HTTP proxy in use
	Scopes   []string      // that are asked for
	Timeout  time.Duration // of one token request

	// Secret is the shape of the client secret, nil where it was not looked at.
	Secret *Secret
	// Methods are the client authentication methods of the server's metadata,
	// Known its scopes_supported.
	Methods, Known []string
	// Received is this machine's clock when the answer came.
	Received time.Time
	// Tried tells of other ways of proving the client whether the server took
	// them: a method, and behind a blank what stands in its block, as in
	// "client_secret_post", "client_secret_basic raw", "private_key_jwt audience
	// token_endpoint".
	Tried map[string]bool
}

// Advice is what is wrong, and what to do.
type Advice struct {
	// Wrong is a sentence without an end mark.
	Wrong string `json:"wrong"`
	Do    string `json:"do"`
	// Topic is the anchor of a heading in docs/runbook.md, "" for none.
	Topic string `json:"topic,omitempty"`
}

// The headings of docs/runbook.md.
const (
	unreachable   = "unreachable"
	tlsTopic      = "tls"
	wrongAnswer   = "wrong-answer"
	clientRefused = "client-refused"
	scopeRefused  = "scope-refused"
	loginRequired = "login-required"
	storageTopic  = "storage"
	clock         = "clock"
	tokenRefused  = "token-refused-upstream"
	shortLifetime = "short-lifetime"
	tooMany       = "too-many-requests"
	files         = "files"
)

// For is the advice for a failure, always something. One that is nil is one of
// which nothing is known.
func For(f *oauth.Failure, k Facts) Advice {
	if f == nil {
		f = new(oauth.Failure)
	}
	k.Endpoint, k.Issuer = bare(k.Endpoint), bare(k.Issuer)
	return judge(f, k).clean()
}

// judge asks those who know a failure's cause, the surest first.
func judge(f *oauth.Failure, k Facts) Advice {
	for _, cause := range []func(*oauth.Failure, Facts) (Advice, bool){
		ofRefreshToken, ofEngine, madeHere, ofClock, ofNetwork, ofMetadata, ofCode,
	} {
		if a, ok := cause(f, k); ok {
			return a
		}
	}
	return ofStatus(f, k)
}

// longest is the most that is said of one thing, in characters.
const longest = 900

// clean makes one printable line of each part: names in certificates, and
// errors of others, may hold anything.
func (a Advice) clean() Advice {
	a.Wrong = cmp.Or(line(a.Wrong, longest), "the token request failed")
	a.Do = cmp.Or(line(a.Do, longest), "look at the log, which has more")
	return a
}

func line(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return s
}

// bare is an address without user, query and fragment, in which secrets hide.
func bare(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return ""
	}
	u.User, u.RawQuery, u.Fragment, u.ForceQuery = nil, "", "", false
	return u.String()
}

// endpoint is the token endpoint, in a sentence.
func (k Facts) endpoint() string {
	switch {
	case k.Endpoint != "":
		return k.Endpoint
	case k.Issuer != "":
		return "the token endpoint of " + k.Issuer
	}
	return "the token endpoint"
}

// page is a command that shows what the token endpoint answers to a request that
// holds no secret.
func (k Facts) page(filter string) string {
	return "curl -si -d grant_type=none " + cmp.Or(k.Endpoint, "<the token endpoint>") + " | " + filter
}

// reach is a command that shows how far a connection to the server comes.
func (k Facts) reach() string {
	return "curl -sv --connect-timeout 5 -o /dev/null " + cmp.Or(k.Endpoint, k.Issuer, "<"+k.address()+">")
}

// address is the option in which the server's address stands.
func (k Facts) address() string {
	if k.Issuer != "" {
		return "issuer"
	}
	return "token_url"
}

// host is that of the authorization server, with its port if it has one of its
// own.
func (k Facts) host() string {
	u, err := url.Parse(cmp.Or(k.Endpoint, k.Issuer))
	if err != nil || u.Host == "" {
		return "the authorization server"
	}
	return u.Host
}

// hostPort is what a connection is made to, for a command line.
func (k Facts) hostPort() string {
	u, err := url.Parse(cmp.Or(k.Endpoint, k.Issuer))
	switch {
	case err != nil || u.Host == "":
		return "<host>:443"
	case u.Port() != "":
		return u.Host
	case u.Scheme == "http":
		return u.Host + ":80"
	}
	return u.Host + ":443"
}

// in is where a line of a credential's configuration goes.
func (k Facts) in(block string) string {
	of := "the credential"
	if k.Credential != "" {
		of += " " + k.Credential
	}
	if block == "" {
		return "in " + of + " write: "
	}
	return "in the block " + block + " of " + of + " write: "
}

// login is what brings a new refresh token.
func (k Facts) login() string {
	switch {
	case k.Login != "":
		return k.Login
	case k.Grant == "authorization_code" && k.Credential != "":
		return "run: caddy upstream-auth login " + k.Credential
	}
	return "write a new one into the grant " + cmp.Or(k.Grant, "refresh_token")
}

func status(f *oauth.Failure) string { return "HTTP " + strconv.Itoa(f.Status) }

// quoted lists words, a few of them.
func quoted(words []string) string {
	const most = 8
	shown := make([]string, 0, most)
	for _, w := range words[:min(len(words), most)] {
		shown = append(shown, line(w, 100))
	}
	list := strings.Join(shown, ", ")
	if more := len(words) - most; more > 0 {
		list += " and " + strconv.Itoa(more) + " more"
	}
	return list
}

// span writes a duration as a person would: 2m, 1h30m, 250ms.
func span(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return strconv.Itoa(int(d.Hours()/24)) + " days"
	case d >= 10*time.Second:
		d = d.Round(time.Second)
	default:
		d = d.Round(time.Millisecond)
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func date(t time.Time) string { return t.UTC().Format(time.RFC3339) }
