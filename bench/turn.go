package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

// turn is one subject's turn in a comparison: a token endpoint and an API of
// its own in this process, and the proxy between as a process of its own.
// Nothing of it outlives the turn, so that all begin alike.
type turn struct {
	dir    string
	auth   *authserver.Server
	server *authserver.Listener // of the token endpoint
	target listener             // of the API
	proxy  string               // where the proxy is to listen
	pins   pins                 // on which processor it is to run

	cmd   *exec.Cmd
	ended chan struct{} // closed when the process has ended

	mu    sync.Mutex
	lives []life
}

// life is that of one token, by the clock of the server that issued it.
type life struct{ from, until time.Time }

// listener is a server that listens on loopback.
type listener interface {
	Addr() string
	Close() error
}

// newTurn starts the servers. Tokens live for so long; the API demands one, or
// takes what comes.
func newTurn(dir string, tokens time.Duration, demands bool) (*turn, error) {
	return newTurnBefore(dir, tokens, func(t *turn) (listener, error) {
		return authserver.Listen("127.0.0.1:0", t.api(demands))
	})
}

// newTurnBefore is newTurn with an API of another kind.
func newTurnBefore(dir string, tokens time.Duration, api func(*turn) (listener, error)) (*turn, error) {
	t := &turn{ended: make(chan struct{})}
	t.auth = authserver.New(authserver.Config{ClientID: clientID, ClientSecret: secret, Lifetime: tokens, Issue: newToken, OnIssue: t.issued})
	var err error
	if t.proxy, err = freeport.Take(); err != nil {
		return nil, err
	}
	if t.dir, err = os.MkdirTemp(dir, "turn"); err != nil {
		return nil, err
	}
	if t.server, err = authserver.Listen("127.0.0.1:0", t.auth); err != nil {
		return nil, err
	}
	if t.target, err = api(t); err != nil {
		return nil, errors.Join(err, t.server.Close())
	}
	return t, nil
}

func (t *turn) issued(_ int, lifetime time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.lives = append(t.lives, life{now, now.Add(lifetime)})
}

// tokens are those issued so far, the oldest first.
func (t *turn) tokens() []life {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]life(nil), t.lives...)
}

// api answers briefly and asks the server about each token, but for the fixed one
// of those that ask for none: the upstream is to cost as little as it can.
func (t *turn) api(demands bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if demands {
			text, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if _, err := t.auth.Verify(text); err != nil && text != fixedToken {
				w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
		}
		w.Write([]byte("hello\n"))
	})
}

// write puts a configuration into the turn's folder.
func (t *turn) write(name, text string) (path string, err error) {
	path = filepath.Join(t.dir, name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// run starts the proxy and waits for its first good answer.
func (t *turn) run(ctx context.Context, s subject) error {
	cmd, err := s.command(t)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(t.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a group of its own, for usage
	if err := t.pins.start(cmd); err != nil {
		return err
	}
	t.cmd = cmd
	go func() {
		_ = cmd.Wait() // the one caller; its state is of no interest
		close(t.ended)
	}()
	one := &crowd{callers: []*caller{{addr: t.proxy, request: []byte("GET /hello HTTP/1.1\r\nHost: " + t.proxy + "\r\n\r\n")}}}
	defer one.close()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		last := one.callers[0].call(time.Now())
		if last.good() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.ended:
			return fmt.Errorf("the process ended: %s", t.log())
		case <-time.After(time.Millisecond):
		}
	}
	return fmt.Errorf("no good answer within %s: %s", patience, t.log())
}

func (t *turn) log() string { return endOfLog(t.dir) }

// endOfLog is the end of what a process has written into its folder.
func endOfLog(dir string) string {
	text, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// close ends the process and the servers.
func (t *turn) close() {
	if t.cmd != nil {
		_ = t.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-t.ended:
		case <-time.After(5 * time.Second):
			_ = t.cmd.Process.Kill()
			<-t.ended
		}
	}
	_ = t.server.Close()
	_ = t.target.Close()
}
