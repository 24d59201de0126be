package authserver

import (
	"context"
	"net"
	"net/http"
	"sync"
)

// memory is a net.Listener whose connections are pipes.
type memory struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// ListenMemory serves h on connections in memory, all faults included: a bubble
// of testing/synctest can wait for these and not for a socket. Clients need Dial.
func ListenMemory(h http.Handler) *Listener {
	m := &memory{conns: make(chan net.Conn), closed: make(chan struct{})}
	l := serve(m, h, nil)
	l.memory = m
	return l
}

// Dial connects to the listener, whatever address is asked for. It is meant for
// http.Transport's DialContext.
func (l *Listener) Dial(ctx context.Context, network, _ string) (net.Conn, error) {
	if l.memory == nil {
		return new(net.Dialer).DialContext(ctx, network, l.addr)
	}
	client, server := net.Pipe()
	select {
	case l.memory.conns <- server:
		return client, nil
	case <-l.memory.closed:
		return nil, &net.OpError{Op: "dial", Net: network, Addr: l.memory.Addr(), Err: net.ErrClosed}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (m *memory) Accept() (net.Conn, error) {
	select {
	case conn := <-m.conns:
		return conn, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error {
	m.once.Do(func() { close(m.closed) })
	return nil
}

// Addr has a loopback name, so that http is allowed to it.
func (m *memory) Addr() net.Addr { return memoryAddr{} }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "localhost" }

// Interface guard
var _ net.Listener = (*memory)(nil)
