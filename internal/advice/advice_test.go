package advice

import (
	"strings"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// TestFor: there is always advice, whatever is known.
func TestFor(t *testing.T) {
	if a := For(nil, crm); a.Wrong == "" || a.Do == "" {
		t.Errorf("got %+v, want something", a)
	}
	refused := &oauth.Failure{Kind: oauth.Refused, Status: 401, Code: "invalid_client\n\x1b[31mred\u202e"}
	if a := For(refused, Facts{Credential: "a\nb"}); strings.ContainsAny(a.Wrong+a.Do, "\n\x1b\u202e") {
		t.Errorf("got %+q, want printable lines", a)
	}
	long := &oauth.Failure{Kind: oauth.Refused, Err: errString(strings.Repeat("ä", 5000))}
	if a := For(long, crm); len([]rune(a.Wrong)) != longest || !strings.HasSuffix(a.Wrong, "…") {
		t.Errorf("got %d characters, want %d", len([]rune(a.Wrong)), longest)
	}
}

type errString string

func (e errString) Error() string { return string(e) }

func TestAddresses(t *testing.T) {
	for _, tc := range []struct {
		facts                      Facts
		endpoint, host, port, name string
	}{
		{Facts{}, "the token endpoint", "the authorization server", "<host>:443", "token_url"},
		{Facts{Endpoint: "https://idp.example.com/t"}, "https://idp.example.com/t", "idp.example.com", "idp.example.com:443", "token_url"},
		{Facts{Endpoint: "https://idp.example.com:8443/t"}, "https://idp.example.com:8443/t", "idp.example.com:8443", "idp.example.com:8443", "token_url"},
		{Facts{Endpoint: "http://localhost/t"}, "http://localhost/t", "localhost", "localhost:80", "token_url"},
		{Facts{Endpoint: "https://[::1]:8443/t"}, "https://[::1]:8443/t", "[::1]:8443", "[::1]:8443", "token_url"},
		{Facts{Issuer: "https://idp.example.com/a"}, "the token endpoint of https://idp.example.com/a", "idp.example.com", "idp.example.com:443", "issuer"},
	} {
		k := tc.facts
		got := [4]string{k.endpoint(), k.host(), k.hostPort(), k.address()}
		if want := [4]string{tc.endpoint, tc.host, tc.port, tc.name}; got != want {
			t.Errorf("%+v: got %q, want %q", tc.facts, got, want)
		}
	}
	for address, want := range map[string]string{
		"":                                      "",
		"://":                                   "",
		"idp.example.com/token":                 "",
		"https://a:b@idp.example.com/t?key=x#y": "https://idp.example.com/t",
		"https://idp.example.com/t?":            "https://idp.example.com/t",
	} {
		if got := bare(address); got != want {
			t.Errorf("bare(%q): got %q, want %q", address, got, want)
		}
	}
	// an IPv6 address stands in NO_PROXY without its brackets
	contains(t, "do", (Facts{Endpoint: "https://[::1]:8443/t"}).around(), "put ::1 into NO_PROXY")
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                        "0s",
		250*time.Millisecond + 1: "250ms",
		1500 * time.Millisecond:  "1.5s",
		61*time.Second + 1:       "1m1s",
		2 * time.Minute:          "2m",
		time.Hour:                "1h",
		90 * time.Minute:         "1h30m",
		100 * time.Hour:          "4 days",
	} {
		if got := span(d); got != want {
			t.Errorf("%d: got %q, want %q", d, got, want)
		}
	}
}

func TestQuoted(t *testing.T) {
	if got := quoted(strings.Fields("a b c d e f g h i j")); got != "a, b, c, d, e, f, g, h and 2 more" {
		t.Errorf("got %q", got)
	}
}
