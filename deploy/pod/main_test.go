package pod

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// What this binary is run as: its first argument says so.
const (
	asInit = "pod-init" // becomes the first process of a container
	asExec = "pod-exec" // runs a command in a container
)

// insideDir names the workspace, and is set in the namespaces alone.
const insideDir = "POD_TEST_INSIDE"

func TestMain(m *testing.M) {
	// namespaces belong to threads
	runtime.LockOSThread()
	switch os.Args[0] {
	case asInit:
		fail(becomeContainer())
	case asExec:
		fail(enterContainer())
	}
	dir := os.Getenv(insideDir)
	if dir == "" {
		os.Exit(outside())
	}
	if err := prepare(dir); err != nil {
		fail(err)
	}
	runtime.UnlockOSThread()
	flag.Parse()
	// a pod waits most of the time
	if err := flag.Set("test.parallel", "16"); err != nil {
		fail(err)
	}
	code := m.Run()
	if code == 0 {
		fail(writeTable())
	}
	os.Exit(code)
}

// fail ends a process that cannot go on. The text of its error is for the log
// of the container, or of the test.
func fail(err error) {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "pod:", err)
		os.Exit(125)
	}
	os.Exit(0)
}

// outside runs the tests again in a mount and a process namespace. When that
// process ends, or this one, the kernel ends all others and drops all mounts;
// a network namespace ends with the last process that holds it.
func outside() int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "pod: these tests make namespaces and mounts: run them as root")
		return 1
	}
	dir, err := os.MkdirTemp("", "pod-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, "pod:", err)
		return 1
	}
	defer os.Remove(dir) // a mount point that is empty out here
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), insideDir+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "pod: a process in namespaces of its own:", err)
		return 1
	}
	return 0
}

// prepare gives the tests a /proc for their processes and an empty workspace in
// memory, as a kubelet keeps secrets, and makes the images.
func prepare(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keeping mounts to this namespace: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1g,mode=0755"); err != nil {
		return fmt.Errorf("mounting the workspace: %w", err)
	}
	workspace = dir
	return makeImages()
}

// workspace is a directory in memory that is seen in here alone.
var workspace string
