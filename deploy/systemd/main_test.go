// Package systemd holds the unit of a sidecar; its tests start it with a systemd
// of their own, as process 1.
package systemd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

const (
	systemd = "/usr/lib/systemd/systemd"

	// patience is how long a busy machine may take for what takes a moment.
	patience = time.Minute
)

// The test's program plays these parts inside the machine, too.
const (
	roleVariable    = "UPSTREAM_AUTH_TEST_ROLE"
	roleInit        = "init"
	roleAuthority   = "authority"
	roleApplication = "application"
)

// the two that every test uses
var (
	program string // cmd/sidecar, built
	booted  *machine
)

// the main thread, so that the kernel ends the machine with the process, and so
// that the namespaces of the one that becomes systemd are all its own
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	var err error
	switch role := os.Getenv(roleVariable); role {
	case "":
		os.Exit(run(m))
	case roleInit:
		err = becomeSystemd(os.Getenv("PROGRAM"), os.Getenv("OUT"))
	case roleAuthority:
		err = authority()
	case roleApplication:
		err = application(os.Getenv("MOMENT"))
	default:
		err = fmt.Errorf("no such role: %s", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "upstream-auth-systemd-")
	if err != nil {
		return failed(err)
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "caddy-upstream-auth")
	build := exec.Command("go", "build", "-C", "../..", "-trimpath", "-o", program, "./cmd/sidecar")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return failed(fmt.Errorf("building cmd/sidecar: %w\n%s", err, out))
	}
	if booted, err = boot(program); err != nil {
		return failed(err)
	}
	code := m.Run()
	if err := booted.stop(); err != nil {
		return failed(err)
	}
	return code
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, "FAIL:", err)
	return 1
}
