package caddymodule

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

// TestStatusWaits: for a process, for a token, and no longer than it was told.
func TestStatusWaits(t *testing.T) {
	p := newParts(t, authserver.Config{})
	socket := filepath.Join(t.TempDir(), "admin.sock")
	at := "unix/" + socket
	p.auth.SetFault(authserver.Down())
	all := p.caddy("upstream-auth", "status", "--wait", "5m", "--address", at)
	one := p.caddy("upstream-auth", "status", "crm", "--wait", "5m", "--address", at, "--json")
	if err := p.load(p.administered(at+"|0600", p.credential(), injecting)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "failures", func() bool { return credentials.newest()["crm"].source.Snapshot().Failures > 0 })
	none := p.caddy("upstream-auth", "status", "--wait", "1s", "--address", at)
	says(t, p.ended(none, 1), "CREDENTIAL ", "Not ready: no valid token is held for crm.")
	none.quiet()
	if text := all.all() + one.all(); text != "" {
		t.Errorf("before there is a token they say %s", text)
	}
	p.auth.SetFault(nil)
	says(t, p.ended(all, 0), "\ncrm         ok", "\nReady: ")
	all.quiet()
	says(t, p.ended(one, 0), `"state":"ok"`)
	one.quiet()

	// one that is not there is not waited for
	lost := p.caddy("upstream-auth", "status", "hr", "--wait", "5m", "--address", at)
	p.ended(lost, 2)
	says(t, lost.errors.String(), "credential 'hr' is not defined; defined are: crm")
}

// TestStatusWaitsInVain: nobody is there, or nothing that can be waited for was
// asked.
func TestStatusWaitsInVain(t *testing.T) {
	p := newParts(t, authserver.Config{})
	for name, tc := range map[string]struct {
		args []string
		says string
	}{
		"nobody":     {[]string{"--wait", "1s", "--address", "unix/" + t.TempDir() + "/no.sock"}, "nothing listens at "},
		"no time":    {[]string{"--wait", "soon", "--address", freeport.Addr(t)}, "--wait: 'soon' is not a duration such as 30s or 10m"},
		"none at":    {[]string{"--wait", "0s", "--address", freeport.Addr(t)}, "--wait: '0s'"},
		"the past":   {[]string{"--wait", "-1s", "--address", freeport.Addr(t)}, "--wait: '-1s'"},
		"no address": {[]string{"--wait", "5m", "--address", "localhost"}, "expected an address such as"},
	} {
		t.Run(name, func(t *testing.T) {
			c := p.caddy(append([]string{"upstream-auth", "status"}, tc.args...)...)
			if out := p.ended(c, 2); out != "" {
				t.Errorf("printed %s", out)
			}
			says(t, c.errors.String(), tc.says)
		})
	}
}

// TestStatusWaitsForCredentials: a process that is starting has none for a
// moment, and is not ready for that.
func TestStatusWaitsForCredentials(t *testing.T) {
	answers := make(chan string, 3)
	answers <- `{"ready":true,"credentials":[]}`
	answers <- `{"ready":false,"credentials":[{"name":"crm"}]}`
	answers <- `{"ready":true,"credentials":[{"name":"crm"}]}`
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(<-answers)) }))
	defer s.Close()
	process, err := newProcess(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	r, err := (&statusWait{process: process, path: credentialsPath, most: time.Minute}).answer(t.Context())
	if err != nil || !strings.Contains(string(r.body), `"ready":true`) || len(answers) != 0 {
		t.Errorf("got %s, %v, and %d answers are left", r.body, err, len(answers))
	}
}
