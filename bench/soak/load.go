package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience is how long a client waits for an answer. It is far more than Caddy
// makes anybody wait.
const patience = 30 * time.Second

// drive sends so many requests a second until the context ends, whatever becomes
// of those before, and waits for those that are under way.
func (s *stage) drive(ctx context.Context, perSecond int) {
	var underWay sync.WaitGroup
	began := time.Now()
	gap := time.Second / time.Duration(perSecond)
	for n := 0; ; n++ {
		due := began.Add(time.Duration(n) * gap)
		rest(ctx, time.Until(due))
		if ctx.Err() != nil {
			break
		}
		underWay.Go(func() { s.book.sample(s.send(n, due)) })
	}
	underWay.Wait()
}

// send sends one request: each credential and each way has its turn, a quarter
// of them with a body.
func (s *stage) send(n int, due time.Time) sample {
	i := s.caddies[n%len(s.caddies)]
	turn := n / len(s.caddies)
	c := clients[turn%len(clients)].name
	turn /= len(clients)
	one := sample{number: n, instance: i.number, credential: c, way: ways[turn%len(ways)], due: due, began: time.Now()}
	method, body := http.MethodGet, io.Reader(nil)
	if turn/len(ways)%4 == 0 {
		method, body = http.MethodPost, strings.NewReader(postBody)
	}
	// a request under way is let finish
	req, err := http.NewRequestWithContext(context.Background(), method, "http://soak/"+one.way+"/"+c, body)
	if err != nil {
		one.outcome, one.err = odd, err.Error()
		return one
	}
	req.Header.Set(numberHeader, strconv.Itoa(n))
	req.Header.Set("Authorization", "Bearer of-the-client") // must not get through
	req.Header.Set("Idempotency-Key", strconv.Itoa(n))      // so that Go's client sends it again on a connection that was just closed
	res, err := i.client.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
	one.ended = time.Now()
	if err != nil {
		one.outcome, one.err = failure(err), err.Error()
		return one
	}
	one.status, one.process, one.token = res.StatusCode, res.Header.Get(processHeader), res.Header.Get(fingerprintHeader)
	one.outcome = answered(res)
	one.from, one.at = stamp(res, fromHeader, one.began), stamp(res, atHeader, one.ended)
	return one
}

// When a request came to Caddy and when its answer was made, in milliseconds.
const (
	fromHeader = "X-Soak-From"
	atHeader   = "X-Soak-At"
)

func stamp(res *http.Response, header string, otherwise time.Time) time.Time {
	ms, err := strconv.ParseInt(res.Header.Get(header), 10, 64)
	if err != nil {
		return otherwise
	}
	return time.UnixMilli(ms)
}

func failure(err error) outcome {
	var timeout net.Error
	switch op, is := errors.AsType[*net.OpError](err); {
	case is && op.Op == "dial" && (errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist)):
		return refused
	case errors.As(err, &timeout) && timeout.Timeout():
		return late
	}
	return broken
}

func answered(res *http.Response) outcome {
	own := strings.HasPrefix(res.Header.Get("Proxy-Status"), "caddy-upstream-auth")
	switch {
	case res.StatusCode == http.StatusOK:
		return good
	case own:
		return ours
	case res.StatusCode == http.StatusUnauthorized:
		return unauthorized
	case res.StatusCode >= http.StatusInternalServerError:
		return theirs
	}
	return odd
}
