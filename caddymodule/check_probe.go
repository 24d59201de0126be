package caddymodule

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/clientauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/advice"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// otherWay is another way to send the proof that is configured. Its name is one
// of advice.Facts.Tried.
type otherWay struct {
	name   string
	method clientauth.Method
}

func namesOf(ways []otherWay) []string {
	names := make([]string, len(ways))
	for i, w := range ways {
		names[i] = w.name
	}
	return names
}

// otherWays are those that may work where a server has refused the client: none
// where they would send the same, or the server says that it does not take them.
func (x *exam) otherWays(f *oauth.Failure, k *advice.Facts) []otherWay {
	if f.Kind != oauth.Refused || f.Status == 0 || !refusesClient(f) {
		return nil
	}
	var ways []otherWay
	add := func(name string, m clientauth.Method) { ways = append(ways, otherWay{name, m}) }
	odd := k.Secret != nil && k.Secret.Escaped
	switch m := x.credential.method.(type) {
	case *clientauth.ClientSecretBasic:
		switch {
		case odd && m.Encoding == "raw":
			add("client_secret_basic form", &clientauth.ClientSecretBasic{Secret: m.Secret, Encoding: "form"})
		case odd:
			add("client_secret_basic raw", &clientauth.ClientSecretBasic{Secret: m.Secret, Encoding: "raw"})
		}
		add("client_secret_post", &clientauth.ClientSecretPost{Secret: m.Secret})
	case *clientauth.ClientSecretPost:
		add("client_secret_basic form", &clientauth.ClientSecretBasic{Secret: m.Secret, Encoding: "form"})
		if odd {
			add("client_secret_basic raw", &clientauth.ClientSecretBasic{Secret: m.Secret, Encoding: "raw"})
		}
	case *clientauth.ClientSecretJWT:
		for _, audience := range x.otherAudiences(m.Audience) {
			add("client_secret_jwt audience "+audience, &clientauth.ClientSecretJWT{Secret: m.Secret, Alg: m.Alg, Audience: audience})
		}
	case *clientauth.PrivateKeyJWT:
		for _, audience := range x.otherAudiences(m.Audience) {
			add("private_key_jwt audience "+audience, &clientauth.PrivateKeyJWT{KeyFile: m.KeyFile, KeyID: m.KeyID, Alg: m.Alg, Audience: audience})
		}
	}
	return slices.DeleteFunc(ways, func(w otherWay) bool {
		method, _, _ := strings.Cut(w.name, " ")
		return len(k.Methods) > 0 && !slices.Contains(k.Methods, method)
	})
}

// otherAudiences are those of an assertion that are not in use. What the server
// calls itself is known from its issuer alone.
func (x *exam) otherAudiences(audience string) []string {
	switch {
	case x.credential.Issuer == "" && audience == "", audience == "token_endpoint" && x.credential.Issuer == "":
		return nil
	case x.credential.Issuer == "", audience == "", audience == "issuer":
		return []string{"token_endpoint"}
	case audience == "token_endpoint":
		return []string{"issuer"}
	}
	return []string{"issuer", "token_endpoint"}
}

// tryWays tries each once, until one works or the server is gone, and tells of
// those of which the server has judged whether it takes them.
func (x *exam) tryWays(ctx context.Context, ways []otherWay) map[string]bool {
	tried := make(map[string]bool)
	for _, w := range ways {
		x.progress.tell(x.name, "trying "+w.name)
		a, _, err := x.asks()
		if err != nil {
			return tried
		}
		q := x.variant(w.method)
		_, err = x.obtain(ctx, q, a)
		q.connection.close()
		f, _ := errors.AsType[*oauth.Failure](err)
		switch {
		case err == nil:
			tried[w.name] = true
		case f == nil || f.Kind != oauth.Refused || f.Status == 0: // it says nothing of the proof
			return tried
		default:
			tried[w.name] = takesClient(f)
		}
		if tried[w.name] {
			return tried
		}
	}
	return tried
}

// takesClient tells whether a refusal is of something else than the client's
// proof (RFC 6749 §5.2): then the proof was taken.
func takesClient(f *oauth.Failure) bool {
	return !refusesClient(f) && slices.Contains([]string{"invalid_scope", "invalid_grant", "invalid_target", "unsupported_grant_type"}, f.Code)
}

// variant is the requester with another method. What comes of it is kept as that
// of the credential itself: a refresh token may be spent.
func (x *exam) variant(m clientauth.Method) *requester {
	c := *x.credential
	c.method = m
	q := newRequester(&c)
	q.server.inherit(&x.server)
	q.keeper, q.sharer = x.keeper, x.sharer
	return q
}

// asConfigured writes the secret as it is configured into a line that is to be
// written, if it is nothing but a placeholder.
func (x *exam) asConfigured(text string) string {
	holder, ok := x.credential.method.(clientauth.SecretHolder)
	if !ok {
		return text
	}
	secret := holder.ConfiguredSecret()
	if names := placeholders(secret); len(names) != 1 || secret != "{"+names[0]+"}" {
		return text
	}
	return strings.ReplaceAll(text, "<the secret as now>", secret)
}
