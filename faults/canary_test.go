package faults

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// canary finds marks in whatever spelling: it is given what must not be seen,
// and then everything that can be.
type canary struct {
	mu      sync.RWMutex
	needles map[string][]needle // by their first bytes
	filter  [1 << 20]bool       // by the hash of those
	known   map[string]bool
	made    map[kindOf]int
	passed  map[kindOf]int
	places  map[string]*tally
}

// needle is one spelling of a secret, or of its beginning.
type needle struct {
	text     string
	spelling string
	kind     kindOf // "" for the marker, after which the kind stands
}

// tally is what was searched of a place.
type tally struct {
	times int
	bytes int64
	found int
}

// found is a secret that was seen.
type found struct {
	needle
	at int
}

// canaries are the counts of all tests.
var canaries = newCanary()

func newCanary() *canary {
	k := &canary{
		needles: make(map[string][]needle), known: make(map[string]bool),
		made: make(map[kindOf]int), passed: make(map[kindOf]int), places: make(map[string]*tally),
	}
	k.learn("", marker)
	return k
}

// mark makes one.
func (k *canary) mark(kind kindOf, of string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.made[kind]++
	return mark(kind, of)
}

// learn has a secret be found that somebody else has made: an assertion's
// signature, a server's refresh token, a line of a key file. Its first characters
// have to be random.
func (k *canary) learn(kind kindOf, text string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(text) < window || k.known[text] {
		return
	}
	k.known[text] = true
	if kind != "" {
		k.made[kind]++
	}
	for _, s := range spellings {
		spelled := s.of(text[:window])
		first := spelled[:window]
		if slices.ContainsFunc(k.needles[first], func(n needle) bool { return n.text == spelled && n.spelling == s.name }) {
			continue
		}
		k.needles[first] = append(k.needles[first], needle{spelled, s.name, kind})
		k.filter[hash(first)] = true
	}
}

// hash is that of a window; search goes on from one to the next.
func hash(first string) uint32 {
	var h uint32
	for n := range window {
		h = h*factor + uint32(first[n])
	}
	return h >> 12
}

const factor = 0x9E3779B1

// leaves is what a character counts for when it leaves the window.
var leaves = func() uint32 {
	power := uint32(1)
	for range window {
		power *= factor
	}
	return power
}()

// search finds all that is in a text.
func (k *canary) search(text string) []found {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.scan(text)
}

// scan is left out of the race detector, which would make it ten times as slow:
// it reads a text that nobody writes, and what the lock is held for.
//
//go:norace
func (k *canary) scan(text string) (all []found) {
	var h uint32
	for n := range len(text) {
		h = h*factor + uint32(text[n])
		if n >= window {
			h -= leaves * uint32(text[n-window])
		}
		if n < window-1 || !k.filter[h>>12] {
			continue
		}
		at := n - window + 1
		for _, needle := range k.needles[text[at:n+1]] {
			if strings.HasPrefix(text[at:], needle.text) {
				all = append(all, found{needle, at})
			}
		}
	}
	return all
}

// clean searches a place, where nothing may be found, and says what was.
func (k *canary) clean(place, text string) (problems []string) {
	all := k.search(text)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.places[place] == nil {
		k.places[place] = new(tally)
	}
	t := k.places[place]
	t.times++
	t.bytes += int64(len(text))
	t.found += len(all)
	for n, f := range all {
		if n == 0 || f.at > all[n-1].at+300 {
			problems = append(problems, fmt.Sprintf("%s shows a secret (%s): %s", place, f.spelling, around(text, f.at)))
		}
	}
	return problems
}

// around is what stands beside a place in a text, within its line.
func around(text string, at int) string {
	from := max(at-400, strings.LastIndexByte(text[:at], '\n')+1)
	rest := text[at:min(at+200, len(text))]
	line, _, _ := strings.Cut(rest, "\n")
	return fmt.Sprintf("%q", text[from:at]+line)
}

// pass notes what has passed through, where it must be: the positive control.
// It is searched as it stands on the wire, and no secret counts that is not
// found there.
func (k *canary) pass(text string) map[kindOf]bool {
	kinds := make(map[kindOf]bool)
	for _, f := range k.search(text) {
		if kind := f.kindIn(text); kind != "" {
			kinds[kind] = true
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for kind := range kinds {
		k.passed[kind]++
	}
	return kinds
}

// kindIn reads the kind after a marker, as the needle was spelled.
func (f found) kindIn(text string) kindOf {
	if f.kind != "" {
		return f.kind
	}
	for _, s := range spellings {
		if s.name != f.spelling {
			continue
		}
		for _, kind := range kinds {
			if strings.HasPrefix(text[f.at:], s.of(marker+"."+string(kind)+".")) {
				return kind
			}
		}
	}
	return ""
}

// kinds are all that a mark can name.
var kinds = []kindOf{
	ofSecret, ofKey, ofStoreKey, ofProof, ofJTI, ofDPoP, ofAssertion, ofSubject, ofActor, ofHeader, ofAccess, ofRefresh, ofID,
	ofBody, ofAnswer, ofClient, ofCode, ofVerifier,
}

// add counts another's findings as one's own.
func (k *canary) add(other *canary) {
	other.mu.RLock()
	defer other.mu.RUnlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	for kind, n := range other.made {
		k.made[kind] += n
	}
	for kind, n := range other.passed {
		k.passed[kind] += n
	}
	for name, t := range other.places {
		if k.places[name] == nil {
			k.places[name] = new(tally)
		}
		k.places[name].times += t.times
		k.places[name].bytes += t.bytes
		k.places[name].found += t.found
	}
}

// total is all that was made, and seen to pass.
func total(counts map[kindOf]int) (n int) {
	for count := range maps.Values(counts) {
		n += count
	}
	return n
}
