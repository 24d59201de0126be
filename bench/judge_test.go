package main

import (
	"net/http"
	"slices"
	"testing"
	"time"
)

var zero = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func second(s float64) time.Time { return zero.Add(time.Duration(s * float64(time.Second))) }

// madeCall is one that was sent when it was meant to be.
func madeCall(meant, took float64, status int) call {
	return call{meant: second(meant), sent: second(meant), answered: second(meant + took), status: status}
}

func TestTimes(t *testing.T) {
	var calls []call
	for i := range 100 {
		calls = append(calls, madeCall(float64(i), float64(100-i)/1000, http.StatusOK))
	}
	late := madeCall(0, 0.3, http.StatusOK)
	late.sent = second(0.29) // a caller that was kept waiting
	sorted := times(append(calls, late))
	for limit, want := range map[time.Duration]int{0: 101, 100 * time.Millisecond: 1, 99 * time.Millisecond: 2, 300 * time.Millisecond: 0} {
		if got := over(sorted, limit); got != want {
			t.Errorf("%d over %s, want %d", got, limit, want)
		}
	}
	if p99, slowest := at(sorted, 99), at(sorted, 100); p99 != 100*time.Millisecond || slowest != 300*time.Millisecond {
		t.Errorf("p99 %s, slowest %s", p99, slowest)
	}
	if at(nil, 99) != 0 {
		t.Error("a percentile of nothing")
	}
	if n := len(within(calls, second(10), second(20))); n != 10 {
		t.Errorf("%d calls within 10 s", n)
	}
}

func TestOrder(t *testing.T) {
	all := []subject{{name: "a"}, {name: "b"}, {name: "c"}}
	for round, want := range []string{"abc", "acb", "cab", "cba"} {
		got := ""
		for _, s := range order(all, round) {
			got += s.name
		}
		if got != want {
			t.Errorf("round %d: %s, want %s", round, got, want)
		}
	}
}

func TestRefreshes(t *testing.T) {
	var tokens []life
	for _, at := range []float64{0, 2.5, 2.6, 2.9, 5, 7.5, 12.5} {
		tokens = append(tokens, life{from: second(at)})
	}
	if n := refreshes(tokens, second(2), second(12)); n != 3 {
		t.Errorf("%d refreshes, want 3", n)
	}
}

func TestCliffGoals(t *testing.T) {
	quiet, noisy := &cliffRow{bare: true, slowest: 10 * time.Millisecond}, &cliffRow{bare: true, slowest: 120 * time.Millisecond, late: 2}
	for name, test := range map[string]struct {
		row  cliffRow
		bare *cliffRow
		want string
	}{
		"quick":                  {cliffRow{refreshes: 3, slowest: 50 * time.Millisecond}, quiet, "met"},
		"slow":                   {cliffRow{refreshes: 3, slowest: 51 * time.Millisecond}, quiet, "missed"},
		"slow on a slow machine": {cliffRow{refreshes: 3, slowest: 180 * time.Millisecond, late: 2}, noisy, "met"},
		"late more often":        {cliffRow{refreshes: 3, slowest: 180 * time.Millisecond, late: 3}, noisy, "missed"},
		"failed":                 {cliffRow{refreshes: 3, failed: 1}, quiet, "missed"},
		"a busy machine":         {cliffRow{refreshes: 3, foreign: 0.06}, quiet, "void: others took 6% of the processors"},
		"a busy one before":      {cliffRow{refreshes: 3}, &cliffRow{foreign: 0.5}, "void, as the first"},
		"not refreshed":          {cliffRow{refreshes: 2}, quiet, "void: fewer than 3 refreshes"},
	} {
		if got := verdict(&test.row, test.bare); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

func TestJudgeOutage(t *testing.T) {
	// the first token ends at 14 s, the outage is from 2 s to 20 s
	tokens := []life{{second(0), second(14)}, {second(21), second(35)}}
	good := []call{madeCall(1, 0.001, 200), madeCall(5, 1.5, 200), madeCall(20.5, 0.001, 503), madeCall(21.5, 0.001, 200), madeCall(22, 0.001, 200)}
	for name, test := range map[string]struct {
		calls []call
		want  outageRow
	}{
		"nothing failed": {nil, outageRow{requests: 1}},
		"with a token":   {[]call{madeCall(4, 0.05, 503)}, outageRow{requests: 2, failed: 1, valid: 1}},
		"no answer":      {[]call{madeCall(4, 0.05, 0)}, outageRow{requests: 2, failed: 1, valid: 1}},
		"in its last tenth": {[]call{madeCall(13, 0.05, 503)},
			outageRow{requests: 2, failed: 1, valid: 1, margin: 1, failP99: 50 * time.Millisecond, failSlowest: 50 * time.Millisecond, failLate: 1}},
		"without one": {[]call{madeCall(15, 0.02, 503), madeCall(16, 0.01, 502)},
			outageRow{requests: 3, failed: 2, failP99: 20 * time.Millisecond, failSlowest: 20 * time.Millisecond}},
		// a token endpoint that hangs: until a proxy's patience, or the return, ends
		"kept waiting without one": {[]call{madeCall(15, 5, 503), madeCall(16, 10, 0), madeCall(19, 1.4, 200)},
			outageRow{requests: 4, failed: 2, failP99: 10 * time.Second, failSlowest: 10 * time.Second, failLate: 2, waits: 4, longest: 10 * time.Second}},
		"without a body": {[]call{madeCall(15, 0.001, 204)},
			outageRow{requests: 2, failed: 1, failP99: time.Millisecond, failSlowest: time.Millisecond}},
	} {
		want := test.want
		want.ours, want.tokens = true, 3
		want.waits, want.longest = max(want.waits, 1), max(want.longest, 1500*time.Millisecond)
		want.back, want.step = 1501*time.Millisecond, 4*time.Second
		if name == "kept waiting without one" { // the last of them is answered before
			want.back = 400 * time.Millisecond
		}
		got := judgeOutage(subject{ours: true}, slices.Concat(good, test.calls), second(2), second(20), tokens, 3)
		if *got != want {
			t.Errorf("%s:\n%+v, want\n%+v", name, *got, want)
		}
	}
}

func TestOutageGoals(t *testing.T) {
	base := outageRow{ours: true, failed: 700, valid: 700, margin: 700, tokens: 15, back: time.Second, step: time.Second}
	for name, test := range map[string]struct {
		edit func(*outageRow)
		want string
	}{
		"good":              {func(*outageRow) {}, "met"},
		"a valid token":     {func(r *outageRow) { r.valid++ }, "missed"},
		"too many requests": {func(r *outageRow) { r.tokens++ }, "missed"},
		"a slow failure":    {func(r *outageRow) { r.failLate++ }, "missed"},
		"late again":        {func(r *outageRow) { r.back += time.Second }, "missed"},
		"a peer late again": {func(r *outageRow) { r.ours, r.back = false, time.Minute }, "met"},
		"never again":       {func(r *outageRow) { r.back = 0 }, "missed"},
	} {
		r := base
		test.edit(&r)
		if got := verdict(&r, new(outageRow)); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

func TestForeign(t *testing.T) {
	before := usage{all: 1000, busy: 500, ours: 100}
	for name, test := range map[string]struct {
		after usage
		want  share
	}{
		"alone":        {usage{all: 1200, busy: 600, ours: 200}, 0},
		"with another": {usage{all: 1200, busy: 620, ours: 200}, 0.1},
		"rounded":      {usage{all: 1200, busy: 600, ours: 201}, 0},
		"unknown":      {usage{}, 0},
	} {
		if got := test.after.foreign(before); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

func TestMedian(t *testing.T) {
	for want, values := range map[float64][]float64{2: {3, 1, 2}, 2.5: {4, 1, 2, 3}, 7: {7}} {
		if got := median(values); got != want {
			t.Errorf("the median of %v is %v, want %v", values, got, want)
		}
	}
}

func TestReadMemory(t *testing.T) {
	const text = "00400000-7ffd rw-p 00000000 00:00 0  [rollup]\nRss:               43120 kB\nPss:               42001 kB\nAnonymous:          8064 kB\n"
	got, err := readMemory(text)
	if err != nil || got != (memory{resident: 43120, shared: 42001, private: 8064}) {
		t.Errorf("%v, %v", got, err)
	}
	if got := together([]memory{got}); got.resident != 43120 {
		t.Errorf("one alone: %v", got)
	}
	if got := together([]memory{got, {resident: 5000, shared: 99, private: 36}}); got != (memory{resident: 42100, shared: 42100, private: 8100}) {
		t.Errorf("two: %v", got)
	}
	for _, text := range []string{"", "Rss: 1 kB\nPss: 1 kB\n", "Anonymous: 1 kB\nPss: 1 kB\n", "Rss: 1 kB\nAnonymous: 1 kB\n", "Rss: x kB\nPss: 1 kB\nAnonymous: 1 kB\n"} {
		if got, err := readMemory(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}
