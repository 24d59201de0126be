package main

import (
	"strings"
	"testing"
	"time"
)

// costing is a slice of 100 requests of so many µs each.
func costing(us int) *slice {
	return &slice{requests: 100, length: 100 * time.Millisecond, cpu: time.Duration(us) * 100 * time.Microsecond, times: []time.Duration{time.Duration(us) * time.Millisecond}}
}

func TestFigures(t *testing.T) {
	reference := &lane{taken: []*slice{costing(100), nil, costing(200), costing(50)}}
	other := &lane{taken: []*slice{costing(80), costing(1000), nil, costing(60)}}
	got := other.beside(reference, (*slice).each)
	if len(got) != 2 || got[0] != 0.8 || got[1] != 1.2 {
		t.Errorf("%v, want those of the first and the last round alone", got)
	}
	if got := other.figures((*slice).each); len(got) != 3 || median(got) != 80 {
		t.Errorf("figures %v", got)
	}
	if s := costing(80); s.perSecond() != 1000 || s.busy() != 0.08 || s.p99() != 80 {
		t.Errorf("%v/s, busy %v, p99 %v", s.perSecond(), s.busy(), s.p99())
	}
	if times := other.times(); len(times) != 3 || times[0] != 60*time.Millisecond || times[2] != time.Second {
		t.Errorf("times %v", times)
	}
}

func TestVoid(t *testing.T) {
	rounds := func(us ...int) *lane {
		l := &lane{name: "x"}
		for _, one := range us {
			l.taken = append(l.taken, costing(one))
		}
		return l
	}
	reference := rounds(100, 100, 100, 100, 100, 100)
	for name, test := range map[string]struct {
		again  *lane
		unseen time.Duration
		want   string
	}{
		"even":         {rounds(101, 99, 100, 102, 98, 100), 0, ""},
		"uneven":       {rounds(101, 102, 103, 102, 101, 102), 0, "x, beside itself, comes to 1.020 (1.010–1.030)"},
		"too few":      {&lane{taken: []*slice{costing(100), costing(100), costing(100), costing(100), costing(100), nil}}, 0, "5 rounds are left"},
		"a hidden one": {rounds(101, 99, 100, 102, 98, 100), 6 * time.Second, "6% of the processors went"},
	} {
		c := &contest{lanes: []*lane{reference, test.again}, rounds: 6, all: 100 * time.Second, unseen: test.unseen}
		if got := c.void(); !strings.HasPrefix(got, test.want) || test.want == "" && got != "" {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func TestPeersGoals(t *testing.T) {
	lanes := func(sidecar, reference, httputil int) *contest {
		c := new(contest)
		for name, us := range map[string]int{sidecarName: sidecar, referenceName: reference, httputilName: httputil} {
			c.lanes = append(c.lanes, &lane{name: name, taken: []*slice{costing(us)}})
		}
		return c
	}
	for name, test := range map[string]struct {
		c    *contest
		want [3]bool
	}{
		"all":            {lanes(78, 100, 60), [3]bool{true, true, true}},
		"not the time":   {lanes(90, 100, 90), [3]bool{false, true, true}},
		"neither":        {lanes(91, 100, 71), [3]bool{false, false, true}},
		"httputil":       {lanes(78, 100, 59), [3]bool{true, true, false}},
		"there are none": {new(contest), [3]bool{}},
	} {
		for i, g := range peersGoals(test.c) {
			if g.Met != test.want[i] {
				t.Errorf("%s: %+v", name, g)
			}
		}
	}
	failing := lanes(50, 100, 60)
	failing.named(sidecarName).failed = 1
	for _, g := range peersGoals(failing) {
		if g.Met || !strings.Contains(g.Figure, "1 requests failed") {
			t.Errorf("a request failed, and %+v", g)
		}
	}
}

func TestSeen(t *testing.T) {
	before := ledger{1: {1, time.Second}, 2: {2, time.Second}, 3: {2, time.Second}, 4: {0, time.Second}, 5: {5, time.Second}}
	now := ledger{
		1: {1, time.Second},                    // did nothing
		2: {2, time.Second + time.Millisecond}, // the group
		3: {2, time.Second + 2*time.Millisecond},
		4: {0, 2 * time.Second},       // of the kernel
		6: {2, 4 * time.Millisecond},  // a new one, of the group
		7: {7, 8 * time.Millisecond},  // a new one, of another
		5: {5, 16 * time.Millisecond}, // another that has this number now
	}
	if used := now.of(2, before); used != 7*time.Millisecond {
		t.Errorf("the group used %s", used)
	}
	if used := now.others(2, before); used != 8*time.Millisecond {
		t.Errorf("others used %s", used)
	}
	if pids := now.processes(2); len(pids) != 3 {
		t.Errorf("the group's processes: %v", pids)
	}
	if got := (seen{all: 240 * time.Millisecond, others: 12 * time.Millisecond}).foreign(); got != 0.05 {
		t.Errorf("a share of %v", got)
	}
}

func TestParseClock(t *testing.T) {
	got, err := parseClock("cpu  100 20 30 4000 500 6 7 8 90 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
	if err != nil || got != (clock{busy: 171 * tick, stolen: 8 * tick}) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, text := range []string{"", "cpu 1 2 3\n", "cpu0 1 2 3 4 5 6 7 8 9\n", "cpu a 2 3 4 5 6 7 8 9\n"} {
		if got, err := parseClock(text); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}
