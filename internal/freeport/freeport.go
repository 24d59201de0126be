// Package freeport gives tests and benchmarks addresses that stay free until
// they are listened on. A port that was got by listening on port 0 and closing
// may be gone by then: a connection goes out from it, or another test package,
// which runs at the same time, is given it.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// firstPort is above what servers listen on by habit, and what browsers do
	// not connect to.
	firstPort = 12000
	// rangeFile has the first and the last port that connections go out from.
	rangeFile = "/proc/sys/net/ipv4/ip_local_port_range"
	// outgoing is the first of them where there is no such file; on other
	// systems they begin higher.
	outgoing = 32768
)

// reserved are the listeners that keep others from taking the same addresses;
// the process's end closes them.
var reserved struct {
	sync.Mutex
	listeners []net.Listener
}

// Addr is Take for a test.
func Addr(t testing.TB) string {
	t.Helper()
	addr, err := Take()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// Take gives a port of 127.0.0.1 on which nobody listens. No connection goes
// out from it, and as long as this process lives nobody else is given it who
// asks here, in this process or in another.
func Take() (addr string, err error) {
	return take(firstPort + rand.IntN(1<<16)) //nolint:gosec // so that several rarely begin at the same port, and no secret
}

// take looks from a port upwards, and goes on at the lowest.
func take(from int) (string, error) {
	last := lastPort()
	pairs := (last - firstPort + 1) / 2
	first := (from - firstPort) / 2
	for n := range pairs {
		// of each two ports, who listens on the odd one has the even one to give
		port := firstPort + 2*((first+n)%pairs)
		lock, err := net.Listen("tcp", loopback(port+1))
		if err != nil {
			continue
		}
		if !free(port) {
			_ = lock.Close()
			continue
		}
		reserved.Lock()
		reserved.listeners = append(reserved.listeners, lock)
		reserved.Unlock()
		return loopback(port), nil
	}
	return "", fmt.Errorf("no port from %d to %d is free", firstPort, last)
}

// free tells that nobody listens on a port, at one address or at all. It does
// not find out by listening: a program that is being started at that moment
// would hold the socket until it runs, and the port would be taken for as long.
func free(port int) bool {
	conn, err := net.Dial("tcp", loopback(port))
	if err == nil {
		_ = conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// Listen listens once more on an address that Take gave and this process has
// listened on before: a program that was being started when that socket was
// closed holds it until it runs.
func Listen(addr string) (net.Listener, error) {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		l, err := net.Listen("tcp", addr)
		if !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(end) {
			return l, err
		}
	}
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// lastPort is the highest from which no connection goes out.
func lastPort() int {
	text, err := os.ReadFile(rangeFile)
	if err != nil {
		return outgoing - 1
	}
	first, err := firstOf(string(text))
	// so low that nothing is left below it: then the lock has to do
	if err != nil || first < 2*firstPort {
		return outgoing - 1
	}
	return min(first, 1<<16) - 1
}

// firstOf reads "32768\t60999".
func firstOf(text string) (int, error) {
	fields := strings.Fields(text)
	if len(fields) != 2 {
		return 0, errors.New("not two ports")
	}
	return strconv.Atoi(fields[0])
}
