package signing

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// latest is the last second of the year 9999: a later exp is no time.
const latest = 253402300799

// Claims are what a JWT says about itself.
type Claims struct {
	// Issuer and Subject are iss and sub, "" where it has none.
	Issuer, Subject string
	// Audience is aud, nil where it has none.
	Audience []string
	// Expires is exp, zero where it has none.
	Expires time.Time
}

// Unverified reads a JWT and leaves its signature to whom it is meant for.
func Unverified(token string) (*Claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) == 5 {
		return nil, errors.New("an encrypted JWT (JWE): expected one that is signed")
	}
	if len(parts) != 3 {
		return nil, errors.New("not a JWT: expected three parts in base64url with dots between them")
	}
	var decoded [3][]byte
	for i, part := range parts {
		var err error
		if decoded[i], err = base64.RawURLEncoding.DecodeString(part); err != nil || part == "" || strings.ContainsAny(part, "\r\n") {
			return nil, fmt.Errorf("not a JWT: its %s is not base64url", [3]string{"header", "payload", "signature"}[i])
		}
	}
	var header, payload map[string]any
	if json.Unmarshal(decoded[0], &header) != nil || header == nil {
		return nil, errors.New("not a JWT: its header is not a JSON object")
	}
	if json.Unmarshal(decoded[1], &payload) != nil || payload == nil {
		return nil, errors.New("not a JWT: its payload is not a JSON object")
	}
	return readClaims(payload)
}

func readClaims(payload map[string]any) (*Claims, error) {
	c := new(Claims)
	for name, to := range map[string]*string{"iss": &c.Issuer, "sub": &c.Subject} {
		if value, ok := payload[name]; ok {
			if *to, ok = value.(string); !ok {
				return nil, fmt.Errorf("a JWT whose %s is not a string", name)
			}
		}
	}
	switch aud := payload["aud"].(type) {
	case nil:
	case string:
		c.Audience = []string{aud}
	case []any:
		for _, one := range aud {
			text, ok := one.(string)
			if !ok {
				return nil, errors.New("a JWT whose aud holds something else than strings")
			}
			c.Audience = append(c.Audience, text)
		}
	default:
		return nil, errors.New("a JWT whose aud is neither a string nor a list of strings")
	}
	switch exp := payload["exp"].(type) {
	case nil:
	case float64:
		c.Expires = time.Unix(int64(min(max(exp, 0), latest)), 0)
	default:
		return nil, errors.New("a JWT whose exp is not a number")
	}
	return c, nil
}
