package interop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/interop/freeport"
)

// storagesBinary is storages/, built once, beside Caddy's.
var storagesBinary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(binary), "storages")
	args := []string{"build", "-C", "storages", "-o", path}
	if os.Getenv("INTEROP_RACE") != "" {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./storages: %w\n%s", err, out)
	}
	return path, nil
})

// shared is a storage that several Caddys use.
type shared struct {
	kind  string
	where string // the option that says where it is
	locks func() ([]string, error)
	redis *redisServer // nil for files
	root  string       // "" for redis
}

const (
	inFiles = "file system"
	inRedis = "redis"
)

// startShared makes one of a kind.
func startShared(t *testing.T, kind string) *shared {
	t.Helper()
	if kind == inRedis {
		r := startRedis(t)
		return &shared{kind: kind, where: "redis " + r.address, redis: r, locks: func() ([]string, error) {
			out, err := exec.Command("redis-cli", "-p", r.port, "--raw", "keys", "caddy-lock/upstream_auth/*").Output()
			return strings.Fields(string(out)), err
		}}
	}
	root := t.TempDir()
	return &shared{kind: kind, where: "root " + root, root: root, locks: func() ([]string, error) { return locksIn(root) }}
}

// locksIn are the lock files of a folder.
func locksIn(root string) ([]string, error) {
	return filepath.Glob(filepath.Join(root, "locks", "upstream_auth*.lock"))
}

// redisServer is one on loopback, which forgets nothing when it is killed.
type redisServer struct {
	*process
	dir, port, address string
}

func startRedis(t *testing.T) *redisServer {
	t.Helper()
	address := freeport.Addr(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	r := &redisServer{dir: t.TempDir(), port: port, address: address}
	t.Cleanup(func() { r.stop(t, syscall.SIGKILL) })
	r.live(t)
	return r
}

// live starts it, for the first time or again.
func (r *redisServer) live(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatalf("redis-server is needed (apt-get install --no-install-recommends redis-server): %v", err)
	}
	r.process = start(t, "redis-server", exec.Command("redis-server", "--port", r.port, "--bind", "127.0.0.1", "--dir", r.dir,
		"--save", "", "--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no"))
	ctx, cancel := context.WithTimeout(t.Context(), startDeadline)
	defer cancel()
	if _, err := r.await(ctx, func(line string) bool { return strings.Contains(line, "Ready to accept connections") }); err != nil {
		t.Fatalf("%v\n%s", err, &r.output)
	}
}

// storageCall is a call that a Caddy makes to its storage.
type storageCall struct {
	who, credential string
	op              string // load, store, lock, unlock
	kind            string // chain: a record of a refresh token; shared: that of an access token; turn: the lock
	after           bool   // made, and not returned; else not yet made
	nth             int    // of its op and kind since the lock was got
}

func (c storageCall) String() string {
	when := "before"
	if c.after {
		when = "after"
	}
	return fmt.Sprintf("%s: %s %s %s #%d", c.who, when, c.op, c.kind, c.nth)
}

// gate lets the storage calls of many Caddys pass, or keeps them.
type gate struct {
	*httptest.Server
	socket string

	mu    sync.Mutex
	rules map[*gateRule]bool
	lines map[string]*sequence // by who and credential
}

// gateRule says what becomes of a call, "" if nothing special: it may take its
// time.
type gateRule struct{ of func(storageCall) string }

// sequence is what one Caddy has called for one credential.
type sequence struct {
	shared string // its key
	counts map[string]int
	passed []string
}

func startGate(t *testing.T) *gate {
	t.Helper()
	dir, err := os.MkdirTemp("", "interop") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	g := &gate{socket: filepath.Join(dir, "gate.sock"), rules: make(map[*gateRule]bool), lines: make(map[string]*sequence)}
	listener, err := net.Listen("unix", g.socket)
	if err != nil {
		t.Fatal(err)
	}
	g.Server = &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(g.serve)}}
	g.Start()
	t.Cleanup(g.Close)
	return g
}

func (g *gate) serve(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	c, rules := g.note(q.Get("who"), q.Get("op"), q.Get("key"), q.Get("when") == "after")
	for _, rule := range rules {
		if answer := rule.of(c); answer != "" {
			fmt.Fprint(w, answer)
			return
		}
	}
}

// note makes a call of what is known of it.
func (g *gate) note(who, op, key string, after bool) (storageCall, []*gateRule) {
	key = strings.TrimPrefix(key, "upstream_auth/")
	name, _, _ := strings.Cut(key, "/")
	c := storageCall{who: who, credential: name, op: op, kind: "shared", after: after}
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.lines[who+" "+name]
	if s == nil {
		s = &sequence{}
		g.lines[who+" "+name] = s
	}
	if s.shared == "" && op == "load" { // each begins with a look for a token
		s.shared = key
	}
	if op == "lock" || s.counts == nil {
		s.counts = make(map[string]int)
	}
	switch {
	case op == "lock" || op == "unlock":
		c.kind = "turn"
	case key != s.shared:
		c.kind = "chain"
	}
	if !after {
		s.counts[op+c.kind]++
	}
	c.nth = s.counts[op+c.kind]
	s.passed = append(s.passed, time.Now().Format("05.000 ")+c.String())
	if len(s.passed) > 400 {
		s.passed = s.passed[200:]
	}
	rules := make([]*gateRule, 0, len(g.rules))
	for rule := range g.rules {
		rules = append(rules, rule)
	}
	return c, rules
}

// rule is in force until over is called.
func (g *gate) rule(of func(storageCall) string) (over func()) {
	rule := &gateRule{of}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rules[rule] = true
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.rules, rule)
	}
}

// history is what one called for a credential.
func (g *gate) history(who, credential string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.lines[who+" "+credential]
	if s == nil {
		return "nothing"
	}
	return strings.Join(s.passed, "\n")
}

// options are those of the storage in a Caddyfile.
func (s *shared) options(g *gate, who string) string {
	return fmt.Sprintf("storage interop {\n\t\t%s\n\t\tgate %s\n\t\tname %s\n\t}", s.where, g.socket, who)
}

// halt stops a process, and returns when it stands.
func halt(p *process) error {
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for {
		state, err := stateOf(p.cmd.Process.Pid)
		if err != nil || state == "T" {
			return err
		}
	}
}

// stateOf is the letter of /proc/<pid>/stat.
func stateOf(pid int) (string, error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", err
	}
	_, rest, found := strings.Cut(string(stat), ") ")
	if !found || rest == "" {
		return "", errors.New("no state in it")
	}
	return rest[:1], nil
}
