package oauth

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
)

// guard is asked once whether a request may be written.
type guard struct {
	may func(context.Context) error
	ctx context.Context

	mu    sync.Mutex
	asked bool
	err   error
}

var errOver = errors.New("the request has ended before it was written")

// before puts the guard before a request. One without a body is asked about
// before it is handed to the transport.
func (g *guard) before(req *http.Request) error {
	if g.may == nil {
		return nil
	}
	if req.Body == nil {
		return g.ask()
	}
	req.Body = &guarded{req.Body, g}
	fresh := req.GetBody
	req.GetBody = func() (io.ReadCloser, error) {
		body, err := fresh()
		return &guarded{body, g}, err
	}
	return nil
}

func (g *guard) ask() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.asked {
		g.asked = true
		g.err = g.may(g.ctx)
	}
	return g.err
}

// end has nothing be written any more, and is the error if nothing was.
func (g *guard) end() error {
	if g.may == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.asked {
		g.asked, g.err = true, errOver
		return nil // what ended it says more
	}
	return g.err
}

// kept tells whether the request was kept from being written.
func (g *guard) kept() bool {
	if g.may == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err != nil
}

// guarded is a request's body that is given out only if it may be sent still.
// It is read when the connection stands and nothing is written yet, and a
// request whose body is missing is none to a server: there is no later moment.
type guarded struct {
	io.ReadCloser
	guard *guard
}

// Read implements io.Reader.
func (g *guarded) Read(p []byte) (int, error) {
	if err := g.guard.ask(); err != nil {
		return 0, err
	}
	return g.ReadCloser.Read(p)
}
