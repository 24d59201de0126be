package advice

import (
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

func TestCodes(t *testing.T) {
	granted := func(grant string) Facts { return with(func(k *Facts) { k.Grant = grant }) }
	scoped := func(scopes, known []string) Facts {
		return with(func(k *Facts) { k.Scopes, k.Known = scopes, known })
	}
	entraHost := with(func(k *Facts) { k.Endpoint = "https://login.microsoftonline.com/tenant/oauth2/v2.0/token" })
	user := Facts{Credential: "crm", Grant: "authorization_code", Login: "run: caddy upstream-auth login crm"}
	const look = "the server's log"
	for name, c := range map[string]advised{
		"no scope asked for":   {failure: says(t, 400, "invalid_scope"), facts: crm, wrong: []string{"wants a scope, and none is asked for"}, do: []string{"in the credential crm write: scopes"}, topic: scopeRefused},
		"scope, nothing known": {failure: says(t, 400, "invalid_scope"), facts: scoped([]string{"read", "wrte"}, nil), wrong: []string{"one of the scopes read, wrte"}, do: []string{"leave out one after the other"}, topic: scopeRefused},
		"scope misspelt": {
			failure: says(t, 400, "invalid_scope"), facts: scoped([]string{"read", "wrte"}, []string{"read", "write"}),
			wrong: []string{"does not have the scope wrte"}, do: []string{"in the credential crm write: scopes read;", "the server knows read, write"}, topic: scopeRefused,
		},
		"scope not allowed": {
			failure: says(t, 400, "invalid_scope"), facts: scoped([]string{"read"}, []string{"read", "write"}),
			wrong: []string{"knows the scopes read and does not give them to this client"}, do: []string{"have them allowed"}, topic: scopeRefused,
		},
		"scope from a placeholder": {
			failure: says(t, 400, "invalid_scope"), facts: scoped([]string{"{http.request.header.X-Scope}"}, []string{"read"}),
			not: []string{"does not have the scope"}, topic: scopeRefused,
		},
		"scope at Entra": {
			failure: says(t, 400, "invalid_scope"), facts: with(func(k *Facts) {
				k.Endpoint, k.Scopes = "https://login.microsoftonline.com/tenant/oauth2/v2.0/token", []string{"User.Read"}
			}),
			wrong: []string{"one scope alone"}, do: []string{"/.default"}, topic: scopeRefused,
		},
		"no scope at Entra": {failure: says(t, 400, "invalid_scope"), facts: entraHost, do: []string{"/.default"}, topic: scopeRefused},
		"target":            {failure: says(t, 400, "invalid_target"), facts: crm, do: []string{"resource or audience", "letter for letter"}, topic: scopeRefused},

		"unauthorized client": {failure: says(t, 400, "unauthorized_client"), facts: crm, wrong: []string{"may not use the grant client_credentials"}, do: []string{"service account"}, topic: clientRefused},
		"a grant not known":   {failure: says(t, 400, "unauthorized_client"), wrong: []string{"the grant that is configured"}, topic: clientRefused},
		"unsupported grant":   {failure: says(t, 400, "unsupported_grant_type"), facts: crm, wrong: []string{"grant client_credentials at https://idp.example.com/token"}, do: []string{"in the block request of the credential crm write: grant_type"}, topic: clientRefused},
		"denied":              {failure: says(t, 403, "access_denied"), facts: crm, wrong: []string{"denies a token"}, do: []string{"audience, resource and scopes"}, topic: clientRefused},
		"denied to a user":    {failure: says(t, 400, "interaction_required"), facts: user, wrong: []string{"log in again"}, do: []string{"run: caddy upstream-auth login crm"}, topic: loginRequired},
		"request":             {failure: says(t, 400, "invalid_request"), facts: crm, wrong: []string{"cannot make sense"}, do: []string{"a parameter is missing", "client_auth client_secret_post", look}, topic: clientRefused},
		"request, by post":    {failure: says(t, 400, "invalid_request"), facts: with(func(k *Facts) { k.Method = "client_secret_post" }), do: []string{"a parameter is missing"}, not: []string{"client_auth client_secret_post"}, topic: clientRefused},
		"exchange":            {failure: says(t, 400, "invalid_request"), facts: granted("token_exchange"), wrong: []string{"token that is to be exchanged"}, do: []string{"subject_token_type"}, topic: clientRefused},
		"raw percent sign": {
			failure: says(t, 400, "invalid_request"), facts: with(func(k *Facts) { k.Encoding, k.Secret = "raw", SecretShape("100%x") }),
			wrong: []string{"characters that have to be encoded"}, do: []string{"in the block client_auth client_secret_basic of the credential crm write: encoding form"}, topic: clientRefused,
		},

		"grant, of a user":           {failure: says(t, 400, "invalid_grant"), facts: user, wrong: []string{"takes the refresh token no more"}, do: []string{"run: caddy upstream-auth login crm", "without a reload"}, topic: loginRequired},
		"grant, of a refresh token":  {failure: says(t, 400, "invalid_grant"), facts: granted("refresh_token"), do: []string{"write a new one into the grant refresh_token"}, topic: loginRequired},
		"grant, of an assertion":     {failure: says(t, 400, "invalid_grant"), facts: granted("jwt_bearer"), wrong: []string{"does not take the assertion"}, do: []string{"audience", "key_id", "clock"}, topic: clientRefused},
		"grant, of an exchange":      {failure: says(t, 400, "invalid_grant"), facts: granted("token_exchange"), wrong: []string{"to be exchanged"}, do: []string{"it has expired"}, topic: clientRefused},
		"token, of an exchange":      {failure: says(t, 400, "invalid_token"), facts: granted("token_exchange"), wrong: []string{"to be exchanged"}, topic: clientRefused},
		"grant, and a 401":           {failure: says(t, 401, "invalid_grant"), facts: crm, wrong: []string{"refuses the client (invalid_grant, HTTP 401)"}, topic: clientRefused},
		"grant, of the client's own": {failure: says(t, 400, "invalid_grant"), facts: crm, wrong: []string{"should not bring about"}, do: []string{"wrong secret"}, topic: clientRefused},

		"proof of possession": {failure: says(t, 400, "invalid_dpop_proof"), facts: crm, do: []string{"clock", "another URL than https://idp.example.com/token", "ES256"}, topic: clientRefused},
		"nonce":               {failure: says(t, 400, "use_dpop_nonce"), facts: crm, do: []string{"in the block dpop of the credential crm write: key_file"}, topic: clientRefused},
		"a login not ended":   {failure: says(t, 400, "expired_token"), facts: user, do: []string{"caddy upstream-auth login crm"}, topic: loginRequired},
		"a word of its own":   {failure: says(t, 400, "quota_exceeded"), facts: crm, wrong: []string{"in a word of its own: quota_exceeded, HTTP 400"}, do: []string{"documentation of the server at idp.example.com", look}, topic: clientRefused},
		"address not let in":  {failure: answered(t, 200, "application/json", `{"errcode":40164,"errmsg":"invalid ip"}`), facts: crm, wrong: []string{"this machine's address"}, topic: clientRefused},
	} {
		t.Run(name, c.check)
	}
}

// TestEntra: the number says it all, and nothing but the number is read.
func TestEntra(t *testing.T) {
	entraSays := func(code, description string) *oauth.Failure {
		return answered(t, 401, "application/json", `{"error":"`+code+`","error_description":"`+description+`"}`)
	}
	for name, c := range map[string]advised{
		"expired":      {failure: entraSays("invalid_client", "AADSTS7000222: The mark of app 'x' has expired. Trace ID: mark"), wrong: []string{"the client secret has expired (AADSTS7000222)"}, topic: clientRefused},
		"its ID":       {failure: entraSays("invalid_client", "AADSTS7000215: mark"), do: []string{"not its ID"}, topic: clientRefused},
		"clock":        {failure: entraSays("invalid_client", "AADSTS700024: mark"), do: []string{"timedatectl"}, topic: clock},
		"scope":        {failure: entraSays("invalid_scope", "AADSTS1002012: mark"), do: []string{"/.default"}, topic: scopeRefused},
		"login":        {failure: entraSays("invalid_grant", "AADSTS700082: mark"), facts: Facts{Login: "run: caddy upstream-auth login crm"}, do: []string{"login crm"}, topic: loginRequired},
		"unknown":      {failure: entraSays("invalid_client", "AADSTS99999999: mark"), wrong: []string{"refuses the client"}, topic: clientRefused},
		"not in front": {failure: entraSays("invalid_client", "see AADSTS7000222: mark"), wrong: []string{"refuses the client"}, topic: clientRefused},
		"another way":  {failure: entraSays("invalid_client", "AADSTS7000215: mark"), facts: Facts{Method: "client_secret_basic", Tried: map[string]bool{"client_secret_post": true}}, do: []string{"client_secret_post"}, not: []string{"ID"}, topic: clientRefused},
	} {
		c.not = []string{"mark"}
		t.Run(name, c.check)
	}
}

// TestClock: what is signed here holds the time, and the server told its own.
func TestClock(t *testing.T) {
	now := time.Now()
	behind := func(f *oauth.Failure) *oauth.Failure {
		f.ServerTime = now.Add(10 * time.Minute)
		return f
	}
	here := func(change func(*Facts)) Facts {
		return with(func(k *Facts) { k.Received = now; change(k) })
	}
	signed := here(func(k *Facts) { k.Method = "private_key_jwt" })
	for name, c := range map[string]advised{
		"client's assertion": {failure: behind(says(t, 401, "invalid_client")), facts: signed, wrong: []string{"10m behind the server's", "the client's assertion"}, do: []string{"timedatectl"}, topic: clock},
		"ahead": {
			failure: behind(says(t, 401, "invalid_client")), facts: with(func(k *Facts) { k.Method, k.Received = "client_secret_jwt", now.Add(time.Hour) }),
			wrong: []string{"50m ahead of the server's"}, topic: clock,
		},
		"assertion":           {failure: behind(says(t, 400, "invalid_grant")), facts: here(func(k *Facts) { k.Grant = "jwt_bearer" }), wrong: []string{"the assertion"}, topic: clock},
		"proof of possession": {failure: behind(says(t, 400, "invalid_dpop_proof")), facts: here(func(*Facts) {}), wrong: []string{"the DPoP proof"}, topic: clock},
		"not with a secret":   {failure: behind(says(t, 401, "invalid_client")), facts: here(func(*Facts) {}), not: []string{"behind"}, topic: clientRefused},
		"not with a 500":      {failure: behind(says(t, 500, "invalid_client")), facts: signed, not: []string{"behind"}, topic: unreachable},
		"the clocks agree":    {failure: says(t, 401, "invalid_client"), facts: with(func(k *Facts) { k.Method, k.Received = "private_key_jwt", time.Now() }), not: []string{"behind", "ahead"}, topic: clientRefused},
		"not known when":      {failure: behind(says(t, 401, "invalid_client")), facts: with(func(k *Facts) { k.Method = "private_key_jwt" }), not: []string{"behind"}, topic: clientRefused},
	} {
		t.Run(name, c.check)
	}
}
