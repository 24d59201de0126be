package systemd

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// hostUnits are those of the system's own that a service needs around it. All
// others would see to a machine that is not there, or to the one outside.
var hostUnits = []string{
	"systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket",
	"basic.target", "sockets.target", "slices.target", "paths.target", "timers.target",
	"shutdown.target", "umount.target", "network-online.target", "network.target", "multi-user.target",
}

// becomeSystemd makes a system of the namespaces that the process is in, and
// ends as its systemd. Of the system outside it has /usr, to read.
func becomeSystemd(program, out string) error {
	// here and not at the start of the process, which stood outside of the group
	if err := syscall.Unshare(syscall.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("a namespace of control groups: %w", err)
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making all mounts private: %w", err)
	}
	root := filepath.Join(out, "root") // covered by the mount, and so never seen outside
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	if err := mount("tmpfs", root, "mode=755", 0); err != nil {
		return err
	}
	if err := furnish(root, program, out); err != nil {
		return err
	}
	if err := syscall.PivotRoot(root, filepath.Join(root, "mnt")); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := syscall.Unmount("/mnt", syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("leaving the system outside: %w", err)
	}
	// systemd mounts a service's credentials in a namespace that shares its mounts
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
		return fmt.Errorf("sharing the mounts: %w", err)
	}
	return syscall.Exec(systemd, []string{systemd, "--system", "--unit=multi-user.target", "--log-target=journal"},
		[]string{"PATH=/usr/bin:/usr/sbin", "container=test", "SYSTEMD_UNIT_PATH=/etc/systemd/system"})
}

// furnish lays the files of the system.
func furnish(root, program, out string) error {
	for dir, mode := range map[string]os.FileMode{
		"usr": 0o755, "etc/systemd/system": 0o755, "var/log": 0o755, "var/lib": 0o755, "run": 0o755, "dev": 0o755,
		"proc": 0o555, "sys": 0o555, "mnt": 0o755, "root": 0o700, "home": 0o755, "out": 0o755, "opt": 0o755,
		"etc/caddy-upstream-auth": 0o755, "upper": 0o755, "work": 0o755, "tmp": 0o777 | os.ModeSticky,
	} {
		path := filepath.Join(root, dir)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(path, mode); err != nil {
			return err
		}
	}
	for link, to := range map[string]string{
		"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64", "var/run": "../run",
	} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			return err
		}
	}
	for _, m := range []struct {
		kind, at, data string
		flags          uintptr
	}{
		{"overlay", "usr", "lowerdir=/usr,upperdir=" + root + "/upper,workdir=" + root + "/work", 0},
		{"proc", "proc", "", 0},
		// the kernel's settings are the same ones outside
		{"proc/sys", "proc/sys", "", syscall.MS_BIND},
		{"", "proc/sys", "", syscall.MS_BIND | syscall.MS_REMOUNT | syscall.MS_RDONLY},
		{"sysfs", "sys", "", syscall.MS_RDONLY},
		{"cgroup2", "sys/fs/cgroup", "", 0},
		{"tmpfs", "dev", "mode=755", 0},
		{"devpts", "dev/pts", "ptmxmode=666", 0}, // PrivateDevices= takes over all four
		{"tmpfs", "dev/shm", "", 0},
		{"mqueue", "dev/mqueue", "", 0},
		{"tmpfs", "dev/hugepages", "", 0},
		{"tmpfs", "run", "mode=755", 0},
		{out, "out", "", syscall.MS_BIND},
	} {
		if err := os.MkdirAll(filepath.Join(root, m.at), 0o755); err != nil {
			return err
		}
		source := m.kind
		if source == "proc/sys" {
			source = filepath.Join(root, source)
		}
		if err := mount(source, filepath.Join(root, m.at), m.data, m.flags); err != nil {
			return err
		}
	}
	for _, device := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		if err := bindFile("/dev/"+device, filepath.Join(root, "dev", device)); err != nil {
			return err
		}
	}
	if err := os.Symlink("pts/ptmx", filepath.Join(root, "dev/ptmx")); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := bindFile(self, filepath.Join(root, "opt/test")); err != nil {
		return err
	}
	return layFiles(root, program)
}

// layFiles copies what a package would install, and the units around it.
func layFiles(root, program string) error {
	files := map[string]string{
		program:                      "usr/bin/caddy-upstream-auth",
		unit:                         "etc/systemd/system/" + unit,
		"../sidecar/Caddyfile":       "etc/caddy-upstream-auth/Caddyfile",
		"testdata/authority.service": "etc/systemd/system/authority.service",
		"testdata/crm.service":       "etc/systemd/system/crm.service",
		"example/upstream-auth.conf": "etc/systemd/system/crm.service.d/upstream-auth.conf",
	}
	for _, name := range hostUnits {
		files["/usr/lib/systemd/system/"+name] = "etc/systemd/system/" + name
	}
	for from, to := range files {
		mode := os.FileMode(0o644)
		if from == program {
			mode = 0o755
		}
		if err := layFile(from, filepath.Join(root, to), mode); err != nil {
			return err
		}
	}
	for name, content := range map[string]string{
		"etc/passwd":     "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
		"etc/group":      "root:x:0:\nsystemd-journal:x:101:\nnogroup:x:65534:\n",
		"etc/hosts":      "127.0.0.1 localhost\n",
		"etc/machine-id": "0123456789abcdef0123456789abcdef\n",
		// the system with nothing running, as when it is about to be switched off
		"etc/systemd/system/quiet.target":   "[Unit]\nAllowIsolate=yes\nRequires=sysinit.target\n",
		"etc/systemd/system/sysinit.target": "[Unit]\nWants=systemd-journald.service systemd-journald-dev-log.socket\n",
		"etc/os-release":                    "ID=test\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// layFile copies a file, with the folders that it needs.
func layFile(from, to string, mode os.FileMode) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, content, mode)
}

// mount is one of a kind of filesystem, or with MS_BIND of another folder.
func mount(source, target, data string, flags uintptr) error {
	kind := source
	if flags&syscall.MS_BIND != 0 {
		kind = ""
	}
	if err := syscall.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mounting %s at %s: %w", source, target, err)
	}
	return nil
}

func bindFile(source, target string) error {
	file, err := os.Create(target)
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return mount(source, target, "", syscall.MS_BIND)
}
