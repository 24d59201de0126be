package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// authority is a library's handler and what the tests have beside it.
type authority struct {
	issuer string
	lib    library
	meter  *meter
}

func newAuthority(issuer string, lib library, delay time.Duration) http.Handler {
	as := &authority{issuer: issuer, lib: lib, meter: &meter{next: lib, delay: delay}}
	as.meter.stats = stats{
		Refused: make(map[string]int),
		Methods: make(map[string]int),
		Grants:  make(map[string]int),
		Lost:    []cut{},
		Gone:    []cut{},
	}
	mux := http.NewServeMux()
	mux.Handle("/", lib)
	mux.Handle("/token", as.meter)
	mux.HandleFunc("GET /stats", as.serveStats)
	mux.HandleFunc("POST /fault", as.serveFault)
	mux.HandleFunc("POST /initial", as.serveInitial)
	return mux
}

func (as *authority) serveStats(w http.ResponseWriter, _ *http.Request) {
	as.meter.mu.Lock()
	defer as.meter.mu.Unlock()
	if as.lib.revoked != nil {
		as.meter.stats.ChainsRevoked = as.lib.revoked()
	}
	writeJSON(w, as.meter.stats)
}

// serveFault takes {"lost": n}: the answers of the next n token requests are
// lost, n in place of what was left of an earlier n.
func (as *authority) serveFault(w http.ResponseWriter, r *http.Request) {
	var fault struct{ Lost int }
	if err := json.NewDecoder(r.Body).Decode(&fault); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	as.meter.mu.Lock()
	defer as.meter.mu.Unlock()
	as.meter.lose = fault.Lost
	w.WriteHeader(http.StatusNoContent)
}

// serveInitial starts a chain of refresh tokens: the form's client_id gets a
// code as it would in a browser, and exchanges it. What else is in the form
// goes along with the code, such as a client_assertion. The answer is that of
// the token endpoint; it is not counted as one of the client's requests.
func (as *authority) serveInitial(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	tokens, err := as.initial(r.PostForm)
	if err != nil {
		log.Printf("/initial: %v", err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	as.meter.count(func(s *stats) { s.Chains++ })
	writeJSON(w, tokens)
}

func (as *authority) initial(form url.Values) (json.RawMessage, error) {
	c, known := as.lib.clients[form.Get("client_id")]
	if !known {
		return nil, fmt.Errorf("no client %q", form.Get("client_id"))
	}
	verifier := rand.Text() + rand.Text() // 43 characters at least, RFC 7636 section 4.1
	code, err := as.code(c, verifier)
	if err != nil {
		return nil, err
	}

	form.Set("grant_type", "authorization_code")
	form.Set("code", code)
	form.Set("redirect_uri", redirectURI)
	form.Set("code_verifier", verifier)
	if c.method == secretPost {
		form.Set("client_secret", c.secret)
	}
	if c.method == secretBasic {
		form.Del("client_id")
	}
	req, err := http.NewRequest(http.MethodPost, as.issuer+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	switch {
	case c.method == secretBasic && as.lib.rawBasic:
		req.SetBasicAuth(c.id, c.secret)
	case c.method == secretBasic:
		req.SetBasicAuth(url.QueryEscape(c.id), url.QueryEscape(c.secret))
	}
	var a answer
	if panicked := a.record(as.lib, req); panicked != nil {
		return nil, fmt.Errorf("/token panicked: %v", panicked)
	}
	switch o := a.outcome(); {
	case o.Error != "":
		return nil, fmt.Errorf("/token: %d %s", a.status, a.body.Bytes())
	case o.RefreshToken == "":
		return nil, errors.New("/token: no refresh token")
	}
	return a.body.Bytes(), nil
}

// code follows /authorize to the client's redirect URI.
func (as *authority) code(c client, verifier string) (string, error) {
	challenge := sha256.Sum256([]byte(verifier))
	at, err := url.Parse(as.issuer + "/authorize?" + url.Values{
		"response_type":         {"code"},
		"client_id":             {c.id},
		"redirect_uri":          {redirectURI},
		"scope":                 {as.lib.scope},
		"state":                 {rand.Text()},
		"code_challenge":        {base64.RawURLEncoding.EncodeToString(challenge[:])},
		"code_challenge_method": {"S256"},
	}.Encode())
	if err != nil {
		return "", err
	}
	for range 5 {
		req, err := http.NewRequest(http.MethodGet, at.String(), nil)
		if err != nil {
			return "", err
		}
		var a answer
		if panicked := a.record(as.lib, req); panicked != nil {
			return "", fmt.Errorf("%s panicked: %v", at.Path, panicked)
		}
		if a.header.Get("Location") == "" {
			return "", fmt.Errorf("%s: no redirect: %d %s", at.Path, a.status, a.body.Bytes())
		}
		if at, err = at.Parse(a.header.Get("Location")); err != nil {
			return "", err
		}
		if strings.HasPrefix(at.String(), redirectURI) {
			if code := at.Query().Get("code"); code != "" {
				return code, nil
			}
			return "", fmt.Errorf("no code: %s", at.RawQuery)
		}
	}
	return "", errors.New("/authorize redirects for ever")
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		log.Print(err)
	}
}
