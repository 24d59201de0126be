package faults

import (
	"net/http"
	"sync"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// Tokens that end before their time. A request that is refused because of it is
// made again with another token, and its client sees nothing.
var tokenLines = []line{
	{name: "token revoked early", how: texts{}, want: used, alone: map[when]func(*cell){
		firstToken:   revokedAtOnce,
		atRefresh:    revokedInRefresh,
		forced:       storm,
		atStop:       revokedOnTheWay,
		duringReload: revokedOnTheWay,
	}},
	{name: "server ends the old token on each refresh", how: texts{}, want: used, config: oneAtATime, due: true, alone: map[when]func(*cell){
		firstToken:   renewedOnTheWay,
		atRefresh:    renewedOnTheWay,
		forced:       storm,
		atStop:       renewedOnTheWay,
		duringReload: renewedOnTheWay,
	}},
}

func oneAtATime(c *authserver.Config) { c.OneAtATime = true }

// onTheWay is a request that has arrived at the API with the token held now,
// which the API looks at when it is let go.
type onTheWay struct {
	c     *cell
	gate  chan struct{}
	reply chan reply
}

// send sends one, and returns when the API has it.
func (c *cell) send() *onTheWay {
	w := &onTheWay{c, make(chan struct{}), make(chan reply, 1)}
	arrived := make(chan struct{})
	c.api.FailNext(1, func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		close(arrived)
		<-w.gate
		next.ServeHTTP(rw, r)
	})
	go func() { w.reply <- c.ask() }()
	select {
	case <-arrived:
	case <-c.column.ended:
		c.fail("Caddy ended before a request arrived")
	}
	return w
}

// served lets it go, and wants the API's answer to another token.
func (w *onTheWay) served(before string) reply {
	close(w.gate)
	r := <-w.reply
	if now := w.c.served(r); now == before {
		w.c.fail("it was answered with the token that had ended")
	}
	return r
}

// together is what the column does to all at once.
func (c *cell) together() {
	if c.column.together == nil {
		return
	}
	c.column.ready.Done()
	<-c.column.reached
}

// settle waits for a renewal that brings a token which is good for an hour.
func (c *cell) settle() {
	c.set(false)
	c.await("its renewal", func() bool {
		got := c.obtained()
		return got[len(got)-1].Lifetime > 40
	})
}

// revokedAtOnce: the first token is refused as soon as it comes, as where the
// API does not know it yet. Its clients are given that answer until half a
// second has passed, and then are served: two token requests were enough.
func revokedAtOnce(c *cell) {
	if !c.await("the first token", func() bool { return len(c.obtained()) > 0 }) {
		return
	}
	c.auth.RevokeAll()
	for {
		r := c.ask()
		if r.status == http.StatusOK {
			c.served(r)
			break
		}
		if r.err != nil || r.status != http.StatusUnauthorized || r.header.Get("WWW-Authenticate") == "" {
			c.fail("want the API's own refusal, got %s", r)
			return
		}
	}
	if n := c.spaced(); n != 2 {
		c.fail("%d token requests, want 2", n)
	}
	c.say("401 at first, 200")
}

// revokedInRefresh: a token is refused while its successor is on its way.
func revokedInRefresh(c *cell) {
	if !c.await("the first token", func() bool { return len(c.obtained()) > 0 }) {
		return
	}
	c.server.hold()
	if !c.await("the refresh", c.server.underWay) {
		return
	}
	before := c.served(c.ask())
	w := c.send()
	c.auth.RevokeAll()
	close(w.gate)
	c.await("the refusal", func() bool { return len(c.told("an upstream refuses")) > 0 })
	c.server.release()
	r := <-w.reply
	if now := c.served(r); now == before {
		c.fail("it was answered with the token that had ended")
	}
	c.spaced()
	c.say("%d", r.status)
}

// storm: many requests are refused at once, and are all served with the one
// token that one request has brought.
func storm(c *cell) {
	if !c.await("the first token", func() bool { return len(c.obtained()) > 0 }) {
		return
	}
	c.served(c.ask())
	if c.column.due || c.due {
		c.settle()
	}
	<-time.After(successGap)
	const many = 20
	var arrived, done sync.WaitGroup
	gate := make(chan struct{})
	arrived.Add(many)
	c.api.FailNext(many, func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		arrived.Done()
		<-gate
		next.ServeHTTP(rw, r)
	})
	for range many {
		done.Go(func() { c.served(c.ask()) })
	}
	arrived.Wait()
	asked := len(c.server.asked())
	c.auth.RevokeAll()
	close(gate)
	done.Wait()
	if n := len(c.server.asked()) - asked; n != 1 {
		c.fail("%d token requests because of %d refusals, want 1", n, many)
	}
	c.spaced()
	c.say("%d × 200, one token request", many)
}

// revokedOnTheWay: a request's token ends while the API has the request.
func revokedOnTheWay(c *cell) {
	if !c.await("the first token", func() bool { return len(c.obtained()) > 0 }) {
		c.together()
		return
	}
	<-time.After(successGap)
	before := c.served(c.ask())
	w := c.send()
	c.auth.RevokeAll()
	c.together()
	r := w.served(before)
	c.say("%d", r.status)
}

// renewedOnTheWay: the token is renewed while the API has a request with the old
// one, which ends with that.
func renewedOnTheWay(c *cell) {
	if !c.await("the first token", func() bool { return len(c.obtained()) > 0 }) {
		c.together()
		return
	}
	before := c.served(c.ask())
	w := c.send()
	c.settle()
	c.together()
	r := w.served(before)
	// with a third one on its way the second may have ended, too, and be refused
	if n := len(c.told("an upstream refuses")); n != 0 && c.auth.Issued() == 2 {
		c.fail("a refusal of the older token counted against the newer one")
	}
	c.spaced()
	c.say("%d", r.status)
}
