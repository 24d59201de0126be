package main

import (
	"strings"
	"time"
)

// margin is how long before its end a token counts as expired, by the default
// of expiry_margin.
func margin(life time.Duration) time.Duration { return min(10*time.Second, life/10) }

// client is a credential of the soak, and the oidc-provider's client behind it.
type client struct {
	name   string // of the credential
	id     string
	secret string // "" for one that signs
	// options are what the credential says beside its token_url and client_id;
	// DIR is the run's folder, STORAGE that of the storage.
	options string
}

// rotating is the one whose secret is changed. oidc-provider reads its clients
// once, so it is the proxy that knows the secret of the day.
const rotating = "basic"

// refreshing is the one that spends refresh tokens.
const refreshing = "refresh"

var clients = []client{
	{rotating, "basic", "secret-of-basic", "client_auth client_secret_basic {file.DIR/secret}"},
	{"post", "post", "secret-of-post", "client_auth client_secret_post {env.SOAK_POST}"},
	{"key", "key-es256", "", "client_auth private_key_jwt {\n\t\t\t\tkey_file DIR/key-es256.pem\n\t\t\t\tkey_id key-es256\n\t\t\t\talg ES256\n\t\t\t\taudience ISSUER\n\t\t\t}"},
	{refreshing, "post-odd", "p+a%s/w=d &!~:x", "grant refresh_token {file.STORAGE/initial}\n\t\t\tclient_auth client_secret_post {env.SOAK_REFRESH}"},
}

// block is the credential in a Caddyfile. Token requests say which process makes
// them: by a header field, or where tokens are shared, which what is sent with
// the request must not differ for, as if to a proxy.
func (c client) block(s *stage, storage, process string) string {
	text := []string{
		"token_url " + s.proxy.url() + "/" + c.name,
		"client_id " + c.id,
		strings.NewReplacer("DIR", s.dir, "STORAGE", storage, "ISSUER", s.provider.issuer).Replace(c.options),
	}
	if s.share {
		text = append(text, "share", "proxy http://"+process+"@"+s.proxy.addr, "insecure_token_url")
	} else {
		text = append(text, "request {\n\t\t\t\theader "+processHeader+" "+process+"\n\t\t\t}")
	}
	return "\t\tcredential " + c.name + " {\n\t\t\t" + strings.Join(text, "\n\t\t\t") + "\n\t\t}\n"
}

// clientOf is the client of a credential.
func clientOf(name string) client {
	for _, c := range clients {
		if c.name == name {
			return c
		}
	}
	return client{}
}
