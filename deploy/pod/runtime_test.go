package pod

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bundle is what a container's first process is to become. It comes as JSON on
// file 3; file 4 is the pod's network namespace, and file 5 is closed when the
// process is what it is to be.
type bundle struct {
	Image    string  // the directory with the image's files
	Layer    string  // an empty directory, for what is written to the root file system
	ReadOnly bool    // nothing may be
	Mounts   []mount // volumes, and the files that a kubelet adds
	Hostname string

	process
}

// process is how a command runs in a container.
type process struct {
	Args, Env []string
	Dir       string
	UID, GID  uint32
	Groups    []uint32
	// Capabilities is whether the process keeps those of root.
	Capabilities bool
	// NoNewPrivileges keeps it from getting more than it has.
	NoNewPrivileges bool
}

type mount struct {
	Source, Target string
	ReadOnly       bool
}

// becomeContainer makes this process the one that the bundle describes.
func becomeContainer() error {
	var b bundle
	if err := json.NewDecoder(os.NewFile(3, "bundle")).Decode(&b); err != nil {
		return fmt.Errorf("reading the bundle: %w", err)
	}
	// of this thread alone, which is the one that execs
	if err := unix.Setns(4, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering the pod's network: %w", err)
	}
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	unix.CloseOnExec(5)
	root, err := b.mountAll()
	if err != nil {
		return err
	}
	if err := errors.Join(os.Chdir(root), unix.PivotRoot(".", "."), unix.Unmount(".", unix.MNT_DETACH), os.Chdir("/")); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	if err := unix.Sethostname([]byte(b.Hostname)); err != nil {
		return err
	}
	path, err := b.lookPath()
	if err != nil {
		return err
	}
	if err := os.Chdir(b.Dir); err != nil {
		return err
	}
	if err := b.lower(); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", path, syscall.Exec(path, b.Args, b.Env))
}

// mountAll puts the root file system together.
func (b *bundle) mountAll() (root string, err error) {
	root = filepath.Join(b.Layer, "root")
	upper, work := filepath.Join(b.Layer, "upper"), filepath.Join(b.Layer, "work")
	for _, dir := range []string{root, upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return "", err
		}
	}
	if err := unix.Mount("overlay", root, "overlay", 0, "lowerdir="+b.Image+",upperdir="+upper+",workdir="+work); err != nil {
		return "", fmt.Errorf("mounting the image: %w", err)
	}
	const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []struct {
		kind, target, data string
		flags              uintptr
	}{
		{"proc", "proc", "", safe},
		{"sysfs", "sys", "", safe | unix.MS_RDONLY},
		{"tmpfs", "dev", "mode=755,size=64k", unix.MS_NOSUID},
	} {
		target := filepath.Join(root, m.target)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return "", err
		}
		if err := unix.Mount(m.kind, target, m.kind, m.flags, m.data); err != nil {
			return "", fmt.Errorf("mounting /%s: %w", m.target, err)
		}
	}
	for _, device := range []string{"null", "zero", "full", "random", "urandom"} {
		if err := b.bind(root, mount{Source: "/dev/" + device, Target: "/dev/" + device}); err != nil {
			return "", err
		}
	}
	for _, m := range b.Mounts {
		if err := b.bind(root, m); err != nil {
			return "", err
		}
	}
	if b.ReadOnly {
		if err := unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return "", fmt.Errorf("making the root read-only: %w", err)
		}
	}
	return root, nil
}

// bind mounts a file or a directory, and makes the place for it.
func (b *bundle) bind(root string, m mount) error {
	target := filepath.Join(root, m.Target)
	info, err := os.Stat(m.Source)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else {
		var file *os.File
		if file, err = os.OpenFile(target, os.O_CREATE, 0o644); err == nil {
			err = file.Close()
		}
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(m.Source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting %s: %w", m.Target, err)
	}
	if m.ReadOnly {
		if err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("making %s read-only: %w", m.Target, err)
		}
	}
	return nil
}

// lookPath finds the command with the PATH of the container.
func (p *process) lookPath() (string, error) {
	name := p.Args[0]
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, v := range p.Env {
		list, found := strings.CutPrefix(v, "PATH=")
		for dir := range strings.SplitSeq(list, ":") {
			path := filepath.Join(dir, name)
			if info, err := os.Stat(path); found && err == nil && info.Mode().IsRegular() {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("%s: not found in the PATH of the image", name)
}

// lower gives up what the process may not have. All of it is of this thread
// alone; what comes of it is inherited by what it starts or execs.
func (p *process) lower() error {
	if !p.Capabilities {
		for c := uintptr(0); c <= lastCapability(); c++ {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
				return fmt.Errorf("dropping capability %d: %w", c, err)
			}
		}
	}
	if p.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	groups := append([]uint32{p.GID}, p.Groups...)
	for _, call := range []struct{ trap, a, b, c uintptr }{
		{unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0},
		{unix.SYS_SETRESGID, uintptr(p.GID), uintptr(p.GID), uintptr(p.GID)},
		{unix.SYS_SETRESUID, uintptr(p.UID), uintptr(p.UID), uintptr(p.UID)},
	} {
		if _, _, errno := unix.RawSyscall(call.trap, call.a, call.b, call.c); errno != 0 {
			return fmt.Errorf("becoming user %d: %w", p.UID, errno)
		}
	}
	if p.UID == 0 && !p.Capabilities {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		return unix.Capset(&header, &make([]unix.CapUserData, 2)[0])
	}
	return nil
}

func lastCapability() uintptr {
	text, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return unix.CAP_LAST_CAP
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return unix.CAP_LAST_CAP
	}
	return uintptr(n)
}

// enterContainer runs a command in a running container, as an exec hook or
// probe, or kubectl exec does. It comes as JSON on file 3; files 4 to 8 are the
// container's namespaces.
func enterContainer() error {
	var p process
	if err := json.NewDecoder(os.NewFile(3, "process")).Decode(&p); err != nil {
		return fmt.Errorf("reading the process: %w", err)
	}
	// a mount namespace is not entered while the root is another thread's, too
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	for i, kind := range enteredNamespaces {
		if err := unix.Setns(4+i, kind.flag); err != nil {
			return fmt.Errorf("entering the container's %s namespace: %w", kind.name, err)
		}
	}
	path, err := p.lookPath()
	if err != nil {
		return err
	}
	// the process namespace is that of what is started from here
	cmd := &exec.Cmd{Path: path, Args: p.Args, Env: p.Env, Dir: p.Dir, Stdout: os.Stdout, Stderr: os.Stderr}
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	if err := p.lower(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		<-told                 // it has taken too long
		_ = cmd.Process.Kill() // or has just ended
	}()
	return cmd.Wait()
}

// enteredNamespaces are in the order in which they are entered: after the mount
// namespace there would be nothing to find the others by.
var enteredNamespaces = []struct {
	name string
	flag int
}{
	{"pid", unix.CLONE_NEWPID},
	{"net", unix.CLONE_NEWNET},
	{"uts", unix.CLONE_NEWUTS},
	{"ipc", unix.CLONE_NEWIPC},
	{"mnt", unix.CLONE_NEWNS},
}
