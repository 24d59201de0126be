package authserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// readHeaderTimeout is generous: a loaded machine must not look like a fault.
const readHeaderTimeout = 10 * time.Second

// Listener is an HTTP server on a loopback address, or in memory.
type Listener struct {
	scheme string
	addr   string
	server *http.Server
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of Serve; read after done
	memory *memory
}

// Listen serves h on a loopback address; port 0 takes a free one. Any other
// address is refused: tokens are handed out here in the clear.
func Listen(addr string, h http.Handler) (*Listener, error) {
	ln, err := listenLoopback(addr)
	if err != nil {
		return nil, err
	}
	return serve(ln, h, nil), nil
}

// ListenTLS is Listen with TLS, and HTTP/2 for those who ask for it.
func ListenTLS(addr string, h http.Handler, config *tls.Config) (*Listener, error) {
	if config == nil {
		return nil, errors.New("listening with TLS: no certificate is configured")
	}
	ln, err := listenLoopback(addr)
	if err != nil {
		return nil, err
	}
	return serve(ln, h, config), nil
}

func listenLoopback(addr string) (net.Listener, error) {
	// resolved first, so that no other address is open even for a moment
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening on %q: %w", addr, err)
	}
	if !tcp.IP.IsLoopback() {
		return nil, fmt.Errorf("listening on %q: not a loopback address, such as 127.0.0.1:0", addr)
	}
	ln, err := net.ListenTCP("tcp", tcp)
	if err != nil {
		return nil, fmt.Errorf("listening on %q: %w", addr, err)
	}
	return ln, nil
}

func serve(ln net.Listener, h http.Handler, config *tls.Config) *Listener {
	ctx, cancel := context.WithCancel(context.Background())
	l := &Listener{
		scheme: "http",
		addr:   ln.Addr().String(),
		cancel: cancel,
		done:   make(chan struct{}),
		server: &http.Server{
			Handler:           h,
			ReadHeaderTimeout: readHeaderTimeout,
			TLSConfig:         config,
			BaseContext:       func(net.Listener) context.Context { return ctx },
		},
	}
	run := func() error { return l.server.Serve(ln) }
	if config != nil {
		l.scheme = "https"
		run = func() error { return l.server.ServeTLS(ln, "", "") }
	}
	go func() {
		defer close(l.done)
		if err := run(); !errors.Is(err, http.ErrServerClosed) {
			l.err = fmt.Errorf("serving %s: %w", l.URL(), err)
		}
	}()
	return l
}

// URL is where the server is, with no path.
func (l *Listener) URL() string { return l.scheme + "://" + l.addr }

// Addr is the host and port.
func (l *Listener) Addr() string { return l.addr }

// Close ends the server and every connection to it, and waits until nothing
// listens any more: the address can be listened on again at once. The second
// call does nothing.
func (l *Listener) Close() error {
	err := l.server.Close()
	l.cancel() // after the connections, or a handler's last words would still get out
	<-l.done
	return errors.Join(err, l.err)
}
