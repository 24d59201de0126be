package token

import (
	"hash/maphash"
	"iter"
	"sync"
)

const (
	shards      = 32 // so that requests do not contend for one lock
	leastChains = 4
)

// shard is a part of a table's entries, hashed into chains that go through the
// entries themselves: a map would hold each key a second time.
type shard struct {
	mu     sync.RWMutex // Table.mu is held as well by whoever writes
	chains []*entry
	length uint64 // of chains, a power of two
	count  uint64 // of entries
}

// place is where an entry is found. The seed keeps others from choosing values
// that meet in one chain.
func (t *Table) place(key *Key) (*shard, uint64) {
	hash := maphash.Bytes(t.seed, key[:])
	return &t.shards[hash%shards], hash / shards
}

func (t *Table) find(key *Key) *entry {
	s, hash := t.place(key)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.count == 0 {
		return nil
	}
	e := *s.chain(hash)
	for e != nil && e.key != *key {
		e = e.beside
	}
	return e
}

func (s *shard) chain(hash uint64) **entry { return &s.chains[hash&(s.length-1)] }

// put adds an entry whose key is not there.
func (t *Table) put(e *entry) {
	s, hash := t.place(&e.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count >= s.length {
		t.grow(s)
	}
	head := s.chain(hash)
	e.beside, *head = *head, e
	s.count++
}

// grow doubles the number of chains.
func (t *Table) grow(s *shard) {
	old := s.chains
	s.length = max(leastChains, 2*s.length)
	s.chains = make([]*entry, s.length)
	for _, e := range old {
		for e != nil {
			next := e.beside
			_, hash := t.place(&e.key)
			head := s.chain(hash)
			e.beside, *head = *head, e
			e = next
		}
	}
}

// take removes an entry that is there.
func (t *Table) take(e *entry) {
	s, hash := t.place(&e.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.chain(hash)
	for *at != e {
		at = &(*at).beside
	}
	*at, e.beside = e.beside, nil
	s.count--
}

// all are the entries; the one at hand may be taken out. With Table.mu.
func (t *Table) all() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for i := range t.shards {
			for _, e := range t.shards[i].chains {
				for e != nil {
					next := e.beside
					if !yield(e) {
						return
					}
					e = next
				}
			}
		}
	}
}
