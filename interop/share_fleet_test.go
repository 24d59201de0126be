package interop

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fleet is some Caddys on one storage.
type fleet struct {
	*clerk
	gate    *gate
	storage *shared
	server  *rotating
	ca      *certAuthority
	dir     string
	key     string // that seals what is stored
	runner  []string

	restarted time.Time     // the last start of one of them
	slack     time.Duration // that a slow storage takes off the life of a token

	mu      sync.Mutex
	members []*member
}

// sharing is a credential that they share.
type sharing struct {
	name    string
	refresh bool   // refresh_token, else client_credentials
	hold    bool   // on_storage_failure
	secure  bool   // by HTTPS, and through a proxy
	timeout string // "" for what it is by itself
	initial string // the file with the refresh token to begin with
}

// member is one Caddy of a fleet, in one life after the other.
type member struct {
	*process
	all       []*process
	who       string
	fleet     *fleet
	dir       string
	refreshAt string
	shares    []*sharing
	client    *http.Client
	admin     *http.Client

	mu      sync.Mutex
	samples []sample // of the load; way is the credential
}

func startFleet(t *testing.T, kind string, server *rotating) *fleet {
	t.Helper()
	ca := newCertAuthority(t, t.TempDir())
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	f := &fleet{
		clerk: startClerk(t, server.tokenURL, ca), gate: startGate(t), storage: startShared(t, kind), server: server,
		ca: ca, dir: t.TempDir(), key: base64.StdEncoding.EncodeToString(key),
	}
	t.Cleanup(func() {
		for _, m := range f.members {
			if m.process != nil {
				m.stop(t, syscall.SIGKILL)
			}
			m.client.CloseIdleConnections()
			m.admin.CloseIdleConnections()
		}
		f.checkLogs(t)
	})
	return f
}

// begin gives a credential the refresh token to begin with, its first one or
// another.
func (f *fleet) begin(t *testing.T, s *sharing) {
	t.Helper()
	if !s.refresh {
		return
	}
	s.initial = filepath.Join(f.dir, s.name)
	token := f.server.initial(t)
	f.note(func() { f.secrets = append(f.secrets, token) })
	if err := os.WriteFile(s.initial+".new", []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.initial+".new", s.initial); err != nil {
		t.Fatal(err)
	}
}

// block is the credential in a Caddyfile.
func (f *fleet) block(s *sharing, who, refreshAt string) string {
	lines := []string{"refresh_at " + refreshAt, "client_id basic", "client_auth client_secret_basic {env.SECRET}"}
	at := f.token.URL
	if s.secure {
		at = f.secure.URL
		lines = append(lines, "proxy "+f.proxyOf(who, s.name), "tls {", "\tca "+f.ca.file, "}")
	}
	lines = append(lines, "token_url "+at+"/"+s.name+"/token")
	if s.refresh {
		lines = append(lines, "grant refresh_token {file."+s.initial+"}")
	} else {
		lines = append(lines, "grant client_credentials", "scopes read write")
	}
	if s.timeout != "" {
		lines = append(lines, "timeout "+s.timeout)
	}
	if s.hold {
		lines = append(lines, "share {", "\ton_storage_failure hold", "}")
	} else {
		lines = append(lines, "share")
	}
	return fmt.Sprintf("\t\tcredential %s {\n\t\t\t%s\n\t\t}\n", s.name, strings.Join(lines, "\n\t\t\t"))
}

const memberOptions = `{
	debug
	admin unix/%[1]s/admin.sock
	persist_config off
	auto_https off
	grace_period 5s
	%[2]s
	upstream_auth {
		encryption_key {env.KEY}
%[3]s	}
}
`

const memberSite = `
http://%[2]s {
	bind unix/%[1]s/sites.sock
	upstream_auth %[2]s {
		wait 1m
	}
	reverse_proxy %[3]s {
		header_up Interop-Who %[4]s
		header_up Interop-Credential %[2]s
	}
}
`

// member makes one that is not started.
func (f *fleet) member(t *testing.T, who, refreshAt string, shares ...*sharing) *member {
	t.Helper()
	// a unix socket's path has about 100 characters
	dir, err := os.MkdirTemp("", "interop") //nolint:usetesting // t.TempDir is too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &member{who: who, fleet: f, dir: dir, refreshAt: refreshAt, shares: shares}
	m.client, m.admin = clientOf(filepath.Join(dir, "sites.sock")), clientOf(filepath.Join(dir, "admin.sock"))
	var blocks, sites strings.Builder
	for _, s := range shares {
		blocks.WriteString(f.block(s, who, refreshAt))
		fmt.Fprintf(&sites, memberSite, dir, s.name, f.upstream.Listener.Addr(), who)
	}
	text := fmt.Sprintf(memberOptions, dir, f.storage.options(f.gate, who), blocks.String()) + sites.String()
	if err := os.WriteFile(filepath.Join(dir, "Caddyfile"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members = append(f.members, m)
	return m
}

// live starts the next process.
func (m *member) live(t *testing.T) {
	t.Helper()
	path, err := storagesBinary()
	if err != nil {
		t.Fatal(err)
	}
	args := append(slices.Clip(m.fleet.runner), path, "run", "--config", filepath.Join(m.dir, "Caddyfile"))
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "HOME="+m.dir, "XDG_CONFIG_HOME="+m.dir, "XDG_DATA_HOME="+m.dir,
		"SECRET="+secretOf(m.who), "KEY="+m.fleet.key)
	m.process = start(t, "caddy "+m.who, cmd)
	m.all = append(m.all, m.process)
}

// die ends the process.
func (m *member) die(t *testing.T, signal os.Signal) {
	t.Helper()
	m.stop(t, signal)
	m.client.CloseIdleConnections()
	m.admin.CloseIdleConnections()
}

// get sends one request for a credential.
func (m *member) get(ctx context.Context, credential string) (sample, error) {
	s := sample{way: credential, began: time.Now()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+credential+"/", nil)
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

// first is the first answer after a start: connections are refused before that.
func (m *member) first(t *testing.T, credential string) sample {
	t.Helper()
	var got sample
	poll(t, startDeadline, "an answer of "+m.who+" for "+credential, func(ctx context.Context) error {
		select {
		case <-m.ended:
			t.Fatalf("caddy ended by itself: %s\n%s", m.cmd.ProcessState, m.ownLines())
		default:
		}
		var err error
		got, err = m.get(ctx, credential)
		return err
	})
	return got
}

// serves waits for a 200.
func (m *member) serves(t *testing.T, credential string) {
	t.Helper()
	poll(t, 2*startDeadline, "a 200 of "+m.who+" for "+credential, func(ctx context.Context) error {
		select {
		case <-m.ended:
			t.Fatalf("caddy ended by itself: %s\n%s", m.cmd.ProcessState, m.ownLines())
		default:
		}
		s, err := m.get(ctx, credential)
		if err == nil && s.status != http.StatusOK {
			err = fmt.Errorf("status %d", s.status)
		}
		return err
	})
}

// longWait is how long something may take that has to wait for tokens to end and
// for locks to be given up.
const longWait = 4 * time.Minute

// load sends a request for each credential some times a second, until the test
// ends.
func (m *member) load(t *testing.T, pause time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for _, s := range m.shares {
		all.Go(func() {
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				all.Go(func() {
					got, _ := m.get(ctx, s.name) // without a status
					if ctx.Err() != nil {
						return
					}
					m.mu.Lock()
					defer m.mu.Unlock()
					m.samples = append(m.samples, got)
				})
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		all.Wait()
	})
}

// sampled are the requests of the load for a credential.
func (m *member) sampled(credential string) []sample {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(m.samples), func(s sample) bool { return s.way != credential })
}

// ownLines are those of the log that are not about requests.
func (m *member) ownLines() string {
	lines, _ := m.output.lines()
	return strings.Join(slices.DeleteFunc(lines, func(line string) bool {
		return strings.Contains(line, `"http.`)
	}), "\n")
}

// complaints are the lines about token requests that failed, of the process
// that runs.
func (m *member) complaints(credential string) []complaint {
	var found []complaint
	lines, _ := m.output.lines()
	for _, line := range lines {
		if !strings.Contains(line, `"kind"`) || !strings.Contains(line, fmt.Sprintf(`"credential":%q`, credential)) {
			continue
		}
		var c complaint
		if json.Unmarshal([]byte(line), &c) == nil && c.Level != "debug" {
			found = append(found, c)
		}
	}
	return found
}

// tallies are what Caddy's metrics say of one credential.
type tallies struct{ granted, refused, other, adopted int }

var (
	requestsTotal = regexp.MustCompile(`(?m)^caddy_upstream_auth_token_requests_total\{credential="([^"]+)",grant="[^"]+",reason="[^"]+",result="([^"]+)"\} (\d+)$`)
	adoptedTotal  = regexp.MustCompile(`(?m)^caddy_upstream_auth_tokens_adopted_total\{credential="([^"]+)"\} (\d+)$`)
)

// tallies are those of all credentials, of the process that runs.
func (m *member) tallies(t *testing.T) map[string]tallies {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := do(m.admin, req)
	if err != nil || a.status != http.StatusOK {
		t.Fatalf("the metrics of %s: %d, %v", m.who, a.status, err)
	}
	all := make(map[string]tallies)
	for _, found := range requestsTotal.FindAllStringSubmatch(a.body, -1) {
		n, _ := strconv.Atoi(found[3]) // it is a number
		e := all[found[1]]
		switch found[2] {
		case "success":
			e.granted += n
		case "refused":
			e.refused += n
		default:
			e.other += n
		}
		all[found[1]] = e
	}
	for _, found := range adoptedTotal.FindAllStringSubmatch(a.body, -1) {
		e := all[found[1]]
		e.adopted, _ = strconv.Atoi(found[2])
		all[found[1]] = e
	}
	return all
}

// checkLogs: no token in any log, and no crash.
func (f *fleet) checkLogs(t *testing.T) {
	t.Helper()
	f.clerk.mu.Lock()
	secrets, strange := slices.Clone(f.secrets), slices.Clone(f.strange)
	f.clerk.mu.Unlock()
	for _, what := range slices.Compact(strange) {
		t.Errorf("the clerk got %s", what)
	}
	for _, m := range f.members {
		for i, p := range m.all {
			log := p.output.String()
			for _, word := range []string{"DATA RACE", "panic: ", "fatal error: "} {
				if strings.Contains(log, word) {
					t.Errorf("life %d of %s: its log says %q:\n%s", i+1, m.who, word, log)
				}
			}
			for _, secret := range append(secrets, sharedSecret, f.key) {
				if secret != "" && strings.Contains(log, secret) {
					t.Errorf("life %d of %s: a token or a secret stands in its log", i+1, m.who)
					break
				}
			}
		}
	}
}

// tell prints all that is known of a credential.
func (f *fleet) tell(t *testing.T, credential string) {
	t.Helper()
	t.Logf("token requests for %s:\n%s", credential, f.history(credential))
	for _, m := range f.members {
		if !slices.ContainsFunc(m.shares, func(s *sharing) bool { return s.name == credential }) {
			continue
		}
		t.Logf("storage calls of %s for it:\n%s", m.who, f.gate.history(m.who, credential))
		for i, p := range m.all {
			lines, _ := p.output.lines()
			lines = slices.DeleteFunc(lines, func(line string) bool {
				return strings.Contains(line, `"http.`) || !strings.Contains(line, fmt.Sprintf(`"credential":%q`, credential))
			})
			t.Logf("life %d of %s says:\n%s", i+1, m.who, strings.Join(lines, "\n"))
		}
	}
}

// failedWhileValid are requests that were turned away though a token that the
// same Caddy had used was valid still.
func (m *member) failedWhileValid(credential string) (failed []sample, turnedAway int, longest time.Duration) {
	grants := m.fleet.grants(credential)
	for _, s := range m.sampled(credential) {
		longest = max(longest, s.ended.Sub(s.began))
		if s.status == http.StatusOK {
			continue
		}
		turnedAway++
		for _, g := range grants {
			used := g.used[m.who]
			// lifetimes are whole seconds, and a tenth of one is not used
			if !used.IsZero() && used.Before(s.began) && s.ended.Before(g.begun.Add(g.ttl-g.ttl/10-time.Second-m.fleet.slack)) {
				failed = append(failed, s)
				break
			}
		}
	}
	return failed, turnedAway, longest
}

// Interface guard
var _ fmt.Stringer = storageCall{}
