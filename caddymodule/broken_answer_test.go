package caddymodule

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

// brokenAnswers is an API whose answers come whole, break off, wait for the
// client to go, or turn into something else.
func brokenAnswers(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/whole":
		fmt.Fprint(w, "all of it")
	case "/broken", "/left":
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "half of it")
		http.NewResponseController(w).Flush()
		if r.URL.Path == "/left" {
			<-r.Context().Done()
		}
		panic(http.ErrAbortHandler)
	case "/upgrade":
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(conn, io.LimitReader(conn, 5))
	}
}

// TestAnswerBreaksOff: one of the two says so, reverse_proxy if it has a log and
// the transport if not; and nobody does where the client has gone.
func TestAnswerBreaksOff(t *testing.T) {
	const (
		caddys = `"msg":"aborting with incomplete response"`
		ours   = `"msg":"an upstream's answer breaks off"`
	)
	for name, test := range map[string]struct {
		log          string
		caddys, ours int
	}{
		"with its log":     {"level INFO", 1, 0},
		"without":          {"level INFO\nexclude http.handlers.reverse_proxy", 0, 1},
		"without warnings": {"level ERROR\nexclude http.handlers.reverse_proxy", 0, 0},
		"with no warnings": {"level ERROR", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParts(t, authserver.Config{})
			api := listen(t, freeport.Addr(t), http.HandlerFunc(brokenAnswers))
			config := p.caddyfile(p.credential(), "reverse_proxy "+api.Addr()+" {\nflush_interval -1\ntransport upstream_auth crm\n}")
			if err := p.load(strings.Replace(config, "level DEBUG", test.log, 1)); err != nil {
				t.Fatal(err)
			}
			if a := p.get("/whole"); a.body != "all of it" {
				t.Errorf("got %q", a.body)
			}
			if a, err := p.try(http.MethodGet, "/broken?secret=s3cret", nil); err == nil || a.body != "half of it" {
				t.Errorf("got %q, %v", a.body, err)
			}
			ctx, leave := context.WithCancel(t.Context())
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.proxy+"/left", nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := p.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			leave()
			res.Body.Close()
			if echoed := upgraded(t, p.proxy); echoed != "hello" {
				t.Errorf("after an upgrade: %q", echoed)
			}
			p.stop() // when all requests have ended
			if n := p.lines(caddys); n < test.caddys || test.caddys == 0 && n > 0 {
				t.Errorf("reverse_proxy says it %d times, want %d", n, test.caddys)
			}
			if n := p.lines(ours); n != test.ours {
				t.Errorf("the transport says it %d times, want %d", n, test.ours)
			}
			if test.ours == 0 {
				return
			}
			for _, want := range []string{`"credential":"crm"`, `"upstream":"` + api.Addr() + `"`, `"method":"GET"`, `"status":200`, `"bytes":10`, `"error":"unexpected EOF"`} {
				if p.lines(want) == 0 {
					t.Errorf("the log does not say %s:\n%s", want, p.logged())
				}
			}
			if p.lines("s3cret") > 0 {
				t.Error("the log has the query")
			}
		})
	}
}

// upgraded sends hello once the protocol is another, and gives what comes back.
func upgraded(t *testing.T, addr string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /upgrade HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", addr)
	r := bufio.NewReader(conn)
	if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v, %v", res, err)
	}
	fmt.Fprint(conn, "hello")
	echoed := make([]byte, 5)
	if _, err := io.ReadFull(r, echoed); err != nil {
		t.Error(err)
	}
	return string(echoed)
}
