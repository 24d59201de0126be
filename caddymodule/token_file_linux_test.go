package caddymodule

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// TestDiskFileCapability: to give the file away takes CAP_CHOWN and no other
// capability.
func TestDiskFileCapability(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	type outcome struct{ dropped, err error }
	done := make(chan outcome)
	go func() {
		runtime.LockOSThread() // the thread ends with this, and what it has lost
		dropped := keepOnly(capChown)
		var d diskFile
		done <- outcome{dropped, d.put(&filePlace{path: path, mode: 0o640, user: "12345", group: "54321"}, new(entry), &token.Token{Value: "one"}, false)}
	}()
	got := <-done
	if os.Getuid() != 0 { // it has none to keep
		if got.dropped == nil || got.err == nil {
			t.Errorf("got %+v", got)
		}
		return
	}
	if got.dropped != nil || got.err != nil {
		t.Fatal(got)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if s := info.Sys().(*syscall.Stat_t); s.Uid != 12345 || s.Gid != 54321 || info.Mode() != 0o640 || info.Size() != 3 {
		t.Errorf("it belongs to %d:%d, with mode %s and %d bytes", s.Uid, s.Gid, info.Mode(), info.Size())
	}
}

// capChown is CAP_CHOWN's place among the capabilities.
const capChown = 0

// keepOnly takes from this thread every capability but one (capset(2)).
func keepOnly(capability uint) error {
	const version3 = 0x20080522
	header := struct {
		version uint32
		pid     int32
	}{version: version3}
	data := [2]struct{ effective, permitted, inheritable uint32 }{}
	data[0].effective = 1 << capability
	data[0].permitted = data[0].effective
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0); errno != 0 {
		return errno
	}
	return nil
}
