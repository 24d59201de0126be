//go:build unix

package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asSidecar has the test binary be the sidecar.
const asSidecar = "UPSTREAM_AUTH_TEST_SIDECAR"

func TestMain(m *testing.M) {
	if os.Getenv(asSidecar) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestWatchArguments(t *testing.T) {
	file := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ args, left string }{
		{"run --config " + file + " --adapter caddyfile --watch", "run --config " + file + " --adapter caddyfile"},
		{"run -w -c " + file, "run -c " + file},
		{"run --watch --config=" + file, "run --config=" + file},
		{"run -c=" + file + " -a caddyfile --watch=true -w", "run -c=" + file + " -a caddyfile"},
		{"run --envfile " + file + " --environ -w --pidfile -w --config " + file + ".missing -c " + file, "run --envfile " + file + " --environ --pidfile -w --config " + file + ".missing -c " + file},
		// Caddy's own, or none of its business
		{"run --watch", "run --watch"},
		{"run --watch --config", "run --watch --config"},
		{"run --watch --config -", "run --watch --config -"},
		{"run --watch --config /dev/null", "run --watch --config /dev/null"},
		{"run --watch=maybe --config " + file, "run --watch=maybe --config " + file},
		{"run --watch=false --config " + file, "run --watch=false --config " + file},
		{"run --watch --resume --config " + file, "run --watch --resume --config " + file},
		{"run -wc " + file, "run -wc " + file},
		{"run --adapter --watch --config " + file, "run --adapter --watch --config " + file},
		{"run --watch --config " + file + ".missing", "run --watch --config " + file + ".missing"},
		{"run --config " + file, "run --config " + file},
		{"start --watch --config " + file, "start --watch --config " + file},
		{"", ""},
	} {
		got := watch(append([]string{"caddy"}, strings.Fields(tc.args)...))
		if want := append([]string{"caddy"}, strings.Fields(tc.left)...); !slices.Equal(got, want) {
			t.Errorf("%s: %q is left, expected %q", tc.args, got, want)
		}
	}
}

// TestWatch: an edit that is no Caddyfile leaves the old configuration running,
// and the one that mends it is loaded.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	file, socket := filepath.Join(dir, "Caddyfile"), filepath.Join(dir, "http.sock")
	edit := func(text string) {
		t.Helper()
		// as a ConfigMap is swapped: at one stroke
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	site := func(answer string) string {
		return "{\n\tadmin off\n\tpersist_config off\n}\n\nhttp:// {\n\tbind unix/" + socket + "\n\trespond " + answer + "\n}\n"
	}
	edit(site("one"))

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sidecar := exec.CommandContext(ctx, os.Args[0], "run", "--config", file, "--adapter", "caddyfile", "--watch")
	sidecar.Env = append(os.Environ(), asSidecar+"=1", "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	log, err := sidecar.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sidecar.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(log)
	await := func(text string) {
		t.Helper()
		var seen strings.Builder
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				return
			}
			seen.WriteString(lines.Text() + "\n")
		}
		t.Fatalf("it did not log %q, but:\n%s", text, &seen)
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	answer := func() string {
		t.Helper()
		res, err := client.Get("http://localhost/")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return string(body)
	}

	await("serving initial configuration")
	if got := answer(); got != "one" {
		t.Errorf("the answer is %q", got)
	}
	edit("http:// {\n\tno such directive\n}\n")
	// by itself: a signal could take the place of the one that ends the process
	await(`"logger":"watcher","msg":"failed to reload config from file"`)
	if got := answer(); got != "one" {
		t.Errorf("after an edit that is no Caddyfile the answer is %q", got)
	}
	edit(site("two"))
	await(`"logger":"watcher","msg":"successfully reloaded config from file"`)
	for answer() != "two" { // the old server may take one more connection
		if ctx.Err() != nil {
			t.Fatal("the mended configuration does not answer")
		}
	}

	if err := sidecar.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, log)
	if err := sidecar.Wait(); err != nil {
		t.Error(err)
	}
}
