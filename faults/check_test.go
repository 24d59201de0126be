package faults

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// What the rules want, whatever the fault.

// leastGap is between the end of a failed token request and the next one, less
// a little for the clock.
const leastGap = 95 * time.Millisecond

// served wants a good answer of the API, and returns which token it came with.
func (c *cell) served(r reply) (token string) {
	var report struct{ Token string }
	switch {
	case r.err != nil, r.status != http.StatusOK:
		c.fail("want the API's answer, got %s", r)
	case json.Unmarshal([]byte(r.body), &report) != nil || report.Token == "":
		c.fail("want the API's answer, got %s", r)
	}
	return report.Token
}

// turnedAway wants what a request gets for which there is no token.
func (c *cell) turnedAway(r reply, kind result) {
	status, body := http.StatusServiceUnavailable, ""
	if kind == refused {
		status = http.StatusBadGateway
	}
	said := "no access token: " + string(kind)
	if c.way == byTransport {
		body = said + "\n"
	}
	if r.err != nil || r.status != status || r.body != body {
		c.fail("want %d %q, got %s", status, body, r)
		return
	}
	if proxy := r.header.Get("Proxy-Status"); !strings.HasPrefix(proxy, "caddy-upstream-auth; error=") || !strings.Contains(proxy, strconv.Quote(said)) {
		c.fail("Proxy-Status is %q", proxy)
	}
	after := r.header.Get("Retry-After")
	if kind == refused {
		if after != "" {
			c.fail("Retry-After is %q after a refusal, want none", after)
		}
		return
	}
	seconds, err := strconv.Atoi(after)
	if err != nil || seconds < 1 {
		c.fail("Retry-After is %q, want seconds", after)
	}
	// the server's floor under that, less what has passed of it; a request may
	// have arrived since the answer was made
	enough := c.floor == 0
	for _, a := range c.server.asked() {
		enough = enough || time.Duration(seconds)*time.Second >= c.floor-r.ended.Sub(a.Time)
	}
	if !enough {
		c.fail("Retry-After is %ds, and the server wants to be left alone for %s", seconds, c.floor)
	}
}

// failures wants all failures in the log to be of one kind.
func (c *cell) failures(kind result) {
	for _, e := range c.failed() {
		if e.Kind != "" && e.Kind != string(kind) {
			c.fail("the log tells of another failure than %s: %s", kind, e.text)
		}
	}
	if len(c.failed()) == 0 {
		c.fail("the log tells of no failure")
	}
}

// said wants the log to hold what the line says it must.
func (c *cell) said() {
	if c.says == "" {
		return
	}
	c.await("the log to say "+c.says, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return slices.ContainsFunc(c.entries, func(e entry) bool { return strings.Contains(e.text, c.says) })
	})
}

// takes wants a token to be taken for as long as it is good for.
func (c *cell) takes(e entry) {
	// a Date has whole seconds, and what is told on the clock may have been told
	// at any moment of a request
	if want := c.life(); e.Lifetime < want-2-e.Took || e.Lifetime > want+2+e.Took {
		c.fail("the token is taken to live %gs, want %gs", e.Lifetime, want)
	}
}

// life is how many seconds a token lives that comes with the fault.
func (c *cell) life() float64 {
	switch {
	case c.lifetime == assumed && c.column.due:
		return 40
	case c.lifetime == 0:
		return 3600
	}
	return c.lifetime.Seconds()
}

// late is how long a request may lie before the server reads it.
const late = 500 * time.Millisecond

// spaced wants no retry loop: the server is left alone for a moment after each
// request, and for as long as it asks to be.
func (c *cell) spaced() (asked int) {
	arrivals := c.server.asked()
	switch {
	case c.twice:
	case c.slow:
		c.spacedSlow(arrivals)
	default:
		// one that a busy machine reads late seems to come close to the next
		for n := 1; n < len(arrivals); n++ {
			if gap := arrivals[n].Sub(arrivals[n-1].Time); arrivals[n-1].broken && gap < c.floor-late {
				c.fail("token request %d came %s after the one before it, want %s at least: %s", n+1, gap, c.floor, c.history())
			}
			if n < 3 {
				continue
			}
			if gap := arrivals[n].Sub(arrivals[n-3].Time); gap < leastGap {
				c.fail("token requests %d to %d came within %s, want %s between two of them at least: %s", n-2, n+1, gap, leastGap, c.history())
			}
		}
	}
	return len(arrivals)
}

// history tells when the token requests came, for whoever looks into a failure.
func (c *cell) history() string {
	var b strings.Builder
	for _, r := range c.auth.Log() {
		fmt.Fprintf(&b, "%s to %s by %s; ", r.Time.Format("05.000"), r.Host, r.Header.Get("User-Agent"))
	}
	fmt.Fprintf(&b, "the fault came at %s", c.since.Format("05.000"))
	return b.String()
}

// spacedSlow is spaced for requests that end by their own timeout: a busy
// machine may see one arrive late, but none before its time.
func (c *cell) spacedSlow(arrivals []arrival) {
	n := 0
	for _, a := range arrivals {
		if !a.broken {
			continue
		}
		// two may have been on their way when the fault came, where a busy machine
		// reads them late
		if least := time.Duration(n-2) * (slowTimeout + leastGap); a.Sub(c.since) < least {
			c.fail("token request %d that meets the fault came %s after it, want %s at least: %s", n+1, a.Sub(c.since), least, c.history())
		}
		n++
	}
}

// unseen wants a server that must not be trusted, or that could not be asked, to
// have seen no request since, but for those that were on their way.
func (c *cell) unseen(since, onTheWay int) {
	if n := c.auth.Requests(); c.unasked && n > since+onTheWay {
		c.fail("%d token requests reached the server, want none", n-since)
	}
}

// slowTimeout is the timeout of a credential whose fault nothing else ends.
const slowTimeout = 5 * time.Second

// refusedByAPI wants the API's own refusal of the token, whole.
func (c *cell) refusedByAPI(r reply) {
	if r.err != nil || r.status != http.StatusUnauthorized || r.body != apiRefusal || r.header.Get("WWW-Authenticate") != apiChallenge {
		c.fail("want the API's own refusal, got %s", r)
	}
}

const (
	apiRefusal   = "the API does not like this token"
	apiChallenge = `Bearer realm="api", error="invalid_token"`
)

// refuseOnce has the API refuse the next request's token, and tells when it has.
func (c *cell) refuseOnce() (done <-chan struct{}) {
	refused := make(chan struct{})
	c.api.FailNext(1, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("WWW-Authenticate", apiChallenge)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(apiRefusal))
		close(refused)
	})
	return refused
}

// steady is a client that asks again and again, and must be served each time.
type steady struct {
	stop chan struct{}
	wg   sync.WaitGroup
}

// steadily starts one.
func (c *cell) steadily() *steady {
	s := &steady{stop: make(chan struct{})}
	s.wg.Go(func() {
		tick := time.NewTicker(2 * time.Second)
		defer tick.Stop()
		for {
			c.served(c.ask())
			select {
			case <-tick.C:
			case <-s.stop:
				return
			}
		}
	})
	return s
}

// end stops it.
func (s *steady) end() {
	close(s.stop)
	s.wg.Wait()
}

// pureAPI wants the API to have been asked with good tokens alone.
func (c *cell) pureAPI() {
	if n := c.api.Missing() + c.api.Unknown() + c.api.Malformed() + c.api.Expired(); n != 0 {
		c.fail("the API was asked %d times with no good token", n)
	}
}
