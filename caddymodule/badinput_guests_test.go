package caddymodule

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
)

// What is wrong with an issuer, a grant, a client authentication, and with
// things that do not go together. A key or a token is never repeated.

const (
	// aKey and aJWT are secrets that somebody writes where a path belongs. A
	// line of the key is the one that is told.
	aKey = "-----BEGIN PRIVATE KEY----- " + mark + "\n" + testSecret + "\n-----END PRIVATE KEY-----"
	aJWT = "eyJhbGciOiJFUzI1NiJ9." + testSecret

	keyFile     = "key_file /run/secrets/key.pem\n"
	refreshing  = "grant refresh_token {env.TOKEN}\n"
	exchanging  = "grant token_exchange {\nsubject_token request\n}\n"
	withoutAuth = tokenURL + clientID
)

// grantOf and methodOf make a whole credential of a guest's options.
func grantOf(name, options string) string {
	return good + "grant " + name + braced(options)
}

func methodOf(name, options string) string {
	return withoutAuth + "client_auth " + name + braced(options)
}

// braced writes a block, and marks its head if nothing in it is marked.
func braced(options string) string {
	return " {" + headMark(options) + "\n" + options + "\n}\n"
}

func TestBadIssuer(t *testing.T) {
	const client = clientID + clientAuth
	rows := []badConfig{
		{"beside token_url", tokenURL + "issuer https://idp.example.com " + mark + "\n" + client, []string{"issuer", "token_url", "one of the two"}},
		{"before token_url", "issuer https://idp.example.com " + mark + "\n" + tokenURL + client, []string{"issuer", "token_url", "one of the two"}},
		{"through a proxy", "issuer http://127.0.0.1 " + mark + "\nproxy http://proxy.example.com:3128\n" + client, []string{"issuer", "proxy", "insecure_token_url"}},
		{"empty", "issuer \"\" " + mark + "\n" + client, []string{"'issuer'", "argument"}},
	}
	for url, want := range map[string][]string{
		"idp.example.com":              {"https://"},
		"/realms/a":                    {"https://"},
		"ftp://idp.example.com":        {"https://"},
		"https://":                     {"https://"},
		"https://idp.example.com:port": {"https://"},
		"http://idp.example.com":       {"http", "idp.example.com", "insecure_token_url"},
		"http://10.0.0.1/realms/a":     {"loopback", "insecure_token_url"},
		"https://app:" + testSecret + "@idp.example.com":                          {"user", "client_id", "client_auth"},
		"https://idp.example.com?secret=" + testSecret:                            {"query"},
		"https://idp.example.com?":                                                {"query"},
		"https://idp.example.com#" + testSecret:                                   {"fragment"},
		"https://idp.example.com/#":                                               {"fragment"},
		"https://idp.example.com/.well-known/openid-configuration":                {"metadata", "before /.well-known/"},
		"https://idp.example.com/.well-known/oauth-authorization-server/realms/a": {"metadata", "before /.well-known/"},
	} {
		rows = append(rows, badConfig{strings.ReplaceAll(url, "/", "|"), "issuer " + url + " " + mark + "\n" + client, append(want, "issuer")})
	}
	runCredentialRows(t, rows)
}

func TestBadMethods(t *testing.T) {
	const secretJWT = withoutAuth + "client_auth client_secret_jwt " + testSecret
	rows := []badConfig{
		{"client_secret_jwt without a secret", withoutAuth + "client_auth client_secret_jwt " + mark, []string{"client_secret_jwt", "secret", "{file."}},
		{"client_secret_jwt with a block for a secret", methodOf("client_secret_jwt", "alg HS256"), []string{"client_secret_jwt", "secret", "{file."}},
		{"client_secret_jwt with an empty secret", withoutAuth + "client_auth client_secret_jwt \"\" " + mark, []string{"client_secret_jwt", "secret", "{file."}},
		{"client_secret_jwt with two secrets", secretJWT + " " + testSecret + " " + mark, []string{"client_secret_jwt", "one argument"}},
		{"client_secret_jwt with an unknown option", secretJWT + " {\nbogus 1 " + mark + "\n}", []string{"client_secret_jwt", "'bogus'", "alg", "audience"}},
		{"client_secret_jwt with the alg of a key", secretJWT + " {\nalg RS256 " + mark + "\n}", []string{"client_secret_jwt", "alg", "'RS256'", "HS256, HS384, HS512"}},
		{"client_secret_jwt with the alg none", secretJWT + " {\nalg none " + mark + "\n}", []string{"alg", "'none'", "HS256"}},
		{"client_secret_jwt without an alg", secretJWT + " {\nalg " + mark + "\n}", []string{"alg", "argument"}},
		{"client_secret_jwt with two algs", secretJWT + " {\nalg HS256 HS384 " + mark + "\n}", []string{"alg", "argument too many"}},
		{"client_secret_jwt with an alg twice", secretJWT + " {\nalg HS256\nalg HS256 " + mark + "\n}", []string{"alg", "twice"}},
		{"client_secret_jwt with a block in it", secretJWT + " {\naudience x {\ninner " + mark + "\n}\n}", []string{"audience", "no block", "inner"}},

		{"private_key_jwt with a secret", withoutAuth + "client_auth private_key_jwt " + testSecret + " " + mark, []string{"private_key_jwt", "no argument", "block"}},
		{"private_key_jwt without a block", withoutAuth + "client_auth private_key_jwt " + mark, []string{"private_key_jwt", "key_file", "missing", "path"}},
		{"private_key_jwt without a key_file", methodOf("private_key_jwt", "key_id a"), []string{"private_key_jwt", "key_file", "missing"}},
		{"private_key_jwt with an empty key_file", methodOf("private_key_jwt", "key_file \"\" "+mark), []string{"key_file", "argument"}},
		{"private_key_jwt with a key for a path", methodOf("private_key_jwt", "key_file `"+aKey+"`"), []string{"key_file", "path"}},
		{"private_key_jwt with what a file holds", methodOf("private_key_jwt", "key_file {file./run/secrets/key.pem} "+mark), []string{"key_file", "path", "without {file."}},
		{"private_key_jwt with the alg of a secret", methodOf("private_key_jwt", keyFile+"alg HS256 "+mark), []string{"private_key_jwt", "alg", "'HS256'", "RS256", "PS512", "ES384", "EdDSA"}},
		{"private_key_jwt with an alg in small letters", methodOf("private_key_jwt", keyFile+"alg rs256 "+mark), []string{"alg", "'rs256'", "RS256"}},
		{"private_key_jwt with an unknown option", methodOf("private_key_jwt", keyFile+"kid a "+mark), []string{"private_key_jwt", "'kid'", "alg, audience, key_file, key_id"}},
		{"private_key_jwt with a key_file twice", methodOf("private_key_jwt", keyFile+"key_file a "+mark), []string{"key_file", "twice"}},

		{"jwt_file without a path", withoutAuth + "client_auth jwt_file " + mark, []string{"jwt_file", "path"}},
		{"jwt_file with a block for a path", methodOf("jwt_file", "allow_any_audience"), []string{"jwt_file", "path"}},
		{"jwt_file with two paths", withoutAuth + "client_auth jwt_file a b " + mark, []string{"jwt_file", "one argument"}},
		{"jwt_file with a JWT for a path", withoutAuth + "client_auth jwt_file " + aJWT + " " + mark, []string{"jwt_file", "path"}},
		{"jwt_file with what a file holds", withoutAuth + "client_auth jwt_file {file./run/jwt} " + mark, []string{"jwt_file", "path", "without {file."}},
		{"jwt_file with an unknown option", methodOf("jwt_file /run/jwt", "audience a "+mark), []string{"jwt_file", "'audience'", "allow_any_audience"}},
		{"jwt_file with a flag's argument", methodOf("jwt_file /run/jwt", "allow_any_audience yes "+mark), []string{"allow_any_audience", "no argument"}},
		{"jwt_file with a flag twice", methodOf("jwt_file /run/jwt", "allow_any_audience\nallow_any_audience "+mark), []string{"allow_any_audience", "twice"}},

		{"tls_client_auth without a block", withoutAuth + "client_auth tls_client_auth " + mark, []string{"tls_client_auth", "cert", "missing", "path"}},
		{"tls_client_auth with arguments", withoutAuth + "client_auth tls_client_auth a b " + mark, []string{"tls_client_auth", "no argument", "block"}},
		{"tls_client_auth without a key", methodOf("tls_client_auth", "cert /c.pem"), []string{"tls_client_auth", "key", "missing"}},
		{"tls_client_auth without a cert", methodOf("tls_client_auth", "key /k.pem"), []string{"tls_client_auth", "cert", "missing"}},
		{"tls_client_auth with a key for a path", methodOf("tls_client_auth", "cert /c.pem\nkey `"+aKey+"`"), []string{"key", "path"}},
		{"tls_client_auth with an unknown option", methodOf("tls_client_auth", "cert /c.pem\nca /a.pem "+mark), []string{"tls_client_auth", "'ca'", "cert, key"}},
		{"tls_client_auth with a cert twice", methodOf("tls_client_auth", "cert /c.pem\ncert /d.pem "+mark), []string{"cert", "twice"}},
		{"tls_client_auth beside tls cert", withoutAuth + "client_auth tls_client_auth {\ncert /c.pem\nkey /k.pem\n}\ntls {\nca /a.pem\ncert /c.pem " + mark + "\nkey /k.pem\n}", []string{"tls cert", "client_auth"}},
		{"tls_client_auth beside tls key", withoutAuth + "client_auth tls_client_auth {\ncert /c.pem\nkey /k.pem\n}\ntls { " + mark + "\nkey /k.pem\n}", []string{"tls cert", "client_auth"}},
	}
	runCredentialRows(t, rows)
}

func TestBadGrants(t *testing.T) {
	const assertion = "assertion " + aJWT + "\n"
	const subject = "subject_token " + testSecret + "\n"
	rows := []badConfig{
		{"refresh_token without one", good + "grant refresh_token " + mark, []string{"refresh_token", "begin with", "{file."}},
		{"refresh_token with a block for one", grantOf("refresh_token", "retry_grace 10s"), []string{"refresh_token", "begin with", "{file."}},
		{"refresh_token that is empty", good + "grant refresh_token \"\" " + mark, []string{"refresh_token", "begin with"}},
		{"refresh_token with two", good + "grant refresh_token " + testSecret + " " + testSecret + " " + mark, []string{"refresh_token", "one argument"}},
		{"refresh_token with an unknown option", grantOf("refresh_token "+testSecret, "bogus 1 "+mark), []string{"refresh_token", "'bogus'", "retry_grace"}},
		{"retry_grace twice", grantOf("refresh_token "+testSecret, "retry_grace 1s\nretry_grace 2s "+mark), []string{"retry_grace", "twice"}},
		{"retry_grace without a duration", grantOf("refresh_token "+testSecret, "retry_grace "+mark), []string{"retry_grace", "argument"}},
		{"retry_grace that is none", grantOf("refresh_token "+testSecret, "retry_grace soon "+mark), []string{"retry_grace", "'soon'", "duration", "10s"}},
		{"retry_grace below zero", grantOf("refresh_token "+testSecret, "retry_grace -1s "+mark), []string{"retry_grace", "-1s", "out of range", "0s", "1h"}},
		{"retry_grace too long", grantOf("refresh_token "+testSecret, "retry_grace 61m "+mark), []string{"retry_grace", "1h1m", "out of range", "0s", "1h"}},
		{"retry_grace from a placeholder", grantOf("refresh_token "+testSecret, "retry_grace {env.GRACE} "+mark), []string{"retry_grace", "duration"}},

		{"authorization_code with an argument", good + "grant authorization_code " + testSecret + " " + mark, []string{"authorization_code", "no argument", "block"}},
		{"authorization_code with an unknown option", grantOf("authorization_code", "token_url x "+mark), []string{"authorization_code", "'token_url'", "authorization_url, device_authorization_url, redirect_uri, retry_grace"}},
		{"authorization_code with a URL twice", grantOf("authorization_code", "authorization_url https://a\nauthorization_url https://b "+mark), []string{"authorization_url", "twice"}},
		{"authorization_code without a place to log in", good + "grant authorization_code " + mark, []string{"authorization_code", "authorization_url", "device_authorization_url", "issuer"}},
		{"authorization_code with a redirect_uri alone", grantOf("authorization_code", "redirect_uri http://127.0.0.1:8400/callback"), []string{"authorization_url", "device_authorization_url", "issuer"}},
		{"authorization_url of http", grantOf("authorization_code", "authorization_url http://idp.example.com/a"), []string{"authorization_url", "http", "idp.example.com", "insecure_token_url"}},
		{"device_authorization_url of http", grantOf("authorization_code", "device_authorization_url http://idp.example.com/d"), []string{"device_authorization_url", "http", "idp.example.com", "insecure_token_url"}},
		{"authorization_url with a user", grantOf("authorization_code", "authorization_url https://app:"+testSecret+"@idp.example.com/a"), []string{"authorization_url", "user"}},
		{"retry_grace of authorization_code", grantOf("authorization_code", "authorization_url https://a\nretry_grace 2h "+mark), []string{"retry_grace", "out of range", "1h"}},

		{"jwt_bearer with an argument", good + "grant jwt_bearer " + aJWT + " " + mark, []string{"jwt_bearer", "no argument", "block"}},
		{"jwt_bearer without a block", good + "grant jwt_bearer " + mark, []string{"jwt_bearer", "assertion", "key_file"}},
		{"jwt_bearer with neither", grantOf("jwt_bearer", "subject s"), []string{"jwt_bearer", "assertion", "key_file"}},
		{"jwt_bearer with both", grantOf("jwt_bearer", assertion+"key_file /k.pem "+mark), []string{"key_file", "assertion", "one of the two"}},
		{"jwt_bearer with an unknown option", grantOf("jwt_bearer", keyFile+"scope a "+mark), []string{"jwt_bearer", "'scope'", "assertion", "lifetime"}},
		{"jwt_bearer with two assertions", grantOf("jwt_bearer", "assertion a "+testSecret+" "+mark), []string{"assertion", "argument too many"}},
		{"jwt_bearer with an assertion twice", grantOf("jwt_bearer", assertion+"assertion a "+mark), []string{"assertion", "twice"}},
		{"jwt_bearer with an assertion and an alg", grantOf("jwt_bearer", assertion+"alg RS256 "+mark), []string{"alg", "assertion", "key_file"}},
		{"jwt_bearer with a key for a path", grantOf("jwt_bearer", "key_file `"+aKey+"`"), []string{"key_file", "path"}},
		{"jwt_bearer with the alg of a secret", grantOf("jwt_bearer", keyFile+"alg HS256 "+mark), []string{"alg", "'HS256'", "RS256"}},
		{"jwt_bearer that lives too short", grantOf("jwt_bearer", keyFile+"lifetime 999ms "+mark), []string{"lifetime", "999ms", "out of range", "1s", "1h"}},
		{"jwt_bearer that lives too long", grantOf("jwt_bearer", keyFile+"lifetime 61m "+mark), []string{"lifetime", "out of range", "1s", "1h"}},
		{"jwt_bearer with a lifetime from a placeholder", grantOf("jwt_bearer", keyFile+"lifetime {env.LIFE} "+mark), []string{"lifetime", "duration"}},
		{"claim without a value", grantOf("jwt_bearer", keyFile+"claim tenant "+mark), []string{"claim", "two arguments"}},
		{"claim in three words", grantOf("jwt_bearer", keyFile+"claim tenant forty two "+mark), []string{"claim", "two arguments", "quote"}},
		{"claim twice", grantOf("jwt_bearer", keyFile+"claim tenant 1\nclaim tenant 2 "+mark), []string{"claim", "'tenant'", "twice"}},
		{"claim without a name", grantOf("jwt_bearer", keyFile+`claim "" 1 `+mark), []string{"claim", "name"}},
		{"claim whose name is a placeholder", grantOf("jwt_bearer", keyFile+"claim {host} 1 "+mark), []string{"claim", "placeholder"}},
		{"claim that an option sets", grantOf("jwt_bearer", keyFile+"claim aud 1 "+mark), []string{"claim", "aud", "set by"}},
		{"claim that is always set", grantOf("jwt_bearer", keyFile+"claim jti 1 "+mark), []string{"claim", "jti"}},

		{"token_exchange with an argument", good + "grant token_exchange " + testSecret + " " + mark, []string{"token_exchange", "no argument", "block"}},
		{"token_exchange without a block", good + "grant token_exchange " + mark, []string{"subject_token", "missing", "request"}},
		{"token_exchange without a subject_token", grantOf("token_exchange", "actor_token "+testSecret), []string{"subject_token", "missing", "{file."}},
		{"token_exchange with an unknown option", grantOf("token_exchange", subject+"audience a "+mark), []string{"token_exchange", "'audience'", "subject_audience"}},
		{"subject_token twice", grantOf("token_exchange", subject+"subject_token a "+mark), []string{"subject_token", "twice"}},
		{"subject_token in two words", grantOf("token_exchange", "subject_token a "+testSecret+" "+mark), []string{"subject_token", "argument too many"}},
		{"subject_token_type that is unknown", grantOf("token_exchange", subject+"subject_token_type "+testSecret+" "+mark), []string{"subject_token_type", "access_token", "saml2", "URI"}},
		{"requested_token_type that is unknown", grantOf("token_exchange", subject+"requested_token_type bearer "+mark), []string{"requested_token_type", "access_token", "URI"}},
		{"actor_token_type without an actor", grantOf("token_exchange", subject+"actor_token_type jwt "+mark), []string{"actor_token_type", "actor_token"}},
		{"actor_token_type that is unknown", grantOf("token_exchange", subject+"actor_token a\nactor_token_type b "+mark), []string{"actor_token_type", "access_token", "URI"}},
		{"subject_audience without request", grantOf("token_exchange", subject+"subject_audience api "+mark), []string{"subject_audience", "subject_token request"}},
		{"subject_audience from a placeholder", grantOf("token_exchange", "subject_token request\nsubject_audience {host} "+mark), []string{"subject_audience", "placeholder"}},
	}
	for _, uri := range []string{
		"https://127.0.0.1:8400/callback", "http://127.0.0.1:0/callback", "http://127.0.0.1:99999/callback", "http://app.example.com:8400/callback", "http://127.0.0.1/callback", "http://localhost", "http://0.0.0.0:8400/",
		"http://10.0.0.1:8400/", "127.0.0.1:8400", "/callback", "http://127.0.0.1:8400/?a=b", "http://127.0.0.1:8400/#a", "http://u:p@127.0.0.1:8400/", "urn:ietf:wg:oauth:2.0:oob",
	} {
		rows = append(rows, badConfig{"redirect_uri " + strings.ReplaceAll(uri, "/", "|"), grantOf("authorization_code", "authorization_url https://a.example.com\nredirect_uri "+uri+" "+mark), []string{"redirect_uri", "http://127.0.0.1:8400/callback", "registered"}})
	}
	for _, url := range []string{"idp.example.com/a", "/a", "ftp://idp.example.com/a", "https://", "https://idp.example.com:port/", "https://idp.example.com/a#b"} {
		for _, option := range []string{"authorization_url", "device_authorization_url"} {
			rows = append(rows, badConfig{option + " " + strings.ReplaceAll(url, "/", "|"), grantOf("authorization_code", option+" "+url+" "+mark), []string{option, "https://"}})
		}
	}
	runCredentialRows(t, rows)
}

// TestBadGuestPlaceholders: of a guest's options only those that say so may
// depend on the request. The line is that of the guest's name.
func TestBadGuestPlaceholders(t *testing.T) {
	var rows []badConfig
	for text, option := range map[string]string{
		withoutAuth + "client_auth client_secret_jwt %s":                                             "secret",
		withoutAuth + "client_auth client_secret_jwt {env.S} {HERE\naudience %s\n}":                  "audience",
		withoutAuth + "client_auth private_key_jwt {HERE\nkey_file %s\n}":                            "key_file",
		withoutAuth + "client_auth private_key_jwt {HERE\nkey_file /k\nkey_id %s\n}":                 "key_id",
		withoutAuth + "client_auth private_key_jwt {HERE\nkey_file /k\naudience https://%s\n}":       "audience",
		withoutAuth + "client_auth jwt_file /run/%s":                                                 "file",
		withoutAuth + "client_auth jwt_file /run/%s {HERE\nallow_any_audience\n}":                    "file",
		withoutAuth + "client_auth tls_client_auth {HERE\ncert %s\nkey /k\n}":                        "cert",
		withoutAuth + "client_auth tls_client_auth {HERE\ncert /c\nkey %s\n}":                        "key",
		good + "grant refresh_token %s":                                                              "refresh_token",
		good + "grant refresh_token %s {HERE\nretry_grace 1s\n}":                                     "refresh_token",
		good + "grant authorization_code {HERE\nauthorization_url https://%s/a\n}":                   "authorization_url",
		good + "grant authorization_code {HERE\ndevice_authorization_url https://%s/a\n}":            "device_authorization_url",
		good + "grant authorization_code {HERE\nauthorization_url https://a\nredirect_uri %s\n}":     "redirect_uri",
		good + "grant jwt_bearer {HERE\nassertion %s\n}":                                             "assertion",
		good + "grant jwt_bearer {HERE\nkey_file /run/%s\n}":                                         "key_file",
		good + "grant jwt_bearer {HERE\nkey_file /k\nkey_id %s\n}":                                   "key_id",
		good + "grant jwt_bearer {HERE\nkey_file /k\nissuer %s\n}":                                   "issuer",
		good + "grant jwt_bearer {HERE\nkey_file /k\nsubject %s\n}":                                  "subject",
		good + "grant jwt_bearer {HERE\nkey_file /k\naudience %s\n}":                                 "audience",
		good + "grant token_exchange {HERE\nsubject_token x\nsubject_token_type %s\n}":               "subject_token_type",
		good + "grant token_exchange {HERE\nsubject_token x\nactor_token %s\n}":                      "actor_token",
		good + "grant token_exchange {HERE\nsubject_token x\nactor_token y\nactor_token_type %s\n}":  "actor_token_type",
		good + "grant token_exchange {HERE\nsubject_token request\nrequested_token_type urn:a:%s\n}": "requested_token_type",
	} {
		if !strings.Contains(text, "HERE") {
			text += "HERE"
		}
		text = strings.Replace(text, "HERE", " "+mark, 1)
		for placeholder, want := range map[string][]string{
			"{host}":                     {"{http.request.host}", "request placeholder"},
			"{http.vars.x}":              {"{http.vars.x}", "request placeholder"},
			"{rp.upstream.host}":         {"{http.reverse_proxy.upstream.host}", "not allowed"},
			"{file.name}":                {"{file.name}", "slash", "{file./path/to/name}"},
			"{" + testSecret + "}":       {"unknown placeholder"},
			"{env.A}{http.request.host}": {"{http.request.host}", "request placeholder"},
		} {
			rows = append(rows, badConfig{strings.ReplaceAll(fmt.Sprintf(strings.Join(strings.Fields(text), " "), placeholder), "/", "|"), fmt.Sprintf(text, placeholder), append(want, option)})
		}
	}
	// what may depend on a request may depend on nothing else that comes later
	for text, option := range map[string]string{
		good + "grant jwt_bearer { " + mark + "\nkey_file /k\nclaim tenant %s\n}": "claims",
		good + "grant token_exchange { " + mark + "\nsubject_token %s\n}":         "subject_token",
	} {
		for placeholder, want := range badPlaceholders {
			if strings.HasPrefix(placeholder, "{http.request.host}") {
				want = []string{"{http.error.message}", "not allowed"}
			}
			rows = append(rows, badConfig{option + " " + placeholder, fmt.Sprintf(text, placeholder), append(slices.Clone(want), option)})
		}
	}
	runCredentialRows(t, rows)
}

// TestBadCombinations: options that are right each, and not together.
func TestBadCombinations(t *testing.T) {
	rows := []badConfig{
		{"refresh_scopes without a refresh token", good + "scopes a\nrefresh_scopes " + mark, []string{"refresh_scopes", "refresh token"}},
		{"refresh_scopes without scopes", good + refreshing + "refresh_scopes " + mark, []string{"refresh_scopes", "scopes"}},
		{"no client_id with client_secret_jwt", tokenURL + "client_auth client_secret_jwt " + testSecret, []string{"client_id", "missing"}},
		{"no client_id with private_key_jwt", tokenURL + "client_auth private_key_jwt {\n" + keyFile + "}", []string{"client_id", "missing"}},
		{"no client_id with tls_client_auth", tokenURL + "client_auth tls_client_auth {\ncert a\nkey b\n}", []string{"client_id", "missing"}},
		{"no client_id with refresh_token", tokenURL + refreshing, []string{"client_id", "missing"}},
		{"no client_id with token_exchange", tokenURL + exchanging, []string{"client_id", "missing"}},
		{"no client_id with a jwt_bearer that has a client_auth", tokenURL + clientAuth + "grant jwt_bearer {\n" + keyFile + "}", []string{"client_id", "missing"}},
		{"no client_auth with client_credentials", withoutAuth + "grant client_credentials", []string{"client_auth", "missing", "client_credentials"}},
	}
	for option, text := range map[string]string{
		"scopes": "scopes {host}", "audience": "audience {host}", "resource": "resource https://{host}/", "param": "param tenant {header.X-Tenant}",
	} {
		rows = append(rows,
			badConfig{"refresh_token that depends on a request by " + option, good + "grant refresh_token {env.TOKEN} " + mark + "\n" + text, []string{"refresh_token", "one refresh token", "placeholder"}},
			badConfig{"authorization_code that depends on a request by " + option, good + text + "\ngrant authorization_code { " + mark + "\nauthorization_url https://a\n}", []string{"authorization_code", "one refresh token", "placeholder"}})
	}
	reserved := func(text string, setBy string, names ...string) {
		for _, name := range names {
			rows = append(rows, badConfig{"param " + name + " of " + setBy + " in " + strings.Join(strings.Fields(text[len(tokenURL):]), " "),
				text + "param " + name + " " + testSecret + " " + mark, []string{"param", "'" + name + "'", "set by", setBy}})
		}
	}
	assertion := []string{"client_id", "client_assertion", "client_assertion_type"}
	reserved(withoutAuth+"client_auth client_secret_jwt {env.S}\n", "client_auth", assertion...)
	reserved(withoutAuth+"client_auth private_key_jwt {\n"+keyFile+"}\n", "client_auth", assertion...)
	reserved(withoutAuth+"client_auth jwt_file a\n", "client_auth", assertion...)
	reserved(withoutAuth+"client_auth tls_client_auth {\ncert a\nkey b\n}\n", "client_auth", "client_id")
	reserved(withoutAuth+"grant jwt_bearer {\n"+keyFile+"}\n", "client_auth", "client_id")
	reserved(good+refreshing, "refresh_token", "refresh_token")
	reserved(good+"grant authorization_code {\nauthorization_url https://a\n}\n", "authorization_code",
		"refresh_token", "code", "redirect_uri", "code_verifier", "code_challenge", "code_challenge_method", "response_type", "state", "nonce", "device_code")
	reserved(good+"grant jwt_bearer {\n"+keyFile+"}\n", "jwt_bearer", "assertion")
	reserved(good+exchanging, "token_exchange", "subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type")
	reserved(good+exchanging, "scopes", "scope")
	reserved(good+exchanging, "audience", "audience")
	runCredentialRows(t, rows)

	for _, grant := range []string{"grant refresh_token {env.TOKEN} " + mark, "grant authorization_code { " + mark + "\nauthorization_url https://a\n}"} {
		for _, place := range credentialPlaces[1:] {
			name, _, _ := strings.Cut(strings.TrimPrefix(grant, "grant "), " ")
			t.Run(name+" in place/"+place.name, func(t *testing.T) {
				adaptFails(t, place.config(good+grant), "grant", name, "refresh token", "global options")
			})
		}
	}
	for _, place := range credentialPlaces[1:] {
		for option, want := range map[string]string{"client_authorization keep": "replace", "client_authorization reject": "replace", "unavailable pass": "reject"} {
			t.Run(option+" with subject_token request/"+place.name, func(t *testing.T) {
				words := strings.Fields(option)
				adaptFails(t, place.config(good+exchanging+option+" "+mark), words[0], words[1], "client's token", "expected "+want)
			})
		}
	}
}

// TestBadGuestsAtLoad is what only loading can see: the credential stands
// elsewhere, or the config is JSON.
func TestBadGuestsAtLoad(t *testing.T) {
	site := func(credential, route string) string {
		return "{\nupstream_auth {\ncredential crm {\n" + credential + "\n}\n}\n}\nhttp://127.0.0.1:8080 {\n" + route + "\n}\n"
	}
	const bound = good + "dpop {\n" + keyFile + "}\n"
	rows := []badConfig{
		{"dpop with the handler", site(bound, "upstream_auth crm"), []string{"crm", "dpop", "transport upstream_auth"}},
		{"dpop with a handler in place", "http://127.0.0.1:8080 {\nupstream_auth {\n" + bound + "}\n}\n", []string{"dpop", "transport upstream_auth"}},
	}
	for option, want := range map[string]string{"client_authorization keep": "replace", "client_authorization reject": "replace", "unavailable pass": "reject"} {
		words := append(strings.Fields(option), "crm", "client's token", "expected "+want)
		rows = append(rows,
			badConfig{"handler with " + option, site(good+exchanging, "upstream_auth crm {\n"+option+"\n}"), words},
			badConfig{"transport with " + option, site(good+exchanging, "reverse_proxy 127.0.0.1:9000 {\ntransport upstream_auth crm {\n"+option+"\n}\n}"), words})
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			adapted, _, err := adaptText(row.text)
			if err != nil {
				t.Fatalf("it does not even adapt: %v\n%s", err, numbered(row.text))
			}
			loadFails(t, string(adapted), row.want...)
		})
	}

	const client = `"token_url": "https://idp.example.com/token", "client_id": "app"`
	grant := func(g string) string { return "{" + goodJSON + `, "grant": ` + g + "}" }
	method := func(m string) string { return "{" + client + `, "client_auth": ` + m + "}" }
	with := func(options string) string { return "{" + goodJSON + ", " + options + "}" }
	aKey := strings.ReplaceAll(aKey, "\n", `\n`)
	for _, row := range []badConfig{
		{"issuer and token_url", with(`"issuer": "https://idp.example.com"`), []string{"issuer", "token_url", "one of the two"}},
		{"issuer with a query", `{"issuer": "https://idp.example.com?a", "client_id": "app", "client_auth": {"method": "none"}}`, []string{"issuer", "query"}},
		{"refresh_scopes", with(`"refresh_scopes": true`), []string{"refresh_scopes", "refresh token"}},
		{"dpop without a key", with(`"dpop": {}`), []string{"dpop", "key_file"}},
		{"dpop with an unknown option", with(`"dpop": {"key_file": "/k", "alg": "ES256"}`), []string{"alg", "unknown field"}},
		{"max_tokens of no template", with(`"max_tokens": 5`), []string{"max_tokens", "single token"}},
		{"max_new of no template", with(`"max_new": 5`), []string{"max_new", "single token"}},
		{"idle_timeout of no template", with(`"idle_timeout": "5m"`), []string{"idle_timeout", "single token"}},
		{"max_tokens below zero", with(`"audience": "{http.request.host}", "max_tokens": -1`), []string{"max_tokens", "-1", "1 to 1000000"}},
		{"max_tokens too large", with(`"audience": "{http.request.host}", "max_tokens": 1000001`), []string{"max_tokens", "1000001", "1 to 1000000"}},
		{"max_new below zero", with(`"audience": "{http.request.host}", "max_new": -1`), []string{"max_new", "-1", "0.1 to 1000"}},
		{"max_new too large", with(`"audience": "{http.request.host}", "max_new": 1e6`), []string{"max_new", "1e+06", "0.1 to 1000"}},
		{"idle_timeout below zero", with(`"audience": "{http.request.host}", "idle_timeout": -1`), []string{"idle_timeout", "out of range", "1s"}},
		{"no client_id with private_key_jwt", `{"token_url": "https://idp.example.com/token", "client_auth": {"method": "private_key_jwt", "key_file": "/k"}}`, []string{"client_id", "missing"}},

		{"client_secret_jwt without a secret", method(`{"method": "client_secret_jwt"}`), []string{"client_auth", "client_secret_jwt", "secret", "{file."}},
		{"client_secret_jwt with an alg", method(`{"method": "client_secret_jwt", "secret": "` + testSecret + `", "alg": "none"}`), []string{"client_auth", "client_secret_jwt", "alg", "'none'", "HS256"}},
		{"private_key_jwt without a key", method(`{"method": "private_key_jwt"}`), []string{"client_auth", "private_key_jwt", "key_file", "missing"}},
		{"private_key_jwt with a key", method(`{"method": "private_key_jwt", "key_file": "` + aKey + `"}`), []string{"client_auth", "private_key_jwt", "key_file", "path"}},
		{"private_key_jwt with an alg", method(`{"method": "private_key_jwt", "key_file": "/k", "alg": "HS256"}`), []string{"client_auth", "alg", "'HS256'", "RS256"}},
		{"private_key_jwt with an unknown option", method(`{"method": "private_key_jwt", "key_file": "/k", "kid": "` + testSecret + `"}`), []string{"client_auth", "private_key_jwt", `"kid"`}},
		{"private_key_jwt from the request", method(`{"method": "private_key_jwt", "key_file": "/run/{http.request.host}"}`), []string{"client_auth", "key_file", "{http.request.host}"}},
		{"jwt_file without a path", method(`{"method": "jwt_file"}`), []string{"client_auth", "jwt_file", "path"}},
		{"jwt_file with a JWT", method(`{"method": "jwt_file", "file": "` + aJWT + `"}`), []string{"client_auth", "jwt_file", "path"}},
		{"tls_client_auth without a key", method(`{"method": "tls_client_auth", "cert": "/c"}`), []string{"client_auth", "tls_client_auth", "key", "missing"}},
		{"tls_client_auth beside tls", "{" + client + `, "client_auth": {"method": "tls_client_auth", "cert": "/c", "key": "/k"}, "tls": {"cert": "/c", "key": "/k"}}`, []string{"tls cert", "client_auth"}},

		{"jwt_bearer with nothing", grant(`{"type": "jwt_bearer"}`), []string{"grant", "jwt_bearer", "assertion", "key_file"}},
		{"jwt_bearer with a claim of its own", grant(`{"type": "jwt_bearer", "key_file": "/k", "claims": {"aud": "x"}}`), []string{"grant", "jwt_bearer", "claim aud", "set by"}},
		{"jwt_bearer that lives too long", grant(`{"type": "jwt_bearer", "key_file": "/k", "lifetime": "2h"}`), []string{"grant", "lifetime", "2h", "1h"}},
		{"jwt_bearer with a list of claims", grant(`{"type": "jwt_bearer", "key_file": "/k", "claims": ["` + testSecret + `"]}`), []string{"grant", "claims"}},
		{"jwt_bearer for the client's issuer", grant(`{"type": "jwt_bearer", "key_file": "/k", "issuer": "{http.request.host}"}`), []string{"grant", "issuer", "{http.request.host}"}},
		{"token_exchange with nothing", grant(`{"type": "token_exchange"}`), []string{"grant", "token_exchange", "subject_token", "missing"}},
		{"token_exchange of an unknown type", grant(`{"type": "token_exchange", "subject_token": "` + testSecret + `", "subject_token_type": "` + testSecret + `"}`), []string{"grant", "subject_token_type", "access_token", "URI"}},
		{"refresh_token without one", grant(`{"type": "refresh_token"}`), []string{"grant", "refresh_token", "begin with"}},
		{"refresh_token from the request", grant(`{"type": "refresh_token", "refresh_token": "{http.request.header.X}"}`), []string{"grant", "refresh_token", "{http.request.header.X}"}},
		{"retry_grace too long", grant(`{"type": "refresh_token", "refresh_token": "` + testSecret + `", "retry_grace": "2h"}`), []string{"grant", "retry_grace", "2h", "1h"}},
		{"retry_grace below zero", grant(`{"type": "authorization_code", "authorization_url": "https://a", "retry_grace": -1}`), []string{"grant", "retry_grace", "out of range"}},
		{"redirect_uri elsewhere", grant(`{"type": "authorization_code", "authorization_url": "https://a", "redirect_uri": "https://app.example.com/"}`), []string{"grant", "redirect_uri", "http://127.0.0.1:8400/callback"}},
		{"authorization_code without a place to log in", grant(`{"type": "authorization_code"}`), []string{"grant", "authorization_url", "device_authorization_url", "issuer"}},
		{"authorization_url of http", grant(`{"type": "authorization_code", "authorization_url": "http://idp.example.com"}`), []string{"grant", "authorization_url", "idp.example.com", "insecure_token_url"}},
		{"refresh_token that depends on a request", with(`"audience": "{http.request.host}", "grant": {"type": "refresh_token", "refresh_token": "x"}`), []string{"refresh_token", "one refresh token", "placeholder"}},
		{"param of a grant", with(`"grant": {"type": "token_exchange", "subject_token": "x"}, "param": {"actor_token": ["` + testSecret + `"]}`), []string{"param", "'actor_token'", "set by", "token_exchange"}},
	} {
		for _, place := range jsonPlaces {
			t.Run(row.name+"/"+place.name, func(t *testing.T) {
				want := append(slices.Clone(row.want), "credential '"+place.credential)
				if slices.Contains(want, "unknown field") {
					want = row.want // what cannot be decoded has none yet
				}
				loadFails(t, place.config(row.text), want...)
			})
		}
	}
	for _, place := range jsonPlaces[1:] {
		for _, g := range []string{`{"type": "refresh_token", "refresh_token": "x"}`, `{"type": "authorization_code", "authorization_url": "https://a"}`} {
			t.Run(g+" in place/"+place.name, func(t *testing.T) {
				loadFails(t, place.config(grant(g)), "refresh token", "in place", "global options")
			})
		}
	}
}

// Keys of 32 bytes in base64, as openssl rand -base64 32 makes them.
const (
	sealingKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	olderKey   = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="
)

func TestBadEncryptionKey(t *testing.T) {
	t.Setenv("UPSTREAM_AUTH_TEST_KEY", sealingKey)
	t.Setenv("UPSTREAM_AUTH_TEST_SHORT", testSecret)
	app := func(options string) string { return "{\nupstream_auth {\n" + options + "\n}\n}\n" }
	for _, row := range []badConfig{
		{"none", app("encryption_key " + mark), []string{"'encryption_key'", "argument"}},
		{"empty", app(`encryption_key "" ` + mark), []string{"'encryption_key'", "empty"}},
		{"no base64", app("encryption_key " + testSecret + "! " + mark), []string{"encryption_key", "base64", "openssl rand -base64 32"}},
		{"too short", app("encryption_key MDEyMzQ1Njc4OWFiY2RlZg== " + mark), []string{"encryption_key", "16 bytes", "32", "openssl"}},
		{"too long", app("encryption_key " + sealingKey[:43] + "MDEy " + mark), []string{"encryption_key", "bytes", "32"}},
		{"hexadecimal", app("encryption_key " + strings.Repeat("0123456789abcdef", 4) + " " + mark), []string{"encryption_key", "hexadecimal", "base64"}},
		{"the second of two", app("encryption_key " + sealingKey + " abc " + mark), []string{"encryption_key", "key 2 of 2"}},
		{"the same twice", app("encryption_key " + sealingKey + " " + olderKey + " " + sealingKey + " " + mark), []string{"encryption_key", "key 3 of 3", "same as key 1"}},
		{"the same in another spelling", app("encryption_key " + sealingKey + " " + strings.TrimRight(sealingKey, "=") + " " + mark), []string{"encryption_key", "same as key 1"}},
		{"on two lines", app("encryption_key " + sealingKey + "\nencryption_key " + olderKey + " " + mark), []string{"'encryption_key'", "twice", "older keys"}},
		{"in two blocks", "{\nupstream_auth {\nencryption_key " + sealingKey + "\n}\nupstream_auth {\nencryption_key " + olderKey + " " + mark + "\n}\n}\n", []string{"'encryption_key'", "twice", "older keys"}},
		{"with a block", app("encryption_key " + sealingKey + " {\ninner " + mark + "\n}"), []string{"'encryption_key'", "no block", "inner"}},
		{"in a credential", "{\nupstream_auth {\ncredential crm {\n" + good + "encryption_key " + sealingKey + " " + mark + "\n}\n}\n}\n", []string{"'encryption_key'", "credential"}},
		{"from the request", app("encryption_key {header.X-Key} " + mark), []string{"encryption_key", "{http.request.header.X-Key}", "request placeholder"}},
		{"from a file without a slash", app("encryption_key {file.key} " + mark), []string{"encryption_key", "slash", "{file./path/to/key}"}},
		{"unknown placeholder", app("encryption_key {" + testSecret + "} " + mark), []string{"encryption_key", "unknown placeholder"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			adaptFails(t, row.text, row.want...)
			if _, _, err := adaptText(row.text); strings.Contains(err.Error(), sealingKey[:8]) {
				t.Errorf("the message holds a key: %v", err)
			}
		})
	}
	for _, row := range []badConfig{
		{"environment that is not set", `"{env.UPSTREAM_AUTH_TEST_NOT_SET}"`, []string{"{env.UPSTREAM_AUTH_TEST_NOT_SET}", "empty"}},
		{"file that is missing", `"{file./nowhere/key}"`, []string{"{file./nowhere/key}", "empty"}},
		{"from the request", `"{http.request.header.X-Key}"`, []string{"{http.request.header.X-Key}"}},
		{"too short", `"{env.UPSTREAM_AUTH_TEST_SHORT}"`, []string{"key 1 of 1", "32", "openssl rand -base64 32"}},
		{"literal that is too short", `"MDEyMzQ1Njc4OWFiY2RlZg=="`, []string{"16 bytes", "32"}},
		{"empty", `""`, []string{"key 1 of 1", "empty"}},
		{"the same twice", `"{env.UPSTREAM_AUTH_TEST_KEY}", "` + sealingKey + `"`, []string{"key 2 of 2", "same as key 1"}},
	} {
		t.Run(row.name+"/at load", func(t *testing.T) {
			loadFails(t, `{"apps": {"upstream_auth": {"encryption_keys": [`+row.text+`]}}}`, append(row.want, "encryption_key")...)
		})
	}
}

// otherStorage is a storage that is not the file system, and keeps nothing.
type otherStorage struct{ certmagic.Storage }

const otherStorageName = "upstream_auth_test"

func init() { caddy.RegisterModule(otherStorage{}) }

func (otherStorage) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.storage." + otherStorageName, New: func() caddy.Module { return new(otherStorage) }}
}

// CertMagicStorage implements caddy.StorageConverter.
func (s otherStorage) CertMagicStorage() (certmagic.Storage, error) { return s, nil }

// TestRefreshTokenStorage: refresh tokens are kept in the clear in the files of
// Caddy's own user, with one warning, and nowhere else.
func TestRefreshTokenStorage(t *testing.T) {
	const (
		other    = `"storage": {"module": "` + otherStorageName + `"}, `
		keys     = `"encryption_keys": ["` + sealingKey + `", "` + olderKey + `"], `
		refresh  = `{` + goodJSON + `, "grant": {"type": "refresh_token", "refresh_token": "{env.TOKEN}"}}`
		login    = `{` + goodJSON + `, "grant": {"type": "authorization_code", "authorization_url": "https://a"}}`
		unsealed = "tokens are kept unsealed"
	)
	config := func(storage, keys, credentials string) string {
		return `{` + storage + `"apps": {"upstream_auth": {` + keys + `"credentials": {` + credentials + `}}}}`
	}
	for name, credential := range map[string]string{"refresh_token": refresh, "authorization_code": login} {
		t.Run(name+" elsewhere", func(t *testing.T) {
			loadFails(t, config(other, "", `"crm": `+credential), "'crm'", "refresh token", "otherStorage", "encryption_key", "openssl rand -base64 32")
		})
	}
	for _, row := range []struct {
		name, config string
		warnings     int
	}{
		{"no refresh token elsewhere", config(other, "", `"crm": {`+goodJSON+`}`), 0},
		{"sealed elsewhere", config(other, keys, `"crm": `+refresh+`, "erp": `+login), 0},
		{"sealed in files", config("", keys, `"crm": `+refresh), 0},
		{"in files", config("", "", `"crm": `+refresh+`, "erp": `+login), 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			log, refused := validateJSON(t, []byte(row.config))
			if refused != nil {
				t.Fatal(refused)
			}
			checkLog(t, log)
			if n := strings.Count(log, unsealed); n != row.warnings {
				t.Errorf("%d warnings, want %d:\n%s", n, row.warnings, log)
			}
			if strings.Contains(log, sealingKey) || strings.Contains(log, olderKey) {
				t.Errorf("the log holds a key:\n%s", log)
			}
			if told := strings.Contains(log, "the encryption key stands in the config"); told != strings.Contains(row.config, sealingKey) {
				t.Errorf("a warning of a key in the config: %t\n%s", told, log)
			}
		})
	}
}

// TestGoodGuests are the right forms next to the wrong ones above.
func TestGoodGuests(t *testing.T) {
	for _, credential := range []string{
		"issuer https://idp.example.com\n" + clientID + clientAuth,
		"issuer https://idp.example.com/\n" + clientID + clientAuth,
		"issuer https://idp.example.com/realms/a\n" + clientID + clientAuth,
		"issuer http://127.0.0.1:8080\n" + clientID + clientAuth,
		"issuer http://idp.example.com\ninsecure_token_url\n" + clientID + clientAuth,
		"issuer {env.ISSUER}\n" + clientID + clientAuth,
		"issuer https://idp.example.com/{env.TENANT}/v2.0\n" + clientID + clientAuth,
		withoutAuth + "client_auth client_secret_jwt {env.S}",
		withoutAuth + "client_auth client_secret_jwt {file./run/s} {\nalg HS512\naudience token_endpoint\n}",
		withoutAuth + "client_auth private_key_jwt {\n" + keyFile + "}",
		withoutAuth + "client_auth private_key_jwt {\nkey_file {env.KEY_FILE}\nkey_id {env.KID}\nalg PS384\naudience https://idp.example.com\n}",
		withoutAuth + "client_auth jwt_file /var/run/secrets/tokens/idp",
		tokenURL + "client_auth jwt_file {env.JWT_FILE} {\nallow_any_audience\n}",
		withoutAuth + "client_auth tls_client_auth {\ncert /c.pem\nkey {env.KEY}\n}\ntls {\nca /a.pem\nserver_name idp\n}",
		tokenURL + "grant jwt_bearer {\nassertion {file./run/jwt}\n}",
		tokenURL + "grant jwt_bearer {\n" + keyFile + "}",
		tokenURL + "client_auth none\ngrant jwt_bearer {\n" + keyFile + "}",
		good + "grant jwt_bearer {\n" + keyFile + "key_id k\nalg EdDSA\nissuer {env.I}\nsubject s\naudience issuer\nlifetime 1h\nclaim scope \"a b\"\nclaim x \"\"\n}",
		withoutAuth + "grant token_exchange {\nsubject_token {file./run/jwt}\nsubject_token_type jwt\nactor_token {env.A}\nrequested_token_type urn:example:t\n}",
		good + "grant token_exchange {\nsubject_token x\nactor_token y\nactor_token_type {env.T}\n}",
		good + exchanging,
		good + "param refresh_token x\nparam assertion y\nparam code z",
	} {
		for _, place := range credentialPlaces {
			t.Run(strings.ReplaceAll(strings.Join(strings.Fields(credential), " "), "/", "|")+"/"+place.name, func(t *testing.T) { loads(t, place.config(credential)) })
		}
	}
	global := credentialPlaces[0].config
	for _, credential := range []string{
		good + refreshing,
		withoutAuth + "grant refresh_token " + testSecret + " {\nretry_grace 1h\n}\nscopes a\nrefresh_scopes",
		good + "grant refresh_token {file./run/token} {\nretry_grace 0s\n}",
		"issuer https://idp.example.com\n" + withoutAuth[len(tokenURL):] + "grant authorization_code",
		"issuer https://idp.example.com\n" + clientID + "grant authorization_code {\nredirect_uri http://localhost:8400\n}",
		good + "grant authorization_code {\nauthorization_url https://idp.example.com/a?b=c\nredirect_uri http://[::1]:8400/callback\nretry_grace 30s\n}",
		good + "grant authorization_code {\ndevice_authorization_url https://idp.example.com/d\n}\nrefresh_scopes\nscopes a",
		good + "grant authorization_code {\nauthorization_url {env.A}\ndevice_authorization_url {env.D}\nredirect_uri {env.R}\n}",
		good + "insecure_token_url\ngrant authorization_code {\nauthorization_url http://idp.example.com/a\n}",
		good + "grant authorization_code {\nauthorization_url http://127.0.0.1:8080/a\n}",
	} {
		t.Run(strings.ReplaceAll(strings.Join(strings.Fields(credential), " "), "/", "|"), func(t *testing.T) { loads(t, global(credential)) })
	}
	transport := credentialPlaces[2].config
	t.Run("dpop", func(t *testing.T) { loads(t, transport(good+"dpop {\nkey_file {env.KEY_FILE}\n}")) })
	for _, options := range []string{"client_authorization replace", "unavailable reject", "wait 0s"} {
		for _, place := range credentialPlaces[1:] {
			t.Run("subject_token request with "+options+"/"+place.name, func(t *testing.T) { loads(t, place.config(good+exchanging+options)) })
		}
	}
}
