package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The upstream is a process of its own, for it is killed now and then: the soak
// starts itself with the argument upstream. It tells in header fields of its
// answer what it made of a request, and prints a line for each that it saw
// something wrong with.
const (
	upstreamCommand   = "upstream"
	verdictHeader     = "X-Soak-Verdict"
	fingerprintHeader = "X-Soak-Fingerprint"
	numberHeader      = "X-Soak-Number"

	verdictGood      = "good"
	verdictUnchecked = "unchecked" // the server did not answer, so it is taken
	verdictExpired   = "expired"
	verdictInactive  = "inactive"
	verdictMissing   = "missing" // no token, or more than one
	verdictBody      = "body"    // not as it was sent
)

// introspectionAge is how long an answer of the server's is believed.
const introspectionAge = time.Second

// postBody is what a POST of the load carries.
var postBody = strings.Repeat("0123456789abcdef", 128)

// resource is the upstream: it checks each token against its own clock, and by
// introspection (RFC 7662).
type resource struct {
	provider string
	client   *http.Client

	mu    sync.Mutex
	known map[string]*checked
	out   *json.Encoder
}

// checked is what is known of a token.
type checked struct {
	first  chan struct{} // closed when the first answer is there, or did not come
	exp    int64         // 0 while it is not known
	active bool
	asked  time.Time
}

// upstreamListens is the line with which it says that it does.
const upstreamListens = "listening"

func upstreamMain(args []string) error {
	flags := flag.NewFlagSet(upstreamCommand, flag.ContinueOnError)
	listen := flags.String("listen", "", "")
	provider := flags.String("provider", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	u := &resource{
		provider: *provider, client: &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
		known: make(map[string]*checked), out: json.NewEncoder(os.Stdout),
	}
	go func() { // it does not outlive the soak
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println(upstreamListens)
	return (&http.Server{Handler: u, ReadHeaderTimeout: time.Minute}).Serve(l)
}

func (u *resource) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := time.Now()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has gone
	}
	verdict, token, exp := u.judge(r, at)
	if verdict == verdictGood && r.Method == http.MethodPost && string(body) != postBody {
		verdict = verdictBody
	}
	w.Header().Set(verdictHeader, verdict)
	w.Header().Set(fingerprintHeader, token)
	if verdict != verdictGood {
		number, _ := strconv.Atoi(r.Header.Get(numberHeader))
		u.mu.Lock()
		_ = u.out.Encode(refusal{verdict, token, r.Header.Get(processHeader), number, at.UnixNano(), exp}) // to nobody
		u.mu.Unlock()
	}
	switch verdict {
	case verdictExpired, verdictInactive:
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		http.Error(w, "that token is no good", http.StatusUnauthorized)
	case verdictMissing:
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "one token, please", http.StatusUnauthorized)
	case verdictBody:
		http.Error(w, "that is not what was sent", http.StatusBadRequest)
	default:
		fmt.Fprintln(w, "welcome")
	}
}

func (u *resource) judge(r *http.Request, at time.Time) (verdict, token string, exp int64) {
	fields := r.Header.Values("Authorization")
	if len(fields) != 1 || !strings.HasPrefix(fields[0], "Bearer ") {
		return verdictMissing, "", 0
	}
	bearer := strings.TrimPrefix(fields[0], "Bearer ")
	c := u.look(bearer)
	<-c.first
	u.mu.Lock()
	defer u.mu.Unlock()
	switch token = fingerprint(bearer); {
	case c.exp == 0 && c.active:
		return verdictUnchecked, token, 0
	case c.exp != 0 && at.Unix() >= c.exp:
		return verdictExpired, token, c.exp
	case !c.active:
		return verdictInactive, token, c.exp
	}
	return verdictGood, token, c.exp
}

// look finds what is known of a token, and asks again in the background where
// that is old.
func (u *resource) look(token string) *checked {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := u.known[token]
	switch {
	case c == nil:
		c = &checked{first: make(chan struct{}), active: true, asked: time.Now()}
		u.known[token] = c
		go func() {
			defer close(c.first)
			u.ask(token, c)
		}()
	case c.active && time.Since(c.asked) > introspectionAge:
		c.asked = time.Now()
		go u.ask(token, c)
	}
	return c
}

// ask has the server's word on a token; where there is none, what was known
// stands.
func (u *resource) ask(token string, c *checked) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.provider+"/token/introspection", strings.NewReader(url.Values{"token": {token}}.Encode()))
	if err != nil {
		return
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("upstream", introspectionSecret)
	res, err := u.client.Do(req)
	if err != nil {
		return
	}
	defer res.Body.Close()
	var said struct {
		Active bool
		Exp    int64
	}
	if res.StatusCode != http.StatusOK || json.NewDecoder(res.Body).Decode(&said) != nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	c.active = said.Active
	if said.Exp != 0 {
		c.exp = said.Exp
	}
}
