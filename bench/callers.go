package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// patience is how long a caller waits for one answer.
const patience = 30 * time.Second

// crowd is a number of callers with a connection each, which all stays open.
// Together they send at a fixed rate, in turn, so that each sends at moments of
// its own: a caller that is kept waiting does not slow the others down, and what
// it was meant to send meanwhile it sends late.
type crowd struct {
	callers  []*caller
	lastGood atomic.Int64 // when the newest answer of 200 came, in Unix nanoseconds
}

// call is what came of one request.
type call struct {
	meant    time.Time // when it was to be sent
	sent     time.Time
	answered time.Time
	status   int // 0 if there was no answer
}

// took counts from the moment at which the request was meant to be sent, so
// that a proxy that keeps its callers from sending is not the better for it.
func (c call) took() time.Duration { return c.answered.Sub(c.meant) }

func (c call) good() bool { return c.status == http.StatusOK }

// needBodies has answers without a body count as none.
func (g *crowd) needBodies() {
	for _, c := range g.callers {
		c.needsBody = true
	}
}

// gather opens the connections.
func gather(addr string, n int) (*crowd, error) {
	g := new(crowd)
	for range n {
		c := &caller{addr: addr, request: []byte("GET /hello HTTP/1.1\r\nHost: " + addr + "\r\nUser-Agent: bench\r\n\r\n")}
		g.callers = append(g.callers, c)
		if err := c.dial(); err != nil {
			g.close()
			return nil, fmt.Errorf("opening %d connections: %w", n, err)
		}
	}
	return g, nil
}

func (g *crowd) close() {
	for _, c := range g.callers {
		c.hangUp()
	}
}

// call sends at a rate from began until stop is closed, and returns when all
// that was sent is answered. What is late by then is sent all the same.
func (g *crowd) call(perSecond int, began time.Time, stop <-chan struct{}) []call {
	made := make([][]call, len(g.callers))
	var wg sync.WaitGroup
	for i, c := range g.callers {
		wg.Go(func() {
			timer := time.NewTimer(0)
			defer timer.Stop()
			for n := i; ; n += len(g.callers) {
				meant := began.Add(time.Duration(n) * time.Second / time.Duration(perSecond))
				if wait := time.Until(meant); wait > 0 {
					timer.Reset(wait)
					select {
					case <-timer.C:
					case <-stop:
						return
					}
				}
				one := c.call(meant)
				if one.good() {
					g.lastGood.Store(one.answered.UnixNano())
				}
				made[i] = append(made[i], one)
			}
		})
	}
	wg.Wait()
	return slices.Concat(made...)
}

// open has each caller send a request, by a new connection if the old one was
// closed meanwhile. What goes wrong with it shows in the requests that count.
func (g *crowd) open() {
	g.each(func(c *caller) {
		for range 2 {
			if _, err := c.exchange(); err == nil {
				return
			}
			c.hangUp()
		}
	})
}

// press has each caller send the next request as soon as the last one is
// answered, for so long, and returns when all is answered. The deadlines are
// those of the requests before: open is called first.
func (g *crowd) press(length time.Duration) (p pressed) {
	began := time.Now()
	end := began.Add(length)
	g.each(func(c *caller) { c.press(began, end) })
	p.length = time.Since(began)
	for _, c := range g.callers {
		p.times = append(p.times, c.times...)
		p.failed += c.failed
	}
	return p
}

// pressed is what came of it.
type pressed struct {
	length time.Duration   // until the last answer
	times  []time.Duration // of the good answers, in no order
	failed int             // not answered with 200, or not at all
}

// each has all callers do something at once.
func (g *crowd) each(do func(*caller)) {
	var wg sync.WaitGroup
	for _, c := range g.callers {
		wg.Go(func() { do(c) })
	}
	wg.Wait()
}

// press sends until the end. The clock is read once a request: where one ends,
// the next one begins.
func (c *caller) press(began, end time.Time) {
	c.times, c.failed = c.times[:0], 0
	for began.Before(end) {
		send := c.swap
		if c.conn == nil {
			send = c.exchange
		}
		status, err := send()
		now := time.Now()
		switch {
		case err != nil:
			c.failed++
			c.hangUp()
		case status != http.StatusOK:
			c.failed++
		default:
			c.times = append(c.times, now.Sub(began))
		}
		began = now
	}
}

// caller sends one request after the other. It speaks the little HTTP that it
// needs: a thousand of net/http's clients would take the processor from those
// that are measured.
type caller struct {
	addr    string
	request []byte
	// needsBody has an empty 200 count as 204: Dapr's middleware answers so where
	// it has no token.
	needsBody bool
	conn      net.Conn // nil after a failure
	reader    *bufio.Reader

	times  []time.Duration // of press
	failed int
}

func (c *caller) dial() (err error) {
	if c.conn, err = net.DialTimeout("tcp", c.addr, patience); err != nil {
		c.conn = nil
		return err
	}
	if c.reader == nil {
		c.reader = bufio.NewReaderSize(c.conn, 4<<10)
	}
	c.reader.Reset(c.conn)
	return nil
}

func (c *caller) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

func (c *caller) call(meant time.Time) call {
	one := call{meant: meant, sent: time.Now()}
	status, err := c.exchange()
	one.answered = time.Now()
	if err != nil {
		c.hangUp()
		return one
	}
	one.status = status
	return one
}

func (c *caller) exchange() (int, error) {
	if c.conn == nil {
		if err := c.dial(); err != nil {
			return 0, err
		}
	}
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	return c.swap()
}

// swap sends the request, and reads the answer without parsing more of it than
// it needs, and without allocating anything.
func (c *caller) swap() (int, error) {
	if _, err := c.conn.Write(c.request); err != nil {
		return 0, err
	}
	for need := 1; ; {
		if _, err := c.reader.Peek(need); err != nil {
			return 0, err
		}
		text, err := c.reader.Peek(c.reader.Buffered())
		if err != nil {
			return 0, err
		}
		if end := blankLine(text); end >= 0 {
			status, head, err := readStatus(text[:end])
			if err != nil {
				return c.readAnswer()
			}
			if _, err := c.reader.Discard(end + head.length); err != nil {
				return 0, err
			}
			if head.last {
				c.hangUp()
			}
			return c.whole(status, int64(head.length)), nil
		}
		if need = len(text) + 1; need > c.reader.Size() {
			return c.readAnswer()
		}
	}
}

// readStatus reads the head of an answer that says how long its body is.
func readStatus(text []byte) (int, head, error) {
	line, text, _ := bytes.Cut(text, newline)
	version, line, _ := bytes.Cut(line, space)
	if len(line) < 3 {
		return 0, head{}, errHead
	}
	status, err := number(line[:3])
	if err != nil || status < http.StatusOK || status == http.StatusNoContent || status == http.StatusNotModified {
		return 0, head{}, errHead // those have no body, whatever they say
	}
	h, err := readLines(text, head{last: bytes.Equal(version, http10)})
	if err == nil && h.length < 0 {
		err = errHead
	}
	return status, h, err
}

// readAnswer reads an answer of any form.
func (c *caller) readAnswer() (int, error) {
	res, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	if err != nil {
		return 0, err
	}
	if res.Close {
		c.hangUp()
	}
	return c.whole(res.StatusCode, n), nil
}

// whole is the status of an answer with a body of so many bytes.
func (c *caller) whole(status int, body int64) int {
	if c.needsBody && body == 0 && status == http.StatusOK {
		return http.StatusNoContent
	}
	return status
}

// within are the calls that were meant to be sent in a span.
func within(calls []call, from, to time.Time) []call {
	var out []call
	for _, c := range calls {
		if !c.meant.Before(from) && c.meant.Before(to) {
			out = append(out, c)
		}
	}
	return out
}

// times are how long calls took, the quickest first.
func times(calls []call) []time.Duration {
	out := make([]time.Duration, 0, len(calls))
	for _, c := range calls {
		out = append(out, c.took())
	}
	slices.Sort(out)
	return out
}

// at is a percentile of sorted times; 0 of none.
func at(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)*percent/100, len(sorted)-1)]
}

// over is how many of sorted times are longer than a limit.
func over(sorted []time.Duration, limit time.Duration) int {
	i, _ := slices.BinarySearch(sorted, limit+1)
	return len(sorted) - i
}
