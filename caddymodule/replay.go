package caddymodule

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"time"
)

// maxReplay is how much of a request's body is kept for a second attempt.
const maxReplay = 64 << 10

// keptBody is a request's body that is kept as it streams past, so that the
// request can be made again. Its Close leaves the rest of the body readable.
type keptBody struct {
	upgrade bool
	source  io.ReadCloser // nil where there is none
	closed  chan struct{}

	turn     chan struct{} // held by whoever reads, or looks at what was read
	read     bytes.Buffer
	overflow bool
}

// keepBody takes hold of an attempt's body.
func keepBody(attempt *http.Request) *keptBody {
	k := &keptBody{upgrade: attempt.Header.Get("Upgrade") != "", closed: make(chan struct{}, 1), turn: make(chan struct{}, 1)}
	if attempt.Body == nil || attempt.Body == http.NoBody {
		return k
	}
	k.source = attempt.Body
	attempt.Body = k
	return k
}

// Read implements io.Reader.
func (k *keptBody) Read(p []byte) (int, error) {
	k.turn <- struct{}{}
	defer func() { <-k.turn }()
	if len(k.closed) > 0 {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := k.source.Read(p)
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
	select {
	case k.closed <- struct{}{}:
	default:
	}
	return nil
}

// lettingGo is how long the first attempt may take to let go of the body.
const lettingGo = time.Second

// again ends an attempt whose answer is not wanted, and gives the body for
// another one; not for a protocol upgrade, nor where too much of the body has
// gone by, nor where the first attempt is still waiting for more of it.
func (k *keptBody) again(ctx context.Context, res *http.Response) (io.ReadCloser, bool) {
	if k.upgrade {
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
	patience := time.NewTimer(lettingGo)
	defer patience.Stop()
	select {
	case <-k.closed:
		k.closed <- struct{}{} // it stays closed
	case <-patience.C:
		return nil, false
	case <-ctx.Done():
		return nil, false
	}
	// Close may be called while a Read is under way (HTTP/2), and what that one
	// gets belongs to the body too
	select {
	case k.turn <- struct{}{}:
	case <-patience.C:
		return nil, false
	case <-ctx.Done():
		return nil, false
	}
	if k.overflow {
		<-k.turn
		return nil, false
	}
	// the turn is kept: the first attempt reads nothing any more
	return io.NopCloser(io.MultiReader(bytes.NewReader(k.read.Bytes()), k.source)), true
}
