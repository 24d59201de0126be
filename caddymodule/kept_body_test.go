package caddymodule

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

// pending is a body that gives what it is told to, when it is told to.
type pending struct {
	parts   chan string
	reading chan struct{}
	closed  chan struct{}
	end     func()
}

func newPending() *pending {
	return &pending{parts: make(chan string), reading: make(chan struct{}, 10), closed: make(chan struct{}), end: func() {}}
}

func (b *pending) Read(p []byte) (int, error) {
	b.reading <- struct{}{}
	part, ok := <-b.parts
	if !ok {
		b.end()
		return 0, io.EOF
	}
	return copy(p, part), nil
}

func (b *pending) Close() error {
	close(b.closed)
	return nil
}

func (b *pending) isClosed() bool {
	select {
	case <-b.closed:
		return true
	default:
		return false
	}
}

// TestKeptBodyHandedOver: what the first attempt is still reading is the second
// one's, and so are the trailers.
func TestKeptBodyHandedOver(t *testing.T) {
	source := newPending()
	attempt := &http.Request{Header: http.Header{"A": {"1"}}, Body: source, ContentLength: -1, Trailer: http.Header{"X-Sum": nil}}
	source.end = func() { attempt.Trailer["X-Sum"] = []string{"42"} }
	kept := keepBody(attempt, 100)
	first := attempt.Body
	stale := make(chan error, 1)
	go func() {
		got, err := io.ReadAll(first)
		if string(got) != "one" {
			t.Errorf("the first attempt got %q", got)
		}
		stale <- err
	}()
	<-source.reading
	source.parts <- "one"
	<-source.reading
	second, ok := kept.again(attempt)
	if !ok {
		t.Fatal("it is not kept")
	}
	second.Header["A"] = nil
	_ = first.Close()
	if attempt.Header.Get("A") != "1" || source.isClosed() {
		t.Error("the attempts have one header, or the first has closed the body")
	}
	done := make(chan string)
	go func() {
		got, err := io.ReadAll(second.Body)
		done <- fmt.Sprint(string(got), err, second.Trailer)
	}()
	source.parts <- "two" // which the first attempt asked for
	if err := <-stale; !errors.Is(err, http.ErrBodyReadAfterClose) {
		t.Errorf("the first attempt got %v", err)
	}
	<-source.reading
	source.parts <- "three"
	<-source.reading
	close(source.parts)
	if got := <-done; got != "onetwothree<nil> map[X-Sum:[42]]" {
		t.Errorf("the second attempt got %s", got)
	}
	third, ok := kept.again(second)
	if !ok {
		t.Fatal("it is not kept for a third attempt")
	}
	if got, err := io.ReadAll(third.Body); string(got) != "onetwothree" || err != nil || third.Trailer.Get("X-Sum") != "42" {
		t.Errorf("the third attempt got %q %v %v", got, err, third.Trailer)
	}
	_ = third.Body.Close()
	if source.isClosed() {
		t.Error("closed while there may be another attempt")
	}
	kept.settle(false)
	if !source.isClosed() {
		t.Error("not closed at the end")
	}
	if _, ok := kept.again(third); ok {
		t.Error("made again after the end")
	}
}

// TestKeptBodyLimits: what cannot be sent again whole is not.
func TestKeptBodyLimits(t *testing.T) {
	broken := errors.New("the client has gone")
	for _, tc := range []struct {
		name   string
		body   io.Reader
		length int64
		most   int64
		want   bool
	}{
		{"none", nil, 0, 0, true},
		{"within", strings.NewReader("0123456789"), -1, 10, true},
		{"byte by byte", iotest.OneByteReader(strings.NewReader("0123456789")), -1, 10, true},
		{"with its end", iotest.DataErrReader(strings.NewReader("0123456789")), -1, 10, true},
		{"one too many", strings.NewReader("0123456789a"), -1, 10, false},
		{"known to be too many", strings.NewReader("0123456789a"), 11, 10, false},
		{"limit 0", strings.NewReader("0"), -1, 0, false},
		{"an error", io.MultiReader(strings.NewReader("0"), iotest.ErrReader(broken)), -1, 10, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			attempt := &http.Request{Header: http.Header{}, ContentLength: tc.length}
			var content []byte
			var kept *keptBody
			if tc.body == nil {
				kept = keepBody(attempt, tc.most)
			} else {
				attempt.Body = io.NopCloser(tc.body)
				kept = keepBody(attempt, tc.most)
				content, _ = io.ReadAll(attempt.Body)
			}
			next, ok := kept.again(attempt)
			if ok != tc.want {
				t.Fatalf("made again: %v", ok)
			}
			if !ok || tc.body == nil {
				return
			}
			if got, err := io.ReadAll(next.Body); string(got) != string(content) || err != nil {
				t.Errorf("got %q %v", got, err)
			}
		})
	}
}

// TestKeptBodyWatch: a wait for another token ends with what it is for.
func TestKeptBodyWatch(t *testing.T) {
	source := newPending()
	attempt := &http.Request{Header: http.Header{}, Body: source, ContentLength: -1}
	kept := keepBody(attempt, 3)
	ctx, stop := kept.watch(t.Context())
	defer stop()
	go func() { _, _ = io.Copy(io.Discard, attempt.Body) }()
	source.parts <- "one"
	if ctx.Err() != nil {
		t.Error("it ended early")
	}
	source.parts <- "x"
	<-ctx.Done()
	close(source.parts)
	if ctx, stop := kept.watch(t.Context()); ctx.Err() == nil {
		t.Error("a wait for nothing")
	} else {
		stop()
	}
}

// TestKeptBodyClose: a body that an upstream has closed after a part is closed
// before reverse_proxy can give the rest of it to another.
func TestKeptBodyClose(t *testing.T) {
	source := newPending()
	attempt := &http.Request{Header: http.Header{}, Body: source, ContentLength: -1}
	kept := keepBody(attempt, 10)
	go func() { source.parts <- "one" }()
	_, _ = attempt.Body.Read(make([]byte, 10))
	_ = attempt.Body.Close()
	if source.isClosed() {
		t.Error("closed while there may be another attempt")
	}
	kept.settle(true)
	if !source.isClosed() {
		t.Error("not closed after an error")
	}
	_ = attempt.Body.Close() // not a second time

	source = newPending()
	attempt.Body = source
	keepBody(attempt, 10).settle(false)
	if source.isClosed() {
		t.Error("closed while the upstream is reading")
	}
	_ = attempt.Body.Close()
	if !source.isClosed() {
		t.Error("not closed by the last attempt")
	}
}
