package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a Caddy of its own.
type process struct {
	dir    string
	cmd    *exec.Cmd
	client *http.Client // to its sites
	admin  *http.Client
	line   func([]byte) // is given each line of the log
	ended  chan struct{}

	mu   sync.Mutex
	log  bytes.Buffer
	rest []byte // of a line that is not whole yet
}

// start runs Caddy with a Caddyfile in dir.
func (p *process) start(caddyfile string, environ []string) error {
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	config := filepath.Join(p.dir, "Caddyfile")
	if err := os.WriteFile(config, []byte(caddyfile), 0o600); err != nil {
		return err
	}
	p.client, p.admin = clientOf(filepath.Join(p.dir, "sites.sock")), clientOf(filepath.Join(p.dir, "admin.sock"))
	p.ended = make(chan struct{})
	p.cmd = exec.Command(binary, "run", "--config", config, "--adapter", "caddyfile")
	p.cmd.Env = append(own(os.Environ()), "HOME="+p.dir, "XDG_CONFIG_HOME="+p.dir, "XDG_DATA_HOME="+p.dir, asCaddy+"=1")
	p.cmd.Env = append(p.cmd.Env, environ...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if _, err := p.cmd.StdinPipe(); err != nil { // whose end Caddy ends with
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in ProcessState
		close(p.ended)
	}()
	return p.poll("the admin API", func(ctx context.Context) error {
		if _, err := p.adminGet(ctx, "/config/"); err != nil {
			return err
		}
		conn, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(p.dir, "sites.sock"))
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// own is the environment without what would send requests through a proxy.
func own(environ []string) []string {
	return slices.DeleteFunc(environ, func(v string) bool {
		name, _, _ := strings.Cut(strings.ToLower(v), "=")
		return strings.HasSuffix(name, "_proxy")
	})
}

// Write takes what Caddy prints.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	p.log.Write(b)
	p.rest = append(p.rest, b...)
	var lines [][]byte
	for {
		line, rest, whole := bytes.Cut(p.rest, []byte("\n"))
		if !whole {
			break
		}
		lines = append(lines, bytes.Clone(line))
		p.rest = rest
	}
	p.mu.Unlock()
	for _, line := range lines {
		p.line(line)
	}
	return len(b), nil
}

// logged is what it has printed.
func (p *process) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// stop ends it; past the limit it is killed.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("it had ended before: %w", err)
	}
	return p.gone()
}

// stopLimit is generous: a request waits through one failure at most, and no
// fault takes longer than a few seconds.
const stopLimit = 2 * time.Minute

// gone waits for its end, which has to be a clean one.
func (p *process) gone() error {
	code, err := p.waitEnd()
	if err == nil && code != 0 {
		err = fmt.Errorf("it ended with %s, want status 0", p.cmd.ProcessState)
	}
	return err
}

// waitEnd waits for its end, whatever that is.
func (p *process) waitEnd() (code int, err error) {
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(stopLimit):
		_ = p.cmd.Process.Signal(syscall.SIGABRT) // says where it hangs
		select {
		case <-p.ended:
		case <-time.After(10 * time.Second):
			_ = p.cmd.Process.Kill()
			<-p.ended
		}
		return -1, fmt.Errorf("it did not end within %s", stopLimit)
	}
}

// adminGet asks the admin API.
func (p *process) adminGet(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1"+path, nil)
	if err != nil {
		return "", err
	}
	return p.adminDo(req)
}

// load gives Caddy another config.
func (p *process) load(contentType, config string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1/load", strings.NewReader(config))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", contentType)
	_, err = p.adminDo(req)
	return err
}

func (p *process) adminDo(req *http.Request) (string, error) {
	res, err := p.admin.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("the admin API says %s: %s", res.Status, body)
	}
	return string(body), err
}

// poll asks again until there is no error.
func (p *process) poll(what string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.ended:
			return fmt.Errorf("%s: Caddy ended: %s", what, p.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, err)
		}
	}
}

// clientOf sends all requests to a unix socket.
func clientOf(socket string) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		MaxIdleConnsPerHost: 64,
	}}
}

// credentialOf reads a line of the log about a credential.
func credentialOf(line []byte) (entry, bool) {
	var e entry
	if !bytes.Contains(line, []byte(`"credential"`)) || json.Unmarshal(line, &e) != nil {
		return e, false
	}
	e.text = string(line)
	return e, e.Credential != ""
}
