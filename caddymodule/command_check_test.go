package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

// ended waits for the end of a program, and returns its exit code.
func (c *program) ended() int {
	c.t.Helper()
	_ = c.cmd.Wait() // the code tells
	return c.cmd.ProcessState.ExitCode()
}

// TestCheckCommand: what is printed where, and the exit codes.
func TestCheckCommand(t *testing.T) {
	p := newParts(t, authserver.Config{})
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := p.crm(p.credential())
	bad := strings.Replace(good, "credential crm {", "credential erp {\n"+strings.Replace(p.credential(), "client_id app", "client_id erp", 1)+"}\ncredential crm {", 1)
	write("Caddyfile", bad)
	for name, tc := range map[string]struct {
		args     []string
		code     int
		out, err string
	}{
		"good":              {args: []string{"crm"}, out: "No credential failed.\n"},
		"one is bad":        {code: 1, out: "Failed: erp.\n"},
		"named":             {args: []string{"erp"}, code: 1, out: "Failed: erp.\n"},
		"JSON config":       {args: []string{"--config", write("caddy.json", string(adapt(t, good)))}, out: "No credential failed.\n"},
		"another name":      {args: []string{"--config", write("config.txt", good), "--adapter", "caddyfile"}, out: "No credential failed.\n"},
		"an environment":    {args: []string{"--envfile", write("one.env", "UNUSED=1\n"), "crm"}, out: "No credential failed.\n"},
		"unknown":           {args: []string{"hr"}, code: 2, err: "credential 'hr' is not defined; defined are: crm, erp"},
		"an unknown flag":   {args: []string{"--nonsense"}, code: 2, err: "nonsense"},
		"a bad timeout":     {args: []string{"--timeout", "-1s"}, code: 2, err: "--timeout: -1s is out of range"},
		"a value of no use": {args: []string{"--value", "http.request.host=x"}, code: 2, err: "is of no use"},
		"no such config":    {args: []string{"--config", "/nonexistent/Caddyfile"}, code: 2, err: "/nonexistent/Caddyfile"},
		"a broken config":   {args: []string{"--config", write("broken", "{\nupstream_auth {\ncredential crm {\nnonsense\n}\n}\n}"), "--adapter", "caddyfile"}, code: 2, err: "nonsense"},
	} {
		t.Run(name, func(t *testing.T) {
			c := p.prepare(append([]string{"upstream-auth", "check"}, tc.args...)...)
			c.cmd.Dir = dir
			c.start()
			if code := c.ended(); code != tc.code || !strings.HasSuffix(c.out.String(), tc.out) || !strings.Contains(c.errors.String(), tc.err) {
				t.Errorf("exit code %d, want %d\n%s", code, tc.code, c.all())
			}
			if tc.code == 2 && c.out.String() != "" {
				t.Errorf("nothing was checked, and this is printed: %s", c.out.String())
			}
			if err := p.tellsNothing(c.all()); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("for a program", func(t *testing.T) {
		c := p.prepare("upstream-auth", "check", "--json")
		c.cmd.Dir = dir
		c.start()
		code := c.ended()
		var all []checked
		if err := json.Unmarshal([]byte(c.out.String()), &all); err != nil || code != 1 || len(all) != 2 {
			t.Fatalf("exit code %d, %v: %s", code, err, c.all())
		}
		if all[0].Result != checkedOK || all[1].Failure.Code != "invalid_client" || !strings.HasPrefix(all[1].Findings[0].Runbook, "https://") {
			t.Errorf("got %s", c.out.String())
		}
	})
}

// TestCheckSlow: one who waits is told for what, and how long it may take.
func TestCheckSlow(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.auth.SetFault(authserver.Slow(slowCheck + 500*time.Millisecond))
	c := p.caddy("upstream-auth", "check", "--config", writeFile(t, "Caddyfile", []byte(p.crm(p.credential()))))
	if code := c.ended(); code != 0 || !strings.Contains(c.errors.String(), "crm: no answer after 2s; a token request may take 10s\n") {
		t.Errorf("exit code %d\n%s", code, c.all())
	}
	if !regexp.MustCompile(`(?m)^crm +ok .* 2\.[5-9]s$`).MatchString(c.out.String()) {
		t.Errorf("got %s", c.out.String())
	}
	p.auth.SetFault(authserver.Hang())
	c = p.caddy("upstream-auth", "check", "--timeout", "500ms", "--config", writeFile(t, "Caddyfile", []byte(p.crm(p.credential()))))
	if code := c.ended(); code != 1 || !strings.Contains(c.out.String(), "did not answer within 500ms") {
		t.Errorf("exit code %d\n%s", code, c.all())
	}
}

// TestCheckInterrupted: Ctrl-C ends it at once, but for a refresh token's answer,
// which is waited for and stored.
func TestCheckInterrupted(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.auth.SetFault(authserver.Hang())
	c := p.caddy("upstream-auth", "check", "--config", writeFile(t, "Caddyfile", []byte(p.crm(p.credential("timeout 5m")))))
	eventually(t, "a token request", func() bool { return p.auth.Requests() == 1 })
	began := time.Now()
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := c.ended(); code != 1 || time.Since(began) > 10*time.Second || !strings.Contains(c.out.String(), "the check was interrupted before an answer came") {
		t.Errorf("exit code %d after %s\n%s", code, time.Since(began), c.all())
	}

	r := rotating(t, time.Hour)
	initial := r.auth.IssueRefreshToken()
	answer := make(chan struct{})
	r.auth.SetFault(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		<-answer
		next.ServeHTTP(w, req)
	})
	c = r.caddy("upstream-auth", "check", "--spend", "--config", writeFile(t, "Caddyfile", []byte(r.crm(r.refreshing(initial)))))
	eventually(t, "a token request", func() bool { return r.auth.Requests() == 1 })
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	close(answer)
	if code := c.ended(); code != 0 || !strings.Contains(c.out.String(), "crm         ok ") {
		t.Errorf("exit code %d\n%s", code, c.all())
	}
	if _, content := r.file(); r.auth.Rotations() != 1 || strings.Contains(content, `"mark"`) || strings.Contains(content, initial) {
		t.Errorf("%d rotations; stored is %s", r.auth.Rotations(), content)
	}
	if err := r.tellsNothing(c.all()); err != nil {
		t.Error(err)
	}
}

// TestCheckBesideCaddy: with the configuration of a Caddy that runs, ports and
// all; what a check is given of a shared token, that Caddy uses.
func TestCheckBesideCaddy(t *testing.T) {
	p := newParts(t, authserver.Config{Issue: func(n int) string { return fmt.Sprintf("tell-nobody-%d", n) }})
	config := strings.Replace(p.caddyfile(p.credential("share"), measured), "admin off", "admin "+freeport.Addr(t), 1)
	if err := p.load(config); err != nil {
		t.Fatal(err)
	}
	p.want(p.get("/"), http.StatusOK)
	adopted := func() float64 { return p.series()[`tokens_adopted_total{credential="crm"}`] }
	before, began := adopted(), time.Now()
	// two tokens that are younger than that apart count as one
	eventually(t, "a moment has passed", func() bool { return time.Since(began) > time.Second })
	c := p.caddy("upstream-auth", "check", "--config", writeFile(t, "Caddyfile", []byte(config)))
	if code := c.ended(); code != 0 || !regexp.MustCompile(`(?m)^crm +ok +1h +Bearer `).MatchString(c.out.String()) || strings.Contains(c.all(), "tell-nobody") {
		t.Fatalf("exit code %d\n%s", code, c.all())
	}
	p.auth.Revoke("tell-nobody-1")
	eventually(t, "an answer", func() bool { return p.get("/").status == http.StatusOK })
	if adopted() <= before || p.auth.Requests() != 2 {
		t.Errorf("%v tokens are adopted, after %d token requests", adopted()-before, p.auth.Requests())
	}
	p.stop()
	if left := p.lockFiles(); len(left) > 0 {
		t.Errorf("locks are left behind: %v", left)
	}
}

// TestProgress: on a terminal there is one line, which is taken away.
func TestProgress(t *testing.T) {
	out := new(output)
	p := newProgress(out, true, 3)
	p.begin("crm", time.Minute)
	p.begin("erp", time.Minute)
	p.tell("erp", "trying client_secret_post")
	p.end("crm")
	for n := range 20 {
		p.begin(fmt.Sprintf("credential-%d", n), time.Minute)
	}
	p.stop()
	text := out.String()
	holds(t, text, "\r\x1b[K0 of 3 checked; crm: asking (0s), erp: asking (0s)", "1 of 3 checked; erp: trying client_secret_post (0s)")
	if !strings.HasSuffix(text, "…\r\x1b[K") || strings.Contains(text, "\n") {
		t.Errorf("got %q", text)
	}
}
