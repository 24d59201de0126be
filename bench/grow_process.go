package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// growProcess is a Caddy whose growth is looked at, from outside and by what it
// tells of itself at its admin API.
type growProcess struct {
	cmd    *exec.Cmd
	dir    string
	ended  chan struct{} // closed when the process has ended
	client *http.Client  // of the admin API
}

// options that each Caddyfile of this scenario begins with.
func growGlobals(dir string) string {
	return `
	admin unix/` + filepath.Join(dir, "admin.sock") + `|0600
	persist_config off
	log {
		level WARN
	}`
}

// startGrowing starts a Caddy with a Caddyfile, in which DIR is a folder of its
// own. It is returned when it listens at
// all its addresses.
func startGrowing(ctx context.Context, dir, file string, listens []string, on pins) (*growProcess, error) {
	own, err := os.MkdirTemp(dir, "grow")
	if err != nil {
		return nil, err
	}
	p := &growProcess{dir: own, ended: make(chan struct{})}
	p.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(own, "admin.sock"))
	}}}
	path := filepath.Join(own, "Caddyfile")
	if err := os.WriteFile(path, []byte(p.config(file)), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(own, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	binary, err := ours(ctx, dir)
	if err != nil {
		return nil, err
	}
	p.cmd = exec.Command(binary, "run", "--config", path, "--adapter", "caddyfile")
	p.cmd.Env = append(os.Environ(), secretEnv+"="+secret, "XDG_DATA_HOME="+own, "XDG_CONFIG_HOME="+own)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a group of its own, for usage
	if err := on.start(p.cmd); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // the one caller; its state is of no interest
		close(p.ended)
	}()
	for ctx.Err() == nil {
		if len(listens) == 0 {
			return p, nil
		}
		conn, err := net.Dial("tcp", listens[0])
		if err == nil {
			_ = conn.Close()
			listens = listens[1:]
			continue
		}
		select {
		case <-p.ended:
			return nil, fmt.Errorf("the process ended: %s", p.log())
		case <-time.After(time.Millisecond):
		}
	}
	p.close()
	return nil, ctx.Err()
}

// config is a Caddyfile with the global options that all have.
func (p *growProcess) config(file string) string {
	return strings.Replace(strings.ReplaceAll(file, "DIR", p.dir), "{", "{"+growGlobals(p.dir), 1)
}

func (p *growProcess) log() string { return endOfLog(p.dir) }

func (p *growProcess) close() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	_ = os.RemoveAll(p.dir)
}

// cpu is the processor time that the process has had, by its own clock.
func (p *growProcess) cpu() time.Duration {
	a, err := accountOf(p.cmd.Process.Pid)
	if err != nil {
		return 0
	}
	return a.used
}

// idle is how much processor time the process takes when nobody wants anything
// of it, in a second.
func (p *growProcess) idle(ctx context.Context, rest time.Duration) time.Duration {
	sleep(ctx, 2*time.Second)
	began, before := time.Now(), p.cpu()
	sleep(ctx, rest)
	return time.Duration(float64(p.cpu()-before) / time.Since(began).Seconds())
}

// status is a line of /proc/<pid>/status, in bytes.
func (p *growProcess) status(line string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	kib, err := lineOf(string(text), line+":")
	return float64(kib) * 1024, err
}

// resetPeak has VmHWM count from now on.
func (p *growProcess) resetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0)
}

// admin makes a request to the admin API.
func (p *growProcess) admin(ctx context.Context, method, path, body string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://admin"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Host = "" // what a socket needs
	if body != "" {
		req.Header.Set("Content-Type", "text/caddyfile")
		req.Header.Set("Cache-Control", "must-revalidate") // also what has not changed
	}
	res, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", method, path, res.Status, text[:min(len(text), 500)])
	}
	return text, err
}

// metrics are those of Caddy's that have no labels.
func (p *growProcess) metrics(ctx context.Context) (map[string]float64, error) {
	text, err := p.admin(ctx, http.MethodGet, "/metrics", "")
	if err != nil {
		return nil, err
	}
	out := make(map[string]float64)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") || strings.Contains(line, "{") {
			continue
		}
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if out[name], err = strconv.ParseFloat(value, 64); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// live is what the heap holds after a collection, in bytes, and what the
// process has in memory then.
func (p *growProcess) live(ctx context.Context) (heap, resident float64, err error) {
	for range 2 { // the second frees what the first has finalized
		if _, err := p.admin(ctx, http.MethodGet, "/debug/pprof/heap?gc=1", ""); err != nil {
			return 0, 0, err
		}
	}
	m, err := p.metrics(ctx)
	if err != nil {
		return 0, 0, err
	}
	resident, err = p.status("VmRSS")
	return m["go_memstats_heap_alloc_bytes"], resident, err
}

// goroutines are all that there are, and those among them in which a function
// of this module is under way.
func (p *growProcess) goroutines(ctx context.Context) (all, ours int, err error) {
	text, err := p.admin(ctx, http.MethodGet, "/debug/pprof/goroutine?debug=1", "")
	if err != nil {
		return 0, 0, err
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	number, counted := 0, false
	for lines.Scan() {
		first, rest, _ := strings.Cut(lines.Text(), " ")
		if n, err := strconv.Atoi(first); err == nil && strings.HasPrefix(rest, "@") {
			number, counted = n, false
			all += n
		} else if !counted && strings.Contains(lines.Text(), "/caddy-upstream-auth") {
			ours += number
			counted = true
		}
	}
	return all, ours, lines.Err()
}
