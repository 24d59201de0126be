package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// processHeader names the Caddy process on token requests, on upstream requests
// and on answers.
const processHeader = "X-Soak-Process"

// proxy stands between Caddy and the token endpoint: it does the faults, and
// notes who was given which token and when.
type proxy struct {
	book     *book
	watch    *watch
	provider *provider
	way      *http.Transport
	refused  func(a ask) // told of each invalid_grant

	mu     sync.Mutex
	addr   string
	server *http.Server
	faults map[string]*fault // by credential
	secret string            // of the client whose secret is changed, as of today
}

func newProxy(b *book, w *watch, p *provider) *proxy {
	return &proxy{
		book: b, watch: w, provider: p, faults: make(map[string]*fault),
		way: &http.Transport{DisableKeepAlives: true}, // the server may be killed at any time
	}
}

func (p *proxy) url() string { return "http://" + p.addr }

// listen begins to take connections, the first time or again.
func (p *proxy) listen() error {
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	p.mu.Lock()
	p.server = server
	p.mu.Unlock()
	go func() { _ = server.Serve(l) }() // until it is closed
	return nil
}

// deny has connections refused, as those to a server that does not run.
func (p *proxy) deny() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.server.Close()
}

func (p *proxy) setFault(credential string, f *fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f == nil {
		delete(p.faults, credential)
		return
	}
	p.faults[credential] = f
}

func (p *proxy) faulty(credential string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults[credential] != nil
}

// setSecret has it known as the only one from now on.
func (p *proxy) setSecret(secret string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.secret = secret
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := &ask{credential: strings.TrimPrefix(r.URL.Path, "/"), process: processOf(r), arrived: time.Now()}
	p.book.with(func() { p.book.asks = append(p.book.asks, a) })
	defer func() { p.book.with(func() { a.ended = time.Now() }) }()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	p.watch.form(body)
	if form, err := url.ParseQuery(string(body)); err == nil && form.Has("refresh_token") {
		p.book.with(func() { a.spent = fingerprint(form.Get("refresh_token")) })
	}
	p.mu.Lock()
	f := p.faults[a.credential]
	p.mu.Unlock()
	if f != nil {
		p.book.with(func() { a.fault = f.kind })
		f.answer(p, w, r, a, body)
		return
	}
	if status, answer, err := p.forward(r, a, body); err == nil {
		p.reply(w, r, a, status, answer)
		return
	}
	hangUp(w)
}

// processOf is the process that makes a token request.
func processOf(r *http.Request) string {
	basic, ok := strings.CutPrefix(r.Header.Get("Proxy-Authorization"), "Basic ")
	if !ok {
		return r.Header.Get(processHeader)
	}
	pair, err := base64.StdEncoding.DecodeString(basic)
	if err != nil {
		return ""
	}
	name, _, _ := strings.Cut(string(pair), ":")
	return name
}

// forward passes a request on, and notes the token that comes of it.
func (p *proxy) forward(r *http.Request, a *ask, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(r.Context(), r.Method, p.provider.issuer+"/token", bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header = r.Header.Clone()
	if a.credential == rotating && !p.swapSecret(req) {
		p.book.with(func() { a.fault = secretRotated })
		return http.StatusUnauthorized, []byte(`{"error":"invalid_client"}`), nil
	}
	p.book.with(func() { a.forwarded = true })
	res, err := p.way.RoundTrip(req)
	if err != nil {
		if op, is := errors.AsType[*net.OpError](err); is && op.Op == "dial" {
			p.book.with(func() { a.forwarded = false })
		}
		return 0, nil, err
	}
	defer res.Body.Close()
	if answer, err = io.ReadAll(res.Body); err != nil {
		return 0, nil, err
	}
	var said struct {
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
		ExpiresIn    int    `json:"expires_in"`
		Error        string
	}
	if json.Unmarshal(answer, &said) == nil {
		p.watch.secret("an access token", said.AccessToken)
		p.watch.secret("a refresh token", said.RefreshToken)
		p.book.with(func() {
			a.code = said.Error
			if said.AccessToken != "" {
				a.token, a.life = fingerprint(said.AccessToken), time.Duration(said.ExpiresIn)*time.Second
				p.book.raw[a.token] = said.AccessToken
			}
		})
	}
	return res.StatusCode, answer, nil
}

// reply gives an answer in one piece.
func (p *proxy) reply(w http.ResponseWriter, r *http.Request, a *ask, status int, answer []byte) {
	p.book.with(func() { a.status = status })
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if _, err := w.Write(answer); err != nil { //nolint:gosec // to no browser
		return
	}
	p.deliver(w, r, a)
}

// deliver notes that an answer went out whole, to a client that was still there.
func (p *proxy) deliver(w http.ResponseWriter, r *http.Request, a *ask) {
	if http.NewResponseController(w).Flush() != nil || r.Context().Err() != nil {
		return
	}
	p.book.with(func() {
		if a.token != "" && a.status == http.StatusOK {
			a.delivered = time.Now()
		}
	})
	if a.code == "invalid_grant" {
		p.refused(*a)
	}
}

// swapSecret puts the server's idea of the secret in place of today's, if that
// is what the client showed.
func (p *proxy) swapSecret(r *http.Request) bool {
	p.mu.Lock()
	today := p.secret
	p.mu.Unlock()
	c := clientOf(rotating)
	id, secret, ok := r.BasicAuth()
	if !ok || id != c.id || secret != today {
		return false
	}
	pair := url.QueryEscape(c.id) + ":" + url.QueryEscape(c.secret)
	r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(pair)))
	return true
}

// hangUp resets a connection.
func hangUp(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// rest waits, unless the context ends before.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
