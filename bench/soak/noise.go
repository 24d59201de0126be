package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// controlPath is answered by Caddy itself, without any token. Where that is slow,
// the machine is, and no time that was noted means much.
const controlPath = "/control"

const (
	controlEvery = 100 * time.Millisecond
	slow         = 250 * time.Millisecond
	// around is how far from a slow one all is taken for slow.
	around = 10 * time.Second
)

// listen sends control requests to each Caddy until the context ends, and notes
// when they are slow.
func (s *stage) listen(ctx context.Context) {
	var all sync.WaitGroup
	for _, i := range s.caddies {
		all.Go(func() { s.control(ctx, clientOn(i.path("sock"))) })
	}
	all.Wait()
}

func (s *stage) control(ctx context.Context, client *http.Client) {
	var underWay sync.WaitGroup
	for due := time.Now(); ctx.Err() == nil; due = due.Add(controlEvery) {
		rest(ctx, time.Until(due))
		underWay.Go(func() {
			if answers(client) {
				s.heard(due, time.Now())
			}
		})
	}
	underWay.Wait()
}

// answers tells whether there was an answer, or nobody had the patience for it.
func answers(client *http.Client) bool {
	res, err := client.Get("http://soak" + controlPath)
	if err != nil {
		return failure(err) == late
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err == nil
}

func (s *stage) heard(due, ended time.Time) {
	if ended.Sub(due) > slow {
		s.book.with(func() { s.book.noise = append(s.book.noise, span{due, ended}) })
	}
}

// noisy tells whether the machine was slow near a time.
func (b *book) noisy(from, to time.Time) bool {
	for _, n := range b.noise {
		if from.Before(n.to.Add(around)) && to.After(n.from.Add(-around)) {
			return true
		}
	}
	return false
}

// quiet tells how much of the run can be judged by its times.
func (b *book) quiet() string {
	padded := make([]span, 0, len(b.noise))
	for _, n := range b.noise {
		padded = append(padded, span{n.from.Add(-around), n.to.Add(around)})
	}
	var noisy time.Duration
	for _, n := range union(padded) {
		noisy += n.to.Sub(n.from)
	}
	return fmt.Sprintf("the machine was busy for %.0f s: of what failed then it is not said that it should not have", noisy.Seconds())
}
