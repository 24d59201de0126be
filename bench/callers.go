package main

import (
	"bufio"
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

// caller sends one request after the other. It speaks the little HTTP that it
// needs: a thousand of net/http's clients would take the processor from those
// that are measured.
type caller struct {
	addr    string
	request []byte
	conn    net.Conn // nil after a failure
	reader  *bufio.Reader
}

func (c *caller) dial() (err error) {
	if c.conn, err = net.DialTimeout("tcp", c.addr, patience); err != nil {
		c.conn = nil
		return err
	}
	c.reader = bufio.NewReaderSize(c.conn, 2<<10)
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
	if _, err := c.conn.Write(c.request); err != nil {
		return 0, err
	}
	res, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return 0, err
	}
	if res.Close {
		c.hangUp()
	}
	return res.StatusCode, nil
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
