package caddymodule

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync"
)

// maxReplay is how much of a request's body is kept for a second attempt.
const maxReplay = 64 << 10

// keptBody is a request's body that is kept as it streams past, so that the
// request can be made again. Its Close leaves the rest of the body readable.
type keptBody struct {
	upgrade bool
	source  io.ReadCloser // nil where there is none

	mu       sync.Mutex
	read     bytes.Buffer
	overflow bool
	closed   chan struct{}
	isClosed bool
}

// keepBody takes hold of an attempt's body.
func keepBody(attempt *http.Request) *keptBody {
	k := &keptBody{upgrade: attempt.Header.Get("Upgrade") != "", closed: make(chan struct{})}
	if attempt.Body == nil || attempt.Body == http.NoBody {
		return k
	}
	k.source = attempt.Body
	attempt.Body = k
	return k
}

// Read implements io.Reader.
func (k *keptBody) Read(p []byte) (int, error) {
	n, err := k.source.Read(p)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.read.Len()+n > maxReplay {
		k.overflow = true
		k.read = bytes.Buffer{}
	}
	if !k.overflow {
		k.read.Write(p[:n])
	}
	return n, err
}

// Close implements io.Closer. The server closes the body itself.
func (k *keptBody) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.isClosed {
		k.isClosed = true
		close(k.closed)
	}
	return nil
}

// again ends an attempt whose answer is not wanted, and gives the body for
// another one; not for a protocol upgrade, nor where too much of the body has
// gone by.
func (k *keptBody) again(ctx context.Context, res *http.Response) (io.ReadCloser, bool) {
	k.mu.Lock()
	overflow := k.overflow
	k.mu.Unlock()
	if k.upgrade || overflow {
		return nil, false
	}
	// read to its end, so that the connection can be used again, and kept, should
	// there be no second attempt
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxReplay+1))
	if err != nil || len(answer) > maxReplay {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(answer), res.Body), res.Body}
		return nil, false
	}
	_ = res.Body.Close()
	res.Body = io.NopCloser(bytes.NewReader(answer))
	if k.source == nil {
		return http.NoBody, true
	}
	select {
	case <-k.closed: // until then the first attempt may still read
	case <-ctx.Done():
		return nil, false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.overflow {
		return nil, false
	}
	return io.NopCloser(io.MultiReader(bytes.NewReader(k.read.Bytes()), k.source)), true
}
