package systemd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// machine is a systemd that runs as process 1 of namespaces of its own: with its
// own files, network and control groups, and units that stand here alone.
type machine struct {
	init   *exec.Cmd
	cgroup string
	out    string // a folder that both sides see, /out inside
}

// boot starts it with a program as /usr/bin/caddy-upstream-auth. The goroutine
// that calls it has to outlive it, on one thread: the kernel ends it with that.
func boot(program string) (*machine, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a systemd of its own needs namespaces and mounts: run this test as root")
	}
	if _, err := os.Stat(systemd); err != nil {
		return nil, fmt.Errorf("these tests start the unit for real, and need the package systemd: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	out, err := os.MkdirTemp("", "upstream-auth-out-")
	if err != nil {
		return nil, err
	}
	cgroups, err := unifiedCgroups()
	if err != nil {
		return nil, err
	}
	m := &machine{out: out, cgroup: filepath.Join(cgroups, "upstream-auth-"+strconv.Itoa(os.Getpid()))}
	if err := os.Mkdir(m.cgroup, 0o755); err != nil {
		return nil, err
	}
	group, err := os.Open(m.cgroup)
	if err != nil {
		return nil, err
	}
	defer group.Close()

	m.init = exec.Command(self)
	m.init.Env = []string{"PATH=" + os.Getenv("PATH"), roleVariable + "=" + roleInit, "PROGRAM=" + program, "OUT=" + out}
	m.init.Stdout, m.init.Stderr = os.Stderr, os.Stderr
	m.init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		UseCgroupFD: true,
		CgroupFD:    int(group.Fd()),
		Pdeathsig:   syscall.SIGKILL,
	}
	if err := m.init.Start(); err != nil {
		return nil, errors.Join(err, m.remove())
	}
	return m, nil
}

// stop ends every process of it, and leaves nothing behind.
func (m *machine) stop() error {
	err := m.init.Process.Kill() // process 1: the others go with it
	_ = m.init.Wait()
	return errors.Join(err, m.remove())
}

func (m *machine) remove() error {
	var groups []string
	err := filepath.WalkDir(m.cgroup, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			groups = append(groups, path)
		}
		return err
	})
	for _, group := range slices.Backward(groups) { // the inner ones first
		err = errors.Join(err, os.Remove(group))
	}
	return errors.Join(err, os.RemoveAll(m.out))
}

// command is one to run inside.
func (m *machine) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	enter := []string{"--target", strconv.Itoa(m.init.Process.Pid), "--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup", "--", name}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	cmd.Env = []string{"PATH=/usr/bin:/usr/sbin", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=", "LC_ALL=C.UTF-8"}
	return cmd
}

// try runs a command inside, and returns all that it prints.
func (m *machine) try(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := m.command(ctx, name, args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// run is try for what has to succeed.
func (m *machine) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := m.try(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s\n%s", name, strings.Join(args, " "), err, out, m.journal(t))
	}
	return out
}

// journal is what every unit has logged so far.
func (m *machine) journal(t *testing.T) string {
	t.Helper()
	out, _ := m.try(t, "journalctl", "--no-pager", "--output=short-monotonic")
	return out
}

// property is what systemd knows of a unit.
func (m *machine) property(t *testing.T, unit, name string) string {
	t.Helper()
	return m.run(t, "systemctl", "show", "--value", "--property="+name, unit)
}

// write puts a file into it.
func (m *machine) write(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := m.command(ctx, "install", "-D", "-m", strconv.FormatUint(uint64(mode), 8), "/dev/stdin", path)
	cmd.Stdin = strings.NewReader(content)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("writing %s: %v\n%s", path, err, out)
	}
}

// seen is what a program inside has written to /out.
func (m *machine) seen(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(m.out, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(text))
}

// eventually waits until something holds that another process brings about.
func (m *machine) eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after %s, still not: %s\n%s", patience, what, m.journal(t))
		}
	}
}

// unifiedCgroups is where the control groups of version 2 are mounted: alone at
// /sys/fs/cgroup, or beside those of version 1.
func unifiedCgroups() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		mount, filesystem, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(mount); len(fields) > 4 && strings.HasPrefix(filesystem, "cgroup2 ") {
			return fields[4], nil
		}
	}
	return "", errors.New("no cgroup2 is mounted here, and systemd needs it")
}
