package caddymodule

import (
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// command runs a command that asks the process, which ends with a code and says
// something on the one stream or the other, not on both.
func (a *admin) command(code int, args ...string) string {
	a.t.Helper()
	c := a.caddy(append(append([]string{"upstream-auth"}, args...), "--address", a.address)...)
	out := a.ended(c, code)
	if code < exitUnasked {
		c.quiet()
	} else if out != "" {
		a.t.Errorf("printed %s", out)
	}
	return out + c.errors.String()
}

// TestRefreshCommand: a new token, and what comes in its place.
func TestRefreshCommand(t *testing.T) {
	p := newParts(t, authserver.Config{})
	a := p.runAdmin(p.credential()+credentialToo("erp", p.credential())+credentialToo("tenants", p.credential(tenant)), injecting)
	p.held()
	out := a.command(0, "refresh", "crm")
	if !regexp.MustCompile(`^crm: new token, valid for 59m, in \d+(ms|\.\d+s|s)\n$`).MatchString(out) {
		t.Errorf("got %q", out)
	}
	if forcedRequests("success") != 1 {
		t.Error("no token was asked for")
	}
	says(t, a.command(1, "refresh", "tenants"), "tenants: credential 'tenants' has a token for each value")
	says(t, a.command(2, "refresh", "hr"), "credential 'hr' is not defined; defined are: crm, erp, tenants")
	says(t, a.command(2, "refresh"), "expected the name of one credential")
	says(t, a.command(2, "refresh", "crm", "erp"), "expected the name of one credential")
	if r := parsed[report](t, answer{body: a.command(0, "refresh", "erp", "--json")}); r.Name != "erp" || !r.Ready {
		t.Errorf("got %+v", r)
	}
}

// TestRefreshCommandFails: what is wrong and what to do, and the proxy goes on.
func TestRefreshCommandFails(t *testing.T) {
	p := newParts(t, authserver.Config{})
	a := p.runAdmin(p.credential()+credentialToo("erp", p.credential()), injecting)
	p.held()
	eventually(t, "a token", func() bool { return credentials.newest()["erp"].source.Snapshot().Held })
	p.auth.SetFault(authserver.TooMany("60"))
	says(t, a.command(1, "refresh", "crm"), "crm: no new token; the token request failed; the token held serves for another 59 minutes",
		"\n  failure        unreachable: HTTP 429\n", "\n  what is wrong  ", "\n  what to do     ", "\n  more           https://")
	p.want(p.get("/"), 200)
	says(t, a.command(1, "refresh", "crm"), "crm: the server asked not to be asked before ")
	out := a.command(1, "refresh", "erp", "--json")
	a.wantError(answer{502, http.Header{"Content-Type": {"application/json"}}, out}, 502, "no new token has come: unreachable: HTTP 429")
	says(t, a.command(1, "refresh", "crm", "--json"), `{"error":"the server asked not to be asked before `)
}

// TestRefreshInterrupted: Ctrl-C ends the wait, and not the token request.
func TestRefreshInterrupted(t *testing.T) {
	p := newParts(t, authserver.Config{})
	a := p.runAdmin(p.credential(), injecting)
	p.held()
	fault, letGo := hangingToken()
	defer letGo()
	p.auth.FailNext(1, fault)
	c := p.caddy("upstream-auth", "refresh", "crm", "--address", a.address)
	eventually(t, "the token request", func() bool { return p.auth.Requests() == 2 })
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	p.ended(c, 2)
	says(t, c.errors.String(), "interrupted")
	letGo()
	eventually(t, "the token", func() bool { return forcedRequests("success") == 1 })
}

// TestRefreshOfStrangers: whatever answers at an address, a terminal gets text.
func TestRefreshOfStrangers(t *testing.T) {
	const evil = `\u001b]0;x\u0007\r\n\u202eabc`
	p := newParts(t, authserver.Config{})
	for document, status := range map[string]int{
		`{"error":"` + evil + `"}`: 429,
		`{"name":"` + evil + `","token":{"expires":"` + time.Now().Add(time.Hour).Format(time.RFC3339) + `"}}`: 200,
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(document))
		}))
		t.Cleanup(s.Close)
		a := &admin{parts: p, address: strings.TrimPrefix(s.URL, "http://")}
		code := 1
		if status == 200 {
			code = 0
		}
		says(t, a.command(code, "refresh", "crm"), "abc")
	}
}
