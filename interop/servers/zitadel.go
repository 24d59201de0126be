package main

import (
	"crypto/rand"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// newZitadel has client_credentials, authorization_code with PKCE and ID tokens,
// refresh_token with rotation, token exchange, jwt-bearer, the device grant, and
// metadata.
func newZitadel(cfg config) (library, error) {
	settings := &op.Config{
		CodeMethodS256:          true,
		AuthMethodPost:          true,
		AuthMethodPrivateKeyJWT: true,
		GrantTypeRefreshToken:   true,
		SupportedScopes:         append([]string{oidc.ScopeOpenID, oidc.ScopeOfflineAccess}, scopes...),
		DeviceAuthorization: op.DeviceAuthorizationConfig{
			Lifetime:     5 * time.Minute,
			PollInterval: time.Second,
			UserFormPath: "/device",
			UserCode:     op.UserCodeBase20,
		},
	}
	rand.Read(settings.CryptoKey[:])
	clients := clientsByID(cfg.keys)
	provider, err := op.NewProvider(settings, newZitadelStore(cfg, clients), op.StaticIssuer(cfg.issuer),
		op.WithAllowInsecure(), // http, on loopback
		op.WithCustomTokenEndpoint(op.NewEndpoint("token")),
		op.WithCustomIntrospectionEndpoint(op.NewEndpoint("introspect")),
		op.WithLogger(slog.New(slog.NewTextHandler(os.Stderr, nil))),
	)
	if err != nil {
		return library{}, err
	}
	return library{
		Handler: provider,
		clients: clients,
		scope:   "openid read write offline_access",
	}, nil
}

// zitadelClient is a client of the library's example, with what that does not
// let one set.
type zitadelClient struct {
	*storage.Client
	client
}

// methods are the names that the library has for the methods.
var methods = map[string]oidc.AuthMethod{
	secretBasic:   oidc.AuthMethodBasic,
	secretPost:    oidc.AuthMethodPost,
	privateKeyJWT: oidc.AuthMethodPrivateKeyJWT,
	none:          oidc.AuthMethodNone,
}

func (c zitadelClient) AuthMethod() oidc.AuthMethod { return methods[c.method] }

func (zitadelClient) GrantTypes() []oidc.GrantType { return oidc.AllGrantTypes }

// ApplicationType lets the redirect URI have any port.
func (zitadelClient) ApplicationType() op.ApplicationType { return op.ApplicationTypeNative }

// LoginURL is where the login page would send the browser back to.
func (zitadelClient) LoginURL(id string) string { return "/authorize/callback?id=" + id }

func (zitadelClient) IsScopeAllowed(scope string) bool { return slices.Contains(scopes, scope) }

func (c zitadelClient) AccessTokenType() op.AccessTokenType {
	if c.jwt {
		return op.AccessTokenTypeJWT
	}
	return op.AccessTokenTypeBearer
}

var _ op.Client = zitadelClient{}
