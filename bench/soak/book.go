package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// book is what was seen in a run, by all who saw something. What it means is
// judged at the end.
type book struct {
	began time.Time

	mu       sync.Mutex
	asks     []*ask
	samples  []sample
	refusals []refusal
	windows  []*window
	lives    []*life
	revoked  map[string]time.Time // by fingerprint: from when on
	raw      map[string]string    // tokens by fingerprint
	logins   []login
	noise    []span   // in which the machine was slow
	notes    []string // to be told, and no fault
	faults   []string // of the program, beyond what is judged from the rest
}

func newBook() *book {
	return &book{began: time.Now(), revoked: make(map[string]time.Time), raw: make(map[string]string)}
}

// ask is one token request, as the proxy saw it.
type ask struct {
	credential, process string
	arrived, ended      time.Time
	fault               string // kind of what was done to it
	forwarded           bool   // the server may have got it
	status              int    // of the answer that was given, 0 for none
	code                string // of what was refused
	life                time.Duration
	token, spent        string    // fingerprints: of the access token, of the refresh token that was sent
	delivered           time.Time // zero if its answer did not get there whole
}

// line is a token request for who looks for the cause of something.
func (b *book) line(a *ask) string {
	line := fmt.Sprintf("%-7s %-4s at %8.3f s for %6.3f s", a.credential, a.process, a.arrived.Sub(b.began).Seconds(), a.ended.Sub(a.arrived).Seconds())
	if a.fault != "" {
		line += ", fault: " + a.fault
	}
	if a.spent != "" {
		line += ", spends " + a.spent
	}
	if a.forwarded {
		line += ", forwarded"
	}
	if a.status != 0 {
		line += fmt.Sprintf(", status %d %s", a.status, a.code)
	}
	if !a.delivered.IsZero() {
		line += ", delivered " + a.token
	}
	return line
}

// sample is one request of the load.
type sample struct {
	number     int
	instance   int
	process    string // that answered, "" where none did
	credential string
	way        string
	due        time.Time // when it should have been sent
	began      time.Time
	ended      time.Time
	from, at   time.Time // when it came to Caddy, when its answer was made; zero where there is none
	outcome    outcome
	status     int
	token      string // that the upstream got in the end, by fingerprint
	err        string
}

// outcome is what a client got.
type outcome int

const (
	good         outcome = iota
	ours                 // 502 or 503 of the plugin's
	unauthorized         // the upstream's 401
	theirs               // a 5xx of Caddy's, for the upstream's sake
	refused              // nobody listens
	broken               // no whole answer
	late                 // none within the client's patience
	odd                  // anything else
)

// refusal is a request that the upstream saw something wrong with.
type refusal struct {
	Verdict string
	Token   string
	Process string
	Number  int
	At      int64 // Unix time in nanoseconds, by the upstream's clock
	Exp     int64 // Unix time in seconds
}

// window is a fault while it lasts.
type window struct {
	event
	from, to time.Time
	skipped  string // why nothing was done
}

// life is one process of Caddy's.
type life struct {
	process  string
	instance int
	from, to time.Time // to is zero while it runs
	stopping time.Time // when it was told to stop
	status   int
	gauges   []gauge
}

// login is a new refresh token for those who use that storage.
type login struct {
	storage int
	at      time.Time
	because string // "" if it was to be expected
}

// fingerprint tells tokens apart without showing them.
func fingerprint(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:6])
}

// with does something with the book in hand.
func (b *book) with(do func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	do()
}

func (b *book) sample(s sample) { b.with(func() { b.samples = append(b.samples, s) }) }

// note tells of something that is no fault.
func (b *book) note(format string, args ...any) {
	b.with(func() { b.notes = append(b.notes, b.stamp()+fmt.Sprintf(format, args...)) })
}

// fault tells of a fault that needs no judgement.
func (b *book) fault(format string, args ...any) {
	b.with(func() { b.faults = append(b.faults, b.stamp()+fmt.Sprintf(format, args...)) })
}

func (b *book) stamp() string { return fmt.Sprintf("%6.1f s: ", time.Since(b.began).Seconds()) }

// at is a time as the report tells it.
func (b *book) at(t time.Time) string { return fmt.Sprintf("%.1f s", t.Sub(b.began).Seconds()) }

// live are the newest good token of each process that runs, for one credential.
func (b *book) live(credential string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	newest := make(map[string]string)
	for _, a := range b.asks {
		if a.credential == credential && !a.delivered.IsZero() && time.Since(a.arrived) < a.life {
			newest[a.process] = a.token
		}
	}
	for _, l := range b.lives {
		if !l.to.IsZero() {
			delete(newest, l.process)
		}
	}
	tokens := slices.Sorted(maps.Values(newest))
	return slices.Compact(tokens)
}

// settled tells whether each instance has had a good answer with each
// credential, both ways, since then.
func (b *book) settled(since time.Time, instances int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	type line struct {
		instance        int
		credential, way string
	}
	fine := make(map[line]bool)
	for _, s := range slices.Backward(b.samples) {
		if s.began.Before(since.Add(-time.Minute)) {
			break // they are nearly in order
		}
		if s.outcome == good && s.began.After(since) {
			fine[line{s.instance, s.credential, s.way}] = true
		}
	}
	return len(fine) == instances*len(clients)*len(ways)
}
