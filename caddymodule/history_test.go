package caddymodule

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// last is the end of a series.
func last(series []uint64, n int) []uint64 { return series[len(series)-n:] }

// TestHistory: each minute has what happened in it, and after an hour it is gone.
func TestHistory(t *testing.T) {
	const name = "history-test"
	t.Cleanup(func() { forget(name) })
	synctest.Test(t, func(t *testing.T) {
		all := &histories{byName: make(map[string]*history)}
		h := all.take(name)
		good, turnedAway := requests.WithLabelValues(name, "injected"), requests.WithLabelValues(name, "unavailable")
		good.Add(3)
		upstreamUnauthorized.WithLabelValues(name, "replayed").Inc()
		h.attempted(false)
		if got := h.hour(); len(got.Requests) != minutes || !slices.Equal(last(got.Requests, 2), []uint64{0, 3}) ||
			!slices.Equal(last(got.Rejected, 1), []uint64{1}) || !slices.Equal(last(got.TokenRequests, 1), []uint64{1}) {
			t.Errorf("in the first minute: %+v", got)
		}
		time.Sleep(time.Minute + time.Second)
		turnedAway.Add(2)
		h.attempted(true)
		time.Sleep(time.Minute)
		good.Add(5)
		got := h.hour()
		for what, series := range map[string]struct{ got, want []uint64 }{
			"requests": {got.Requests, []uint64{0, 3, 2, 5}}, "failures": {got.Failures, []uint64{0, 0, 2, 0}}, "rejected": {got.Rejected, []uint64{0, 1, 0, 0}},
			"token requests": {got.TokenRequests, []uint64{0, 1, 1, 0}}, "token failures": {got.TokenFailures, []uint64{0, 0, 1, 0}},
		} {
			if !slices.Equal(last(series.got, 4), series.want) {
				t.Errorf("%s: %v, want %v", what, last(series.got, 4), series.want)
			}
		}
		time.Sleep(58 * time.Minute)
		if got := h.hour().Requests; got[0] != 2 || got[1] != 5 {
			t.Errorf("after an hour it begins with %v", got[:3])
		}
		time.Sleep(2 * time.Hour)
		if got := h.hour(); slices.Max(got.Requests) != 0 {
			t.Errorf("after three hours: %v", got.Requests)
		}
		all.drop(h)
	})
}

// TestHistorySlept: the time that the machine was suspended has passed.
func TestHistorySlept(t *testing.T) {
	const name = "history-slept-test"
	t.Cleanup(func() { forget(name) })
	var slept time.Duration
	synctest.Test(t, func(t *testing.T) {
		h := newHistory(name)
		h.since, h.slept = time.Now(), func() time.Duration { return slept }
		requests.WithLabelValues(name, "injected").Add(3)
		slept = 30 * time.Minute
		if got := h.hour().Requests; !slices.Equal(last(got, 31), append([]uint64{3}, make([]uint64, 30)...)) {
			t.Errorf("after half an hour: %v", got)
		}
		slept = 3 * time.Hour
		if got := h.hour().Requests; slices.Max(got) != 0 {
			t.Errorf("after three hours: %v", got)
		}
	})
}

// TestHistories: a reload keeps the history of a name, a credential that goes
// takes it along, and nothing ticks for none.
func TestHistories(t *testing.T) {
	const name = "histories-test"
	t.Cleanup(func() { forget(name) })
	synctest.Test(t, func(t *testing.T) {
		all := &histories{byName: make(map[string]*history)}
		before := all.take(name)
		requests.WithLabelValues(name, "injected").Add(7)
		after := all.take(name)
		all.drop(before)
		if got := after.hour(); before != after || !slices.Equal(last(got.Requests, 1), []uint64{7}) {
			t.Errorf("got %v", got.Requests)
		}
		if all.timer == nil {
			t.Error("nothing samples it")
		}
		all.drop(after)
		if all.timer != nil || len(all.byName) != 0 {
			t.Errorf("left are %v and %v", all.timer, all.byName)
		}
		forget(name)
		n := testutil.CollectAndCount(requests)
		after.hour() // a page that was begun before
		if testutil.CollectAndCount(requests) != n {
			t.Error("a look at the history made the series anew")
		}
	})
}

// forget drops a name's series.
func forget(name string) {
	for _, v := range vectors() {
		v.DeletePartialMatch(prometheus.Labels{"credential": name})
	}
}
