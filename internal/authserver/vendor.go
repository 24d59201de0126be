package authserver

import (
	"cmp"
	"encoding/json"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
)

// Vendor names a copy of somebody's token endpoint, after its public
// documentation: its path, its words, its errors. What no page tells, and what
// behaves as RFC 6749 has it, is not imitated.
type Vendor string

// The copies. A lifetime, and what an application has to have, is the vendor's
// default where a Config leaves it out.
const (
	// Auth0 wants an audience with client credentials, and takes JSON too.
	Auth0 Vendor = "auth0"
	// Cognito answers with no scope, and errors that are a code and no more.
	Cognito Vendor = "cognito"
	// Entra is Microsoft Entra ID, version 2: one scope that ends with
	// /.default, AADSTS numbers in each error.
	Entra Vendor = "entra"
	// Google is where a service account trades a JWT that it signed, with the
	// scopes inside. Its name is Config.ClientID, its key in AssertionKeys.
	Google Vendor = "google"
	// Keycloak has tokens of five minutes.
	Keycloak Vendor = "keycloak"
	// Okta is a custom authorization server there: a scope has to be asked for.
	Okta Vendor = "okta"
	// OneAccessOAuth and OneAccessOIDC are Huawei Cloud OneAccess for an
	// application of either kind, with a login and refresh tokens. A code brings
	// a refresh token only with Config.RefreshTokens.
	OneAccessOAuth Vendor = "oneaccess oauth"
	OneAccessOIDC  Vendor = "oneaccess oidc"
	// Salesforce says nothing of the lifetime, and has a '!' in its tokens.
	Salesforce Vendor = "salesforce"
	// TencentCIAM says 299 seconds of a JWT that lives 300.
	TencentCIAM Vendor = "tencent ciam"
	// WeChat is asked by GET in words of its own, answers errors with 200, and
	// ends the older token with each new one.
	WeChat Vendor = "wechat"
	// Zoom has a grant of its own, account_credentials.
	Zoom Vendor = "zoom"
	// Enveloped and Milliseconds are no vendor's: the answer inside "data", as
	// many in-house servers have it, and expires_in in milliseconds.
	Enveloped    Vendor = "enveloped"
	Milliseconds Vendor = "milliseconds"
)

// vendor is a dialect, and what a Config has where it says nothing.
type vendor struct {
	dialect
	defaults Config
}

// Vendors are all copies, in the order of their names.
func Vendors() []Vendor { return slices.Sorted(maps.Keys(vendors)) }

// NewVendor returns a server that speaks as a vendor does, at Server.Path. It
// panics at a name that is none of the above.
func NewVendor(name Vendor, config Config) *Server {
	v, known := vendors[name]
	if !known {
		panic("authserver: there is no copy of " + string(name))
	}
	config.fill(v.defaults)
	return newServer(config, v.dialect)
}

// Path is where the server answers token requests.
func (s *Server) Path() string { return s.dialect.path }

// fill takes what is left out from the defaults of a vendor.
func (c *Config) fill(from Config) {
	c.OneAtATime = c.OneAtATime || from.OneAtATime
	c.JWT = c.JWT || from.JWT && c.Issue == nil
	c.SigningAlg = cmp.Or(c.SigningAlg, from.SigningAlg)
	c.Lifetime = cmp.Or(c.Lifetime, from.Lifetime)
	c.Rotate = cmp.Or(c.Rotate, from.Rotate)
	c.IssuerPath = cmp.Or(c.IssuerPath, from.IssuerPath)
	if c.Issue == nil {
		c.Issue = from.Issue
	}
	if len(c.Methods) == 0 {
		c.Methods = from.Methods
	}
	if len(c.Grants) == 0 {
		c.Grants = from.Grants
	}
	if from.RefreshTokens {
		// those that there are can be used, whether a login brings one or not
		c.NoRefreshToken = c.NoRefreshToken || !c.RefreshTokens
		c.RefreshTokens = true
	}
	if len(c.AssertionAudiences) == 0 {
		c.AssertionAudiences = from.AssertionAudiences
	}
}

// jsonWords takes a body of JSON for a form.
func jsonWords(r *Request) error {
	if mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); mediaType != "application/json" {
		return nil
	}
	var body map[string]any
	if err := json.Unmarshal([]byte(r.Body), &body); err != nil {
		return err
	}
	form := url.Values{}
	for name, value := range body {
		if text, ok := value.(string); ok {
			form.Set(name, text)
		}
	}
	r.Form = form
	return nil
}

// sooner says a lifetime that is a second short, as one who rounds down what is
// left.
func sooner(members map[string]any) {
	if seconds, ok := members["expires_in"].(int64); ok {
		members["expires_in"] = max(0, seconds-1)
	}
}

// said is how a vendor words an error; what is left out is as it was.
type said struct {
	status     int
	code, text string
}

// says words errors as a table has it. Its key is the code, with the grant type
// and a blank before it where that matters, or "stranger" for an invalid_client
// that names no client that is known. An empty member has no text sent.
func says(member string, table map[string]said) func(http.ResponseWriter, Request, *refusal) {
	return func(w http.ResponseWriter, r Request, no *refusal) {
		own, known := table[r.Form.Get("grant_type")+" "+no.code]
		if !known {
			own, known = table["stranger"]
			if known = known && no.stranger; !known {
				own = table[no.code]
			}
		}
		answer := map[string]any{"error": cmp.Or(own.code, no.code)}
		if member != "" {
			answer[member] = cmp.Or(own.text, no.description)
		}
		writeJSON(w, cmp.Or(own.status, http.StatusBadRequest), answer)
	}
}

// wantParameter refuses client credentials without a parameter.
func wantParameter(name, code, text string) func(*Server, Request) *refusal {
	return func(_ *Server, r Request) *refusal {
		if r.Form.Get("grant_type") == "client_credentials" && r.Form.Get(name) == "" {
			return refuse(code, text)
		}
		return nil
	}
}
