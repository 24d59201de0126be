package authserver

import (
	"strconv"
	"testing"
	"time"
)

func TestShelf(t *testing.T) {
	s, start := newShelf[int](), time.Now()
	most := 0
	for i := range 10 * minSweep {
		now := start.Add(time.Duration(i) * time.Second)
		s.put(strconv.Itoa(i), i, now.Add(100*time.Second), now)
		most = max(most, len(s.items))
		if i < 101 {
			continue
		}
		for ago, want := range map[int]bool{0: true, 100: true, 101: false} {
			if value, held := s.get(strconv.Itoa(i-ago), now); held != want || held && value != i-ago {
				t.Fatalf("after %d, that of %d ago is held: %t, as %d", i, ago, held, value)
			}
		}
	}
	if most > minSweep {
		t.Errorf("%d were held at once", most)
	}
	for i := range 3 * minSweep { // that live on
		s.put(strconv.Itoa(-i), i, start.Add(1<<40), start)
	}
	if s.sweepAt < len(s.items) {
		t.Errorf("with %d held, each one more has all looked at", len(s.items))
	}
}
