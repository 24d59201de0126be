package caddymodule

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// TestFaults: whatever an authorization server does on a real socket is one of
// the three failures, brings no token to the API, and is over when it is over.
func TestFaults(t *testing.T) {
	var stolen atomic.Int32
	thief := listen(t, "127.0.0.1:0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { stolen.Add(1) }))
	odd := func(name string, value any) authserver.Fault {
		return authserver.Answer(func(a map[string]any) { a[name] = value })
	}
	cases := map[string]struct {
		fault authserver.Fault
		kind  string
	}{
		"503":                     {authserver.Down(), "unreachable"},
		"500 with an error":       {authserver.Raw(500, "application/json", `{"error":"invalid_request"}`), "unreachable"},
		"408":                     {authserver.Status(408), "unreachable"},
		"425":                     {authserver.Status(425), "unreachable"},
		"429":                     {authserver.TooMany("1"), "unreachable"},
		"hang":                    {authserver.Hang(), "unreachable"},
		"too slow":                {authserver.Slow(time.Minute), "unreachable"},
		"drip":                    {authserver.Drip(time.Second), "unreachable"},
		"reset":                   {authserver.Reset(), "unreachable"},
		"cut body":                {authserver.CutBody(), "unreachable"},
		"temporarily":             {authserver.Invalid("temporarily_unavailable", ""), "unreachable"},
		"invalid_client":          {authserver.Invalid("invalid_client", "no"), "refused"},
		"403, empty":              {authserver.Status(403), "refused"},
		"error under 200":         {authserver.Raw(200, "application/json", `{"errcode":40013,"errmsg":"invalid appid"}`), "refused"},
		"page":                    {authserver.Raw(200, "text/html", "<html>log in"), "malformed"},
		"empty":                   {authserver.Raw(200, "application/json", ""), "malformed"},
		"truncated":               {authserver.Raw(200, "application/json", `{"access_token":"at-tok`), "malformed"},
		"204":                     {authserver.Status(204), "malformed"},
		"1 GiB":                   {authserver.Huge(1 << 30), "malformed"},
		"302":                     {authserver.Redirect(302, thief.URL()), "malformed"},
		"307":                     {authserver.Redirect(307, thief.URL()), "malformed"},
		"308":                     {authserver.Redirect(308, thief.URL()), "malformed"},
		"header split":            {odd("access_token", "at-tok\r\nX-Evil: 1"), "malformed"},
		"type mac":                {odd("token_type", "mac"), "malformed"},
		"type N_A":                {odd("token_type", "N_A"), "malformed"},
		"no token, but an ID one": {authserver.Answer(func(a map[string]any) { a["id_token"] = a["access_token"]; delete(a, "access_token") }), "malformed"},
	}
	// all of them in one Caddy, so that they are waited for together
	all := newParts(t, authserver.Config{})
	credential, site := all.credential(), ""
	servers, first := make(map[string]*parts), make(map[string]answer)
	for name, tc := range cases {
		f := all.beside(fmt.Sprintf("faulty-%d", len(servers)), authserver.Config{})
		servers[name] = f
		f.auth.SetFault(tc.fault)
		credential += f.block("timeout 300ms")
		site += f.route("upstream_auth " + f.name + " {\nwait 1s\n}\nreverse_proxy " + f.upstream.Addr())
	}
	all.run(credential, site)
	var mu sync.Mutex
	var asking sync.WaitGroup
	for name := range cases {
		asking.Go(func() {
			a := all.get("/"+servers[name].name+"/", "X-Evil", "")
			mu.Lock()
			defer mu.Unlock()
			first[name] = a
		})
	}
	asking.Wait()
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := servers[name]
			if a := first[name]; a.status != 503 && a.status != 502 {
				t.Errorf("got %d without a token", a.status)
			}
			eventually(t, "the failure is told", func() bool {
				return all.lines(`"credential":"`+f.name+`","kind":"`+tc.kind+`"`) > 0
			})
			if n := f.api.OK() + f.api.Missing() + f.api.Unknown() + f.api.Malformed(); n != 0 {
				t.Errorf("the API was asked %d times", n)
			}
			f.auth.SetFault(nil)
		})
	}
	for name := range cases {
		t.Run(name+"/mended", func(t *testing.T) {
			p := all.of(t)
			eventually(t, "a good answer", func() bool { return p.get("/"+servers[name].name+"/").status == 200 })
		})
	}
	if stolen.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

// TestOddAnswers: what is odd, and a token all the same.
func TestOddAnswers(t *testing.T) {
	for name, fault := range map[string]authserver.Fault{
		"expires_in a string": authserver.Answer(func(a map[string]any) { a["expires_in"] = "3599" }),
		"expires_in missing":  authserver.Answer(func(a map[string]any) { delete(a, "expires_in") }),
		"expires_in negative": authserver.Answer(func(a map[string]any) { a["expires_in"] = -1 }),
		"BearerToken":         authserver.Answer(func(a map[string]any) { a["token_type"] = "BearerToken" }),
		"type missing":        authserver.Answer(func(a map[string]any) { delete(a, "token_type") }),
		"an ID token, too":    authserver.Answer(func(a map[string]any) { a["id_token"] = "not-for-apis" }),
		"as text":             authserver.AnswerHeader("Content-Type", "text/plain"),
		"dripped in time":     authserver.Drip(time.Millisecond),
	} {
		t.Run(name, func(t *testing.T) {
			p := newParts(t, authserver.Config{})
			p.auth.SetFault(fault)
			p.run(p.credential(), "reverse_proxy $API {\ntransport upstream_auth crm\n}")
			p.want(p.get("/"), 200)
			if p.auth.Requests() != 1 {
				t.Errorf("%d token requests", p.auth.Requests())
			}
		})
	}
}
