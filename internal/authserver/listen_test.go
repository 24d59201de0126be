package authserver

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestListenOnLoopbackAlone(t *testing.T) {
	for _, test := range []struct{ addr, want string }{
		{"127.0.0.1:0", ""},
		{"localhost:0", ""},
		{"0.0.0.0:0", "not a loopback address"},
		{":0", "not a loopback address"},
		{"[::]:0", "not a loopback address"},
		{"192.0.2.1:0", "not a loopback address"},
		{"127.0.0.1", "missing port"},
	} {
		l, err := Listen(test.addr, http.NotFoundHandler())
		if err == nil {
			l.Close()
		}
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v, want %q", test.addr, err, test.want)
		}
		if _, tlsErr := ListenTLS(test.addr, http.NotFoundHandler(), new(tls.Config)); err != nil && tlsErr == nil {
			t.Errorf("%q is refused, and taken with TLS", test.addr)
		}
	}
	if _, err := ListenTLS("127.0.0.1:0", http.NotFoundHandler(), nil); err == nil {
		t.Error("TLS needs no certificate")
	}
}

// TestBackOnTheSamePort kills a server that has open connections and brings it
// back where it was.
func TestBackOnTheSamePort(t *testing.T) {
	s := New(Config{ClientID: client, ClientSecret: secret})
	l, c := listen(t, s)
	for range 3 {
		if response, _, err := fetch(c, l.URL()+TokenPath); err != nil || response.StatusCode != 200 {
			t.Fatalf("it answers %v, %v", response, err)
		}
		idle, err := net.Dial("tcp", l.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("closing it again: %v", err)
		}
		if _, err := idle.Read(make([]byte, 1)); err == nil {
			t.Error("a connection outlived the server")
		}
		idle.Close()
		if _, _, err := fetch(c, l.URL()+TokenPath); err == nil {
			t.Error("a closed server answers")
		}
		again, err := Listen(l.Addr(), s)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		l = again
	}
	if s.Issued() != 3 {
		t.Errorf("%d tokens are issued", s.Issued())
	}
}

// TestCloseAtOnce closes servers that may not have begun to serve: net/http
// waits only for those that have.
func TestCloseAtOnce(t *testing.T) {
	for range 100 {
		l := ListenMemory(http.NotFoundHandler())
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-l.memory.closed:
		default:
			t.Fatal("it is closed and still listens")
		}
	}
}

// breaking is a net.Listener that fails when it is told to.
type breaking struct {
	*memory
	accept chan error
}

func (b breaking) Accept() (net.Conn, error) { return nil, <-b.accept }

func TestCloseTellsWhyServingEnded(t *testing.T) {
	broken := errors.New("broken")
	inner := breaking{&memory{closed: make(chan struct{})}, make(chan error, 1)}
	l := serve(inner, http.NotFoundHandler(), nil)
	inner.accept <- broken
	<-l.done
	if err := l.Close(); !errors.Is(err, broken) {
		t.Errorf("it closes with %v", err)
	}
}

// TestCloseEndsHandlers has one that leaves its body unread: net/http does not
// watch such a connection.
func TestCloseEndsHandlers(t *testing.T) {
	arrived, ended := make(chan struct{}), make(chan struct{})
	l, c := listen(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(ended)
	}))
	go func() { <-arrived; l.Close() }()
	if _, _, err := fetch(c, l.URL()); err == nil {
		t.Error("a server that closes answers")
	}
	<-ended
}

func TestListenTLS(t *testing.T) {
	s := New(Config{ClientID: client, ClientSecret: secret})
	for major, http2 := range map[int]bool{1: false, 2: true} {
		l, c := secure(t, s, http2)
		response, _, err := fetch(c, l.URL()+TokenPath)
		if err != nil || response.StatusCode != 200 || response.ProtoMajor != major || response.TLS == nil {
			t.Errorf("HTTP/%d: %v, %v", major, response, err)
		}
	}
}

func TestListenMemory(t *testing.T) {
	s := New(Config{ClientID: client, ClientSecret: secret})
	l := ListenMemory(s)
	c := &http.Client{Transport: &http.Transport{DialContext: l.Dial}}
	if response, _, err := fetch(c, "http://idp.example"+TokenPath); err != nil || response.StatusCode != 200 {
		t.Errorf("it answers %v, %v", response, err)
	}
	s.SetFault(Reset())
	if response, _, err := fetch(c, l.URL()+TokenPath); err == nil {
		t.Errorf("a connection that is reset answers %v", response)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := l.Dial(t.Context(), "tcp", ""); err == nil {
		t.Error("a closed server takes connections")
	}
}
