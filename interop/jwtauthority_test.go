package interop

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// jwtAuthority is an oidc-provider for a resource whose access tokens are JWTs,
// which nobody asks it about: the resource server checks them itself (RFC 9068).
type jwtAuthority struct {
	*fullProvider
	resource string
}

// inspect checks a token as the resource server does.
func (a *jwtAuthority) inspect(ctx context.Context, token string) (fullIntrospection, error) {
	var in fullIntrospection
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.issuer+"/jwks", nil)
	if err != nil {
		return in, err
	}
	var keys jose.JSONWebKeySet
	if err := fetch(a.client, req, &keys); err != nil {
		return in, err
	}
	signed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return in, err
	}
	var claims jwt.Claims
	var more struct {
		ClientID string `json:"client_id"`
		Scope    string `json:"scope"`
	}
	if err := signed.Claims(keys, &claims, &more); err != nil {
		return in, err
	}
	if typ, _ := signed.Headers[0].ExtraHeaders[jose.HeaderType].(string); !strings.EqualFold(typ, "at+jwt") {
		return in, fmt.Errorf("its type is %q", typ)
	}
	if err := claims.Validate(jwt.Expected{Issuer: a.issuer, AnyAudience: jwt.Audience{a.resource}, Time: time.Now()}); err != nil {
		return in, err
	}
	in.Active, in.Exp, in.ClientID, in.Scope = true, claims.Expiry.Time().Unix(), more.ClientID, more.Scope
	return in, nil
}
