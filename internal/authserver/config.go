package authserver

import (
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// The ways in which a client may prove itself, by their names in the IANA
// registry of token endpoint authentication methods.
const (
	Basic         = "client_secret_basic"
	Post          = "client_secret_post"
	SecretJWT     = "client_secret_jwt"
	PrivateKeyJWT = "private_key_jwt"
	TLSClientAuth = "tls_client_auth"
	SelfSignedTLS = "self_signed_tls_client_auth"
	None          = "none"
)

// RotateAlways returns a new refresh token with each refresh, and ends the one
// that was used.
const RotateAlways = "always"

// Config is how a Server behaves while it is healthy.
type Config struct {
	// ClientID is the one client that is known. An empty one matches nobody.
	ClientID string
	// ClientSecret is that client's secret. An empty one matches nothing, so
	// that only None can succeed.
	ClientSecret string
	// Methods are the ways of client authentication that are accepted. Default:
	// Basic and Post.
	Methods []string
	// BasicEncoding is how id and secret must be written inside Basic: "form"
	// (RFC 6749 §2.3.1) or "raw" (what many servers take instead). Default: "",
	// which takes both.
	BasicEncoding string
	// ClientKeys are the keys that PrivateKeyJWT is checked with; PublicKeys
	// makes them. A jti is taken once.
	ClientKeys jose.JSONWebKeySet
	// AssertionAudiences are what an assertion may call this server. Default:
	// its issuer, and the address of the token endpoint.
	AssertionAudiences []string
	// ClientSubject is the subject of the certificate for TLSClientAuth, as RFC
	// 4514 writes it ("CN=app,O=Example"). The listener must have verified it.
	ClientSubject string
	// ClientThumbprint is that of the certificate for SelfSignedTLS; Thumbprint
	// makes it.
	ClientThumbprint string
	// BindCertificates binds access tokens to the certificate that the client
	// shows (RFC 8705 §3), however it proves itself.
	BindCertificates bool
	// DPoP is what becomes of proofs (RFC 9449): "", they are not looked at,
	// DPoPAllowed or DPoPRequired. Default: "".
	DPoP string
	// DPoPNonce demands a nonce in each proof. One is taken DPoPNonceUses times,
	// or for ever if that is 0, and DPoPNonceKeep older ones still are.
	// DPoPNonceQuiet tells the newest with a refusal alone, and not with every
	// answer.
	DPoPNonce                    bool
	DPoPNonceUses, DPoPNonceKeep int
	DPoPNonceQuiet               bool
	// FederatedKeys are the keys of another issuer, whose JWT is taken as the
	// client's assertion if its iss, sub and aud are these. It may come again.
	FederatedKeys                                        jose.JSONWebKeySet
	FederatedIssuer, FederatedSubject, FederatedAudience string
	// Scopes are those that may be asked for; another one is answered with
	// invalid_scope. A request without a scope is given all of them. Default:
	// none, which allows any.
	Scopes []string
	// Lifetime is how long a token lives. expires_in gives it in whole seconds,
	// rounded down. Default: 1h.
	Lifetime time.Duration
	// RunningToken hands out the token that is running, with what is left of
	// its life, until it ends (Huawei OneAccess, WSO2). Default: false, a new
	// token for each request.
	RunningToken bool
	// OneAtATime ends the older tokens as soon as a new one is issued (WeChat).
	// Default: false.
	OneAtATime bool
	// Grants are the grant types that are accepted. Default: none, which accepts
	// all for which there is what they need.
	Grants []string

	// Assertion is what the jwt-bearer grant (RFC 7523 §2.1) takes, whatever it
	// says, as an assertion about Subject; AssertionKeys are the keys that
	// others are checked with. With neither, there is no such grant.
	Assertion     string
	AssertionKeys jose.JSONWebKeySet
	// SubjectTokens tells whom a subject_token of token exchange (RFC 8693) is
	// about, and whether it is taken. Default: nil, there is no such grant.
	SubjectTokens func(token string) (subject string, ok bool)
	// ExchangeTokenType is the token_type that token exchange answers, "N_A" for
	// what is no access token. Default: "", that of any other token.
	ExchangeTokenType string
	// IssuedTokenType is the issued_token_type that it answers. Default:
	// urn:ietf:params:oauth:token-type:access_token.
	IssuedTokenType string

	// RefreshTokens has the server know refresh tokens (RFC 6749 §6).
	RefreshTokens bool
	// NoRefreshToken issues none: an application that did not ask for them in
	// the server's administration. Those of IssueRefreshToken are taken all the
	// same.
	NoRefreshToken bool
	// Rotate is what becomes of a refresh token that is used: "", it stays valid
	// and none is returned, or RotateAlways. Default: "".
	Rotate string
	// ReuseDetection has a spent refresh token that comes again end its whole
	// chain, access tokens included (RFC 9700 §4.14.2). Default: false, it is
	// refused and nothing more.
	ReuseDetection bool
	// Grace is how long a spent refresh token is taken again, for the same
	// successor, until that one is used. Default: 0, not at all.
	Grace time.Duration
	// Late is how much later than it is good for an assertion or a proof may
	// come, for a request that is held on its way. Default: 0.
	Late time.Duration
	// RefreshEndsAccess ends the older access tokens of a chain with each
	// refresh.
	RefreshEndsAccess bool

	// RedirectURIs are where a browser may be sent with a code. Default: none,
	// which allows any http URL on loopback.
	RedirectURIs []string
	// DeviceLifetime is how long a device code lives. Default: 10m.
	DeviceLifetime time.Duration
	// DeviceInterval is how long a device is told to wait between two polls
	// (RFC 8628 §3.2). Default: 5s.
	DeviceInterval time.Duration
	// SlowDown answers slow_down to a device that does not wait for so long, and
	// each time adds 5s to it.
	SlowDown bool
	// Subject is who logs in. Default: "user".
	Subject string
	// SigningAlg is what ID tokens, and access tokens if they are JWTs, are
	// signed with: "ES256" or "RS256". Default: "ES256".
	SigningAlg string
	// IDTokenEdit changes the claims of an ID token before it is signed. Calls
	// may overlap.
	IDTokenEdit func(claims map[string]any)
	// JWT has access tokens be JWTs (RFC 9068), in place of what Issue makes.
	JWT bool

	// Issuer is the name of the server. Default: "", which is the address that
	// the request was sent to, with IssuerPath ("/realms/a") after it.
	Issuer     string
	IssuerPath string
	// NoOpenIDMetadata and NoOAuthMetadata have nothing at OpenIDMetadataPath
	// and at OAuthMetadataPath.
	NoOpenIDMetadata, NoOAuthMetadata bool
	// MetadataEdit changes the metadata before it is sent. Calls may overlap.
	MetadataEdit func(members map[string]any)

	// Issue makes the text of the n-th token; the first is 1. A text that was
	// issued before gives that token a new life. Calls come one at a time, and
	// must not call the Server. Default: 256 random bits after "at-".
	Issue func(n int) string
	// OnIssue is told of each new token, after it is valid and before it is
	// answered. Calls may overlap.
	OnIssue func(n int, lifetime time.Duration)
}

func (c *Config) setDefaults() {
	if len(c.Methods) == 0 {
		c.Methods = []string{Basic, Post}
	}
	if c.Lifetime <= 0 {
		c.Lifetime = time.Hour
	}
	if c.Issue == nil {
		c.Issue = randomToken
	}
	if c.DeviceLifetime <= 0 {
		c.DeviceLifetime = 10 * time.Minute
	}
	if c.DeviceInterval <= 0 {
		c.DeviceInterval = 5 * time.Second
	}
	if c.Subject == "" {
		c.Subject = "user"
	}
	if c.IssuedTokenType == "" {
		c.IssuedTokenType = accessTokenType
	}
	if c.SigningAlg == "" {
		c.SigningAlg = "ES256"
	}
	c.Methods = slices.Clone(c.Methods)
	c.Grants = slices.Clone(c.Grants)
	c.Scopes = slices.Clone(c.Scopes)
	c.AssertionAudiences = slices.Clone(c.AssertionAudiences)
	c.RedirectURIs = slices.Clone(c.RedirectURIs)
}
