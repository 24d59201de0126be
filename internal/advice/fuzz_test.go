package advice

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

func printableLine(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// FuzzFor: whatever failed, there is advice, in one printable line, and none of
// the server's description in it.
func FuzzFor(f *testing.F) {
	f.Add(uint8(1), 503, "temporarily_unavailable", "", "metadata at https://idp.example.com: ", "client_secret_basic", "https://idp.example.com/token", int64(5))
	f.Add(uint8(2), 401, "invalid_client", "AADSTS7000222: x", "", "private_key_jwt", "", int64(-3600))
	f.Add(uint8(3), 200, "", "", "the answer has no access_token", "", "http://[::1]:80/authorize", int64(0))
	f.Add(uint8(2), 0, "", "", "client secret: {env.X} is empty", "jwt_file", "://", int64(1<<40))
	f.Add(uint8(0), -1, "\x00\n", "\u2028", "no metadata found", "none", "//host", int64(-1<<62))
	f.Fuzz(func(t *testing.T, kind uint8, status int, code, description, text, method, endpoint string, seconds int64) {
		failure := &oauth.Failure{Kind: oauth.Kind(kind), Status: status, Code: code, Description: description, RetryAfter: time.Duration(seconds), ServerTime: time.Unix(seconds, 0), Lost: seconds&1 == 1}
		if text != "" {
			failure.Err = errors.New(text)
		}
		k := Facts{
			Credential: code, Grant: method, Method: method, Encoding: text, Login: "", Endpoint: endpoint, Issuer: endpoint, Proxy: text, Scopes: strings.Fields(text),
			Timeout: time.Duration(seconds), Secret: SecretShape(text), Methods: []string{code}, Known: strings.Fields(code), Received: time.Unix(0, seconds), Tried: map[string]bool{text: seconds&2 == 2},
		}
		for _, k := range []Facts{k, {}} {
			a := For(failure, k)
			if !printableLine(a.Wrong) || !printableLine(a.Do) || len([]rune(a.Wrong)) > longest || len([]rune(a.Do)) > longest {
				t.Errorf("got %+q", a)
			}
			if !slices.Contains([]string{unreachable, tlsTopic, wrongAnswer, clientRefused, scopeRefused, loginRequired, storageTopic, clock, files, shortLifetime, tooMany}, a.Topic) {
				t.Errorf("topic %q is none of the runbook's", a.Topic)
			}
		}
		for _, a := range Warnings(Token{Length: status, Lifetime: time.Duration(seconds), Missing: []string{text}, Scopes: []string{code}, ServerTime: time.Unix(seconds, 0), Received: time.Unix(0, seconds), Took: time.Duration(seconds), Margin: time.Duration(seconds), JWTExpires: time.Unix(seconds, 0)}, k) {
			if !printableLine(a.Wrong) || !printableLine(a.Do) {
				t.Errorf("got %+q", a)
			}
		}
	})
}

// FuzzSecretShape: no secret breaks it.
func FuzzSecretShape(f *testing.F) {
	for _, s := range []string{"", "\ufeff", "\"", "'x'", "${X}", "<x>", "c2VjcmV0LXZhbHVl", "\xff\xfe", "%ZZ", "{{}}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, secret string) {
		s := SecretShape(secret)
		if s.Length != len(secret) {
			t.Errorf("got length %d, want %d", s.Length, len(secret))
		}
		if !s.Escaped && (s.Control || s.Blank || s.Quoted) {
			t.Errorf("%q: got %+v, but what form encoding leaves as it is holds no such thing", secret, s)
		}
		wrong, do, ok := s.flaw()
		if ok != (wrong != "" && do != "") {
			t.Errorf("%q: got %q, %q, %v", secret, wrong, do, ok)
		}
	})
}
