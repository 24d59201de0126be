//go:build unix

package caddymodule

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// TestDiskFileMode: the file has its mode whatever the umask is, and its owner.
func TestDiskFileMode(t *testing.T) {
	before := syscall.Umask(0)
	defer syscall.Umask(before)
	uid, gid := os.Getuid(), os.Getgid()
	for _, umask := range []int{0, 0o022, 0o077, 0o777} {
		syscall.Umask(umask)
		for _, mode := range []fs.FileMode{0o600, 0o400, 0o440, 0o640, 0o644, 0o040} {
			for _, place := range []*filePlace{{}, {user: fmt.Sprint(uid)}, {group: fmt.Sprint(gid)}, {user: fmt.Sprint(uid), group: fmt.Sprint(gid)}} {
				syscall.Umask(before) // the test's own directory
				place.path, place.mode = filepath.Join(t.TempDir(), "token"), mode
				syscall.Umask(umask)
				var d diskFile
				if err := d.put(place, new(entry), &token.Token{Value: "one"}, false); err != nil {
					t.Fatal(err)
				}
				info, err := os.Lstat(place.path)
				if err != nil || info.Mode() != mode || info.Size() != 3 {
					t.Errorf("umask %#o, mode %s: got %v, %v", umask, mode, info.Mode(), err)
				}
			}
		}
	}
}

// TestDiskFileOwner: a file belongs to its owner before it holds anything.
func TestDiskFileOwner(t *testing.T) {
	place := &filePlace{path: filepath.Join(t.TempDir(), "token"), mode: 0o640, user: "12345", group: "54321"}
	var d diskFile
	err := d.put(place, new(entry), &token.Token{Value: "one"}, false)
	if os.Getuid() != 0 {
		wrong, do := fileAdvice(place, err)
		says(t, wrong, "may not give the file to 12345:54321")
		says(t, do, "CAP_CHOWN")
		alone(t, filepath.Dir(place.path))
		return
	}
	info, statErr := os.Lstat(place.path)
	if err != nil || statErr != nil {
		t.Fatal(err, statErr)
	}
	if s := info.Sys().(*syscall.Stat_t); s.Uid != 12345 || s.Gid != 54321 || info.Mode() != 0o640 {
		t.Errorf("it belongs to %d:%d, with mode %s", s.Uid, s.Gid, info.Mode())
	}
}

// TestFileAdvice: what cannot be brought about in a test.
func TestFileAdvice(t *testing.T) {
	place := &filePlace{path: "/run/app/token", user: "app"}
	for err, want := range map[error][2]string{
		&fs.PathError{Op: "open", Path: "/run/app/.token.upstream-auth", Err: syscall.ENOSPC}: {"no room left in /run/app", "tried again by itself"},
		&fs.PathError{Op: "write", Path: "x", Err: syscall.EDQUOT}:                            {"no room left in /run/app", "make room"},
		&fs.PathError{Op: "open", Path: "x", Err: syscall.EROFS}:                              {"read-only", "emptyDir"},
		&fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}:                             {"may not write in /run/app", "writable"},
		&os.LinkError{Op: "rename", Old: "x", New: "y", Err: syscall.EPERM}:                   {"may not write in /run/app", "writable"},
		&ownerError{"app", syscall.EPERM}:                                                     {"may not give the file to app", "0640"},
		&ownerError{"app", syscall.EINVAL}:                                                    {"cannot be given to app", "file system"},
		&fs.PathError{Op: "replace", Path: "/run/app/token", Err: errSpecial}:                 {"no regular file", "another path"},
		&fs.PathError{Op: "open", Path: "x", Err: syscall.EIO}:                                {"input/output error", "file system of /run/app"},
	} {
		wrong, do := fileAdvice(place, err)
		says(t, wrong, want[0])
		says(t, do, want[1])
	}
}

// TestDiskFileSpecial: what is neither a file nor a link is not ours to replace.
func TestDiskFileSpecial(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	var d diskFile
	if err := d.put(&filePlace{path: path, mode: 0o600}, new(entry), &token.Token{Value: "one"}, false); err == nil {
		t.Error("it was replaced")
	}
	if modeOf(t, path).Type() != fs.ModeNamedPipe {
		t.Error("it is gone")
	}
}
