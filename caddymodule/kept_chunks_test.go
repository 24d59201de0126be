package caddymodule

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

// TestKeptBodyAllocates: a body takes the memory of itself, once, whether its
// length is announced or not.
func TestKeptBodyAllocates(t *testing.T) {
	buffer := make([]byte, 32<<10)
	for _, size := range []int64{1 << 10, 20 << 10, 64 << 10, 1 << 20} {
		body := bytes.NewReader(make([]byte, size))
		for name, length := range map[string]int64{"announced": size, "unknown": -1} {
			t.Run(fmt.Sprint(size, " ", name), func(t *testing.T) {
				got := leastAllocated(func() {
					readKept(body, length, buffer)
				})
				t.Logf("%d bytes", got)
				// the chunk that is not full, where nobody knew it would not be
				most := uint64(size + size*3/10 + 1<<10)
				if length < 0 {
					most = max(most, chunkSize+1<<10)
				}
				if got > most {
					t.Errorf("%d bytes for a body of %d, want %d at most", got, size, most)
				}
			})
		}
	}
}

// TestKeptBodyOnlyAnnounced: who announces much and sends little takes little.
func TestKeptBodyOnlyAnnounced(t *testing.T) {
	buffer, body := make([]byte, 100), strings.NewReader("x")
	got := leastAllocated(func() {
		runtime.GC() // twice: the pool is emptied
		runtime.GC()
		_, _ = body.Seek(0, io.SeekStart)
		attempt := &http.Request{Body: io.NopCloser(body), ContentLength: mostReplayBody}
		keepBody(attempt, mostReplayBody)
		_, _ = attempt.Body.Read(buffer)
	})
	if got > 2*chunkSize {
		t.Errorf("%d bytes for one that was sent", got)
	}
}

// TestKeptBodyChunks: a body of many chunks comes back as it was, however it is
// read and whatever length was announced; and so does one that follows it, in
// the same chunks.
func TestKeptBodyChunks(t *testing.T) {
	for _, size := range []int{1, smallChunk, smallChunk + 1, chunkSize - 1, chunkSize, chunkSize + 1, 5*chunkSize + 7} {
		for _, length := range []int64{-1, 3, int64(size), int64(size) + 100} {
			t.Run(fmt.Sprint(size, " of ", length), func(t *testing.T) {
				for round := range 2 {
					want := make([]byte, size)
					for i := range want {
						want[i] = byte(i/251 + i + round)
					}
					attempt := &http.Request{Header: http.Header{}, Body: io.NopCloser(iotest.HalfReader(bytes.NewReader(want))), ContentLength: length}
					kept := keepBody(attempt, 1<<20)
					// all of it, and then the rest behind a part of it
					if got, err := io.ReadAll(attempt.Body); !bytes.Equal(got, want) || err != nil {
						t.Errorf("the first attempt got %d bytes, %v", len(got), err)
					}
					next, ok := kept.again(attempt)
					if !ok {
						t.Fatal("it is not kept")
					}
					part := make([]byte, size/2)
					if _, err := io.ReadFull(next.Body, part); !bytes.Equal(part, want[:size/2]) || err != nil {
						t.Error("the second attempt got something else", err)
					}
					next, _ = kept.again(next)
					if got, err := io.ReadAll(next.Body); !bytes.Equal(got, want) || err != nil {
						t.Errorf("the third attempt got %d bytes, %v", len(got), err)
					}
					kept.settle(false)
				}
			})
		}
	}
}

// TestKeptBodyAgainMidway: an attempt that begins before all is there gets what
// was kept, and then the rest from the source.
func TestKeptBodyAgainMidway(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789"), 10_000)
	for _, read := range []int64{1, chunkSize - 1, chunkSize, chunkSize + 1, 3 * chunkSize} {
		attempt := &http.Request{Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(want)), ContentLength: int64(len(want))}
		kept := keepBody(attempt, int64(len(want)))
		_, _ = io.CopyN(io.Discard, attempt.Body, read)
		next, ok := kept.again(attempt)
		if !ok {
			t.Fatal("it is not kept")
		}
		_, _ = io.CopyN(io.Discard, next.Body, read/2)
		kept.settle(false) // what is behind this is still to come
		if got, err := io.ReadAll(next.Body); !bytes.Equal(got, want[read/2:]) || err != nil {
			t.Errorf("after %d: %d bytes, %v", read, len(got), err)
		}
	}
}

// TestKeptChunksSkip: what is added behind what the reader has had is all it gets.
func TestKeptChunksSkip(t *testing.T) {
	for _, size := range []int{0, 1, chunkSize, chunkSize + 1} {
		var c keptChunks
		c.add(make([]byte, size), mostReplayBody)
		c.skip()
		c.add([]byte("more"), mostReplayBody)
		p := make([]byte, 10)
		if n := c.next(p); string(p[:n]) != "more" {
			t.Errorf("behind %d: %q", size, p[:n])
		}
		c.drop()
	}
}

// BenchmarkKeptBody is a body that is kept and not needed again.
func BenchmarkKeptBody(b *testing.B) {
	buffer := make([]byte, 32<<10)
	for _, size := range []int64{1 << 10, 64 << 10, 1 << 20} {
		body := bytes.NewReader(make([]byte, size))
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(size)
			for b.Loop() {
				readKept(body, size, buffer)
			}
		})
	}
}

// readKept reads a body as an upstream would that takes it whole.
func readKept(body io.ReadSeeker, length int64, buffer []byte) {
	_, _ = body.Seek(0, io.SeekStart)
	attempt := &http.Request{Body: io.NopCloser(body), ContentLength: length}
	kept := keepBody(attempt, mostReplayBody)
	for err := error(nil); err == nil; {
		_, err = attempt.Body.Read(buffer)
	}
	_ = attempt.Body.Close()
	kept.settle(false)
}

// leastAllocated is how many bytes f allocates: what else goes on in this
// process only adds.
func leastAllocated(f func()) uint64 {
	least := uint64(math.MaxUint64)
	var before, after runtime.MemStats
	for range 5 {
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}
