package authserver

import (
	"net/http"
	"strconv"
	"time"
)

// userGrants are those of a server where people log in.
var userGrants = []string{"client_credentials", "authorization_code", "refresh_token"}

var vendors = map[Vendor]vendor{
	Auth0: {
		dialect: dialect{
			path:  "/oauth/token",
			words: jsonWords,
			check: wantParameter("audience", "access_denied", "No audience parameter was provided, and no default audience has been configured"),
			refuse: says("error_description", map[string]said{
				"invalid_client":         {401, "access_denied", "Unauthorized"},
				"access_denied":          {status: 403},
				"invalid_grant":          {403, "", "Unknown or invalid refresh token."},
				"unsupported_grant_type": {status: 403},
			}),
		},
		defaults: Config{JWT: true, SigningAlg: "RS256", Lifetime: 24 * time.Hour, RefreshTokens: true,
			Methods: []string{Basic, Post, PrivateKeyJWT}, Grants: userGrants},
	},
	Cognito: {
		dialect: dialect{
			path: "/oauth2/token", jwtType: "JWT", contentType: "application/json;charset=UTF-8",
			answer: func(members map[string]any) { delete(members, "scope") },
			refuse: says("", nil),
		},
		defaults: Config{JWT: true, SigningAlg: "RS256", RefreshTokens: true, Grants: userGrants},
	},
	Entra: {
		dialect: dialect{
			path: "/00000000-0000-0000-0000-000000000000/oauth2/v2.0/token", jwtType: "JWT", contentType: "application/json; charset=utf-8",
			check: checkEntra,
			answer: func(members map[string]any) {
				sooner(members)
				members["ext_expires_in"] = members["expires_in"]
				delete(members, "scope")
			},
			refuse: refuseEntra,
		},
		defaults: Config{JWT: true, SigningAlg: "RS256", Methods: []string{Basic, Post, PrivateKeyJWT}, Grants: []string{"client_credentials"}},
	},
	Google: {
		dialect: dialect{
			path: "/token", subject: googleSubject, contentType: "application/json; charset=utf-8",
			answer: func(members map[string]any) { sooner(members); delete(members, "scope") },
			refuse: says("error_description", nil),
		},
		defaults: Config{Issue: func(int) string { return "ya29.c." + random() + "...." }, Methods: []string{None},
			Grants: []string{jwtBearerGrant}, AssertionAudiences: []string{googleAudience}},
	},
	Keycloak: {
		dialect: dialect{
			path: "/realms/demo/protocol/openid-connect/token", jwtType: "JWT", found: true,
			answer: func(members map[string]any) {
				members["refresh_expires_in"], members["not-before-policy"] = 0, 0
				if members["refresh_token"] != nil {
					members["refresh_expires_in"] = 1800
				}
			},
			sameRefresh: true,
			refuse: says("error_description", map[string]said{
				"stranger":                    {401, "", "Invalid client or Invalid client credentials"},
				"invalid_client":              {401, "unauthorized_client", "Invalid client or Invalid client credentials"},
				"refresh_token invalid_grant": {text: "Invalid refresh token"},
				"unsupported_grant_type":      {text: "Unsupported grant_type"},
			}),
		},
		defaults: Config{JWT: true, SigningAlg: "RS256", IssuerPath: "/realms/demo", Lifetime: 5 * time.Minute, RefreshTokens: true,
			Methods: []string{Basic, Post, SecretJWT, PrivateKeyJWT, TLSClientAuth}},
	},
	Okta: {
		dialect: dialect{
			path: "/oauth2/default/v1/token", jwtType: "JWT", found: true,
			check:  wantParameter("scope", "invalid_scope", "The authorization server resource does not have any configured default scopes, 'scope' must be provided."),
			refuse: refuseOkta,
		},
		defaults: Config{JWT: true, SigningAlg: "RS256", IssuerPath: "/oauth2/default", RefreshTokens: true,
			Methods: []string{Basic, Post, SecretJWT, PrivateKeyJWT}, Grants: userGrants},
	},
	OneAccessOAuth: oneAccessLogin("get_user_info", "Invalid refresh token", nil),
	OneAccessOIDC: oneAccessLogin("openid", "Invalid authorization code", func(members map[string]any) {
		if seconds, ok := members["expires_in"].(int64); ok {
			members["expires_in"] = strconv.FormatInt(seconds, 10)
		}
	}),
	Salesforce: {
		dialect: dialect{
			path: "/services/oauth2/token", scope: "api", contentType: "application/json;charset=UTF-8",
			answer: func(members map[string]any) {
				delete(members, "expires_in")
				members["instance_url"] = "https://instance.example.com"
				members["id"] = "https://login.example.com/id/00D000000000001AAA/005000000000001AAA"
				members["issued_at"] = strconv.FormatInt(time.Now().UnixMilli(), 10)
				members["signature"] = random() + "="
			},
			refuse: says("error_description", map[string]said{
				"stranger":                        {code: "invalid_client_id", text: "client identifier invalid"},
				"invalid_client":                  {text: "invalid client credentials"},
				"unsupported_grant_type":          {text: "grant type not supported"},
				"refresh_token invalid_grant":     {text: "expired access/refresh token"},
				jwtBearerGrant + " invalid_grant": {text: "invalid assertion"},
			}),
		},
		defaults: Config{Issue: func(int) string { return "00D000000000001!AQ" + random() + "." + random() }, RefreshTokens: true,
			Grants: append([]string{jwtBearerGrant}, userGrants...), AssertionAudiences: []string{"https://login.salesforce.com", "https://test.salesforce.com"}},
	},
	TencentCIAM: {
		dialect: dialect{
			path: "/oauth2/token", scope: "openid", jwtType: "JWT", contentType: "application/json;charset=UTF-8",
			claims: func(claims map[string]any) {
				claims["nbf"], claims["scope"] = claims["iat"], []string{"openid"}
				delete(claims, "client_id")
			},
			sameRefresh: true,
			answer:      sooner,
			refuse:      says("", nil),
		},
		defaults: Config{JWT: true, SigningAlg: "RS256", Lifetime: 300 * time.Second, RefreshTokens: true, Methods: []string{Post}, Grants: userGrants},
	},
	WeChat: {
		dialect: dialect{
			path: "/cgi-bin/token", method: http.MethodGet, contentType: "application/json; encoding=utf-8",
			words:  weChatWords,
			answer: func(members map[string]any) { delete(members, "token_type"); delete(members, "scope") },
			refuse: refuseWeChat,
		},
		defaults: Config{OneAtATime: true, Lifetime: 7200 * time.Second, Methods: []string{Post}, Grants: []string{"client_credentials"}},
	},
	Zoom: {
		dialect: dialect{
			path: "/oauth/token", words: zoomWords,
			check: wantParameter("account_id", "invalid_request", "Bad Request"),
			answer: func(members map[string]any) {
				sooner(members)
				members["token_type"], members["api_url"] = "bearer", "https://api.zoom.us"
			},
			refuse: says("reason", map[string]said{
				"invalid_client":         {text: "Invalid client_id or client_secret"},
				"unsupported_grant_type": {text: "unsupported grant type"},
			}),
		},
		defaults: Config{Methods: []string{Basic}, Grants: []string{"client_credentials"}},
	},
	Enveloped: {
		dialect: dialect{
			path: TokenPath, words: jsonWords,
			wrap: func(members map[string]any) map[string]any {
				return map[string]any{"code": 0, "msg": "ok", "data": members}
			},
			refuse: func(w http.ResponseWriter, _ Request, no *refusal) {
				writeJSON(w, http.StatusOK, map[string]any{"code": 40001, "msg": no.description})
			},
		},
		defaults: Config{RefreshTokens: true},
	},
	Milliseconds: {
		dialect: dialect{
			path: TokenPath,
			answer: func(members map[string]any) {
				if seconds, ok := members["expires_in"].(int64); ok {
					members["expires_in"] = seconds * 1000
				}
			},
			refuse: asRFC,
		},
		defaults: Config{RefreshTokens: true},
	},
}
