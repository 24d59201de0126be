package caddymodule

import "sync"

// A body is kept in chunks, so that none of it is copied a second time, and so
// that a client which announces a length holds no memory for what it has not
// sent.
const (
	chunkSize  = 16 << 10
	smallChunk = 4 << 10 // what is known to need no more is not taken from the pool
)

var chunkPool = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// keptChunks is what was read of a body. Whoever reads it gets a copy: a chunk
// can go back to the pool as soon as it is not listed any more, whatever an
// http.Transport still has of the request.
type keptChunks struct {
	list [][]byte
	few  [4][]byte // the list of a body of the default size
	size int64

	// where the reader is
	at    int64
	chunk int
	off   int // in that chunk
}

// add appends p. expected is how much there will be as far as anybody knows,
// p included.
func (c *keptChunks) add(p []byte, expected int64) {
	for len(p) > 0 {
		last := len(c.list) - 1
		if last < 0 || len(c.list[last]) == cap(c.list[last]) {
			if last < 0 {
				c.list = c.few[:0]
			}
			c.list = append(c.list, newChunk(expected-c.size))
			last++
		}
		room := c.list[last]
		n := min(len(p), cap(room)-len(room))
		c.list[last] = append(room, p[:n]...)
		c.size += int64(n)
		p = p[n:]
	}
}

// newChunk is an empty chunk for what is left of a body; there may be more after
// all.
func newChunk(left int64) []byte {
	if 0 < left && left <= smallChunk {
		return make([]byte, 0, left)
	}
	return chunkPool.Get().(*[chunkSize]byte)[:0]
}

// next copies what the reader has not had yet, as much as p takes.
func (c *keptChunks) next(p []byte) (n int) {
	for n < len(p) && c.at < c.size {
		if c.off == len(c.list[c.chunk]) {
			c.chunk, c.off = c.chunk+1, 0
		}
		m := copy(p[n:], c.list[c.chunk][c.off:])
		n += m
		c.off += m
		c.at += int64(m)
	}
	return n
}

// rewind has the reader begin again.
func (c *keptChunks) rewind() { c.at, c.chunk, c.off = 0, 0, 0 }

// skip says that the reader has had all.
func (c *keptChunks) skip() {
	if c.at = c.size; c.size > 0 {
		c.chunk = len(c.list) - 1
		c.off = len(c.list[c.chunk])
	}
}

// drop forgets what was kept.
func (c *keptChunks) drop() {
	for _, chunk := range c.list {
		if cap(chunk) == chunkSize {
			chunkPool.Put((*[chunkSize]byte)(chunk[:chunkSize]))
		}
	}
	*c = keptChunks{}
}
