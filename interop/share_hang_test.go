package interop

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"
)

// hangs has one holder's calls hang, each at another place.
func hangs(t *testing.T, f *fleet) []together {
	t.Helper()
	var cases []*unlucky
	var all []*sharing
	add := func(p place, s *sharing) {
		s.name = strings.ReplaceAll(s.name+"-"+p.name, " ", "-")
		s.secure, s.timeout = p.clerk == atDial, "5s"
		f.begin(t, s)
		all = append(all, s)
		cases = append(cases, &unlucky{fleet: f, sharing: s, place: p})
	}
	for _, p := range chainPlaces {
		if f.storage.kind == inRedis && p.call.kind == "turn" {
			continue // it renews the lock, and nobody else can take it
		}
		if p.clerk == atGiven {
			p.clerk, p.lost = atCome, false // else the answer is lost
		}
		add(p, &sharing{name: "chain", refresh: true})
	}
	for _, p := range plainPlaces {
		add(p, &sharing{name: "plain"})
	}
	holder := f.member(t, "holder", holderAt, all...)
	holder.live(t)
	var ready, done sync.WaitGroup
	for _, u := range cases {
		ready.Go(func() { holder.serves(t, u.name) })
	}
	ready.Wait()
	others := f.others(t, cases, all)
	began := time.Now()
	rows := make([]together, len(cases))
	for n, u := range cases {
		u.holder, u.others, u.row = holder, others, &rows[n]
		rows[n] = together{server: f.server.name, storage: f.storage.kind, grant: u.grant(), what: "holder hanging: " + u.place.name}
		done.Go(func() {
			t.Run(u.name, func(t *testing.T) {
				defer func() {
					if t.Failed() {
						f.tell(t, u.name)
					}
				}()
				u.hung(t)
				u.result(t)
				u.row.took = time.Since(began)
			})
		})
	}
	done.Wait()
	return rows
}

// hung: what the holder waits for does not come before the others have gone on.
func (u *unlucky) hung(t *testing.T) {
	t.Helper()
	u.row.rounds++
	reached, free := make(chan time.Time, 1), make(chan struct{})
	release := sync.OnceFunc(func() { close(free) })
	defer release()
	u.trap("holder", u.name, u.place, func(ctx context.Context) {
		reached <- time.Now()
		select {
		case <-free:
		case <-ctx.Done():
		}
	})
	var at time.Time
	select {
	case at = <-reached:
	case <-time.After(longWait):
		t.Fatalf("the holder did not come to %q", u.place.name)
	}
	if u.place.lost && u.refresh {
		u.lockTaken(t, at) // it saves what it has when it can
	} else {
		u.othersUse(t, at)
	}
	released := time.Now()
	release()
	u.goesOn(t, released)
}
