package authserver

import (
	"slices"
	"sync"
)

// maxNonces is how many nonces are remembered.
const maxNonces = 100

// nonceRule is how nonces are demanded in DPoP proofs (RFC 9449 §8).
type nonceRule struct {
	on    bool
	uses  int  // before the newest gives way to another; 0 for no end
	keep  int  // how many older ones are still taken
	quiet bool // whether only a refusal tells the newest
}

// nonces are those of one place.
type nonces struct {
	mu      sync.Mutex
	known   []string // the newest last
	used    int      // since the newest came
	refused int
}

func newNonces() nonces { return nonces{known: []string{random()}} }

// take uses a nonce, and tells whether it could be.
func (n *nonces) take(nonce string, rule nonceRule) bool {
	if !rule.on {
		return true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	oldest := max(0, len(n.known)-1-rule.keep)
	if !slices.Contains(n.known[oldest:], nonce) {
		n.refused++
		return false
	}
	n.used++
	if rule.uses > 0 && n.used >= rule.uses {
		n.next()
	}
	return true
}

// next makes the newest nonce. The lock is held.
func (n *nonces) next() {
	n.known, n.used = append(n.known, random()), 0
	n.known = n.known[max(0, len(n.known)-maxNonces):]
}

func (n *nonces) rotate() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next()
}

func (n *nonces) newest() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.known[len(n.known)-1]
}

func (n *nonces) refusals() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.refused
}
