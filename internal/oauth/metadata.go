package oauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Metadata is what an authorization server says of itself, as far as it is used
// here (RFC 8414 §2, OpenID Connect Discovery 1.0 §3). What it leaves out is ""
// or nil, and stands for nothing: servers omit what they support, so that the
// defaults of the standards are not taken for their word.
type Metadata struct {
	Issuer                      string
	AuthorizationEndpoint       string
	TokenEndpoint               string
	DeviceAuthorizationEndpoint string
	RevocationEndpoint          string
	JWKSURI                     string
	// TokenEndpointAuthMethods are names of the IANA list of client
	// authentication methods, TokenEndpointAuthAlgorithms what a client's JWT
	// may be signed with.
	TokenEndpointAuthMethods    []string
	TokenEndpointAuthAlgorithms []string
	// DPoPAlgorithms are those of RFC 9449 §5.1.
	DPoPAlgorithms       []string
	IDTokenAlgorithms    []string
	CodeChallengeMethods []string
	// MTLS are the endpoints for clients with a certificate, where they are
	// others (RFC 8705 §5).
	MTLS Aliases
	// IssParameterSupported tells that an authorization response holds iss
	// (RFC 9207 §3).
	IssParameterSupported bool
}

// Aliases are endpoints that stand in for those of the same name; "" where the
// server has no other.
type Aliases struct {
	TokenEndpoint, DeviceAuthorizationEndpoint, RevocationEndpoint string
}

func parseMetadata(body []byte) (document, error) {
	if len(body) >= maxBody {
		return nil, errors.New("the answer is 1 MiB or more")
	}
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\ufeff")))
	switch {
	case len(body) == 0:
		return nil, errors.New("the answer is empty")
	case body[0] == '<':
		return nil, errors.New("the answer is a page (HTML or XML), not metadata")
	case body[0] != '{':
		return nil, errors.New("the answer is not a JSON object")
	}
	var doc document
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, errors.New("the answer is JSON that does not parse or is cut short")
	}
	if doc["issuer"] == nil && doc["token_endpoint"] == nil {
		return nil, errors.New("the answer is JSON without issuer and token_endpoint, so not metadata")
	}
	return doc, nil
}

// metadata reads what is used here, and refuses what may not be.
func (d document) metadata(issuer string, allow func(string) error) (*Metadata, error) {
	m := &Metadata{
		TokenEndpointAuthMethods:    d.list("token_endpoint_auth_methods_supported"),
		TokenEndpointAuthAlgorithms: d.list("token_endpoint_auth_signing_alg_values_supported"),
		DPoPAlgorithms:              d.list("dpop_signing_alg_values_supported"),
		IDTokenAlgorithms:           d.list("id_token_signing_alg_values_supported"),
		CodeChallengeMethods:        d.list("code_challenge_methods_supported"),
		IssParameterSupported:       word(d["authorization_response_iss_parameter_supported"]) == "true",
	}
	var err error
	if m.Issuer, err = d.text("issuer"); err != nil {
		return nil, err
	}
	if m.Issuer != "" && m.Issuer != issuer {
		return nil, otherIssuer(m.Issuer, issuer)
	}
	const aliases = "mtls_endpoint_aliases"
	if _, ok := d[aliases].(map[string]any); !ok && d[aliases] != nil {
		return nil, errors.New(aliases + " is not an object")
	}
	for _, endpoint := range []struct {
		to   *string
		name string
	}{
		{&m.AuthorizationEndpoint, "authorization_endpoint"},
		{&m.TokenEndpoint, "token_endpoint"},
		{&m.DeviceAuthorizationEndpoint, "device_authorization_endpoint"},
		{&m.RevocationEndpoint, "revocation_endpoint"},
		{&m.JWKSURI, "jwks_uri"},
		{&m.MTLS.TokenEndpoint, aliases + ".token_endpoint"},
		{&m.MTLS.DeviceAuthorizationEndpoint, aliases + ".device_authorization_endpoint"},
		{&m.MTLS.RevocationEndpoint, aliases + ".revocation_endpoint"},
	} {
		if *endpoint.to, err = d.text(endpoint.name); err != nil {
			return nil, err
		}
		if *endpoint.to == "" {
			continue
		}
		if err := allow(*endpoint.to); err != nil {
			return nil, fmt.Errorf("%s, at the host %s: %w", endpoint.name, hostOf(*endpoint.to), err)
		}
	}
	var missing []string
	for _, name := range []string{"issuer", "token_endpoint"} {
		if text, _ := d.text(name); text == "" {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("it has no %s: write token_url in place of issuer", strings.Join(missing, " and no "))
	}
	return m, nil
}

// text is a string of the metadata. One that is missing is "".
func (d document) text(name string) (string, error) {
	switch v := d.lookup(name).(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	}
	return "", fmt.Errorf("%s is not a string", name)
}

// list is a list of strings. A string stands for a list of one, and what else
// is no string is passed over: it names nothing that could be asked for.
func (d document) list(name string) []string {
	var out []string
	switch v := d[name].(type) {
	case string:
		out = append(out, v)
	case []any:
		for _, s := range v {
			if s, ok := s.(string); ok {
				out = append(out, s)
			}
		}
	}
	return out
}

func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return "(none)"
	}
	return shown(u.Host)
}

// otherIssuer: one server must not speak for another, so the two are compared
// character for character (RFC 8414 §3.3).
func otherIssuer(got, want string) error {
	got = shown(got)
	switch {
	case strings.TrimSuffix(got, "/") == strings.TrimSuffix(want, "/"):
		return fmt.Errorf("it is for the issuer %s, and configured is %s, which differs in the trailing slash alone: write issuer %s", got, want, got)
	case strings.Contains(got, "{"): // Entra, for common and organizations
		return fmt.Errorf("it is for the issuers %s, of many tenants, and configured is %s: write the issuer of the one tenant that is meant", got, want)
	}
	return fmt.Errorf("it is for the issuer %s, and configured is %s: write issuer %s, if that is the server that is meant", got, want, got)
}

// SupportsMethod tells whether the server takes one of the client authentication
// methods that are named; where it does not say, it may. The error names both
// sides.
func (m *Metadata) SupportsMethod(names ...string) error {
	if len(m.TokenEndpointAuthMethods) == 0 {
		return nil
	}
	for _, name := range names {
		if slices.Contains(m.TokenEndpointAuthMethods, name) {
			return nil
		}
	}
	return fmt.Errorf("%s is not among the methods that the server's metadata has: %s; use one of these, or write token_url in place of issuer, which skips this check",
		strings.Join(names, " or "), shown(strings.Join(m.TokenEndpointAuthMethods, ", ")))
}
