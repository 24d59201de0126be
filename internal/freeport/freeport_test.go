package freeport

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// childEnv has this binary be one more process: it prints as many addresses,
// and lives until it is killed.
const childEnv = "FREEPORT_TEST_ADDRESSES"

func TestMain(m *testing.M) {
	n, err := strconv.Atoi(os.Getenv(childEnv))
	if err != nil {
		os.Exit(m.Run())
	}
	for range n {
		addr, err := take(firstPort) // all look at the same ports
		if err != nil {
			addr = err.Error()
		}
		fmt.Println(addr)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// TestProcesses has several ask at the same time; each gets what no other has.
func TestProcesses(t *testing.T) {
	const processes, each = 8, 20
	addresses := make(chan string)
	for range processes {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", childEnv, each))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cmd.StdinPipe(); err != nil { // which stays open
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Wait() }) // by now it has been killed
		go func() {
			lines := bufio.NewScanner(out)
			for range each {
				lines.Scan()
				addresses <- lines.Text()
			}
		}()
	}
	seen := make(map[string]bool)
	for range processes * each {
		addr := <-addresses
		if seen[addr] {
			t.Errorf("%q is given twice", addr)
		}
		seen[addr] = true
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatalf("%q: %v", addr, err)
		}
		if n, err := strconv.Atoi(port); err != nil || n < firstPort || n > lastPort() {
			t.Errorf("%s is not from %d to %d", addr, firstPort, lastPort())
		}
	}
	for addr := range seen {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Errorf("it was given, and is not free: %v", err)
			continue
		}
		_ = l.Close()
	}
}

// TestTaken: a port on which somebody listens, who asked nobody, is not given,
// be it at the one address or at all; nor one twice in a process.
func TestTaken(t *testing.T) {
	for _, host := range []string{"127.0.0.1", ""} {
		_, port, err := net.SplitHostPort(Addr(t))
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", net.JoinHostPort(host, port))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		n, _ := strconv.Atoi(port)
		if free(n) {
			t.Errorf("%q is free, while somebody listens on it", l.Addr())
		}
		again, err := take(n)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(again, ":"+port) {
			t.Errorf("%s is given again", again)
		}
	}
}

// TestWhileProgramsStart: a port can be listened on as soon as it is given,
// whatever this process starts meanwhile; a child has all its sockets until it
// runs.
func TestWhileProgramsStart(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var starting sync.WaitGroup
	defer starting.Wait()
	defer cancel()
	for range 8 {
		starting.Go(func() {
			for ctx.Err() == nil {
				_ = exec.CommandContext(ctx, os.Args[0], "-test.list", "^$").Run()
			}
		})
	}
	for range 400 {
		addr := Addr(t)
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
	}
}

func TestFirstOf(t *testing.T) {
	for text, want := range map[string]int{"32768\t60999\n": 32768, "1024 65535": 1024, "": 0, "32768": 0, "many more": 0} {
		first, err := firstOf(text)
		if first != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", text, first, err)
		}
	}
}
