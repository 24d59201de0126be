package authserver

import (
	"cmp"
	"crypto/tls"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// Where a Server made by New tells what it is and can do. The path of its issuer
// stands before the one (OpenID Connect Discovery §4) and after the other (RFC
// 8414 §3).
const (
	OpenIDMetadataPath = "/.well-known/openid-configuration"
	OAuthMetadataPath  = "/.well-known/oauth-authorization-server"
)

// base is where a request was sent to, without a path.
func base(r Request) string { return origin(r.TLS, r.Host) }

func origin(state *tls.ConnectionState, host string) string {
	if state != nil {
		return "https://" + host
	}
	return "http://" + host
}

// issuer is the name that the server gives itself to one who asks.
func (s *Server) issuer(r Request) string {
	if s.config.Issuer != "" {
		return s.config.Issuer
	}
	return base(r) + s.config.IssuerPath
}

// issuerPath is what the addresses of the metadata have of the issuer.
func (c *Config) issuerPath() string {
	if c.Issuer == "" {
		return c.IssuerPath
	}
	u, err := url.Parse(c.Issuer)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(u.Path, "/")
}

// metadataPaths are where metadata is.
func (s *Server) metadataPaths() []string {
	var paths []string
	if path := s.config.issuerPath(); s.dialect.whole || s.dialect.found {
		if !s.config.NoOpenIDMetadata {
			paths = append(paths, path+OpenIDMetadataPath)
		}
		if !s.config.NoOAuthMetadata {
			paths = append(paths, OAuthMetadataPath+path)
		}
	}
	return paths
}

// MetadataRequests is the number of requests for metadata, at both addresses.
func (s *Server) MetadataRequests() int {
	n := 0
	for _, path := range s.metadataPaths() {
		n += s.RequestsTo(path)
	}
	return n
}

// metadata answers with all that is supported (RFC 8414 §2). What stands at an
// address is at that of the request, whatever the issuer is called.
func (s *Server) metadata(w http.ResponseWriter, r Request, _ error) {
	members := map[string]any{
		"issuer":                                s.issuer(r),
		"response_types_supported":              []string{"code"},
		"response_modes_supported":              []string{"query"},
		"grant_types_supported":                 s.offered(),
		"code_challenge_methods_supported":      []string{"S256"},
		"token_endpoint_auth_methods_supported": s.methods(),
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{s.config.SigningAlg},
		"claims_supported":                      []string{"sub", "iss", "aud", "exp", "iat", "nonce", "at_hash"},
		// RFC 9207 §3
		"authorization_response_iss_parameter_supported": !s.dialect.noIss,
	}
	for name, path := range map[string]string{
		"token_endpoint":                s.dialect.path,
		"authorization_endpoint":        cmp.Or(s.dialect.authorize, AuthorizePath),
		"device_authorization_endpoint": DeviceAuthorizationPath,
		"revocation_endpoint":           RevokePath,
		"introspection_endpoint":        IntrospectPath,
		"jwks_uri":                      KeysPath,
	} {
		if _, there := s.endpoints[path]; there {
			members[name] = base(r) + path
		}
	}
	for _, name := range []string{"revocation_endpoint", "introspection_endpoint"} {
		if members[name] != nil {
			members[name+"_auth_methods_supported"] = s.methods()
		}
	}
	if algorithms := s.assertionAlgorithms(); len(algorithms) > 0 {
		members["token_endpoint_auth_signing_alg_values_supported"] = algorithms
	}
	if s.config.DPoP != "" {
		members["dpop_signing_alg_values_supported"] = slices.Clone(asymmetric) // RFC 9449 §5.1
	}
	if s.config.BindCertificates {
		members["tls_client_certificate_bound_access_tokens"] = true // RFC 8705 §3.3
	}
	if len(s.config.Scopes) > 0 {
		members["scopes_supported"] = slices.Clone(s.config.Scopes)
	}
	if s.config.MetadataEdit != nil {
		s.config.MetadataEdit(members)
	}
	writeJSON(w, http.StatusOK, members)
}

// methods are those of client authentication, by their registered names.
func (s *Server) methods() []string {
	methods := slices.Clone(s.config.Methods)
	if len(s.config.FederatedKeys.Keys) > 0 && !s.accepts(PrivateKeyJWT) {
		methods = append(methods, PrivateKeyJWT)
	}
	return methods
}

// assertionAlgorithms are what a client assertion may be signed with.
func (s *Server) assertionAlgorithms() []jose.SignatureAlgorithm {
	var algorithms []jose.SignatureAlgorithm
	if slices.Contains(s.methods(), PrivateKeyJWT) {
		algorithms = append(algorithms, asymmetric...)
	}
	if s.accepts(SecretJWT) {
		algorithms = append(algorithms, symmetric...)
	}
	return algorithms
}

// offered are the grant types for which there is what they need.
func (s *Server) offered() []string {
	offered := slices.DeleteFunc(slices.Collect(maps.Keys(grants)), func(grantType string) bool { return !s.offers(grantType) })
	slices.Sort(offered)
	return offered
}
