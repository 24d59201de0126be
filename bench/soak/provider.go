package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// providerDir holds the server of the interop tests, seen from the root of the
// repository.
const providerDir = "interop/oidc-provider"

// introspectionSecret is that of the client that introspects.
const introspectionSecret = "secret-of-upstream"

// provider is an oidc-provider on loopback, whose tokens outlive a kill.
type provider struct {
	*process
	dir    string // its keys and its state
	ttl    time.Duration
	addr   string
	issuer string
	client *http.Client
}

// install runs npm ci where there are no modules yet.
func install(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(providerDir, "node_modules", ".package-lock.json")); err == nil {
		return nil
	}
	cmd := exec.CommandContext(ctx, "npm", "ci")
	cmd.Dir = providerDir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci in %s (run the soak from the root of the repository): %w\n%s", providerDir, err, out)
	}
	return nil
}

// start runs the server, the first time or again.
func (p *provider) start(ctx context.Context) error {
	_, port, err := net.SplitHostPort(p.addr)
	if err != nil {
		return err
	}
	cmd := exec.Command("node", "server.mjs", //nolint:gosec // the port and the folder are ours
		"--port="+port,
		"--ttl="+strconv.Itoa(int(p.ttl/time.Second)),
		"--keys-dir="+p.dir,
		"--state="+filepath.Join(p.dir, "state"))
	cmd.Dir = providerDir
	ready := make(chan string, 1)
	var said []string
	p.process, err = start("oidc-provider", cmd, func(line string) {
		if strings.HasPrefix(line, `{"issuer"`) {
			ready <- line
		}
		said = append(said[max(0, len(said)-20):], line)
	})
	if err != nil {
		return err
	}
	select {
	case line := <-ready:
		var at struct{ Issuer string }
		if err := json.Unmarshal([]byte(line), &at); err != nil {
			return fmt.Errorf("oidc-provider: its ready line %q: %w", line, err)
		}
		p.issuer = at.Issuer
		return nil
	case <-p.ended:
		return fmt.Errorf("oidc-provider ended: %s\n%s", p.cmd.ProcessState, strings.Join(said, "\n"))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// login begins a chain of refresh tokens, as a person's login does.
func (p *provider) login(ctx context.Context, client string) (string, error) {
	body, err := p.post(ctx, "/initial", url.Values{"client_id": {client}})
	if err != nil {
		return "", err
	}
	var begun struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := json.Unmarshal(body, &begun); err != nil || begun.RefreshToken == "" {
		return "", fmt.Errorf("/initial: no refresh token: %w", err)
	}
	return begun.RefreshToken, nil
}

// revoke ends a token before its time (RFC 7009). The server takes the secret
// either way.
func (p *provider) revoke(ctx context.Context, client, secret, token string) error {
	_, err := p.post(ctx, "/token/revocation", url.Values{"client_id": {client}, "client_secret": {secret}, "token": {token}})
	return err
}

func (p *provider) post(ctx context.Context, path string, form url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.issuer+path, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s %s", path, res.Status, body)
	}
	return body, nil
}
