package advice

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// refusesClient tells whether a refusal is one of the client's proof. Keycloak
// and Auth0 say so by other codes under a 401; others by the status alone, and
// Glewlwyd by an empty 403.
func refusesClient(f *oauth.Failure) bool {
	switch strings.ToLower(f.Code) {
	case "invalid_client", "invalid_client_id", "invalid_client_credentials", "incorrect_client_credentials", "bad_client_secret",
		"40001", "40125", "40013": // WeChat: secret, secret, appid
		return true
	case "unauthorized_client", "access_denied", "unauthorized", "401", "unauthenticated":
		return f.Status == http.StatusUnauthorized
	case "":
		return f.Status == http.StatusUnauthorized || f.Status == http.StatusForbidden && f.Err == nil
	}
	return false
}

// ofClient is a client's proof that the server refuses.
func ofClient(f *oauth.Failure, k Facts) Advice {
	a := byProof(f, k)
	if errors.Is(f.Err, oauth.ErrPage) {
		a.Wrong += ", by a page for browsers"
		a.Do += "; or a gateway before the server wants a login of its own: the page's title says who made it: " + k.page("grep -i '<title'") + k.viaProxy()
	}
	return a
}

func byProof(f *oauth.Failure, k Facts) Advice {
	a := Advice{Wrong: "the server refuses the client (" + reason(f) + ")", Topic: clientRefused}
	if way := k.accepted(); way != "" {
		a.Wrong = "the server refuses the client by " + cmp.Or(strings.TrimSpace(k.Method+" "+k.Encoding), "its method") + " (" + reason(f) + "), and takes it by " + line(way, 100)
		a.Do = k.write(way)
		return a
	}
	if others := k.otherMethods(); len(others) > 0 {
		a.Wrong = "the server does not take " + k.Method + ", by its metadata: it takes " + quoted(others)
		a.Do = k.in("") + "client_auth " + line(others[0], 60) + ", with what that method needs; or have " + k.Method + " allowed for this client at the server"
		return a
	}
	switch k.Method {
	case "client_secret_basic", "client_secret_post", "client_secret_jwt":
		return ofSecret(a, k)
	case "private_key_jwt":
		a.Wrong = "the server refuses the client's signed assertion (" + reason(f) + ")"
		a.Do = "in this order: the public key is not registered at the server, or under another kid (key_id has to be the one there); it wants another audience: " +
			k.in("client_auth private_key_jwt") + "audience " + k.otherAudience() + "; this machine's clock is off (date -u); client_id is another client's; the server's log names the claim"
	case "jwt_file":
		a.Wrong = "the server refuses the JWT from the file as the client's assertion (" + reason(f) + ")"
		a.Do = "its issuer, subject and audience have to match, letter for letter, what is registered at the server for this client (the federated credential); to see them: cut -d. -f2 <the file> | base64 -d; most often the audience or, after a move, namespace and service account in the subject differ"
	case "tls_client_auth", "self_signed_tls_client_auth":
		a.Wrong = "the server refuses the client's certificate as its proof (" + reason(f) + ")"
		a.Do = "in this order: subject, or thumbprint, of the certificate is not what is registered for this client_id: openssl x509 -noout -subject -issuer -dates -fingerprint -sha256 -in <its file> shows them; a gateway before the server ends TLS and does not pass the certificate on; the server has another address for certificates (mtls_endpoint_aliases): write issuer in place of token_url, which finds it"
	case "none":
		a.Wrong = "the server wants a proof of this client, and client_auth none sends none (" + reason(f) + ")"
		a.Do = "if the client has a secret at the server: " + k.in("") + "client_auth client_secret_basic {file./path/to/secret}; if it should be public, have it set so there; else client_id is wrong"
	default:
		a.Do = "what the method " + cmp.Or(k.Method, "of client_auth") + " sends, or client_id, is not what is registered at the server: compare both there; the server's log says which it was"
	}
	return a
}

// ofSecret is a secret that is refused: by its looks, by its encoding, or for
// what cannot be seen from here.
func ofSecret(a Advice, k Facts) Advice {
	if wrong, do, ok := k.Secret.flaw(); ok {
		a.Wrong = "the client secret " + wrong + ", and the server refuses it"
		a.Do = do
		return a
	}
	if k.Secret != nil && k.Secret.Length == 36 && strings.Contains(k.host(), "login.microsoftonline.com") {
		a.Do = "the secret is as long as the ID of a secret, which stands beside its value in Entra: put the value there; it is shown once, so make a new secret if it is gone"
		return a
	}
	if other := k.otherEncoding(); other != "" {
		a.Wrong += ": its secret holds characters that servers read in two ways"
		a.Do = "most likely this server wants the other encoding: " + k.write("client_secret_basic "+other) + "; if that is refused, too, the secret is wrong: have a new one issued"
		return a
	}
	const expired = "the secret has expired or was rotated at the server: have a new one issued and put it where client_auth reads it (a changed file is used within a second, without a reload); or client_id is another client's, or that of another environment"
	switch {
	case k.Secret != nil && len(k.Tried) > 0:
		a.Do = "the secret looks in order, and the server refuses it in every way that was tried, so that most likely " + expired
	case k.Secret != nil:
		a.Do = "the secret looks in order, so that most likely " + expired
	default:
		a.Do = "most likely " + expired + "; to look at the secret's form, and to try other ways of sending it, run: caddy upstream-auth check"
	}
	if k.Method == "client_secret_jwt" {
		a.Do += "; or the server does not take a JWT that is signed with the secret from this client, which has to be set there"
	}
	return a
}

// accepted is a way of proving the client that was tried and worked, "" if there
// is none.
func (k Facts) accepted() string {
	var ways []string
	for way, ok := range k.Tried {
		if ok {
			ways = append(ways, way)
		}
	}
	if len(ways) == 0 {
		return ""
	}
	return slices.Min(ways)
}

// write is the line for a way of proving the client.
func (k Facts) write(way string) string {
	method, options, _ := strings.Cut(line(way, 100), " ")
	if method == "client_secret_basic" && (options == "" || options == "form" || options == "raw") {
		options = "encoding " + cmp.Or(options, "form")
	}
	if method == k.Method && options != "" {
		return k.in("client_auth "+method) + options
	}
	whole := k.in("") + "client_auth " + method
	if strings.HasPrefix(method, "client_secret_") {
		whole += " <the secret as now>"
	}
	if options != "" {
		whole += ", and in its block: " + options
	}
	return whole
}

// methods are those that can be configured, the simplest to change to first.
var methods = []string{"client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt", "tls_client_auth", "none"}

// otherMethods are those that the server has, of those that can be configured,
// where the one that is configured is not among them.
func (k Facts) otherMethods() []string {
	registered := k.Method
	switch {
	case k.Method == "jwt_file":
		registered = "private_key_jwt" // as which servers list an assertion that is no secret's
	case k.Method == "none", k.Method == "tls_client_auth" && slices.Contains(k.Methods, "self_signed_tls_client_auth"):
		return nil
	}
	if !slices.Contains(methods, registered) || slices.Contains(k.Methods, registered) {
		return nil
	}
	var others []string
	for _, m := range methods {
		if slices.Contains(k.Methods, m) {
			others = append(others, m)
		}
	}
	return others
}

// otherEncoding is the encoding of Basic that is not in use (RFC 6749 §2.3.1),
// "" where it would change nothing or was tried.
func (k Facts) otherEncoding() string {
	if k.Method != "client_secret_basic" || k.Secret == nil || !k.Secret.Escaped {
		return ""
	}
	other := "raw"
	if k.Encoding == "raw" {
		other = "form"
	}
	if _, tried := k.Tried["client_secret_basic "+other]; tried {
		return ""
	}
	return other
}

// otherAudience is the value of audience that is not the default.
func (k Facts) otherAudience() string {
	if k.Issuer != "" {
		return "token_endpoint"
	}
	return "<the server's issuer>"
}

// reason is how the server said it.
func reason(f *oauth.Failure) string {
	code := line(f.Code, 64)
	switch {
	case code != "" && f.Status != 0 && f.Status != http.StatusOK:
		return code + ", " + status(f)
	case code != "":
		return code
	}
	return status(f)
}
