package caddymodule

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// canaries are tokens that are easy to find.
func canaries(n int) string { return fmt.Sprintf("c4n4ry-token-%d", n) }

// fileSite has a status beside what uses the token.
const fileSite = "upstream_auth_status /status\nupstream_auth crm\nreverse_proxy $API"

// tokenAt is what stands in a file, "" while there is none.
func tokenAt(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(content)
}

// alone wants a directory to hold nothing but these files.
func alone(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(names) {
		t.Errorf("%s holds %v, want %v", dir, got, names)
	}
}

// mode is that of a file.
func modeOf(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

// untold wants no token in the log, which is at debug level.
func (p *parts) untold() {
	p.t.Helper()
	if strings.Contains(p.logged(), "c4n4ry") {
		p.t.Errorf("a token stands in the log:\n%s", p.logged())
	}
}

// anew asks for another token, and waits for it.
func (p *parts) anew() {
	p.t.Helper()
	e := credentials.newest()["crm"]
	before := e.source.Token()
	eventually(p.t, "a token request", func() bool { // refusals are spaced
		return e.source.Reject(p.t.Context(), before, false) || e.source.Token().Value != before.Value
	})
	eventually(p.t, "another token", func() bool { now := e.source.Token(); return now != nil && now.Value != before.Value })
}

// TestTokenFileLife: the file is there exactly while a valid token is.
func TestTokenFileLife(t *testing.T) {
	p := newParts(t, authserver.Config{Lifetime: 3 * time.Second, Issue: canaries})
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	p.auth.SetFault(authserver.Down())
	p.run(p.credential("token_file "+path), fileSite)
	eventually(t, "a failure", func() bool { _, o := p.status(); return o.of(t, "crm").Failures > 0 })
	alone(t, dir)
	p.auth.SetFault(nil)
	var last string
	eventually(t, "a token in the file", func() bool { last = tokenAt(t, path); return last != "" })
	if modeOf(t, path) != 0o600 || !strings.HasPrefix(last, "c4n4ry-token-") {
		t.Errorf("it holds %q, with mode %s", last, modeOf(t, path))
	}
	eventually(t, "a renewal", func() bool { now := tokenAt(t, path); return now != "" && now != last })
	p.auth.SetFault(authserver.Down())
	eventually(t, "the end of the token", func() bool { _, o := p.status(); return o.of(t, "crm").State == stateUnavailable })
	eventually(t, "the end of the file", func() bool { return tokenAt(t, path) == "" })
	alone(t, dir)
	p.auth.SetFault(nil)
	eventually(t, "a token in the file", func() bool { return tokenAt(t, path) != "" })
	p.stop()
	alone(t, dir)
	p.untold()
	noFiles(t)
}

// noFiles wants this process to have forgotten all of them.
func noFiles(t *testing.T) {
	t.Helper()
	tokenFiles.mu.Lock()
	defer tokenFiles.mu.Unlock()
	if len(tokenFiles.byPath) > 0 {
		t.Errorf("left: %v", sorted(tokenFiles.byPath))
	}
}

// TestTokenFileFollows: every token that comes is in the file at once, and who
// reads it meanwhile sees a whole one, always.
func TestTokenFileFollows(t *testing.T) {
	p := newParts(t, authserver.Config{Issue: canaries})
	path := filepath.Join(t.TempDir(), "token")
	p.run(p.credential("token_file "+path), fileSite)
	eventually(t, "a token in the file", func() bool { return tokenAt(t, path) == "c4n4ry-token-1" })
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				content, err := os.ReadFile(path)
				if err != nil || !strings.HasPrefix(string(content), "c4n4ry-token-") || strings.HasSuffix(string(content), "-") {
					t.Errorf("a reader saw %q, %v", content, err)
					return
				}
			}
		})
	}
	e := credentials.newest()["crm"]
	for range 2 {
		p.anew()
		want := e.source.Token().Value
		eventually(t, "it in the file", func() bool { return tokenAt(t, path) == want })
	}
	close(done)
	wg.Wait()
	p.untold()
}

// TestTokenFileKeptThroughRefusal: a token that an upstream refuses is the best
// there is until another one comes.
func TestTokenFileKeptThroughRefusal(t *testing.T) {
	p := newParts(t, authserver.Config{Issue: canaries})
	path := filepath.Join(t.TempDir(), "token")
	release := make(chan struct{})
	p.run(p.credential("token_file "+path), fileSite)
	eventually(t, "a token in the file", func() bool { return tokenAt(t, path) != "" })
	p.auth.FailNext(1, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		<-release
		next.ServeHTTP(w, r)
	})
	e := credentials.newest()["crm"]
	eventually(t, "a token request", func() bool { return e.source.Reject(t.Context(), e.source.Newest(), true) })
	if e.source.Token() != nil {
		t.Fatal("it is not withheld")
	}
	e.files.changed()
	settled(e)
	if got := tokenAt(t, path); got != "c4n4ry-token-1" {
		t.Errorf("while it is withheld the file holds %q", got)
	}
	close(release)
	eventually(t, "another one", func() bool { return tokenAt(t, path) == "c4n4ry-token-2" })
}

// settled waits until the files of a credential are as they should be.
func settled(e *entry) {
	e.files.mu.Lock()
	all := e.files.all
	e.files.mu.Unlock()
	for _, c := range all {
		c.file.mu.Lock()
		ch := c.file.settled
		c.file.mu.Unlock()
		<-ch
	}
}

// TestTokenFileReloads: what a reload does to files.
func TestTokenFileReloads(t *testing.T) {
	p := newParts(t, authserver.Config{Issue: canaries})
	dir := t.TempDir()
	path, other := filepath.Join(dir, "token"), filepath.Join(dir, "other")
	n := 0
	reload := func(more ...string) {
		t.Helper()
		n++
		if err := p.load(p.caddyfile(p.credential(more...), fmt.Sprintf("header X-Reload %d\n", n)+fileSite)); err != nil {
			t.Fatal(err)
		}
	}
	look := func(path string) fs.FileInfo {
		t.Helper()
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	reload()
	p.want(p.get("/"), 200)
	alone(t, dir)

	reload("token_file " + path) // a file more asks for no token
	eventually(t, "a file", func() bool { return tokenAt(t, path) == "c4n4ry-token-1" })
	first := look(path)
	for range 3 { // one that stays is not touched
		reload("token_file " + path)
		settled(credentials.newest()["crm"])
		if now := look(path); !os.SameFile(now, first) || !now.ModTime().Equal(first.ModTime()) {
			t.Error("a reload has written it anew")
		}
	}
	reload("token_file " + path + " {\nmode 0640\n}")
	eventually(t, "another mode", func() bool { return modeOf(t, path) == 0o640 && tokenAt(t, path) == "c4n4ry-token-1" })

	// one that somebody has removed or changed comes back
	for _, meddle := range []func() error{
		func() error { return os.Remove(path) },
		func() error { return os.WriteFile(path, []byte("x"), 0o600) },
	} {
		if err := meddle(); err != nil {
			t.Fatal(err)
		}
		reload("token_file " + path)
		eventually(t, "the file", func() bool { return tokenAt(t, path) == "c4n4ry-token-1" })
	}

	reload("token_file " + other) // and another path has it moved
	eventually(t, "it", func() bool { return tokenAt(t, other) == "c4n4ry-token-1" })
	alone(t, dir, "other")

	// one that fails does nothing to either
	for bad, file := range map[string]string{
		strings.Replace(p.caddyfile(p.credential("token_file "+path), fileSite), "bind 127.0.0.1", "bind 256.0.0.1", 1):              other,
		strings.Replace(p.caddyfile(p.credential("scopes b", "token_file "+other), fileSite), "bind 127.0.0.1", "bind 256.0.0.1", 1): other,
	} {
		before := look(file)
		if err := caddy.Load(adapt(t, bad), true); err == nil {
			t.Fatal("it was taken")
		}
		settled(credentials.newest()["crm"])
		alone(t, dir, "other")
		if now := look(file); !os.SameFile(now, before) {
			t.Error("a reload that failed has written the file anew")
		}
	}
	if p.auth.Requests() > 2 { // of the credential that failed to start
		t.Errorf("%d token requests", p.auth.Requests())
	}

	reload() // without it, it goes
	alone(t, dir)
	if p.lines(`"level":"error"`) > 2 { // of Caddy, for what it did not take
		t.Error(p.logged())
	}
	p.untold()
}

// TestTokenFileOfChangedCredential: a credential that changes has no token until
// it gets its own, and the file of the old one's is gone until then.
func TestTokenFileOfChangedCredential(t *testing.T) {
	p := newParts(t, authserver.Config{Issue: canaries})
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	p.run(p.credential("token_file "+path), fileSite)
	eventually(t, "a file", func() bool { return tokenAt(t, path) == "c4n4ry-token-1" })
	release := make(chan struct{})
	p.auth.FailNext(1, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		<-release
		next.ServeHTTP(w, r)
	})
	if err := p.load(p.caddyfile(p.credential("scopes b", "token_file "+path), fileSite)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no file", func() bool { return tokenAt(t, path) == "" })
	close(release)
	eventually(t, "its own", func() bool { return tokenAt(t, path) == "c4n4ry-token-2" })

	// a path goes to another credential, with that one's token
	if err := p.load(p.caddyfile(p.credential("scopes b")+credentialToo("erp", p.credential("token_file "+path)), fileSite)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other's", func() bool { return tokenAt(t, path) == "c4n4ry-token-3" })
	alone(t, dir, "token")
}

// TestTokenFileOnlyRuns: validating touches no file.
func TestTokenFileOnlyRuns(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	if err := os.WriteFile(path, []byte("another process's"), 0o600); err != nil {
		t.Fatal(err)
	}
	loads(t, credentialPlaces[0].config(good+"token_file "+path))
	if got := tokenAt(t, path); got != "another process's" {
		t.Errorf("the file holds %q", got)
	}
	alone(t, dir, "token")
}

// TestTokenFileCounts: a credential whose token is written to a file is used,
// whether a route names it or not.
func TestTokenFileCounts(t *testing.T) {
	p := newParts(t, authserver.Config{})
	p.auth.SetFault(authserver.Down())
	p.run(p.credential("token_file "+filepath.Join(t.TempDir(), "token")), "upstream_auth_status /status")
	if a, o := p.status(); a.status != 503 || !o.of(t, "crm").Counts || !o.of(t, "crm").Used {
		t.Errorf("got %d %s", a.status, a.body)
	}
	p.auth.SetFault(nil)
	eventually(t, "readiness", func() bool { a, o := p.status(); return a.status == 200 && o.of(t, "crm").TokenFile.Written })
}
