package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The refresh token to begin with is in a file, which is read anew while the
// one that is stored does not serve.
const mortalCaddyfile = `{
	debug
	admin unix/%[1]s/admin.sock
	persist_config off
	auto_https off
	grace_period %[4]s
	storage file_system %[1]s/storage
	upstream_auth {
		credential crm {
			token_url %[2]s/token
			refresh_at %[5]s
			grant refresh_token {file.%[1]s/initial}
			client_id basic
			client_auth client_secret_basic {env.SECRET}
			param life {env.LIFE}
		}
	}
}

http://handler {
	bind unix/%[1]s/handler.sock
	upstream_auth crm {
		wait 1m
	}
	reverse_proxy %[3]s
}

http://transport {
	bind unix/%[1]s/transport.sock
	reverse_proxy %[3]s {
		transport upstream_auth crm {
			wait 1m
		}
	}
}
`

// mortal is a Caddy that is killed and started again, on the same storage, with
// a light load before it.
type mortal struct {
	*process            // the one that runs, or ran last
	all      []*process // of one life after the other
	dir      string
	storage  string   // the folder of its storage, as it is seen from here
	runner   []string // the command that runs it, if any
	witness  *witness
	client   *http.Client

	mu      sync.Mutex
	samples []sample
}

// sample is one request of the load.
type sample struct {
	way          string
	began, ended time.Time
	status       int // 0 where there was no answer
	retryAfter   string
}

// newMortal makes one that is not started.
func newMortal(t *testing.T, w *witness, initial, refreshAt string) *mortal {
	t.Helper()
	// a unix socket's path has about 100 characters
	dir, err := os.MkdirTemp("", "interop") //nolint:usetesting // t.TempDir is too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &mortal{dir: dir, storage: filepath.Join(dir, "storage"), witness: w}
	m.begin(t, initial)
	if err := os.Mkdir(m.storage, 0o700); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(mortalCaddyfile, dir, w.token.URL, w.upstream.Listener.Addr(), killGrace, refreshAt)
	if err := os.WriteFile(filepath.Join(dir, "Caddyfile"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m.client = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(dir, host+".sock"))
		},
	}}
	t.Cleanup(func() {
		if m.process != nil {
			m.stop(t, syscall.SIGKILL)
		}
		m.client.CloseIdleConnections()
		m.checkLogs(t)
	})
	return m
}

// begin writes the refresh token to begin with, as a whole.
func (m *mortal) begin(t *testing.T, initial string) {
	t.Helper()
	file := filepath.Join(m.dir, "initial")
	if err := os.WriteFile(file+".new", []byte(initial+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	m.witness.note(func() { m.witness.secrets = append(m.witness.secrets, initial) })
}

// live starts the next process.
func (m *mortal) live(t *testing.T) {
	t.Helper()
	args := append(slices.Clip(m.runner), binary, "run", "--config", filepath.Join(m.dir, "Caddyfile"))
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "HOME="+m.dir, "XDG_CONFIG_HOME="+m.dir, "XDG_DATA_HOME="+m.dir,
		"SECRET=secret-of-basic", "LIFE="+strconv.Itoa(len(m.all)+1))
	m.process = start(t, "caddy", cmd)
	m.all = append(m.all, m.process)
}

// die ends the process, and tells from when to when that was.
func (m *mortal) die(t *testing.T, signal os.Signal) span {
	t.Helper()
	from := time.Now()
	m.stop(t, signal)
	m.witness.bury(len(m.all))
	to := time.Now()
	m.client.CloseIdleConnections()
	return span{from, to}
}

type span struct{ from, to time.Time }

// get sends one request.
func (m *mortal) get(ctx context.Context, way string) (sample, error) {
	s := sample{way: way, began: time.Now()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+way+"/", nil)
	if err != nil {
		return s, err
	}
	req.Header.Set(beganHeader, stamp(s.began))
	resp, err := m.client.Do(req)
	s.ended = time.Now()
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	s.ended = time.Now()
	if err == nil {
		s.status, s.retryAfter = resp.StatusCode, resp.Header.Get("Retry-After")
	}
	return s, err
}

// load sends some requests a second until the test ends, whatever becomes of
// them.
func (m *mortal) load(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			all.Go(func() {
				s, _ := m.get(ctx, ways[n%len(ways)]) // without a status
				m.mu.Lock()
				defer m.mu.Unlock()
				m.samples = append(m.samples, s)
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		all.Wait()
	})
}

// sampled are the requests of the load that began and ended in a span.
func (m *mortal) sampled(from, to time.Time) []sample {
	m.mu.Lock()
	defer m.mu.Unlock()
	var in []sample
	for _, s := range m.samples {
		if !s.began.Before(from) && s.ended.Before(to) {
			in = append(in, s)
		}
	}
	return in
}

// complaint is a line of the log about a token request that failed.
type complaint struct {
	Level  string
	Msg    string
	Kind   string
	Status int
	Code   string
	Cause  string
	Advice string
}

// complaints are those of the process that runs, without what debug adds.
func (m *mortal) complaints() []complaint {
	var found []complaint
	lines, _ := m.output.lines()
	for _, line := range lines {
		if !strings.Contains(line, `"kind"`) {
			continue
		}
		var c complaint
		if json.Unmarshal([]byte(line), &c) == nil && c.Level != "debug" {
			found = append(found, c)
		}
	}
	return found
}

// ownLines are those that are not about a request of the load.
func (m *mortal) ownLines() string {
	lines, _ := m.output.lines()
	return strings.Join(slices.DeleteFunc(lines, func(line string) bool {
		return strings.Contains(line, `"http.`)
	}), "\n")
}

// says counts the lines of the process that runs that hold a text.
func (m *mortal) says(text string) int {
	lines, _ := m.output.lines()
	n := 0
	for _, line := range lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// checkLogs: no token in any of them, and no crash but the killing.
func (m *mortal) checkLogs(t *testing.T) {
	t.Helper()
	secrets, strange := m.witness.told()
	for _, what := range strange {
		t.Errorf("the upstream got %s", what)
	}
	for i, p := range m.all {
		log := p.output.String()
		for _, word := range []string{"DATA RACE", "panic: ", "fatal error: "} {
			if strings.Contains(log, word) {
				t.Errorf("life %d of caddy: its log says %q:\n%s", i+1, word, log)
			}
		}
		for _, secret := range append(secrets, "secret-of-basic") {
			if secret != "" && strings.Contains(log, secret) {
				t.Errorf("life %d of caddy: a token or the secret stands in its log", i+1)
				break
			}
		}
	}
	if t.Failed() && m.process != nil {
		t.Logf("log of the last life of caddy:\n%s", m.ownLines())
	}
}

// stored is what is stored of the refresh token, unsealed.
type stored struct {
	RefreshToken string `json:"refresh_token"`
	Mark         *struct{ Hash string }
}

// stored reads it.
func (m *mortal) stored() (stored, error) {
	var form struct{ Plain stored }
	files, err := filepath.Glob(filepath.Join(m.storage, "upstream_auth", "crm", "*.json"))
	if err != nil {
		return form.Plain, err
	}
	if len(files) != 1 {
		return form.Plain, fmt.Errorf("%d files for one credential: %v", len(files), files)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		return form.Plain, err
	}
	if err := json.Unmarshal(text, &form); err != nil {
		return form.Plain, err
	}
	if form.Plain.RefreshToken == "" {
		return form.Plain, errors.New("no refresh token is stored")
	}
	return form.Plain, nil
}

// remains counts the files that kills in the middle of a save have left.
func (m *mortal) remains() (int, error) {
	files, err := os.ReadDir(filepath.Join(m.storage, "upstream_auth", "crm"))
	return len(files) - 1, err
}
