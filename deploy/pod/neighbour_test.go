package pod

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestNeighbour: another pod tries to use the proxy, and cannot.
func TestNeighbour(t *testing.T) {
	t.Parallel()
	s := started(t, legacyExample, time.Hour, nil)
	if open := s.openPorts(); len(open) != 1 || open[0] != podIP.String()+":9180" {
		t.Errorf("the pod listens to others on %v, want the port of status alone", open)
	}
	proxy, status := "http://"+podIP.String()+":8080", "http://"+podIP.String()+":9180"
	if code, why := s.ask(s.neighbour, http.MethodGet, proxy, "127.0.0.1:8080"); code != 0 || !strings.Contains(why, "refused") {
		t.Errorf("the port of the proxy: %d %s", code, why)
	}
	if sockets := s.sockets(s.podNetwork); !strings.Contains(sockets, "admin.sock") {
		t.Errorf("the admin socket is not among the pod's:\n%s", sockets)
	}
	if sockets := s.sockets(s.neighbour); strings.Contains(sockets, "admin.sock") {
		t.Errorf("the neighbour shares a socket with the pod:\n%s", sockets)
	}
	before := s.api.OK()
	s.application.signal(s.application.current(), syscall.SIGSTOP)
	for _, try := range []struct {
		method, path, host string
		code               int
	}{
		{"GET", "/livez", "", 200},
		{"GET", "/status", "", 200},
		{"GET", "/metrics", "", 200},
		{"GET", "/", "127.0.0.1:8080", 200}, // the status, and not the API
		{"GET", "/", "localhost:8080", 200},
		{"GET", "/", apiName, 421},
		{"GET", "/status", "evil.example.com", 421},
		{"POST", "/upstream_auth/credentials/upstream/refresh", "", 405},
		{"POST", "/load", "", 405},
		{"GET", "/config/", "", 200}, // the status again: there is nothing else
	} {
		code, body := s.ask(s.neighbour, try.method, status+try.path, try.host)
		if code != try.code {
			t.Errorf("%s %s with Host %q: %d, want %d", try.method, try.path, try.host, code, try.code)
		}
		s.clean("what a neighbour gets of "+try.path, body)
		if strings.Contains(body, "token_left_seconds") || strings.Contains(body, `"apps"`) {
			t.Errorf("%s %s with Host %q is answered with what only the pod may have: %s", try.method, try.path, try.host, body)
		}
	}
	if n := s.throughProxy(status); n != http.StatusMisdirectedRequest {
		t.Errorf("the port of status, used as a proxy for %s, answers %d, want 421", apiName, n)
	}

	// 127.0.0.1 is led to the pod: its kernel takes no such packet from outside
	if err := s.neighbour.leadLoopbackTo(podIP); err != nil {
		t.Fatal(err)
	}
	loopback := func() (int, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:8080/", nil)
		if err != nil {
			return 0, err
		}
		response, err := clientIn(s.neighbour).Do(request)
		if err != nil {
			return 0, err
		}
		return response.StatusCode, response.Body.Close()
	}
	if code, err := loopback(); err == nil {
		t.Errorf("the proxy answers %d to a neighbour that leads 127.0.0.1 to it", code)
	}
	if after := s.api.OK(); after != before && after != before+1 { // one may have been under way
		t.Errorf("%d requests came to the API from a neighbour", after-before)
	}

	// the way is as it should be: with this switch in the pod it leads there
	for _, name := range []string{"all", "eth0"} {
		if err := s.podNetwork.sysctl("ipv4/conf/"+name+"/route_localnet", "1"); err != nil {
			t.Fatal(err)
		}
	}
	if code, err := loopback(); err != nil || code != http.StatusOK {
		t.Errorf("with route_localnet in the pod 127.0.0.1 does not lead there, so that what was seen before says nothing: %d, %v", code, err)
	}
	saw(t, 8, "a neighbour tries to use the proxy",
		"port 8080 of the pod's address: refused; 9180, the one port that is open: status, metrics and 421, never a token and never the API, whatever the Host; 127.0.0.1 led to the pod by a route: dropped (with `route_localnet` set in the pod it would get through)")
}

// sockets are the unix sockets of a network.
func (s *scene) sockets(n *network) string {
	s.t.Helper()
	var text []byte
	err := n.in(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/unix")
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// throughProxy asks for the API as one asks a forward proxy.
func (s *scene) throughProxy(proxy string) (code int) {
	s.t.Helper()
	conn, err := s.neighbour.DialContext(s.t.Context(), "tcp", strings.TrimPrefix(proxy, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET http://%[1]s/ HTTP/1.1\r\nHost: %[1]s\r\nConnection: close\r\n\r\n", apiName)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}

// openPorts are the addresses that the pod listens on, but those on loopback.
func (s *scene) openPorts() (open []string) {
	s.t.Helper()
	pid := s.sidecar.current().cmd.Process.Pid
	for _, kind := range []string{"tcp", "tcp6", "udp", "udp6"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, kind))
		if err != nil {
			s.t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			// 0A is LISTEN, 07 an UDP socket that is bound and not connected
			if fields[0] == "sl" || fields[3] != "0A" && fields[3] != "07" {
				continue
			}
			if addr := socketAddr(fields[1]); !strings.HasPrefix(addr, "127.") {
				open = append(open, addr)
			}
		}
	}
	return open
}

// socketAddr reads an address as /proc/net has it: 0A00000A:23DC.
func socketAddr(text string) string {
	host, port, _ := strings.Cut(text, ":")
	p, err := strconv.ParseUint(port, 16, 16)
	if n, errHost := strconv.ParseUint(host, 16, 32); err == nil && errHost == nil {
		return fmt.Sprintf("%d.%d.%d.%d:%d", n&255, n>>8&255, n>>16&255, n>>24, p)
	}
	return text // IPv6
}
