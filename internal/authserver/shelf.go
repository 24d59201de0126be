package authserver

import "time"

// shelf holds things until a time, and forgets them after: a server that runs
// for days does not grow.
type shelf[V any] struct {
	items   map[string]shelved[V]
	sweepAt int
}

type shelved[V any] struct {
	value V
	until time.Time
}

func newShelf[V any]() shelf[V] {
	return shelf[V]{items: map[string]shelved[V]{}, sweepAt: minSweep}
}

// get returns what was put under a key, and whether it is still held.
func (s *shelf[V]) get(key string, now time.Time) (value V, held bool) {
	item, held := s.items[key]
	if !held || now.After(item.until) {
		var none V
		return none, false
	}
	return item.value, true
}

// put waits with sweeping until the number of things has doubled: a constant
// cost for each.
func (s *shelf[V]) put(key string, value V, until, now time.Time) {
	if len(s.items) >= s.sweepAt {
		for key, item := range s.items {
			if now.After(item.until) {
				delete(s.items, key)
			}
		}
		s.sweepAt = max(minSweep, 2*len(s.items))
	}
	s.items[key] = shelved[V]{value, until}
}
