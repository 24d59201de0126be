package authserver

import "time"

// oneAccessLogin is Huawei Cloud OneAccess for an application with a login,
// which the vendor tells apart by its scope: of OAuth, or of OpenID Connect. The
// latter says a lifetime in a string.
func oneAccessLogin(scope, badRefresh string, answer func(map[string]any)) vendor {
	return vendor{
		dialect: dialect{
			path:         "/api/v1/oauth2/token",
			authorize:    "/api/v1/oauth2/authorize",
			pkceOptional: true,
			noIss:        true,
			scope:        scope,
			answer:       answer,
			refuse: says("error_description", map[string]said{
				"refresh_token invalid_grant":      {text: badRefresh},
				"authorization_code invalid_grant": {text: "Invalid authorization code"},
			}),
		},
		defaults: Config{
			Lifetime:      7200 * time.Second,
			SigningAlg:    "RS256",
			Methods:       []string{Post},
			Grants:        []string{"authorization_code", "refresh_token"},
			RefreshTokens: true,
			Rotate:        RotateAlways,
		},
	}
}
