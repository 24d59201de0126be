package pod

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSteady: what an application has of its sidecar, and what it has not.
func TestSteady(t *testing.T) {
	t.Parallel()
	s := started(t, legacyExample, 4*time.Second, nil)
	s.more(500)
	c := s.counts()
	if c.failed() > 0 {
		t.Errorf("%d of the application's requests failed: %+v", c.failed(), c)
	}
	s.until("a token was renewed", func() bool { return s.server.Issued() > 1 })

	s.applicationHasNone()
	s.applicationReachesNothing()
	s.sidecarHasLittle()
	if code, _ := s.ask(s.podNetwork, http.MethodGet, "http://127.0.0.1:8080/", "evil.example.com"); code != http.StatusMisdirectedRequest {
		t.Errorf("a request from within the pod with another Host is answered with %d, want 421", code)
	}
	// as with kubectl exec
	said, err := s.sidecar.exec(t.Context(), []string{"caddy", "upstream-auth", "status"})
	if err != nil || !strings.Contains(said, "upstream") {
		t.Errorf("caddy upstream-auth status: %v: %s", err, said)
	}
	s.clean("what caddy upstream-auth status prints", said)
	s.clean("the sidecar's log", s.sidecar.logged())
	saw(t, 3, "the application at work, tokens of 4s",
		"%d requests, 0 failed, %d tokens; none of them in its environment, files or log, nor the secret; no admin socket, no secret volume, no process of the sidecar's to be seen; 421 to another Host. `kubectl exec … -- caddy upstream-auth status` works", c.good, s.server.Issued())
}

// applicationHasNone searches its environment, its arguments and all its files.
func (s *scene) applicationHasNone() {
	s.t.Helper()
	proc := fmt.Sprintf("/proc/%d/", s.application.current().cmd.Process.Pid)
	for _, name := range []string{"environ", "cmdline"} {
		text, err := os.ReadFile(proc + name)
		if err != nil || len(text) == 0 {
			s.t.Fatalf("its %s cannot be read: %v", name, err)
		}
		s.clean("the application's "+name, string(text))
	}
	searched := s.search(proc+"root", "the application's file ", "proc", "sys", "dev")
	if !slices.Contains(searched, "application") {
		s.t.Errorf("its files were not searched, only %v", searched)
	}
	s.clean("the application's log", s.application.logged())
}

// search looks for tokens and secrets in all files, but below the folders that
// are left out.
func (s *scene) search(root, what string, out ...string) (searched []string) {
	s.t.Helper()
	err := filepath.WalkDir(root+"/", func(path string, d fs.DirEntry, err error) error {
		name := strings.TrimPrefix(strings.TrimPrefix(path, root), "/")
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains(out, name):
			return fs.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a lock that was let go
		}
		s.clean(what+name, string(text))
		searched = append(searched, name)
		return err
	})
	if err != nil {
		s.t.Error(err)
	}
	return searched
}

func (s *scene) applicationReachesNothing() {
	s.t.Helper()
	said, err := s.application.exec(s.t.Context(), []string{"/application", "looks",
		"/run/caddy-upstream-auth", "/run/caddy-upstream-auth/admin.sock", "/run/secrets/upstream-auth", "/data", "/etc/caddy",
		"127.0.0.1:2019", "127.0.0.1:8080", podIP.String() + ":9180"})
	if err != nil {
		s.t.Fatalf("%v: %s", err, said)
	}
	var seen struct {
		Processes      []int
		There, Sockets []string
	}
	if err := json.Unmarshal([]byte(said), &seen); err != nil {
		s.t.Fatal(err)
	}
	if !slices.Equal(seen.Processes, []int{1}) {
		s.t.Errorf("it sees the processes %v, want its own alone", seen.Processes)
	}
	if len(seen.There) > 0 {
		s.t.Errorf("it sees %v", seen.There)
	}
	if want := []string{"127.0.0.1:8080", podIP.String() + ":9180"}; !slices.Equal(seen.Sockets, want) {
		s.t.Errorf("it reaches %v, want %v", seen.Sockets, want)
	}
	// a socket without a file would be in the network that both share
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/unix", s.application.current().cmd.Process.Pid))
	if err != nil || !bytes.Contains(text, []byte("/run/caddy-upstream-auth/admin.sock")) {
		s.t.Fatalf("the sockets of the pod cannot be read: %v\n%s", err, text)
	}
	if bytes.Contains(text, []byte(" @")) {
		s.t.Errorf("there is a socket that has no file to protect it:\n%s", text)
	}
}

// sidecarHasLittle looks at the process as the kernel does.
func (s *scene) sidecarHasLittle() {
	s.t.Helper()
	proc := fmt.Sprintf("/proc/%d/", s.sidecar.current().cmd.Process.Pid)
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, want := range []string{"Uid:\t65532\t65532\t65532\t65532\n", "Gid:\t65532\t65532\t65532\t65532\n", "CapPrm:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "NoNewPrivs:\t1\n"} {
		if !bytes.Contains(status, []byte(want)) {
			s.t.Errorf("not %q:\n%s", want, status)
		}
	}
	for _, path := range []string{"usr/bin/caddy", "new", "etc/new", "etc/caddy/Caddyfile", "run/secrets/upstream-auth/client_secret"} {
		// root in here stands for the most that anybody could do
		f, err := os.OpenFile(proc+"root/"+path, os.O_WRONLY|os.O_CREATE, 0o600)
		if !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.ETXTBSY) {
			s.t.Errorf("%s can be written: %v", path, err)
			f.Close()
		}
	}
	info, err := os.Stat(proc + "root/run/caddy-upstream-auth/admin.sock")
	if err != nil {
		s.t.Fatal(err)
	}
	if mode, owner := info.Mode().Perm(), info.Sys().(*syscall.Stat_t).Uid; mode != 0o600 || owner != 65532 {
		s.t.Errorf("the admin socket has mode %o and owner %d, want 600 and 65532", mode, owner)
	}
	environ, err := os.ReadFile(proc + "environ")
	if err != nil {
		s.t.Fatal(err)
	}
	s.clean("the sidecar's environment", string(environ))
	s.search(proc+"root", "the sidecar's file ", "proc", "sys", "dev", "run/secrets")
}

// TestFigures: what the sidecar costs, in a pod where nothing goes on, and how
// soon after its start it serves.
func TestFigures(t *testing.T) {
	s := play(t, legacyExample, time.Hour, nil)
	s.serverSite.up(t)
	s.until("the proxy answers", func() bool {
		code, _ := s.ask(s.podNetwork, http.MethodGet, "http://127.0.0.1:8080/", "")
		return code == http.StatusOK
	})
	first := time.Since(s.sidecar.current().at)
	s.more(1)
	// at rest: no request comes any more
	s.application.signal(s.application.current(), syscall.SIGSTOP)
	memory := s.memory()
	const megabyte = 1e6
	if size := sidecarImage.packed; size > 45*megabyte {
		t.Errorf("the image has %d bytes, want 45 MB at most", size)
	}
	saw(t, 13, "what it costs", "image %.1f MB as it is pulled; %s from the start of the process to the first good answer through the proxy, token request included; %.1f MB of memory at rest (PSS), %.1f MB of it its own and the rest pages of the binary, of the %s that the template allows",
		float64(sidecarImage.packed)/megabyte, milliseconds(first), memory["Pss"]/megabyte, memory["Pss_Anon"]/megabyte, s.sidecar.spec.Resources.Limits.Memory())
}

// memory is what the sidecar's process holds, in bytes, as the kernel counts it
// in smaps_rollup.
func (s *scene) memory() map[string]float64 {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", s.sidecar.current().cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	out := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		if fields := strings.Fields(rest); len(fields) == 2 && fields[1] == "kB" {
			kilobytes, err := strconv.Atoi(fields[0])
			if err != nil {
				s.t.Fatal(err)
			}
			out[name] = float64(kilobytes) * 1024
		}
	}
	return out
}
