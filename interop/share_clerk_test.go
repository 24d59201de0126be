package interop

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// clerk stands between many Caddys and a server's token endpoint, and is the
// upstream as well: it knows who asked for which token, and who uses it.
type clerk struct {
	token, secure *httptest.Server // the token endpoint, by HTTP and by HTTPS
	proxy         *httptest.Server // on the way to the second
	upstream      *httptest.Server
	way           http.RoundTripper
	behind        string // the server's token endpoint

	mu      sync.Mutex
	down    map[string]bool // credentials whose token requests are answered with 503
	asked   []*asked
	tokens  map[string]*asked // by access token
	traps   map[*clerkTrap]bool
	secrets []string
	strange []string // what the upstream got and should not have
}

// asked is one token request.
type asked struct {
	who, credential string
	spent, next     string // hashes of the refresh tokens, "" for none
	granted         bool
	status          int    // 0 where the server was not asked, or did not answer
	code            string // of what was refused
	ttl             time.Duration

	begun, passed, read, answered time.Time // zero for what did not happen
	used                          map[string]time.Time
}

// Where a token request can be kept by the clerk.
const (
	atDial  = "the connection is made" // through the proxy alone
	atCome  = "it has come"            // and is not passed on
	atGiven = "the server has answered"
)

// clerkTrap is told once of a token request.
type clerkTrap struct {
	who, credential, where string
	of                     func(context.Context)
}

func startClerk(t *testing.T, tokenURL string, ca *certAuthority) *clerk {
	t.Helper()
	f := &clerk{
		way: &http.Transport{DisableKeepAlives: true}, behind: tokenURL, down: make(map[string]bool),
		tokens: make(map[string]*asked), traps: make(map[*clerkTrap]bool),
	}
	serve := func(w http.ResponseWriter, r *http.Request) { f.serveToken(t.Context(), w, r) }
	f.token = httptest.NewServer(http.HandlerFunc(serve))
	t.Cleanup(f.token.Close)
	f.upstream = httptest.NewServer(http.HandlerFunc(f.serveUpstream))
	t.Cleanup(f.upstream.Close)
	f.secure = httptest.NewUnstartedServer(http.HandlerFunc(serve))
	cert := ca.certOf(t, "clerk", nil).load(t)
	f.secure.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	f.secure.StartTLS()
	t.Cleanup(f.secure.Close)
	f.proxy = httptest.NewServer(http.HandlerFunc(f.serveProxy))
	t.Cleanup(f.proxy.Close)
	return f
}

// trap has the next token request of a Caddy wait for a function.
func (f *clerk) trap(who, credential, where string, of func(context.Context)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.traps[&clerkTrap{who, credential, where, of}] = true
}

func (f *clerk) reach(ctx context.Context, who, credential, where string) {
	f.mu.Lock()
	var found *clerkTrap
	for trap := range f.traps {
		if trap.who == who && trap.credential == credential && trap.where == where {
			found = trap
			delete(f.traps, trap)
			break
		}
	}
	f.mu.Unlock()
	if found != nil {
		found.of(ctx)
	}
}

// secretOf is a client secret that tells who asks: nothing else may differ
// between those who share a token.
func secretOf(who string) string { return sharedSecret + "-of-" + who }

const sharedSecret = "secret-of-basic"

// serveToken answers at /<credential>/token.
func (f *clerk) serveToken(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || len(form) == 0 { // nothing was written
		panic(http.ErrAbortHandler)
	}
	_, secret, _ := r.BasicAuth()
	who, told := strings.CutPrefix(secret, secretOf(""))
	credential, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if !told {
		f.note(func() { f.strange = append(f.strange, "a token request of nobody") })
	}
	a := &asked{who: who, credential: credential, begun: time.Now(), used: make(map[string]time.Time)}
	down := false
	f.note(func() {
		if spent := form.Get("refresh_token"); spent != "" {
			a.spent = fingerprint(spent)
			f.secrets = append(f.secrets, spent)
		}
		f.asked = append(f.asked, a)
		down = f.down[credential]
	})
	if down {
		f.note(func() { a.status = http.StatusServiceUnavailable })
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	f.reach(r.Context(), who, credential, atCome)
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // its client has gone
	}
	header, text := f.pass(ctx, r, a, body)
	f.reach(r.Context(), who, credential, atGiven)
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler)
	}
	f.note(func() { a.answered = time.Now() })
	maps.Copy(w.Header(), header)
	w.WriteHeader(a.status)
	_, _ = w.Write(text) // whether it arrives is what the tests are about
}

// proxyOf is an address of the proxy that tells who dials, and for what.
func (f *clerk) proxyOf(who, credential string) string {
	return "http://" + who + ":" + credential + "@" + f.proxy.Listener.Addr().String()
}

// serveProxy makes connections: nothing else between a lock and a token request
// has a caller wait for as long as it may pause.
func (f *clerk) serveProxy(w http.ResponseWriter, r *http.Request) {
	told := http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}
	who, credential, _ := told.BasicAuth()
	f.reach(r.Context(), who, credential, atDial)
	var d net.Dialer
	server, err := d.DialContext(r.Context(), "tcp", r.Host)
	if err != nil || r.Method != http.MethodConnect {
		panic(http.ErrAbortHandler)
	}
	defer server.Close()
	w.WriteHeader(http.StatusOK)
	client, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer client.Close()
	go func() {
		_, _ = io.Copy(server, client) // until one of them ends
		server.Close()
	}()
	_, _ = io.Copy(client, server)
}

// pass has the server answer one request.
func (f *clerk) pass(ctx context.Context, r *http.Request, a *asked, body []byte) (http.Header, []byte) {
	f.note(func() { a.passed = time.Now() })
	req, err := http.NewRequestWithContext(ctx, r.Method, f.behind, bytes.NewReader(body))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	req.Header = r.Header.Clone()
	req.SetBasicAuth("basic", sharedSecret)
	resp, err := f.way.RoundTrip(req)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	f.keep(a, resp.StatusCode, text)
	return resp.Header, text
}

func (f *clerk) keep(a *asked, status int, text []byte) {
	var got tokens
	err := json.Unmarshal(text, &got)
	f.mu.Lock()
	defer f.mu.Unlock()
	a.read, a.status = time.Now(), status
	if err != nil || status != http.StatusOK {
		a.code = strings.TrimSpace(fmt.Sprint(got.Error, " ", status))
		return
	}
	a.granted, a.ttl = true, time.Duration(got.ExpiresIn)*time.Second
	if got.RefreshToken != "" {
		a.next = fingerprint(got.RefreshToken)
		f.secrets = append(f.secrets, got.RefreshToken)
	}
	f.tokens[got.AccessToken] = a
	f.secrets = append(f.secrets, got.AccessToken)
}

func (f *clerk) note(of func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	of()
}

const whoHeader = "Interop-Who"

// serveUpstream takes the tokens that the server gave, until they end.
func (f *clerk) serveUpstream(w http.ResponseWriter, r *http.Request) {
	bearer := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	at, err := stamped(r.Header)
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.tokens[bearer]
	switch {
	case a == nil:
		f.strange = append(f.strange, "a token that the server did not give, or none")
	case err != nil:
		f.strange = append(f.strange, err.Error())
	case at.After(a.read.Add(a.ttl)):
		f.strange = append(f.strange, "a token that had ended")
	case r.Header.Get("Interop-Credential") != a.credential:
		f.strange = append(f.strange, "another credential's token")
	default:
		if who := r.Header.Get(whoHeader); a.used[who].IsZero() {
			a.used[who] = time.Now()
		}
		fmt.Fprintln(w, "welcome")
		return
	}
	w.Header().Set("WWW-Authenticate", "Bearer")
	http.Error(w, "that token is no good", http.StatusUnauthorized)
}

// seen is a copy of the token requests for a credential, "" for all.
func (f *clerk) seen(credential string) []asked {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []asked
	for _, a := range f.asked {
		if credential == "" || a.credential == credential {
			copied := *a
			copied.used = maps.Clone(a.used)
			all = append(all, copied)
		}
	}
	return all
}

// grants are those that brought a token.
func (f *clerk) grants(credential string) []asked {
	return slices.DeleteFunc(f.seen(credential), func(a asked) bool { return !a.granted })
}

// refusals are those that the server refused.
func (f *clerk) refusals(credential string) []asked {
	return slices.DeleteFunc(f.seen(credential), func(a asked) bool { return a.code == "" })
}

// history is a text of what came for a credential.
func (f *clerk) history(credential string) string {
	var text strings.Builder
	for _, a := range f.seen(credential) {
		fmt.Fprintf(&text, "%s: %s spent %.8s, status %d %s, next %.8s; passed on: %t, answered: %t, used by", a.begun.Format("05.000"), a.who, a.spent, a.status, a.code, a.next, !a.passed.IsZero(), !a.answered.IsZero())
		for _, who := range slices.Sorted(maps.Keys(a.used)) {
			fmt.Fprintf(&text, " %s at %s", who, a.used[who].Format("05.000"))
		}
		text.WriteString("\n")
	}
	return text.String()
}

// newestOf is the newest token that one has used.
func newestOf(all []asked, who string) (newest asked) {
	for _, a := range all {
		if !a.used[who].IsZero() && a.begun.After(newest.begun) {
			newest = a
		}
	}
	return newest
}

// spentTwice are the refresh tokens that the server was shown more than once.
func (f *clerk) spentTwice(credential string) []string {
	var twice []string
	count := make(map[string]int)
	for _, a := range f.seen(credential) {
		if a.spent != "" && !a.passed.IsZero() {
			if count[a.spent]++; count[a.spent] == 2 {
				twice = append(twice, a.spent)
			}
		}
	}
	return twice
}
