package caddymodule

import (
	"context"
	"io"
	"maps"
	"net/http"
	"sync"
)

// keptBody is the body of a request that may have to be made again: what is
// read of it is kept as it streams past, up to a limit, and each attempt gets it
// from its beginning. The attempt before need not have let go of it: one that
// was answered early may be at a read still, and what that brings is kept for
// the next.
type keptBody struct {
	source    io.ReadCloser // nil for a request without a body
	trailer   http.Header   // which the source fills at its end
	announced http.Header   // what stood in it at first
	length    int64         // that was announced; -1 where none was
	most      int64

	reading sync.Mutex // held during a read of the source

	mu     sync.Mutex  // for what follows; not held during a read
	reader *bodyReader // of the newest attempt; the others get nothing any more
	read   keptChunks
	passed bool   // more than may be kept
	ended  error  // what the source ended with
	lost   func() // called once it cannot be kept
	final  bool   // there is no further attempt
	first  bodyReader
}

// bodyReader is the body as one attempt sees it.
type bodyReader struct {
	kept    *keptBody
	closed  bool
	trailer http.Header // the attempt's own; nil where it has the source's
}

// noBody stands for the body of all requests that have none.
var noBody = new(keptBody)

// keepBody takes hold of an attempt's body. It is nil where that is known to be
// larger than may be kept: such a request is made once.
func keepBody(attempt *http.Request, most int64) *keptBody {
	switch {
	case attempt.Body == nil || attempt.Body == http.NoBody:
		return noBody
	case most == 0 || attempt.ContentLength > most:
		return nil
	}
	k := &keptBody{source: attempt.Body, trailer: attempt.Trailer, length: attempt.ContentLength, most: most}
	if len(attempt.Trailer) > 0 {
		k.announced = maps.Clone(attempt.Trailer)
	}
	k.first.kept = k
	k.reader = &k.first
	attempt.Body = k.reader
	return k
}

// Read implements io.Reader.
func (b *bodyReader) Read(p []byte) (int, error) {
	k := b.kept
	k.reading.Lock()
	defer k.reading.Unlock()
	if n, ok, err := k.give(b, p); ok {
		return n, err
	}
	n, err := k.source.Read(p)
	return k.take(b, p[:n], err)
}

// give gives a reader what need not be read from the source.
func (k *keptBody) give(b *bodyReader, p []byte) (n int, ok bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case b.closed || k.reader != b:
		return 0, true, http.ErrBodyReadAfterClose
	case k.read.at < k.read.size:
		return k.read.next(p), true, nil
	case k.ended != nil:
		b.end()
		return 0, true, k.ended
	}
	return 0, false, nil
}

// take keeps what was read from the source. If another attempt has begun
// meanwhile it is that one's, however much it is.
func (k *keptBody) take(b *bodyReader, p []byte, err error) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended = err
	k.passed = k.passed || k.read.size+int64(len(p)) > k.most
	if k.lost != nil && !k.whole() {
		k.lost()
	}
	if k.reader != b {
		k.keep(p)
		return 0, http.ErrBodyReadAfterClose
	}
	if k.passed || k.final {
		k.read.drop()
	} else {
		k.keep(p)
		k.read.skip()
	}
	if err != nil {
		b.end()
	}
	return len(p), err
}

// keep adds to what is kept.
func (k *keptBody) keep(p []byte) {
	expected := k.most
	if k.length > 0 {
		expected = k.length
	}
	k.read.add(p, expected)
}

// end gives an attempt the trailers that came behind the body.
func (b *bodyReader) end() {
	if b.trailer != nil {
		maps.Copy(b.trailer, b.kept.trailer)
	}
}

// Close implements io.Closer. It leaves the body to the next attempt, if there
// may be one.
func (b *bodyReader) Close() error {
	k := b.kept
	k.mu.Lock()
	last := k.final && k.reader == b && !b.closed
	b.closed = true
	k.mu.Unlock()
	if last {
		return k.source.Close()
	}
	return nil
}

// whole tells whether all that was read so far is kept.
func (k *keptBody) whole() bool {
	return !k.final && !k.passed && (k.ended == nil || k.ended == io.EOF) //nolint:errorlint // io.Reader's own
}

// watch ends a context once the body can no longer be kept, for an early answer
// does not keep the rest of it from streaming past.
func (k *keptBody) watch(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if k.source == nil {
		return ctx, cancel
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.whole() {
		cancel()
	}
	k.lost = cancel
	return ctx, cancel
}

// again makes another attempt of a request, with its own header; the one before
// reads nothing of the body any more. It is false where the body was not kept.
func (k *keptBody) again(attempt *http.Request) (*http.Request, bool) {
	if k == nil {
		return nil, false
	}
	next := *attempt
	next.Header = maps.Clone(attempt.Header)
	if k.source == nil {
		return &next, true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.whole() {
		return nil, false
	}
	b := &bodyReader{kept: k}
	next.Body, next.Trailer = b, k.trailer
	if k.ended == nil && k.trailer != nil {
		// what the source fills later may not be looked at meanwhile
		b.trailer = make(http.Header, len(k.announced))
		maps.Copy(b.trailer, k.announced)
		next.Trailer = b.trailer
	}
	k.reader = b
	k.read.rewind()
	return &next, true
}

// settle says that there is no further attempt, because of an error or not:
// what the last one closes is closed from now on.
func (k *keptBody) settle(failed bool) {
	if k == nil || k.source == nil {
		return
	}
	k.mu.Lock()
	k.final = true
	if k.read.at == k.read.size {
		k.read.drop()
	}
	closed, ended := k.reader.closed, k.ended != nil
	k.mu.Unlock()
	switch {
	case !closed:
	case failed || ended:
		// at once: reverse_proxy may try another upstream, which must not get
		// what is left of the body for the whole
		_ = k.source.Close()
	default:
		go k.source.Close() // it waits for a client that is sending still
	}
}
