package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	// probeCallers are enough to keep one processor busy.
	probeCallers = 16
	// probeBody is what every eighth of them sends, in bytes.
	probeBody = 2 << 10
)

// probe is a Caddy under load that is asked for profiles of its processor time.
type probe struct {
	name   string
	turn   *turn
	crowd  *crowd
	client *http.Client
}

// newProbe starts one, before an API that costs as little as it can.
func newProbe(ctx context.Context, dir string, s subject, tokens time.Duration, on pins) (*probe, error) {
	t, err := newTurnBefore(dir, tokens, func(*turn) (listener, error) { return listenTarget(targetBody) })
	if err != nil {
		return nil, err
	}
	t.pins = on
	p := &probe{name: s.name, turn: t}
	socket := filepath.Join(t.dir, "admin.sock")
	p.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	s.command = withAdmin(s.command, socket)
	if err := t.run(ctx, s); err != nil {
		p.close()
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	if p.crowd, err = gather(t.proxy, probeCallers); err != nil {
		p.close()
		return nil, err
	}
	post := fmt.Appendf(nil, "POST /hello HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", t.proxy, probeBody, strings.Repeat("x", probeBody))
	for i := 0; i < len(p.crowd.callers); i += 8 {
		p.crowd.callers[i].request = post
	}
	return p, nil
}

// withAdmin has the admin API of what is otherwise the same, for its profiles.
func withAdmin(command func(*turn) (*exec.Cmd, error), socket string) func(*turn) (*exec.Cmd, error) {
	return func(t *turn) (*exec.Cmd, error) {
		cmd, err := command(t)
		if err != nil {
			return nil, err
		}
		file := filepath.Join(t.dir, "Caddyfile")
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		return cmd, os.WriteFile(file, []byte(strings.Replace(string(text), "admin off", "admin unix/"+socket+"|0600", 1)), 0o600) //nolint:gosec // the turn's own file
	}
}

func (p *probe) close() {
	if p.crowd != nil {
		p.crowd.close()
	}
	p.turn.close()
	p.client.CloseIdleConnections()
}

// burden is what a load has cost.
type burden struct {
	requests int
	cpu      time.Duration // of the proxy
}

// take presses for so long, a whole number of seconds, and has a profile of it.
func (p *probe) take(ctx context.Context, length time.Duration) ([]byte, burden, error) {
	p.crowd.open()
	group := p.turn.cmd.Process.Pid
	before, err := look()
	if err != nil {
		return nil, burden{}, err
	}
	text, failed := []byte(nil), make(chan error, 1)
	go func() {
		var err error
		text, err = p.fetch(ctx, length)
		failed <- err
	}()
	pressed := p.crowd.press(length)
	after, err := look()
	if err = errors.Join(err, <-failed); err != nil {
		return nil, burden{}, fmt.Errorf("%s: %w", p.name, err)
	}
	if pressed.failed > 0 {
		return nil, burden{}, fmt.Errorf("%s: %d requests were not answered with 200: %s", p.name, pressed.failed, p.turn.log())
	}
	return text, burden{len(pressed.times), after.of(group, before)}, nil
}

func (p *probe) fetch(ctx context.Context, length time.Duration) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1/debug/pprof/profile?seconds=%d", length/time.Second), nil)
	if err != nil {
		return nil, err
	}
	res, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("the admin API answers %d: %s", res.StatusCode, text)
	}
	return text, err
}
