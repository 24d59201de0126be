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
	"syscall"
	"time"
)

const (
	startLimit = 60 * time.Second
	stopLimit  = 90 * time.Second // it waits for a refresh that is under way
)

// ways are the two places of use.
var ways = []string{"transport", "handler"}

// instance is a Caddy, one process after the other.
type instance struct {
	*process
	stage  *stage
	number int
	starts int
	life   *life
	log    *os.File
	client *http.Client // of the sites
	admin  *http.Client
}

func newInstance(s *stage, number int) (*instance, error) {
	i := &instance{stage: s, number: number}
	i.client, i.admin = clientOn(i.path("sock")), clientOn(i.path("admin"))
	var err error
	i.log, err = os.Create(i.path("log"))
	return i, err
}

// path is that of one of its files.
func (i *instance) path(kind string) string {
	return filepath.Join(i.stage.dir, fmt.Sprintf("%d.%s", i.number, kind))
}

// clientOn sends all requests to a unix socket.
func clientOn(socket string) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		MaxIdleConnsPerHost: 256, IdleConnTimeout: 5 * time.Second,
	}}
}

// routesOf are those of a credential. What is open is to be what is at work, so
// that growth shows.
const routesOf = `	handle /transport/%[1]s {
		reverse_proxy %[2]s {
			%[3]s
			transport upstream_auth %[1]s {
				http {
					keepalive 5s
				}
			}
		}
	}
	handle /handler/%[1]s {
		upstream_auth %[1]s
		reverse_proxy %[2]s {
			%[3]s
			transport http {
				keepalive 5s
			}
		}
	}
`

// caddyfile is the configuration, with a header that makes it another. Answers
// say by Caddy's own clock when their requests came, and when they were made:
// that is what they are judged by, for an answer may be read much later.
func (i *instance) caddyfile(version int) string {
	s := i.stage
	var credentials, routes strings.Builder
	for _, c := range clients {
		credentials.WriteString(c.block(s, s.storage(i.number), i.life.process))
		who := "header_up " + processHeader + " {env.SOAK_PROCESS}"
		fmt.Fprintf(&routes, routesOf, c.name, s.upstreamAddr, who)
	}
	return fmt.Sprintf(`{
	debug
	admin unix/%[1]s|0600
	persist_config off
	auto_https off
	grace_period 5s
	storage file_system %[2]s
	upstream_auth {
%[3]s	}
}

http:// {
	bind unix/%[4]s
	log
	header {
		%[5]s {env.SOAK_PROCESS}
		%[6]s {time.now.unix_ms}
		X-Version %[8]d
	}
	header >%[7]s {time.now.unix_ms}
	handle %[9]s {
		respond "here"
	}
%[10]s	handle_errors {
		header %[7]s {time.now.unix_ms}
		respond {err.status_code}
	}
}
`, i.path("admin"), s.storage(i.number), credentials.String(), i.path("sock"),
		processHeader, fromHeader, atHeader, version, controlPath, routes.String())
}

// start starts the next process, and waits until it listens.
func (i *instance) start(ctx context.Context) error {
	l := &life{process: fmt.Sprintf("%d-%d", i.number, i.starts), instance: i.number, from: time.Now(), status: -1}
	i.life = l
	i.starts++
	file := i.path("Caddyfile")
	if err := os.WriteFile(file, []byte(i.caddyfile(0)), 0o600); err != nil {
		return err
	}
	cmd := exec.Command(i.stage.binary, "run", "--config", file, "--adapter", "caddyfile") //nolint:gosec // our own binary
	cmd.Env = append(os.Environ(), "HOME="+i.stage.dir, "XDG_CONFIG_HOME="+i.stage.dir, "XDG_DATA_HOME="+i.stage.dir,
		"SOAK_PROCESS="+l.process, "SOAK_POST="+clientOf("post").secret, "SOAK_REFRESH="+clientOf(refreshing).secret)
	p, err := start("caddy "+l.process, cmd, i.read)
	if err != nil {
		return err
	}
	i.process = p
	i.stage.book.with(func() { i.stage.book.lives = append(i.stage.book.lives, l) })
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", i.path("sock"))
		if err == nil {
			return conn.Close()
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended: %s; see %s", p.name, p.cmd.ProcessState, i.log.Name())
		case <-ctx.Done():
			return fmt.Errorf("%s does not listen: %w", p.name, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// read looks at a line of the log, and keeps what is not about one request.
func (i *instance) read(line string) {
	b := i.stage.book
	if what := i.stage.watch.finds(line); what != "" {
		b.fault("%s stands in Caddy's log: a line of logger %s", what, loggerOf(line))
		return // not to be written down once more
	}
	switch {
	case strings.Contains(line, "WARNING: DATA RACE"), strings.HasPrefix(line, "panic:"), strings.HasPrefix(line, "fatal error:"):
		b.fault("Caddy's log: %s (see %s)", line, i.log.Name())
	case strings.Contains(line, `"logger":"http.log.access`),
		strings.Contains(line, `"level":"debug"`) && !strings.Contains(line, `"logger":"upstream_auth`):
		return
	}
	fmt.Fprintln(i.log, line)
}

func loggerOf(line string) string {
	_, rest, ok := strings.Cut(line, `"logger":"`)
	if !ok {
		return "that is not known"
	}
	name, _, _ := strings.Cut(rest, `"`)
	return name
}

// stop ends the process as an operator does, which is to end well.
func (i *instance) stop() {
	b := i.stage.book
	if i.process == nil || !i.life.to.IsZero() {
		return
	}
	b.with(func() { i.life.stopping = time.Now() })
	err := i.process.stop(syscall.SIGTERM, stopLimit)
	b.with(func() { i.life.to, i.life.status = time.Now(), i.cmd.ProcessState.ExitCode() })
	i.client.CloseIdleConnections()
	i.admin.CloseIdleConnections()
	if err != nil {
		b.fault("%v", err)
	} else if i.life.status != 0 {
		b.fault("%s ended with status %d", i.name, i.life.status)
	}
}

// reload gives it a configuration with another header.
func (i *instance) reload(ctx context.Context, version int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1/load", strings.NewReader(i.caddyfile(version)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "text/caddyfile")
	res, err := i.admin.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	said, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return errors.New("reload: " + res.Status + " " + string(said))
	}
	return nil
}
