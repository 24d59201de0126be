package advice

import (
	"cmp"
	"regexp"
	"sync"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// ofEntra reads the number that Entra puts before its words: its codes of RFC
// 6749 say little, and the number says it all. Nothing else of the words is used.
func ofEntra(f *oauth.Failure, k Facts) (Advice, bool) {
	number := entraNumber().FindStringSubmatch(f.Description)
	if number == nil || k.accepted() != "" { // what was tried and works is surer
		return Advice{}, false
	}
	a, ok := entra[number[1]]
	if !ok {
		return a, false
	}
	a.Wrong += " (AADSTS" + number[1] + ")"
	a.Topic = cmp.Or(a.Topic, clientRefused)
	if a.Topic == loginRequired {
		a.Do = k.login()
	}
	return a, true
}

var entraNumber = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^AADSTS([0-9]{4,8})\b`)
})

// entra is what the numbers mean, as Microsoft documents them.
var entra = map[string]Advice{
	"7000215": {Wrong: "the client secret is not right", Do: "put the secret's value, not its ID, which stands beside it: it is shown once, so make a new secret if it is gone; then see that client_id is the application that it belongs to"},
	"7000222": {Wrong: "the client secret has expired", Do: "make a new secret for the application (Certificates & secrets) and put its value where client_auth reads it: it is used within a second, without a reload"},
	"7000218": {Wrong: "the request has no client secret and no assertion", Do: "write client_auth client_secret_post {file./path/to/secret}, or allow public client flows for the application, if it should have no secret"},
	"7000112": {Wrong: "the application is disabled", Do: "enable it in Enterprise applications (Properties: enabled for users to sign in)"},
	"7000216": {Wrong: "the request needs a secret or an assertion of the client", Do: "write client_auth with the secret, the key or the file of the application"},
	"700016":  {Wrong: "no application has this client_id in this tenant", Do: "compare client_id with Application (client) ID, and the tenant in issuer or token_url with Directory (tenant) ID"},
	"90002":   {Wrong: "the tenant does not exist", Do: "correct the tenant in issuer or token_url: it is Directory (tenant) ID"},
	"900023":  {Wrong: "the tenant in the address is none", Do: "correct the tenant in issuer or token_url: it is Directory (tenant) ID"},
	"700027":  {Wrong: "the assertion's signature does not match a certificate of the application", Do: "upload the certificate (Certificates & secrets), and see that key_file of client_auth private_key_jwt holds its key"},
	"700024":  {Wrong: "the assertion is not valid at this time", Do: setClock, Topic: clock},
	"700211":  {Wrong: "the application has no federated credential with the issuer of the JWT", Do: "write the issuer (iss) of the JWT in the federated credential, letter for letter: for Kubernetes, kubectl get --raw /.well-known/openid-configuration shows it"},
	"700212":  {Wrong: "the application has no federated credential with the audience of the JWT", Do: "have the JWT made for the audience of the federated credential, which is api://AzureADTokenExchange unless changed (serviceAccountToken: audience)"},
	"700213":  {Wrong: "the application has no federated credential with the subject of the JWT", Do: "write the subject in the federated credential, letter for letter: system:serviceaccount:<namespace>:<service account>"},
	"70021":   {Wrong: "the application has no federated credential that matches the JWT", Do: "its issuer, subject and audience have to be those of the JWT, letter for letter; to see them: cut -d. -f2 <the file> | base64 -d"},
	"50027":   {Wrong: "the JWT is not valid", Do: "see that it is the right one, and has not expired: cut -d. -f2 <the file> | base64 -d"},
	"1002012": {Wrong: "the scope is not one for client credentials", Do: "write in the credential: scopes <the API's application ID URI>/.default", Topic: scopeRefused},
	"70011":   {Wrong: "the scope is not valid", Do: "for client credentials write one scope alone, which ends with /.default; else correct its spelling", Topic: scopeRefused},
	"500011":  {Wrong: "the API that the scope names is not known in this tenant", Do: "compare the scope with the API's application ID URI (Expose an API), and have the API's application added to the tenant", Topic: scopeRefused},
	"65001":   {Wrong: "nobody has consented to what the application asks for", Do: "have an administrator grant consent (API permissions)", Topic: scopeRefused},
	"501051":  {Wrong: "the application has no role at the API, which demands one", Do: "assign it an app role of the API (Enterprise applications: Users and groups, or API permissions)", Topic: scopeRefused},
	"53003":   {Wrong: "a conditional access policy forbids the token", Do: "look at the sign-in logs of the application (service principal), which name the policy: most often it is the address that this machine goes out with"},
	"50173":   {Wrong: "the refresh token was revoked, as by a new password", Topic: loginRequired},
	"700082":  {Wrong: "the refresh token was not used for too long and has expired", Topic: loginRequired},
	"50076":   {Wrong: "the user has to log in again with a second factor", Topic: loginRequired},
	"50078":   {Wrong: "the user's second factor has expired", Topic: loginRequired},
	"50058":   {Wrong: "the user has to log in again", Topic: loginRequired},
}
