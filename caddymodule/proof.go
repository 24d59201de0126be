package caddymodule

import (
	"maps"
	"strings"
	"sync"
	"time"
)

// proof reads what a client proves itself with, and remembers it; or, for a
// repetition with what worked last, takes it from memory.
type proof struct {
	*resolver
	read   map[string]string // what was configured, and what it stood for
	recall map[string]string // in place of reading
}

func newProof(r *resolver, recall map[string]string) *proof {
	return &proof{resolver: r, read: make(map[string]string), recall: recall}
}

func (p *proof) resolve(value string) (string, error) {
	if !strings.ContainsAny(value, "{}") {
		return value, nil
	}
	return p.remember("value "+value, func() (string, error) { return p.resolver.resolve(value) })
}

func (p *proof) secret(value string) (string, error) {
	out, err := p.resolve(value)
	if err == nil {
		p.secrets = append(p.secrets, out)
	}
	return out, err
}

func (p *proof) secretFile(path string) ([]byte, error) {
	content, err := p.remember("file "+path, func() (string, error) {
		content, err := p.resolver.secretFile(path)
		return string(content), err
	})
	return []byte(content), err
}

func (p *proof) remember(what string, read func() (string, error)) (string, error) {
	if out, ok := p.recall[what]; ok {
		return out, nil
	}
	out, err := read()
	if err == nil {
		p.read[what] = out
	}
	return out, err
}

// overlap is how long a secret that was replaced is still tried, while the new
// one has not worked: servers take a while to learn of it, and so do mounts.
const overlap = 24 * time.Hour

// lastProof is what a server took last. A secret, a key and a certificate are
// rotated here and at the server at two moments; between them the one that
// worked is tried again after the new one was refused.
type lastProof struct {
	mu       sync.Mutex
	tokenURL string // a secret never goes to another server than the one that took it
	read     map[string]string
	replaced time.Time // when another one was first seen
}

// worked notes what a server has taken.
func (l *lastProof) worked(tokenURL string, read map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tokenURL, l.read, l.replaced = tokenURL, read, time.Time{}
}

// instead is what worked last, nil if there is nothing else to try.
func (l *lastProof) instead(tokenURL string, refused map[string]string) map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.read == nil || l.tokenURL != tokenURL || maps.Equal(l.read, refused) {
		return nil
	}
	if l.replaced.IsZero() {
		l.replaced = time.Now()
	}
	if time.Since(l.replaced) > overlap {
		l.read = nil
		return nil
	}
	return l.read
}

// inherit takes over what an earlier config of the same credential knew.
func (l *lastProof) inherit(from *lastProof) {
	from.mu.Lock()
	defer from.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tokenURL, l.read, l.replaced = from.tokenURL, from.read, from.replaced
}
