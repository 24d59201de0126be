//go:build !race

package token

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// growLength is a part of the simulated day: sixteen lifetimes of a shared token.
const growLength = 16 * sharedLife

// TestGrow: what a fleet on one storage asks of the server does not grow with its
// number, and what each asks of the storage does not either. Its lines are what
// the scenario grow of bench shows.
func TestGrow(t *testing.T) {
	var s strings.Builder
	s.WriteString("\n| instances | token requests a lifetime | storage operations of an instance in a lifetime | requests | with an expired token | failed |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, instances := range []int{1, 10, 100, dayInstances} {
		report := newDayReport("share", alike(instances), nil)
		var store *dayStore
		synctest.Test(t, func(*testing.T) {
			began := time.Now().Add(growLength - dayLength) // it is the end of the day
			store = newDayStore(trouble{}, 0)
			var wg sync.WaitGroup
			for n := range instances {
				i := newDayInstance(n, sharedLife, began, report)
				i.store, i.share = store, NewShare(defaults, false, nil)
				i.share.random = seeded(-2 - n).Float64
				wg.Go(func() { i.live(seeded(traffic + n)) })
			}
			wg.Wait()
			close(store.over)
			time.Sleep(time.Minute) // what is under way ends
		})
		report.check(t)
		n, _ := report.total()
		lifetimes := float64(growLength) / float64(sharedLife)
		requests := float64(n) / lifetimes
		operations := float64(sum(store.calls)) / lifetimes / float64(instances)
		failed := report.withValid + report.inMargin + report.inTrouble + report.early + report.other
		fmt.Fprintf(&s, "| %d | %.2f | %.2f | %d | %d | %d |\n", instances, requests, operations, report.made, report.expired, failed)
		// due at 65 to 75% of each life, and once at the start
		if requests < 1 || requests > 1.65 {
			t.Errorf("%d instances: %.2f token requests a lifetime", instances, requests)
		}
		if operations > 10 {
			t.Errorf("%d instances: each does %.2f operations in a lifetime", instances, operations)
		}
		if failed > 0 || report.made < instances {
			t.Errorf("%d instances: %d of %d requests failed", instances, failed, report.made)
		}
	}
	t.Log(s.String())
}
