package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// binary is the program for this machine, and made a package of it.
var binary, made string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "debian-test")
	o := example(dir)
	binary = filepath.Join(dir, name)
	if err == nil {
		err = compile(context.Background(), o, binary)
	}
	if err == nil {
		made, err = pack(context.Background(), o, binary)
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
	} else {
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func example(folder string) options {
	return options{source: "../..", version: "0.1.0-rc.1", arch: runtime.GOARCH, epoch: time.Unix(1767225600, 0).UTC(), folder: folder}
}

// One program gives one package, to the last byte, whoever makes it. That one
// commit gives one program is tested where the image is.
func TestSameTwice(t *testing.T) {
	before := syscall.Umask(0o077)
	again, err := pack(t.Context(), example(t.TempDir()), binary)
	syscall.Umask(before)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, made), read(t, again)) {
		t.Fatalf("two builds differ:\n%s\n%s", dpkg(t, "dpkg-deb", "--contents", made), dpkg(t, "dpkg-deb", "--contents", again))
	}
	if got := filepath.Base(again); got != name+"_0.1.0~rc.1_"+runtime.GOARCH+".deb" {
		t.Errorf("it is called %s", got)
	}
}

// The image of a version has the same program.
func TestSameAsInImage(t *testing.T) {
	t.Parallel()
	o := example(t.TempDir())
	root := filepath.Join(o.folder, "root")
	cmd := exec.CommandContext(t.Context(), "go", "run", "../image", "-source", o.source, "-version", o.version,
		"-platforms", "linux/"+o.arch, "-rootfs", root)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the image: %v\n%s", err, out)
	}
	if !bytes.Equal(read(t, binary), read(t, filepath.Join(root, "usr/bin/caddy"))) {
		t.Error("the program in the image is another one")
	}
}

func TestContents(t *testing.T) {
	t.Parallel()
	const want = `drwxr-xr-x root/root ./
drwxr-xr-x root/root ./etc/
drwxr-xr-x root/root ./etc/caddy-upstream-auth/
-rw-r--r-- root/root ./etc/caddy-upstream-auth/Caddyfile
drwxr-xr-x root/root ./usr/
drwxr-xr-x root/root ./usr/bin/
-rwxr-xr-x root/root ./usr/bin/caddy-upstream-auth
drwxr-xr-x root/root ./usr/lib/
drwxr-xr-x root/root ./usr/lib/systemd/
drwxr-xr-x root/root ./usr/lib/systemd/system/
-rw-r--r-- root/root ./usr/lib/systemd/system/caddy-upstream-auth@.service
drwxr-xr-x root/root ./usr/share/
drwxr-xr-x root/root ./usr/share/doc/
drwxr-xr-x root/root ./usr/share/doc/caddy-upstream-auth/
-rw-r--r-- root/root ./usr/share/doc/caddy-upstream-auth/CHANGELOG.md.gz
-rw-r--r-- root/root ./usr/share/doc/caddy-upstream-auth/NOTICES.gz
-rw-r--r-- root/root ./usr/share/doc/caddy-upstream-auth/README.md.gz
-rw-r--r-- root/root ./usr/share/doc/caddy-upstream-auth/changelog.gz
-rw-r--r-- root/root ./usr/share/doc/caddy-upstream-auth/copyright
drwxr-xr-x root/root ./usr/share/doc/caddy-upstream-auth/examples/
-rw-r--r-- root/root ./usr/share/doc/caddy-upstream-auth/examples/Caddyfile
-rw-r--r-- root/root ./usr/share/doc/caddy-upstream-auth/examples/env
-rw-r--r-- root/root ./usr/share/doc/caddy-upstream-auth/examples/upstream-auth.conf
drwxr-xr-x root/root ./usr/share/man/
drwxr-xr-x root/root ./usr/share/man/man8/
-rw-r--r-- root/root ./usr/share/man/man8/caddy-upstream-auth.8.gz
`
	var got strings.Builder
	for line := range strings.Lines(dpkg(t, "dpkg-deb", "--contents", made)) {
		fields := strings.Fields(line) // mode, owner, size, date, time, name
		if fields[3] != "2026-01-01" {
			t.Errorf("not of the time that was given: %s", line)
		}
		fmt.Fprintln(&got, fields[0], fields[1], fields[5])
	}
	if got.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", got.String(), want)
	}
	if got := dpkg(t, "dpkg-deb", "--info", made, "conffiles"); got != "/etc/caddy-upstream-auth/Caddyfile\n" {
		t.Errorf("conffiles: %q", got)
	}
}

// What dpkg is told: each field, and a sum for each file that nobody edits.
func TestControl(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	dpkg(t, "dpkg-deb", "--raw-extract", made, dir)
	for field, want := range map[string]string{
		"Package": name, "Version": "0.1.0~rc.1", "Architecture": runtime.GOARCH, "Maintainer": maintainer,
	} {
		if got := dpkg(t, "dpkg-deb", "--field", made, field); got != want+"\n" {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
	size, err := strconv.Atoi(strings.TrimSpace(dpkg(t, "dpkg-deb", "--field", made, "Installed-Size")))
	if program := len(read(t, binary)) / 1024; err != nil || size < program || size > program+1024 {
		t.Errorf("Installed-Size: %d KiB, the program alone is %d (%v)", size, program, err)
	}
	sums := exec.CommandContext(t.Context(), "md5sum", "--check", "--strict", "--quiet", "DEBIAN/md5sums")
	sums.Dir = dir
	if out, err := sums.CombinedOutput(); err != nil {
		t.Errorf("md5sums: %v\n%s", err, out)
	}
	files := strings.Count(dpkg(t, "dpkg-deb", "--contents", made), "\n-")
	if got := strings.Count(string(read(t, filepath.Join(dir, "DEBIAN/md5sums"))), "\n"); got != files-1 {
		t.Errorf("%d sums for %d files, of which one is for editing", got, files)
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		if info, err := os.Stat(filepath.Join(dir, "DEBIAN", script)); err != nil || info.Mode() != 0o755 {
			t.Errorf("%s: %v, %v", script, info, err)
		}
	}
}

// The package is installed, its program runs, an edited file survives a removal,
// and a purge leaves what others wrote and nothing else.
func TestInstall(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	admin := filepath.Join(root, "var/lib/dpkg")
	for _, dir := range []string{"info", "updates"} {
		if err := os.MkdirAll(filepath.Join(admin, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(admin, "status"), "")
	install := func(args ...string) {
		t.Helper()
		// its scripts are run here, and see from DPKG_ROOT that this is no system
		dpkg(t, "dpkg", append([]string{"--instdir=" + root, "--admindir=" + admin, "--log=" + filepath.Join(admin, "log"),
			"--force-script-chrootless", "--force-depends", "--force-not-root", "--force-unsafe-io"}, args...)...)
	}

	install("--install", made)
	out := dpkg(t, filepath.Join(root, "usr/bin", name), "upstream-auth", "version")
	if !strings.Contains(out, "v0.1.0-rc.1") {
		t.Errorf("version: %s", out)
	}
	caddyfile := filepath.Join(root, "etc", name, "Caddyfile")
	write(t, caddyfile, "# edited\n")
	secret := filepath.Join(root, "etc", name, "crm/client_secret")
	state := filepath.Join(root, "var/lib/private", name, "crm/caddy/instance.uuid")
	enabled := filepath.Join(root, "etc/systemd/system/multi-user.target.wants", name+"@crm.service")
	for _, path := range []string{secret, state, enabled} {
		write(t, path, "of an instance")
	}

	install("--install", "--force-confold", made) // as in an upgrade
	install("--remove", name)
	if got := string(read(t, caddyfile)); got != "# edited\n" {
		t.Errorf("the edited Caddyfile has become %q", got)
	}
	read(t, state)

	install("--purge", name)
	var left []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if path == admin {
			return fs.SkipDir
		}
		if err == nil && !entry.IsDir() {
			left = append(left, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 1 || left[0] != secret {
		t.Errorf("left behind: %q, want the settings of the instance alone", left)
	}
}

// A version before a release is older than the release, for Debian too.
func TestVersions(t *testing.T) {
	t.Parallel()
	before, after := options{version: "0.1.0-rc.1"}, options{version: "0.1.0"}
	dpkg(t, "dpkg", "--compare-versions", before.debianVersion(), "lt", after.debianVersion())
}

// dpkg runs a command, with the tools where dpkg looks for them.
func dpkg(t *testing.T, command string, args ...string) string {
	t.Helper()
	cmd := exec.Command(command, args...)
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC")
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatalf("this test installs the package with Debian's dpkg: %v", err)
	}
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", command, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
