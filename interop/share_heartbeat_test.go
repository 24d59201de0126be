package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// outlivedHeartbeat: certmagic renews a lock file for as long as it finds one of
// that name, up to 5s after its own was removed: the file of another, who is
// dead, too. Such a lock never goes stale, and is broken after a while.
func outlivedHeartbeat(t *testing.T) []together {
	t.Helper()
	f := startFleet(t, inFiles, rotatingServer(fosite)(t, holderTTL, killDelay))
	began := time.Now()
	s := &sharing{name: "held", hold: true, timeout: "2s"}
	a, b := f.member(t, "a", holderAt, s), f.member(t, "b", holderAt, s)
	row := together{server: f.server.name, storage: inFiles, grant: s.grant(), what: "killed, and its lock kept fresh by another"}
	b.live(t)
	b.serves(t, s.name)
	for outlived := false; !outlived; {
		row.rounds++
		if row.rounds > 10 {
			t.Fatal("the lock of one that was killed went stale each time")
		}
		killed := f.killAfterAnother(t, a, b, s)
		outlived = f.outlives(t, b, s, killed)
		if outlived {
			f.serveAfter(t, b, s, killed)
			row.took = time.Since(killed)
		}
	}
	row.asked = len(f.grants(s.name))
	t.Logf("%d kills until a lock was kept fresh; all took %s; the lock was broken, and a token there, %s after the kill", row.rounds, time.Since(began).Round(time.Second), row.took.Round(time.Second))
	return []together{row}
}

// killAfterAnother starts one, and ends it when it has the lock that another has
// just given back.
func (f *fleet) killAfterAnother(t *testing.T, a, b *member, s *sharing) (at time.Time) {
	t.Helper()
	reached := make(chan time.Time, 1)
	var mu sync.Mutex
	var freed time.Time
	var once sync.Once
	over := f.gate.rule(func(c storageCall) string {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case c.who == b.who && c.op == "unlock" && c.after:
			freed = time.Now()
		case c.who == a.who && c.op == "lock" && c.after && time.Since(freed) < 4*time.Second:
			once.Do(func() {
				_ = a.cmd.Process.Kill() // its end is waited for
				reached <- time.Now()
			})
		}
		return ""
	})
	defer over()
	a.live(t)
	a.serves(t, s.name)
	select {
	case at = <-reached:
	case <-time.After(longWait):
		t.Fatal("it never had the lock after the other")
	}
	<-a.ended
	return at
}

// outlives tells whether a lock file is renewed though its owner is dead, or
// else another got the lock.
func (f *fleet) outlives(t *testing.T, b *member, s *sharing, killed time.Time) bool {
	t.Helper()
	outlived := false
	poll(t, longWait, "a sign of life of the lock, or of its end", func(context.Context) error {
		for _, g := range f.grants(s.name) {
			if g.begun.After(killed) && g.who == b.who {
				return nil
			}
		}
		locks, err := f.storage.locks()
		if err != nil || len(locks) != 1 {
			return fmt.Errorf("locks %s, %w", locks, err)
		}
		text, err := os.ReadFile(locks[0])
		if err != nil {
			return err
		}
		var meta struct{ Created, Updated time.Time }
		if err := json.Unmarshal(text, &meta); err != nil {
			return err
		}
		if meta.Created.After(killed) || meta.Updated.Before(killed.Add(11*time.Second)) {
			return errors.New("not yet")
		}
		outlived = true
		return nil
	})
	return outlived
}

// serveAfter waits for the other to have asked, and to serve.
func (f *fleet) serveAfter(t *testing.T, b *member, s *sharing, killed time.Time) {
	t.Helper()
	poll(t, longWait, "a token in spite of the lock", func(context.Context) error {
		for _, g := range f.grants(s.name) {
			if g.begun.After(killed) && g.who == b.who {
				return nil
			}
		}
		return errors.New("none")
	})
	b.serves(t, s.name)
}
