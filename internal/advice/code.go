package advice

import (
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

const askOperator = "the server's log says more, and so may the description in the log here"

// ofCode is a refusal with a code: of RFC 6749 §5.2, RFC 8693 §2.2.2, RFC 8707
// §2, RFC 9449 §5 and §8, OpenID Connect Core §3.1.2.6, or the server's own.
func ofCode(f *oauth.Failure, k Facts) (Advice, bool) {
	if f.Kind != oauth.Refused {
		return Advice{}, false
	}
	if a, ok := ofEntra(f, k); ok {
		return a, true
	}
	if refusesClient(f) {
		return ofClient(f, k), true
	}
	switch f.Code {
	case "":
		return Advice{}, false
	case "invalid_scope":
		return ofScope(f, k), true
	case "invalid_request":
		return ofRequest(f, k), true
	case "invalid_grant":
		return ofGrant(f, k), true
	case "invalid_token":
		if k.Grant == "token_exchange" {
			return ofGrant(f, k), true
		}
	}
	a := Advice{Topic: clientRefused}
	switch f.Code {
	case "invalid_target":
		a.Topic = scopeRefused
		a.Wrong = "the server does not know, or does not allow, what the token is to be for (invalid_target)"
		a.Do = "resource or audience of the credential has to be, letter for letter (a slash at the end counts), what is registered at the server: correct it, or have this client allowed to ask for it there"
	case "unauthorized_client":
		a.Wrong = "this client may not use the grant " + k.grant() + " (unauthorized_client)"
		a.Do = "have the grant allowed for this client at the server (for client_credentials some call it a service account); if it is allowed, client_id is another client's"
	case "unsupported_grant_type":
		a.Wrong = "the server does not have the grant " + k.grant() + " at " + k.endpoint() + " (unsupported_grant_type)"
		a.Do = "have it enabled there; or token_url is another endpoint than the token endpoint; or the server has its own word for it: " + k.in("request") + "grant_type <its word>"
	case "access_denied", "consent_required", "interaction_required", "login_required", "account_selection_required":
		a.Wrong = "the server denies a token to this client, though it knows it (" + reason(f) + ")"
		a.Do = "a right is missing at the server: have this client, or its user, allowed what audience, resource and scopes of the credential ask for; " + askOperator
		if k.Login != "" {
			a.Topic = loginRequired
			a.Wrong = "the server wants the user to log in again or to consent (" + reason(f) + ")"
			a.Do = k.login()
		}
	case "invalid_dpop_proof":
		a.Wrong = "the server refuses the proof of possession (invalid_dpop_proof)"
		a.Do = "in this order: this machine's clock is off (date -u); a gateway changes the address, so that the server knows its token endpoint by another URL than " + k.endpoint() + "; the server does not take the algorithm of the key in dpop key_file (ES256 is taken by most)"
	case "use_dpop_nonce":
		a.Wrong = "the server demands a proof of possession with its nonce (use_dpop_nonce)"
		a.Do = "if the credential has no dpop: " + k.in("dpop") + "key_file /path/to/key.pem; if it has, the server refused its own nonce right after it gave it: its instances do not share them, which its operator has to mend"
	case "authorization_pending", "expired_token", "slow_down":
		a.Topic = loginRequired
		a.Wrong = "the login was not finished (" + f.Code + ")"
		a.Do = k.login()
	case "40164": // WeChat
		a.Wrong = "the server does not let this machine's address in (40164)"
		a.Do = "add the address with which this machine goes out to the list of allowed addresses of this client at the server"
	default:
		a.Wrong = "the server refuses the request in a word of its own: " + reason(f)
		a.Do = "look the word up in the documentation of the server at " + k.host() + "; " + askOperator
	}
	return a, true
}

func (k Facts) grant() string {
	if k.Grant == "" {
		return "that is configured"
	}
	return k.Grant
}

// ofScope is a scope that the server does not give (RFC 6749 §5.2).
func ofScope(f *oauth.Failure, k Facts) Advice {
	a := Advice{Topic: scopeRefused}
	var known, unknown []string
	for _, s := range k.Scopes {
		switch {
		case slices.Contains(k.Known, s):
			known = append(known, s)
		case !strings.ContainsAny(s, "{}"): // a placeholder may stand for any
			unknown = append(unknown, s)
		}
	}
	switch {
	case len(k.Scopes) == 0:
		a.Wrong = "the server wants a scope, and none is asked for (" + reason(f) + ")"
		a.Do = k.in("") + "scopes <those that this client may have>; the server's operator, or its documentation, tells which"
		if strings.Contains(k.host(), "login.microsoftonline.com") {
			a.Do = k.in("") + "scopes <the API's application ID URI>/.default"
		}
	case strings.Contains(k.host(), "login.microsoftonline.com") && k.Grant == "client_credentials" &&
		(len(k.Scopes) != 1 || !strings.HasSuffix(k.Scopes[0], "/.default")):
		a.Wrong = "Entra takes one scope alone for client credentials, which ends with /.default (" + reason(f) + ")"
		a.Do = k.in("") + "scopes <the API's application ID URI>/.default, as in https://graph.microsoft.com/.default"
	case len(k.Known) > 0 && len(unknown) > 0:
		a.Wrong = "the server's metadata does not have the scope " + quoted(unknown) + ", and the server refuses it (" + reason(f) + ")"
		a.Do = "correct its spelling, or leave it out"
		if len(known) > 0 {
			a.Do += ": " + k.in("") + "scopes " + strings.Join(known, " ")
		}
		a.Do += "; the server knows " + quoted(k.Known)
	case len(k.Known) > 0:
		a.Wrong = "the server knows the scopes " + quoted(k.Scopes) + " and does not give them to this client (" + reason(f) + ")"
		a.Do = "have them allowed for this client at the server, or leave out what it may not have"
	default:
		a.Wrong = "the server does not know, or does not give this client, one of the scopes " + quoted(k.Scopes) + " (" + reason(f) + ")"
		a.Do = "have them allowed for this client at the server, or " + k.in("") + "scopes <those that it may have>; to find the one, leave out one after the other"
	}
	return a
}

// ofRequest is a request that the server cannot make sense of. Some say that of
// a secret in Basic that they cannot decode (oidc-provider of a raw percent
// sign), and RFC 8693 §2.2.2 of a token that is not taken in exchange.
func ofRequest(f *oauth.Failure, k Facts) Advice {
	a := Advice{Topic: clientRefused}
	switch {
	case k.accepted() != "":
		return ofClient(f, k)
	case k.otherEncoding() == "form":
		a.Wrong = "the server cannot read the client's secret, which holds characters that have to be encoded (" + reason(f) + ")"
		a.Do = k.write("client_secret_basic form")
	case k.Grant == "token_exchange":
		a.Wrong = "the server does not take the token that is to be exchanged, or cannot read the request (" + reason(f) + ")"
		a.Do = "in this order: the subject token has expired or is not meant for this server (its aud and iss); its type is another than subject_token_type says; the server wants audience, resource or requested_token_type; " + askOperator
	default:
		a.Wrong = "the server cannot make sense of the token request (" + reason(f) + ")"
		a.Do = "a parameter is missing, or one that it does not expect is sent: compare audience, resource, scopes and param of the credential with the server's documentation; if it wants client_id in the body: " +
			k.in("") + "client_auth client_secret_post <the secret as now>; " + askOperator
		if k.Method != "client_secret_basic" {
			a.Do = "a parameter is missing, or one that it does not expect is sent: compare audience, resource, scopes and param of the credential with the server's documentation; " + askOperator
		}
	}
	return a
}

// ofGrant is what the token is asked for with, refused (RFC 6749 §5.2, RFC 7521
// §4.1.1, RFC 8693 §2.2.2).
func ofGrant(f *oauth.Failure, k Facts) Advice {
	a := Advice{Topic: clientRefused}
	switch {
	case k.Login != "" || k.Grant == "refresh_token" || k.Grant == "authorization_code":
		a.Topic = loginRequired
		a.Wrong = "the server takes the refresh token no more (" + reason(f) + ")"
		a.Do = k.login() + "; the new one is used within seconds, without a reload"
	case k.Grant == "jwt_bearer":
		a.Wrong = "the server does not take the assertion (" + reason(f) + ")"
		a.Do = "in this order: its issuer or key is not known at the server, or under another kid (issuer and key_id in the grant jwt_bearer); its audience is not what the server calls itself (audience in the grant); its subject is unknown or has not consented; a clock is off (date -u); an assertion that stands in the config has expired; the server's log names the claim"
	case k.Grant == "token_exchange":
		a.Wrong = "the server does not take the token that is to be exchanged (" + reason(f) + ")"
		a.Do = "in this order: it has expired (date -u shows whether a clock is off); its issuer is not trusted at the server, or its audience is another; this client may not exchange it; the server's log names the claim"
	default:
		a.Wrong = "the server refuses what the token is asked for with (" + reason(f) + "), which the grant " + k.grant() + " should not bring about"
		a.Do = "some servers say so of a wrong secret or a client that is disabled: look at both there; " + askOperator
		if f.Status == http.StatusUnauthorized {
			return ofClient(f, k)
		}
	}
	return a
}
