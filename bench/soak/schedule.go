package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kinds of faults. The first are those of the processes and come one after the
// other; the others are answers of the token endpoint, and come to each
// credential by itself.
const (
	serverKilled    = "server killed"
	serverStopped   = "server stopped"
	secretRotated   = "secret rotated"
	tokensRevoked   = "tokens revoked"
	grantRevoked    = "grant revoked"
	caddyReloaded   = "Caddy reloaded"
	caddyRestarted  = "Caddy restarted"
	upstreamKilled  = "upstream killed"
	answer503       = "503"
	answer429       = "429"
	answerHangs     = "hangs"
	answerReset     = "reset"
	answerCut       = "body cut"
	answerHTML      = "HTML"
	answerEmpty     = "empty 200"
	answerDrips     = "drips"
	answerLost      = "answer lost"
	calm            = "none"
	everyCredential = ""
)

var (
	processKinds = []string{serverKilled, serverStopped, secretRotated, tokensRevoked, grantRevoked, caddyReloaded, caddyRestarted, upstreamKilled}
	answerKinds  = []string{answer503, answer429, answerHangs, answerReset, answerCut, answerHTML, answerEmpty, answerDrips, answerLost}
)

// event is one fault that is planned.
type event struct {
	kind       string
	lane       int
	credential string // everyCredential for those that befall all
	at         time.Duration
	lasts      time.Duration
	first      bool // which of two things comes first, where that matters
}

// touches tells whether it has to do with a credential.
func (e event) touches(credential string) bool {
	return e.credential == everyCredential || e.credential == credential
}

func (e event) String() string {
	who := e.credential
	if who == everyCredential {
		who = "all"
	}
	return fmt.Sprintf("%7.1f s  %-16s %-8s %5.1f s", e.at.Seconds(), e.kind, who, e.lasts.Seconds())
}

// plan is the schedule of a run of that length, with tokens that live so long.
// The same seed gives the same. Its beginning and its end are calm, for what the
// processes weigh then is compared.
func plan(seed uint64, length, ttl time.Duration) []event {
	deck := source(seed, len(clients)+1).Perm(len(answerKinds))
	all := (&lane{kinds: processKinds, length: length, ttl: ttl, draw: source(seed, 0)}).deal(nil)
	for n, name := range names() {
		l := &lane{number: n + 1, credential: name, kinds: answerKinds, length: length, ttl: ttl, draw: source(seed, n+1)}
		// each has another part of them first, so that a short run has nearly all
		cut := n * len(deck) / len(clients)
		all = append(all, l.deal(slices.Concat(deck[cut:], deck[:cut]))...)
	}
	slices.SortStableFunc(all, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	return all
}

func source(seed uint64, lane int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(lane))) //nolint:gosec // a schedule that can be had again
}

// lane is what comes one after the other.
type lane struct {
	number      int
	credential  string
	kinds       []string
	length, ttl time.Duration
	draw        *rand.Rand
}

// deal deals the kinds like cards: each comes once before any comes again, the
// first time in an order that may be given.
func (l *lane) deal(order []int) []event {
	quiet := min(l.length/8, 90*time.Second)
	last := l.length - max(quiet, l.ttl)
	var all []event
	at := quiet + l.between(0, l.ttl/2)
	for round := 0; ; round++ {
		if order == nil {
			order = l.draw.Perm(len(l.kinds))
		}
		for _, n := range order {
			e := l.event(l.kinds[n], round, at)
			if e.kind == caddyRestarted && round > 0 && at > l.length/3 {
				continue // what the last process weighs is compared over the rest of the run
			}
			if at += e.lasts; at > last {
				return all
			}
			all = append(all, e)
			gap := l.between(l.ttl, 5*l.ttl)
			switch {
			case round == 0 && l.number == 0:
				gap = l.between(l.ttl/5, l.ttl/2)
			case round == 0:
				gap = l.between(l.ttl/2, 2*l.ttl)
			}
			at += gap
		}
		order = nil
	}
}

// event is one of a kind. In the first round they are short.
func (l *lane) event(kind string, round int, at time.Duration) event {
	e := event{kind: kind, lane: l.number, credential: l.credential, at: at, first: l.draw.IntN(2) == 0}
	switch long := l.draw.IntN(4) == 0; {
	case round == 0:
		e.lasts = l.between(l.ttl/4, l.ttl)
	case long:
		e.lasts = l.between(3*l.ttl/2, 4*l.ttl)
	default:
		e.lasts = l.between(l.ttl/4, 3*l.ttl/2)
	}
	switch kind {
	case caddyReloaded, tokensRevoked, grantRevoked, caddyRestarted, upstreamKilled:
		e.lasts = l.between(l.ttl/20, l.ttl/5) // it is over in a moment
	case secretRotated:
		e.lasts = min(e.lasts, l.ttl/2)
	}
	switch kind {
	case secretRotated:
		e.credential = rotating
	case grantRevoked:
		e.credential = refreshing
	}
	return e
}

func (l *lane) between(a, b time.Duration) time.Duration {
	return (a + time.Duration(l.draw.Float64()*float64(b-a))).Round(100 * time.Millisecond)
}

func names() []string {
	var all []string
	for _, c := range clients {
		all = append(all, c.name)
	}
	return all
}

// outline is the schedule as it is printed before the run.
func outline(events []event) string {
	var text strings.Builder
	for _, e := range events {
		fmt.Fprintln(&text, " ", e)
	}
	return text.String()
}
