package interop

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/interop/freeport"
)

// commands bounds how many run at a time: each is a Caddy that starts.
var commands = make(chan struct{}, 2)

// command starts caddy upstream-auth … for the site's credential, with the
// config and the environment of the Caddy that runs.
func (s *site) command(t *testing.T, name string, args ...string) *process {
	t.Helper()
	args = append([]string{"upstream-auth", name, s.name, "--config", s.config, "--adapter", "caddyfile"}, args...)
	cmd := exec.Command(binary, args...)
	cmd.Env = append(slices.Clone(s.environ), s.variable(jwtFileVariable)+"="+s.jwtFile.commands)
	return start(t, "caddy upstream-auth "+name, cmd)
}

// done waits for the end of a command, which has to end well and to show no
// secret.
func (s *site) done(t *testing.T, p *process) string {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(startDeadline):
		_ = p.cmd.Process.Kill()
		<-p.ended
		t.Errorf("%s: not within %s", p.name, startDeadline)
	}
	_ = p.stdin.Close()
	printed := p.output.String()
	if !p.cmd.ProcessState.Success() {
		t.Fatalf("%s: %s\n%s", p.name, p.cmd.ProcessState, printed)
	}
	s.checkPrinted(t, p)
	return printed
}

// says is the first line that the command prints in which the pattern is found,
// and what its groups are.
func (s *site) says(t *testing.T, p *process, pattern string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startDeadline)
	defer cancel()
	re := regexp.MustCompile(pattern)
	line, err := p.await(ctx, re.MatchString)
	if err != nil {
		_ = p.cmd.Process.Kill()
		t.Fatalf("%v\n%s", err, &p.output)
	}
	return re.FindStringSubmatch(line)
}

// inBrowser logs in as a person does who follows the address that the command
// prints.
func (s *site) inBrowser(t *testing.T, browse func(t *testing.T, address string) (*url.URL, error)) {
	t.Helper()
	commands <- struct{}{}
	defer func() { <-commands }()
	p := s.command(t, "login", "--no-browser")
	address := s.says(t, p, `^https?://\S+$`)[0]
	at, err := browse(t, address)
	if err != nil {
		_ = p.cmd.Process.Kill()
		t.Fatalf("%s: %v", address, err)
	}
	s.secrets.add("a code", at.Query().Get("code"))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := do(http.DefaultClient, req)
	if err != nil || a.status != http.StatusOK {
		t.Errorf("the redirect URI answers %d %s, %v", a.status, a.body, err)
	}
	if printed := s.done(t, p); !strings.Contains(printed, "Logged in.") {
		t.Errorf("login says:\n%s", printed)
	}
}

// onDevice logs in as a person does who types the code that the command prints
// into another device.
func (s *site) onDevice(t *testing.T, confirm func(t *testing.T, userCode string)) {
	t.Helper()
	commands <- struct{}{}
	defer func() { <-commands }()
	p := s.command(t, "login", "--device")
	confirm(t, s.says(t, p, `^Open \S+ and enter the code (\S+)$`)[1])
	if printed := s.done(t, p); !strings.Contains(printed, "Logged in.") {
		t.Errorf("login says:\n%s", printed)
	}
}

// awaitLogin: the Caddy that runs finds what a login stored, by itself.
func (s *site) awaitLogin(t *testing.T) {
	t.Helper()
	poll(t, startDeadline, "the login in use", func(ctx context.Context) error {
		a, err := s.get(ctx, s.usedBy()[0])
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("status %d", a.status)
		}
		return err
	})
}

// authorizationCode is a cell that begins with a login in a browser.
func (b *behind) authorizationCode(cl client, found string, lines ...string) *cell {
	options := []string{"redirect_uri http://" + b.ports[0] + "/callback"}
	b.ports = b.ports[1:]
	if found == "token_url" {
		options = append(options, "authorization_url "+b.authURL)
	} else {
		lines = append(lines, b.params...)
	}
	c := b.add(cl, "authorization_code", found, append(lines, block("grant authorization_code", options))...)
	c.loggedIn(func(t *testing.T, s *site) {
		t.Helper()
		s.inBrowser(t, b.browse)
	})
	return c
}

// deviceCode is a cell that begins with a login on another device.
func (b *behind) deviceCode(cl client, found string, lines ...string) *cell {
	var options []string
	if found == "token_url" {
		options = []string{"device_authorization_url " + b.device}
	}
	c := b.add(cl, "device_code", found, append(lines, block("grant authorization_code", options))...)
	c.loggedIn(func(t *testing.T, s *site) {
		t.Helper()
		s.onDevice(t, b.confirm)
	})
	c.refusals = map[string]int{"authorization_pending": 0}
	return c
}

// loggedOut has the cell end with a logout, after which gone looks whether the
// refresh token is of any use still. The server may refuse it with a code.
func (c *cell) loggedOut(code string, gone func(t *testing.T, refreshToken string)) {
	c.refusals = map[string]int{code: 1}
	c.what += ", then logout"
	c.tokens = 1
	c.end = func(t *testing.T, c *cell) {
		t.Helper()
		commands <- struct{}{}
		defer func() { <-commands }()
		last := c.refreshToken(t)
		if printed := c.done(t, c.command(t, "logout")); !strings.Contains(printed, "The server has revoked the refresh token.") {
			t.Errorf("logout says:\n%s", printed)
		}
		gone(t, last)
		if left := c.refreshToken(t); left != "" {
			t.Error("after the logout a refresh token is stored")
		}
	}
}

// loggedIn has the cell begin with a login.
func (c *cell) loggedIn(login func(*testing.T, *site)) {
	c.tokens, c.logins = refreshes, 1
	c.begin = func(t *testing.T, c *cell) {
		t.Helper()
		login(t, &c.site)
		c.awaitLogin(t)
	}
}

// freePorts are addresses on loopback that nobody listens on.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	ports := make([]string, n)
	for i := range ports {
		ports[i] = freeport.Addr(t)
	}
	return ports
}
