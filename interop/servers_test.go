package interop

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// These tests are of the servers alone, with plain HTTP: what the tests of
// Caddy may take for granted about them.

const (
	grantExchange  = "urn:ietf:params:oauth:grant-type:token-exchange"
	grantJWTBearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	grantDevice    = "urn:ietf:params:oauth:grant-type:device_code"
	typePrefix     = "urn:ietf:params:oauth:token-type:"

	// cutOff stands for an error where the server hung up without an answer.
	cutOff = "cut off"
)

// proof is a way in which a client proves itself at the token endpoint.
type proof struct {
	name     string
	clientID string
	prove    func(t *testing.T, s *server, req *http.Request, form url.Values)
}

func byBasic(name, clientID, username, password string) proof {
	return proof{name, clientID, func(_ *testing.T, _ *server, req *http.Request, _ url.Values) {
		req.SetBasicAuth(username, password)
	}}
}

func byPost(name, clientID, secret string) proof {
	return proof{name, clientID, func(_ *testing.T, _ *server, _ *http.Request, form url.Values) {
		form.Set("client_id", clientID)
		form.Set("client_secret", secret)
	}}
}

func byKey(name, clientID string, audience func(*server) string) proof {
	return proof{name, clientID, func(t *testing.T, s *server, _ *http.Request, form url.Values) {
		t.Helper()
		form.Set("client_id", clientID)
		sign(t, form, clientID, audience(s))
	}}
}

// otherAudience is the one that the server does not accept.
func (s *server) otherAudience() string {
	if s.assertionAudience() == s.issuer {
		return s.tokenURL()
	}
	return s.issuer
}

var asBasic = byBasic("basic", "basic", "basic", "secret-of-basic")

// ask sends a token request.
func (s *server) ask(t *testing.T, p proof, form url.Values) tokens {
	t.Helper()
	got, err := s.askUntil(t.Context(), t, p, form)
	if err != nil {
		return tokens{Error: cutOff}
	}
	return got
}

// askUntil returns an error where there was no answer; Error in an answer is the
// code with the status.
func (s *server) askUntil(ctx context.Context, t *testing.T, p proof, form url.Values) (tokens, error) {
	t.Helper()
	req, err := newForm(ctx, s.tokenURL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.prove != nil {
		p.prove(t, s, req, form)
	}
	body := form.Encode()
	req.Body, req.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return tokens{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return tokens{}, err
	}
	var got tokens
	if err := json.Unmarshal(text, &got); err != nil {
		got.Error = "not JSON:"
	}
	if resp.StatusCode != http.StatusOK || got.Error != "" {
		got.Error = fmt.Sprint(got.Error, " ", resp.StatusCode)
	}
	return got, nil
}

// refresh spends a refresh token of the client basic.
func (s *server) refresh(t *testing.T, token string) tokens {
	t.Helper()
	return s.ask(t, asBasic, refreshForm(token))
}

func refreshForm(token string) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}
}

// active is what the server says of an access token.
func (s *server) active(t *testing.T, token string) bool {
	t.Helper()
	in, err := s.introspect(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	return in.Active
}

// code follows /authorize as a browser would to the redirect URI, whose port is
// the client's affair, and returns the form that exchanges the code.
func (s *server) code(t *testing.T, clientID string) url.Values {
	t.Helper()
	const host, redirectURI = "127.0.0.1:1", "http://127.0.0.1:1/callback"
	verifier, state := rand.Text()+rand.Text(), rand.Text()
	challenge := sha256.Sum256([]byte(verifier))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.issuer+"/authorize?"+url.Values{
		"response_type":         {"code"},
		"client_id":             {clientID},
		"redirect_uri":          {redirectURI},
		"scope":                 {"read"},
		"state":                 {state},
		"code_challenge":        {base64.RawURLEncoding.EncodeToString(challenge[:])},
		"code_challenge_method": {"S256"},
	}.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{CheckRedirect: func(next *http.Request, _ []*http.Request) error {
		if next.URL.Host == host {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	resp, err := browser.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	at, err := resp.Location()
	if err != nil {
		t.Fatalf("/authorize: %s: %v", resp.Status, err)
	}
	if at.Host != host || at.Query().Get("code") == "" || at.Query().Get("state") != state {
		t.Fatalf("/authorize redirects to %s", at)
	}
	return url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {at.Query().Get("code")},
		"redirect_uri":  {redirectURI},
		"code_verifier": {verifier},
	}
}

func hashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// TestServerProofs: which client authentication each server takes, for the
// grants that all have.
func TestServerProofs(t *testing.T) {
	// an error, "" for a token
	type grid struct{ clientCredentials, code, refresh string }
	all := func(code string) grid { return grid{code, code, code} }
	// go-oauth2 checks no client when it refreshes
	unlessRefresh := func(code string) grid { return grid{code, code, ""} }
	const invalidClient = "invalid_client 401"
	tests := []struct {
		proof
		want map[string]grid
	}{
		{asBasic, map[string]grid{fosite: {}, goOAuth2: {}, zitadel: {}}},
		{byBasic("basic, odd secret, form-encoded", "basic-odd", "basic-odd", url.QueryEscape(oddSecret)), map[string]grid{
			fosite: {}, goOAuth2: unlessRefresh(invalidClient), zitadel: {},
		}},
		{byBasic("basic, odd secret, raw", "basic-odd", "basic-odd", oddSecret), map[string]grid{
			fosite: all("invalid_request 400"), goOAuth2: {}, zitadel: all(cutOff),
		}},
		{byBasic("basic, secret with +, raw", "basic-plus", "basic-plus", plusSecret), map[string]grid{
			fosite: all(invalidClient), goOAuth2: {}, zitadel: all(invalidClient),
		}},
		{byBasic("basic, wrong secret", "basic", "basic", "another"), map[string]grid{
			fosite: all(invalidClient), goOAuth2: unlessRefresh(invalidClient), zitadel: all(invalidClient),
		}},
		{byBasic("basic, registered for post", "post", "post", "secret-of-post"), map[string]grid{
			fosite: all(invalidClient), goOAuth2: {}, zitadel: {},
		}},
		{byPost("post", "post", "secret-of-post"), map[string]grid{fosite: {}, goOAuth2: {}, zitadel: {}}},
		{byPost("post, odd secret", "post-odd", oddSecret), map[string]grid{fosite: {}, goOAuth2: {}, zitadel: {}}},
		{byPost("post, registered for basic", "basic", "secret-of-basic"), map[string]grid{
			fosite: all(invalidClient), goOAuth2: {}, zitadel: {},
		}},
		{byKey("private_key_jwt, RS256", "key-rs256", (*server).assertionAudience), map[string]grid{
			fosite: {}, zitadel: {clientCredentials: invalidClient},
		}},
		{byKey("private_key_jwt, ES256", "key-es256", (*server).assertionAudience), map[string]grid{
			fosite: {}, zitadel: {clientCredentials: invalidClient},
		}},
		{byKey("private_key_jwt, the other audience", "key-rs256", (*server).otherAudience), map[string]grid{
			fosite: all(invalidClient), zitadel: {invalidClient, "server_error 400", "server_error 400"},
		}},
		{proof{"none", "public", func(_ *testing.T, _ *server, _ *http.Request, form url.Values) {
			form.Set("client_id", "public")
		}}, map[string]grid{
			fosite:   {clientCredentials: "invalid_grant 400"},
			goOAuth2: {clientCredentials: invalidClient},
			zitadel:  {clientCredentials: invalidClient},
		}},
	}
	for _, kind := range serverKinds {
		s := startServer(t, kind, time.Minute, 0)
		for _, tt := range tests {
			want, known := tt.want[kind]
			if !known {
				continue
			}
			t.Run(kind+"/"+tt.name, func(t *testing.T) {
				granted := s.ask(t, tt.proof, url.Values{"grant_type": {"client_credentials"}, "scope": {"read write"}})
				got := grid{
					granted.Error,
					s.ask(t, tt.proof, s.code(t, tt.clientID)).Error,
					s.ask(t, tt.proof, refreshForm(s.initial(t, tt.clientID))).Error,
				}
				if got != want {
					t.Errorf("refused with %+v; want %+v", got, want)
				}
				if want.clientCredentials != "" {
					return
				}
				in, err := s.introspect(t.Context(), granted.AccessToken)
				if err != nil {
					t.Fatal(err)
				}
				if !in.Active || in.ClientID != tt.clientID || in.Scope != "read write" {
					t.Errorf("introspection %+v; want client %s, scope read write", in, tt.clientID)
				}
			})
		}
	}
}

// TestServerCounts: each token request is counted, by what it was.
func TestServerCounts(t *testing.T) {
	for _, kind := range serverKinds {
		t.Run(kind, func(t *testing.T) {
			const delay = 100 * time.Millisecond
			s := startServer(t, kind, time.Minute, delay)
			s.refresh(t, s.initial(t, "basic"))
			s.ask(t, byPost("", "post", "secret-of-post"), url.Values{"grant_type": {"client_credentials"}})
			s.ask(t, asBasic, refreshForm("unheard-of"))
			began := time.Now()
			var both sync.WaitGroup
			for range 2 {
				both.Go(func() { s.ask(t, asBasic, url.Values{"grant_type": {"client_credentials"}}) })
			}
			both.Wait()
			if took := time.Since(began); took < delay {
				t.Errorf("answered within %s; want %s at least", took, delay)
			}
			got := fmt.Sprintf("%+v", s.stats(t))
			want := fmt.Sprintf("%+v", serverStats{
				providerStats: providerStats{
					Granted:     4,
					Refused:     map[string]int{"invalid_grant": 1},
					Methods:     map[string]int{"client_secret_basic": 3, "client_secret_post": 1},
					MaxInFlight: 2,
				},
				Grants:    map[string]int{"client_credentials": 3, "refresh_token": 1},
				Rotations: 1,
				Chains:    1,
			})
			if got != want {
				t.Errorf("counted %s; want %s", got, want)
			}
		})
	}
}

// TestServerLifetime: an access token lives as long as it says, about.
func TestServerLifetime(t *testing.T) {
	for _, kind := range serverKinds {
		t.Run(kind, func(t *testing.T) {
			const ttl = 2 * time.Second
			s := startServer(t, kind, ttl, 0)
			// fosite rounds, zitadel cuts fractions off
			got := s.ask(t, asBasic, url.Values{"grant_type": {"client_credentials"}})
			if got.ExpiresIn < 1 || got.ExpiresIn > 3 {
				t.Errorf("expires_in %d; want %s", got.ExpiresIn, ttl)
			}
			if in, err := s.introspect(t.Context(), got.AccessToken); err != nil || !in.Active || time.Until(time.Unix(in.Exp, 0)).Abs() > 3*time.Second {
				t.Errorf("introspection %+v, error %v; want an active one that ends in %s", in, err, ttl)
			}
			poll(t, 5*time.Second, "its end", func(context.Context) error {
				if s.active(t, got.AccessToken) {
					return errors.New("still active")
				}
				return nil
			})
		})
	}
}

// TestServerRotation: what becomes of a chain of refresh tokens.
func TestServerRotation(t *testing.T) {
	tests := []struct {
		kind    string
		reuse   string // the answer to a spent refresh token
		outlive bool   // whether the chain is alive after that
	}{
		{fosite, "invalid_grant 400", false},
		{goOAuth2, "invalid_grant 401", true},
		{zitadel, "invalid_grant 400", true},
	}
	for _, tt := range tests {
		t.Run(tt.kind, func(t *testing.T) {
			s := startServer(t, tt.kind, time.Minute, 0)
			first := s.login(t, "basic")
			if !s.active(t, first.AccessToken) {
				t.Error("the first access token is not active")
			}
			second := s.refresh(t, first.RefreshToken)
			if second.Error != "" || second.RefreshToken == "" || second.RefreshToken == first.RefreshToken {
				t.Fatalf("refresh answers %+v; want another refresh token", second)
			}
			if s.active(t, first.AccessToken) || !s.active(t, second.AccessToken) {
				t.Error("want the old access token to end with the refresh, and the new one to be active")
			}

			if got := s.refresh(t, first.RefreshToken); got.Error != tt.reuse {
				t.Errorf("spent refresh token: %q; want %q", got.Error, tt.reuse)
			}
			if got := s.active(t, second.AccessToken); got != tt.outlive {
				t.Errorf("access token active after reuse: %t; want %t", got, tt.outlive)
			}
			if third := s.refresh(t, second.RefreshToken); (third.Error == "") != tt.outlive {
				t.Errorf("next refresh after reuse: %q; want it granted: %t", third.Error, tt.outlive)
			}
			want := 1
			if tt.outlive {
				want = 0
			}
			if got := s.stats(t).ChainsRevoked; got != want {
				t.Errorf("%d chains revoked; want %d", got, want)
			}
		})
	}
}

// TestServerRace: two spend one refresh token at the same moment, and each goes
// on with what it got.
func TestServerRace(t *testing.T) {
	const chains = 10
	for _, kind := range serverKinds {
		t.Run(kind, func(t *testing.T) {
			s := startServer(t, kind, time.Minute, 20*time.Millisecond)
			alive := 0
			for range chains {
				one := s.initial(t, "basic")
				var got [2]tokens
				var both sync.WaitGroup
				for i := range got {
					both.Go(func() { got[i] = s.refresh(t, one) })
				}
				both.Wait()
				for i := range got {
					got[i] = s.refresh(t, got[i].RefreshToken)
				}
				for i := range got {
					got[i] = s.refresh(t, got[i].RefreshToken)
				}
				if got[0].Error == "" || got[1].Error == "" {
					alive++
				}
			}
			revoked := s.stats(t).ChainsRevoked
			if kind == fosite {
				// a few in a thousand live on: renewed at the very moment of being revoked
				if alive > chains/2 || revoked != chains {
					t.Errorf("of %d chains %d alive, %d revoked; want none alive", chains, alive, revoked)
				}
				return
			}
			if alive != chains || revoked != 0 {
				t.Errorf("of %d chains %d alive, %d revoked; want all alive", chains, alive, revoked)
			}
		})
	}
}

// TestServerLost: the answer is cut off, the refresh token is spent, and the
// server tells which it was.
func TestServerLost(t *testing.T) {
	for _, kind := range serverKinds {
		t.Run(kind, func(t *testing.T) {
			s := startServer(t, kind, time.Minute, 0)
			one, other := s.initial(t, "basic"), s.initial(t, "basic")
			s.lose(t, 2)
			for _, token := range []string{one, "unheard-of"} {
				if got := s.refresh(t, token); got.Error != cutOff {
					t.Errorf("answer %+v; want none", got)
				}
			}
			if got := s.refresh(t, other); got.Error != "" {
				t.Errorf("a third request: %s; want it granted", got.Error)
			}
			if got := s.refresh(t, one); !strings.HasPrefix(got.Error, "invalid_grant") {
				t.Errorf("tried again: %q; want invalid_grant", got.Error)
			}
			stats := s.stats(t)
			if len(stats.Lost) != 2 || len(stats.Gone) != 0 {
				t.Fatalf("lost %+v, gone %+v; want two lost", stats.Lost, stats.Gone)
			}
			spent, refused := stats.Lost[0], stats.Lost[1]
			if spent.Spent != hashOf(one) || len(spent.Next) != 2*sha256.Size || spent.Next == spent.Spent || spent.Error != "" ||
				spent.ClientID != "basic" || spent.GrantType != "refresh_token" {
				t.Errorf("lost %+v; want the first chain's", spent)
			}
			if refused.Spent != hashOf("unheard-of") || refused.Next != "" || refused.Error != "invalid_grant" {
				t.Errorf("lost %+v; want a refusal", refused)
			}
		})
	}
}

// TestServerGone: a client that goes away has spent its refresh token.
func TestServerGone(t *testing.T) {
	for _, kind := range serverKinds {
		t.Run(kind, func(t *testing.T) {
			s := startServer(t, kind, time.Minute, 300*time.Millisecond)
			first := s.initial(t, "basic")
			ctx, leave := context.WithCancel(t.Context())
			left := make(chan error, 1)
			go func() {
				_, err := s.askUntil(ctx, t, asBasic, refreshForm(first))
				left <- err
			}()
			poll(t, 5*time.Second, "a request under way", func(context.Context) error {
				if s.stats(t).MaxInFlight == 0 {
					return errors.New("none")
				}
				return nil
			})
			leave()
			if err := <-left; !errors.Is(err, context.Canceled) {
				t.Fatalf("error %v; want that of the context", err)
			}
			poll(t, 5*time.Second, "the answer for nobody", func(context.Context) error {
				gone := s.stats(t).Gone
				if len(gone) != 1 || gone[0].Spent != hashOf(first) || gone[0].Error != "" {
					return fmt.Errorf("gone %+v", gone)
				}
				return nil
			})
			if got := s.refresh(t, first); !strings.HasPrefix(got.Error, "invalid_grant") {
				t.Errorf("tried again: %q; want invalid_grant", got.Error)
			}
		})
	}
}

// TestServerRefusals: the words in which each server says no.
func TestServerRefusals(t *testing.T) {
	asPost := byPost("post", "post", "secret-of-post")
	cc := func(scope string) func(*testing.T, *server) url.Values {
		return func(*testing.T, *server) url.Values {
			return url.Values{"grant_type": {"client_credentials"}, "scope": {scope}}
		}
	}
	tests := []struct {
		name string
		proof
		form func(*testing.T, *server) url.Values
		want map[string]string // "" for a token with the scope read
	}{
		{"unknown client", byPost("", "nobody", "secret"), cc("read"), map[string]string{
			fosite: "invalid_client 401", goOAuth2: "server_error 500", zitadel: "invalid_client 401",
		}},
		{"scope that nobody has", asBasic, cc("read admin"), map[string]string{
			fosite: "invalid_scope 400", goOAuth2: "invalid_scope 400", zitadel: "",
		}},
		{"unknown grant", asBasic, func(*testing.T, *server) url.Values {
			return url.Values{"grant_type": {"urn:example:grant"}}
		}, map[string]string{
			fosite: "invalid_request 400", goOAuth2: "unsupported_grant_type 401", zitadel: "unsupported_grant_type 400",
		}},
		{"refresh token of another client", asPost, func(t *testing.T, s *server) url.Values {
			t.Helper()
			return refreshForm(s.initial(t, "basic"))
		}, map[string]string{
			fosite: "invalid_grant 400", goOAuth2: "", zitadel: "invalid_grant 400",
		}},
	}
	for _, kind := range serverKinds {
		s := startServer(t, kind, time.Minute, 0)
		for _, tt := range tests {
			t.Run(kind+"/"+tt.name, func(t *testing.T) {
				got := s.ask(t, tt.proof, tt.form(t, s))
				if got.Error != tt.want[kind] {
					t.Errorf("%q; want %q", got.Error, tt.want[kind])
				}
				if got.Error == "" && strings.Contains(got.Scope, "admin") {
					t.Errorf("granted the scope %q", got.Scope)
				}
			})
		}
	}
}

// TestServerJWTBearer: a key's client asks in its own name (RFC 7523 section
// 2.1). The audience is the token endpoint at fosite, the issuer at zitadel.
func TestServerJWTBearer(t *testing.T) {
	refused := map[string]string{fosite: "invalid_grant 400", zitadel: "server_error 400"}
	for kind, code := range refused {
		s := startServer(t, kind, time.Minute, 0)
		for _, clientID := range []string{"key-rs256", "key-es256"} {
			t.Run(kind+"/"+clientID, func(t *testing.T) {
				form := func(audience string) url.Values {
					return url.Values{
						"grant_type": {grantJWTBearer},
						"assertion":  {assertion(t, clientID, audience)},
						"scope":      {"read"},
					}
				}
				got := s.ask(t, proof{}, form(s.assertionAudience()))
				if got.Error != "" || got.Scope != "read" || !s.active(t, got.AccessToken) {
					t.Errorf("answer %+v; want an active token", got)
				}
				if got := s.ask(t, proof{}, form(s.otherAudience())); got.Error != code {
					t.Errorf("the other audience: %q; want %q", got.Error, code)
				}
			})
		}
	}
}

// TestServerTokenExchange: zitadel alone has it (RFC 8693), for clients with
// Basic alone.
func TestServerTokenExchange(t *testing.T) {
	s := startServer(t, zitadel, time.Minute, 0)
	opaque, structured := s.login(t, "basic"), s.login(t, "jwt")
	form := func(subject, subjectType, requested string) url.Values {
		form := url.Values{
			"grant_type":         {grantExchange},
			"subject_token":      {subject},
			"subject_token_type": {typePrefix + subjectType},
			"scope":              {"read"},
		}
		if requested != "" {
			form.Set("requested_token_type", typePrefix+requested)
		}
		return form
	}
	tests := []struct {
		name                            string
		subject, subjectType, requested string
		want                            tokens // as far as it is compared
	}{
		{"ID token", opaque.IDToken, "id_token", "", tokens{TokenType: "Bearer", IssuedTokenType: "access_token"}},
		{"refresh token", opaque.RefreshToken, "refresh_token", "", tokens{TokenType: "Bearer", IssuedTokenType: "access_token"}},
		{"access token, a JWT", structured.AccessToken, "access_token", "access_token", tokens{TokenType: "Bearer", IssuedTokenType: "access_token"}},
		{"JWT of a client's", assertion(t, "key-es256", s.issuer), "jwt", "", tokens{TokenType: "Bearer", IssuedTokenType: "access_token"}},
		{"for a refresh token", opaque.IDToken, "id_token", "refresh_token", tokens{TokenType: "Bearer", IssuedTokenType: "refresh_token"}},
		{"for an ID token", opaque.IDToken, "id_token", "id_token", tokens{TokenType: "N_A", IssuedTokenType: "id_token"}},
		// its mistakes: no token under 200, and a panic
		{"for a JWT", opaque.IDToken, "id_token", "jwt", tokens{TokenType: "", IssuedTokenType: "jwt"}},
		{"access token, opaque", opaque.AccessToken, "access_token", "", tokens{Error: cutOff}},
		{"no such token", "unheard-of", "refresh_token", "", tokens{Error: "invalid_request 400"}},
		{"JWT for another server", assertion(t, "key-es256", "https://idp.example.com"), "jwt", "", tokens{Error: "invalid_request 400"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := s.ask(t, asBasic, form(tt.subject, tt.subjectType, tt.requested))
			if got.Error != tt.want.Error || got.TokenType != tt.want.TokenType || strings.TrimPrefix(got.IssuedTokenType, typePrefix) != tt.want.IssuedTokenType {
				t.Fatalf("answer %+v; want %+v", got, tt.want)
			}
			if (got.AccessToken != "") != (tt.want.TokenType != "") {
				t.Errorf("token %q", got.AccessToken)
			}
			if (got.RefreshToken != "") != (tt.want.IssuedTokenType == "refresh_token") {
				t.Errorf("refresh token %q", got.RefreshToken)
			}
			if tt.want.TokenType == "Bearer" && !s.active(t, got.AccessToken) {
				t.Error("the token is not active")
			}
		})
	}
	if got := s.ask(t, byPost("", "post", "secret-of-post"), form(opaque.IDToken, "id_token", "")); got.Error != "invalid_client 401" {
		t.Errorf("by post: %q; want invalid_client 401", got.Error)
	}
}

// TestServerDevice: zitadel alone has the device grant (RFC 8628); the user
// agrees before anybody asks.
func TestServerDevice(t *testing.T) {
	s := startServer(t, zitadel, time.Minute, 0)
	req, err := newForm(t.Context(), s.issuer+"/device_authorization", url.Values{
		"client_id": {"public"},
		"scope":     {"openid read offline_access"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var begun struct {
		DeviceCode string `json:"device_code"`
		UserCode   string `json:"user_code"`
	}
	if err := askProvider(req, &begun); err != nil {
		t.Fatal(err)
	}
	asPublic := func(form url.Values) tokens {
		form.Set("client_id", "public")
		return s.ask(t, proof{}, form)
	}
	got := asPublic(url.Values{"grant_type": {grantDevice}, "device_code": {begun.DeviceCode}})
	if begun.UserCode == "" || got.Error != "" || !s.active(t, got.AccessToken) {
		t.Fatalf("begun with %+v, answer %+v; want an active token", begun, got)
	}
	if next := asPublic(refreshForm(got.RefreshToken)); next.Error != "" {
		t.Errorf("its refresh token: %s", next.Error)
	}
}

// TestServerRevocation: fosite and zitadel have it (RFC 7009).
func TestServerRevocation(t *testing.T) {
	for _, kind := range []string{fosite, zitadel} {
		t.Run(kind, func(t *testing.T) {
			s := startServer(t, kind, time.Minute, 0)
			first := s.login(t, "basic")
			req, err := newForm(t.Context(), s.issuer+"/revoke", url.Values{
				"token":           {first.RefreshToken},
				"token_type_hint": {"refresh_token"},
			})
			if err != nil {
				t.Fatal(err)
			}
			req.SetBasicAuth("basic", "secret-of-basic")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("/revoke: %s", resp.Status)
			}
			if got := s.refresh(t, first.RefreshToken); got.Error != "invalid_grant 400" || s.active(t, first.AccessToken) {
				t.Errorf("revoked refresh token: %q; want invalid_grant, and no access token", got.Error)
			}
		})
	}
}

// TestServerMetadata: zitadel alone has any, at OpenID's address.
func TestServerMetadata(t *testing.T) {
	for _, kind := range serverKinds {
		t.Run(kind, func(t *testing.T) {
			s := startServer(t, kind, time.Minute, 0)
			for path, found := range map[string]bool{
				"/.well-known/openid-configuration":       kind == zitadel,
				"/.well-known/oauth-authorization-server": false,
			} {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.issuer+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				var metadata struct {
					Issuer        string
					Token         string `json:"token_endpoint"`
					Authorization string `json:"authorization_endpoint"`
					Introspection string `json:"introspection_endpoint"`
					Revocation    string `json:"revocation_endpoint"`
				}
				err = askProvider(req, &metadata)
				if (err == nil) != found {
					t.Errorf("%s: error %v; want it found: %t", path, err, found)
				}
				if !found {
					continue
				}
				if metadata.Issuer != s.issuer || metadata.Token != s.tokenURL() || metadata.Authorization != s.issuer+"/authorize" ||
					metadata.Introspection != s.issuer+"/introspect" || metadata.Revocation != s.issuer+"/revoke" {
					t.Errorf("metadata %+v", metadata)
				}
			}
		})
	}
}

// TestServerEnds: with the standard input of the test that started it.
func TestServerEnds(t *testing.T) {
	s := startServer(t, fosite, time.Minute, 0)
	s.stdin.Close()
	select {
	case <-s.ended:
	case <-time.After(stopDeadline):
		t.Fatalf("not within %s", stopDeadline)
	}
	if !s.cmd.ProcessState.Success() {
		t.Errorf("ended: %s", s.cmd.ProcessState)
	}
}
