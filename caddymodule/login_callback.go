package caddymodule

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"html"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// result is what the browser brought.
type result struct {
	code string
	err  error
}

// callback is what listens on the redirect URI.
type callback struct {
	state  string
	server *oauth.Metadata // nil without an issuer
	path   string
	done   chan result   // gets one
	stray  chan struct{} // gets one, after an answer that is not of this login

	mu            sync.Mutex
	used, strayed bool
}

func newCallback(state string, server *oauth.Metadata) *callback {
	return &callback{state: state, server: server, done: make(chan result, 1), stray: make(chan struct{}, 1)}
}

// listen answers at the redirect URI until stop is called.
func (b *callback) listen(redirectURI string) (stop func(), err error) {
	u, err := url.Parse(redirectURI)
	if err != nil {
		return nil, err
	}
	if b.path = u.Path; b.path == "" {
		b.path = "/"
	}
	listeners, err := listenOn(u.Hostname(), u.Port())
	if err != nil {
		return nil, fmt.Errorf("the redirect_uri %s cannot be listened on: %w; if another program or another login has the port, end it, or take another one here and at the server", redirectURI, err)
	}
	server := &http.Server{Handler: b, ReadHeaderTimeout: 10 * time.Second}
	var serving sync.WaitGroup
	for _, l := range listeners {
		serving.Go(func() { _ = server.Serve(l) })
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = server.Shutdown(ctx) // the page that says that all is well is still under way
		_ = server.Close()       // and what a browser has opened ahead of need
		serving.Wait()           // or the port is still in use
	}, nil
}

// listenOn opens a port. For localhost it is that of both families, for the
// browser may take either: if another program had the one, it would get the code.
func listenOn(host, port string) ([]net.Listener, error) {
	if port == "0" {
		return nil, errors.New("port 0 is none")
	}
	hosts := []string{host}
	if host == "localhost" {
		hosts = []string{"127.0.0.1", "::1"}
	}
	var listeners []net.Listener
	for _, host := range hosts {
		l, err := net.Listen("tcp", net.JoinHostPort(host, port))
		if err != nil && len(hosts) > 1 && !has(host) {
			continue // a machine without this family
		}
		if err != nil {
			for _, l := range listeners {
				_ = l.Close()
			}
			return nil, err
		}
		listeners = append(listeners, l)
	}
	if len(listeners) == 0 {
		return nil, errors.New("this machine has neither 127.0.0.1 nor ::1")
	}
	return listeners, nil
}

// has tells whether this machine has an address.
func has(host string) bool {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}

// ServeHTTP takes the code, once.
func (b *callback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	switch {
	case path != b.path:
		http.NotFound(w, r)
		return
	case r.Method != http.MethodGet: // what only looks at an address must not use up the code
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
		return
	}
	q := r.URL.Query()
	state := q["state"]
	if len(state) != 1 || subtle.ConstantTimeCompare([]byte(state[0]), []byte(b.state)) != 1 {
		// not an answer to our question: somebody else's, or of an earlier login
		if b.first(&b.strayed) {
			b.stray <- struct{}{}
		}
		page(w, http.StatusBadRequest, "Not this login", "This answer is not of the login that is under way. Open the address that the terminal shows.")
		return
	}
	if !b.first(&b.used) {
		page(w, http.StatusBadRequest, "Already done", "This login was answered before. Look at the terminal for what came of it.")
		return
	}
	res := b.read(q)
	if res.err != nil {
		page(w, http.StatusBadRequest, "The login failed", "Look at the terminal for what went wrong.")
	} else {
		page(w, http.StatusOK, "The browser has done its part", "The terminal says what came of the login. You can close this window.")
	}
	b.done <- res
}

// first tells whether something happens for the first time.
func (b *callback) first(before *bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	was := *before
	*before = true
	return !was
}

// read makes something of the answer's parameters (RFC 6749 §4.1.2, RFC 9207).
func (b *callback) read(q url.Values) result {
	for _, name := range []string{"iss", "error", "error_description", "code"} {
		if len(q[name]) > 1 { // RFC 6749 §3.1
			return result{err: fmt.Errorf("the browser brought more than one %s, so none is used: was the address changed on its way?", name)}
		}
	}
	iss, refusal := q.Get("iss"), q.Get("error")
	switch m := b.server; {
	case m == nil:
	case iss != "" && iss != m.Issuer:
		return result{err: fmt.Errorf("the browser came from another server than %s (iss is %s), so what it brought is not used: was the login begun anew in a fresh window?", m.Issuer, printed(iss))}
	case iss == "" && refusal == "" && m.IssParameterSupported:
		return result{err: fmt.Errorf("the browser brought no iss, which the metadata of %s promises (RFC 9207), so the code is not used: does it come from that server?", m.Issuer)}
	}
	if refusal != "" {
		err := fmt.Errorf("the server refused the login: %s", printed(refusal))
		if words := q.Get("error_description"); words != "" {
			err = fmt.Errorf("%w: %s", err, printed(words))
		}
		return result{err: err}
	}
	if q.Get("code") == "" {
		return result{err: errors.New("the browser brought neither a code nor an error: is this the server's authorization endpoint?")}
	}
	return result{code: q.Get("code")}
}

func page(w http.ResponseWriter, status int, title, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	h.Set("Referrer-Policy", "no-referrer") // the code stands in the address
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>%[1]s</title>
<style>:root{color-scheme:light dark}body{font:1.1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem}</style>
<h1>%[1]s</h1><p>%[2]s</p>
`, html.EscapeString(title), html.EscapeString(text))
}
