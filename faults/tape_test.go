package faults

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
)

// What passes: the positive control of the canary. What is secret in it and made
// by others is learned, and every secret has to be found as it stands on the
// wire.

// tape notes what passes at one cell.
type tape struct {
	canary *canary
	mu     sync.Mutex
	seen   map[kindOf]bool
}

func newTape(k *canary) *tape { return &tape{canary: k, seen: make(map[kindOf]bool)} }

func (t *tape) passes(text string) {
	kinds := t.canary.pass(text)
	t.mu.Lock()
	defer t.mu.Unlock()
	for kind := range kinds {
		t.seen[kind] = true
	}
}

// lacks are those of the kinds that have not passed.
func (t *tape) lacks(wanted ...kindOf) (missing []kindOf) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, kind := range wanted {
		if !t.seen[kind] {
			missing = append(missing, kind)
		}
	}
	return missing
}

// request notes one, and puts its body back.
func (t *tape) request(r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		return
	}
	form, _ := url.ParseQuery(string(body))
	t.signed(ofProof, form.Get("client_assertion"))
	t.signed(ofDPoP, r.Header.Get("DPoP"))
	for name, kind := range map[string]kindOf{"refresh_token": ofRefresh, "code": ofCode, "code_verifier": ofVerifier} {
		if text := form.Get(name); !strings.HasPrefix(text, marker) {
			t.canary.learn(kind, text)
		}
	}
	var text strings.Builder
	_ = r.Header.Write(&text)
	t.passes(text.String() + "\n" + string(body))
}

// signed learns what is secret in a JWT that Caddy has signed.
func (t *tape) signed(kind kindOf, jwt string) {
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return
	}
	t.canary.learn(kind, parts[2])
	var claims struct{ JTI string }
	if content, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil && json.Unmarshal(content, &claims) == nil && kind == ofProof {
		t.canary.learn(ofJTI, claims.JTI)
	}
}

// refreshTokens are those in an answer, of whatever form.
var refreshTokens = regexp.MustCompile(`"refresh_token":"([^"]+)"`)

// answer notes one.
func (t *tape) answer(text string) {
	for _, m := range refreshTokens.FindAllStringSubmatch(text, -1) {
		if !strings.HasPrefix(m[1], marker) {
			t.canary.learn(ofRefresh, m[1])
		}
	}
	t.passes(text)
}

// taped is an answer that is noted while it is written; a long one its first
// bytes.
type taped struct {
	http.ResponseWriter
	text bytes.Buffer
}

const longest = 64 << 10

func (w *taped) Write(b []byte) (int, error) {
	w.text.Write(b[:min(len(b), max(0, longest-w.text.Len()))])
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *taped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// whole is the answer.
func (w *taped) whole() string {
	var head strings.Builder
	_ = w.Header().Write(&head)
	return head.String() + "\n" + w.text.String()
}

// tapedConn is a connection whose answer is noted: that of a wire fault.
type tapedConn struct {
	*net.TCPConn
	tape *tape
	once sync.Once
}

func (c *tapedConn) Write(b []byte) (int, error) {
	c.once.Do(func() { c.tape.answer(string(b[:min(len(b), longest)])) })
	return c.TCPConn.Write(b)
}

// proven wants all that is secret at a cell to have passed and to have been
// found there.
func (c *cell) proven() {
	wanted := []kindOf{ofHeader, ofBody, ofAnswer, ofAccess}
	wanted = append(wanted, map[string][]kindOf{
		"client_secret_basic": {ofSecret}, "client_secret_post": {ofSecret}, "client_secret_jwt": {ofProof, ofJTI}, "private_key_jwt": {ofProof, ofJTI},
	}[c.guise.method]...)
	wanted = append(wanted, map[string][]kindOf{
		clientCredentials: {ofRefresh, ofID}, jwtBearer: {ofAssertion, ofRefresh, ofID}, tokenExchange: {ofSubject, ofActor, ofRefresh, ofID}, refreshToken: {ofRefresh, ofID},
	}[c.guise.grant]...)
	if c.guise.dpop {
		wanted = append(wanted, ofDPoP)
	}
	if c.column.when == atStop || c.floor > longFloor && !c.column.held { // no good answer comes
		wanted = nil
	}
	if missing := c.tape.lacks(wanted...); len(missing) > 0 {
		c.fail("the canary has not seen these pass, or does not find them where they stand: %s", fmt.Sprint(missing))
	}
}
