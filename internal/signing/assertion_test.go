package signing

import (
	"errors"
	"maps"
	"testing"
	"time"
)

func TestJWTClaims(t *testing.T) {
	now := time.Unix(1700000000, 999)
	for name, test := range map[string]struct {
		assertion Assertion
		want      map[string]any // beside jti
	}{
		"default": {
			Assertion{Issuer: "app", Subject: "app", Audience: "https://idp.example.com"},
			map[string]any{"iss": "app", "sub": "app", "aud": "https://idp.example.com", "iat": int64(1699999995), "exp": int64(1700000060)},
		},
		"no subject, further claims": {
			Assertion{Issuer: "app", Audience: "a", Lifetime: 5 * time.Minute, Claims: map[string]string{"scope": "read write", "level": "3"}},
			map[string]any{"iss": "app", "aud": "a", "scope": "read write", "level": "3", "iat": int64(1699999995), "exp": int64(1700000300)},
		},
		"an hour, and no more from iat to exp": {
			Assertion{Issuer: "app", Lifetime: time.Hour},
			map[string]any{"iss": "app", "iat": int64(1700000000), "exp": int64(1700003600)},
		},
		"nearly an hour": {
			Assertion{Issuer: "app", Lifetime: time.Hour - 2*time.Second},
			map[string]any{"iss": "app", "iat": int64(1699999998), "exp": int64(1700003598)},
		},
		"a claim does not change what is set": {
			Assertion{Issuer: "app", Claims: map[string]string{"iss": "x", "exp": "x", "iat": "x", "jti": "x"}},
			map[string]any{"iss": "app", "iat": int64(1699999995), "exp": int64(1700000060)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := test.assertion.JWTClaims(now)
			if id, ok := got["jti"].(string); !ok || len(id) < 22 {
				t.Errorf("jti is %v, expected 128 random bits", got["jti"])
			}
			delete(got, "jti")
			if !maps.Equal(got, test.want) {
				t.Errorf("the claims are %v, expected %v", got, test.want)
			}
		})
	}
}

func TestNewID(t *testing.T) {
	seen := make(map[string]bool)
	for range 1000 {
		seen[NewID()] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d different ones of 1000", len(seen))
	}
}

func TestCheckClaim(t *testing.T) {
	for name, want := range map[string]string{
		"iss": "issuer", "sub": "subject", "aud": "audience", "exp": "lifetime", "iat": "its own", "nbf": "its own", "jti": "its own", "": "name", "{env.NAME}": "no placeholder",
	} {
		checkError(t, CheckClaim(name), "", want)
	}
	for _, name := range []string{"scope", "https://example.com/tenant", "ISS", "act"} {
		if err := CheckClaim(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAudience(t *testing.T) {
	const issuer, tokenURL = "https://idp.example.com", "https://idp.example.com/token"
	resolve := func(value string) (string, error) {
		if value == "{env.NOT_SET}" {
			return "", errors.New("{env.NOT_SET} is empty")
		}
		return "resolved " + value, nil
	}
	for _, test := range []struct {
		configured, issuer, want string
		wrong                    []string
	}{
		{configured: "", issuer: issuer, want: issuer},
		{configured: "", want: tokenURL},
		{configured: "issuer", issuer: issuer, want: issuer},
		{configured: "token_endpoint", issuer: issuer, want: tokenURL},
		{configured: "token_endpoint", want: tokenURL},
		{configured: "https://other.example.com", issuer: issuer, want: "resolved https://other.example.com"},
		{configured: "issuer", wrong: []string{"audience is issuer", "no issuer", "audience token_endpoint"}},
		{configured: "{env.NOT_SET}", wrong: []string{"audience", "{env.NOT_SET}"}},
	} {
		got, err := Audience(test.configured, test.issuer, tokenURL, resolve)
		if test.wrong != nil {
			checkError(t, err, "", test.wrong...)
			continue
		}
		if err != nil || got != test.want {
			t.Errorf("%+v: got %q, %v", test, got, err)
		}
	}
}
