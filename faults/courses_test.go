package faults

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"
)

// What is done in each cell, column by column.

// longFloor is a Retry-After that no test waits for.
const longFloor = 5 * time.Minute

// onFirstToken: the fault is there when Caddy starts. A request waits through a
// first failure to reach the server, and is turned away; nothing goes to the
// API. When the fault is mended all is well again, and nobody has to do
// anything.
func onFirstToken(c *cell) {
	want := c.comesTo(firstToken)
	r := c.ask()
	if want == used {
		c.served(r)
		c.taken(0)
		c.look()
		c.set(false)
		if n := c.spaced(); n != 1 && !c.due {
			c.fail("%d token requests, want 1", n)
		}
		c.say("200, token")
		return
	}
	c.turnedAway(r, want)
	attempts := 2
	if c.floor > longFloor {
		attempts = 1
	}
	if !c.await("failures", func() bool { return len(c.failed()) >= attempts }) {
		return
	}
	// requests fail at once from now on, and might wait for five minutes
	c.turnedAway(c.ask(), want)
	if n := c.api.OK(); n != 0 {
		c.fail("the API was asked %d times", n)
	}
	c.unseen(0, 0)
	c.mended(want)
	c.say("%d, %s", r.status, want)
}

// onRefresh: a valid token is held, and is due. It serves every request on,
// whatever the fault is, and is renewed when that is mended.
func onRefresh(c *cell) {
	if !c.await("the first token", func() bool { return len(c.obtained()) > 0 }) {
		return
	}
	clients := c.steadily()
	defer func() {
		clients.end()
		c.spaced()
		c.say("200 throughout, %s", c.comesTo(atRefresh))
	}()
	c.broken(atRefresh)
}

// onForced: an upstream refuses the token held, which was good for another hour,
// and the fault is met by the token request which that causes. Where it brings
// another token, the transport makes the request again with that; the handler
// does not. Where it fails, the client is given the API's own answer, and the
// token that was refused is used on, for there is none that is better.
func onForced(c *cell) {
	if !c.await("the first token", func() bool { return len(c.obtained()) > 0 }) {
		return
	}
	c.before = c.served(c.ask())
	<-time.After(successGap) // no other one is asked for earlier
	obtained, failed := len(c.obtained()), len(c.failed())
	c.set(true)
	refused := c.refuseOnce()
	replies := make(chan reply, 1)
	go func() { replies <- c.ask() }()
	select {
	case <-refused:
	case <-c.column.ended:
		return
	}
	clients := c.steadily() // those who come meanwhile wait, and are all served
	r := <-replies
	if c.way == byTransport && c.comesTo(forced) == used {
		if now := c.served(r); now == c.before {
			c.fail("the request was made again with the token that was refused")
		}
	} else {
		c.refusedByAPI(r)
	}
	c.after(forced, obtained, failed)
	clients.end()
	c.spaced()
	c.say("%d, then 200 throughout, %s", r.status, c.comesTo(forced))
}

// successGap is the least time between two successful token requests.
const successGap = 600 * time.Millisecond

// onReload: the config is replaced while a token request is under way that meets
// the fault. The reload waits for nothing, starts no other one, and costs no
// request.
func onReload(c *cell) {
	ready := c.column.ready.Done
	defer func() { ready() }()
	if !c.await("the first token", func() bool { return len(c.obtained()) > 0 }) {
		return
	}
	clients := c.steadily()
	defer func() {
		clients.end()
		c.spaced()
		c.say("200 throughout, %s", c.comesTo(duringReload))
	}()
	c.before = c.served(c.ask())
	c.server.hold()
	if !c.await("the answer to an earlier token request", c.server.idle) {
		return
	}
	obtained, failed := len(c.obtained()), len(c.failed())
	c.set(true)
	if !c.await("a token request that is under way, or has failed", func() bool {
		return c.server.underWay() || len(c.failed()) > failed
	}) {
		return
	}
	underWay, asked, failures := c.server.underWay(), len(c.server.asked()), len(c.failed())
	ready()
	ready = func() {}
	<-c.column.reached
	if underWay && len(c.server.asked()) > asked {
		c.await("the failure of the token request under way: the reload has caused another one", func() bool { return len(c.failed()) > failures })
	}
	c.server.release()
	c.after(duringReload, obtained, failed)
}

// onStop: SIGTERM comes while the token request is under way, and requests wait
// for it. Each of them gets a whole answer, and Caddy ends.
func onStop(c *cell) {
	replies := make(chan reply, 1)
	go func() { replies <- c.ask() }()
	c.await("a token request that is under way, or has failed", func() bool {
		return c.server.underWay() || len(c.failed()) > 0
	})
	c.column.ready.Done()
	<-c.column.reached
	c.server.release()
	r, want := <-replies, c.comesTo(atStop)
	if want == used {
		c.served(r)
	} else {
		c.turnedAway(r, want)
	}
	<-c.column.ended
	c.spaced()
	c.unseen(0, 0)
	c.say("%d, exit 0", r.status)
}

// broken breaks, and follows what comes of it while a token is held.
func (c *cell) broken(at when) {
	c.before = c.served(c.ask())
	obtained, failed := len(c.obtained()), len(c.failed())
	c.set(true)
	c.after(at, obtained, failed)
}

// after follows what comes of a fault that is met while a token is held.
func (c *cell) after(at when, obtained, failed int) {
	want, requests := c.comesTo(at), c.auth.Requests()
	if want == used {
		// others may have been asked for before the fault came
		if !c.await("another token", func() bool {
			got := c.obtained()[obtained:]
			return len(got) > 0 && (got[len(got)-1].Lifetime > 40 || c.life() == 40 && len(got) > 1)
		}) {
			return
		}
		c.taken(obtained)
		c.look()
		c.set(false)
		if now := c.served(c.ask()); now == c.before {
			c.fail("the token in use is still the one from before")
		}
		return
	}
	if !c.await("a failure", func() bool { return len(c.failed()) > failed }) {
		return
	}
	c.served(c.ask())
	c.unseen(requests, 1)
	c.mended(want)
}

// taken checks the newest token that came with the fault.
func (c *cell) taken(n int) {
	if !c.await("a token", func() bool { return len(c.obtained()) > n }) {
		return
	}
	got := c.obtained()
	c.takes(got[len(got)-1])
	c.said()
	if failed := c.failed(); len(failed) > 0 {
		c.fail("the log tells of a failure: %s", failed[0].text)
	}
}

// mended mends, and waits for a token that nobody asks for.
func (c *cell) mended(kind result) {
	c.failures(kind)
	c.said()
	c.server.hold() // or each failure while places are read would have the next one wait for longer
	defer c.server.release()
	c.look()
	if c.floor > longFloor {
		asked := len(c.server.asked())
		c.atEnd(func() {
			if n := len(c.server.asked()); n != asked {
				c.fail("%d token requests came within its Retry-After, want none: %s", n-asked, c.history())
			}
		})
		c.set(false)
		return
	}
	obtained := len(c.obtained())
	c.set(false)
	c.server.release()
	if !c.await("a token, once all is well", func() bool { return len(c.obtained()) > obtained }) {
		return
	}
	c.served(c.ask())
	c.spaced()
}

// reload replaces the config while all token requests are under way.
func reload(col *column) {
	defer close(col.reached)
	if err := col.load("text/caddyfile", col.caddyfile(1)); err != nil {
		col.fail("the reload: %v", err)
	}
	for _, c := range col.order {
		if r := c.ask(); r.header.Get("X-Revision") != "1" {
			c.fail("an answer of the old config after the reload: %s", r)
		}
	}
}

// terminate sends SIGTERM while requests are under way.
func terminate(col *column) {
	defer close(col.reached)
	waiting := 0
	for _, c := range col.order {
		if len(c.failed()) == 0 {
			waiting++
		}
	}
	if err := col.poll("requests on their way", func(ctx context.Context) error {
		n, err := col.inFlight(ctx)
		if err == nil && n < waiting {
			err = fmt.Errorf("%d are on their way, want %d", n, waiting)
		}
		return err
	}); err != nil {
		col.fail("%v", err)
	}
	col.order[0].look() // at all of them
	if err := col.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		col.fail("SIGTERM: %v", err)
		return
	}
	if err := col.poll("the stop", func(context.Context) error {
		if !strings.Contains(col.logged(), "shutting down apps") {
			return fmt.Errorf("not begun")
		}
		return nil
	}); err != nil {
		col.fail("%v", err)
	}
	col.leaving.Go(func() {
		if err := col.gone(); err != nil {
			col.fail("%v", err)
		}
	})
}
