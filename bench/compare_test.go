package main

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// cliffOutcome is what rounds of the scenario cliff came to, with the turns of
// each in the order of the subjects.
func cliffOutcome(all []subject, rounds ...[]*cliffRow) *outcome {
	o := &outcome{all: all, comparison: comparison{
		heads: make([]string, len(new(cliffRow).cells())),
		worst: func(a, b row) row { return worstCliff(a.(*cliffRow), b.(*cliffRow)) },
	}}
	for _, turns := range rounds {
		rows := make(map[string]row)
		for i, turn := range turns {
			rows[all[i].name] = turn
		}
		o.rounds = append(o.rounds, rows)
	}
	return o
}

func TestOutcome(t *testing.T) {
	all := []subject{{name: "bare", bare: true}, {name: "ours, a", ours: true}, {name: "ours, b", ours: true}, {name: "peer"}}
	bare := &cliffRow{bare: true, slowest: 40 * time.Millisecond}
	turn := func(late int, slowest time.Duration) *cliffRow {
		return &cliffRow{refreshes: 3, late: late, slowest: slowest}
	}
	busy := turn(99, time.Second)
	busy.foreign = 0.5
	peer := turn(2000, time.Second)

	o := cliffOutcome(all,
		[]*cliffRow{bare, turn(0, 20*time.Millisecond), turn(0, 30*time.Millisecond), peer},
		[]*cliffRow{bare, busy, turn(0, 50*time.Millisecond), peer})
	tables := o.tables()
	if got := tables[0].Rows; got[1][3] != "20ms" || got[1][10] != "met in 1 of 1" || got[2][3] != "50ms" || got[2][10] != "met in 2 of 2" || got[3][10] != "met in 0 of 2" || got[0][10] != "" {
		t.Errorf("the worst: %q", got)
	}
	if got := tables[1].Rows; len(got) != 8 || !strings.HasPrefix(got[5][11], "void") || got[7][11] != verdictMissed {
		t.Errorf("all turns: %q", got)
	}
	for _, table := range tables {
		for _, row := range table.Rows {
			if len(row) != len(table.Heads) {
				t.Errorf("%s: %d cells under %d heads", table.Name, len(row), len(table.Heads))
			}
		}
	}
	goals, void := o.goals("P3")
	if void != "" || len(goals) != 3 || !goals[0].Met || !goals[1].Met || goals[1].Figure != "50ms, plain 40ms; met in 3 of 3 turns" || !strings.HasSuffix(goals[1].What, "the worst of a, b") {
		t.Errorf("goals: %+v, %q", goals, void)
	}
	points := o.bars("late", "", "", func(r row) float64 { return float64(r.(*cliffRow).slowest / time.Millisecond) }).Series[0].Points
	if p := points[2]; p.Y != 40 || p.Low != 30 || p.High != 50 || !p.Ours || points[3].Ours {
		t.Errorf("bars: %+v", points)
	}

	// one that is missed in one round is missed
	o = cliffOutcome(all[:3],
		[]*cliffRow{bare, turn(0, 20*time.Millisecond), turn(0, 30*time.Millisecond)},
		[]*cliffRow{bare, turn(1, 20*time.Millisecond), turn(0, 30*time.Millisecond)})
	if goals, _ := o.goals("P3"); goals[0].Met || goals[0].Figure != "1, plain 0; met in 3 of 4 turns" || !goals[1].Met {
		t.Errorf("goals: %+v", goals)
	}

	// one of which no turn is a measure leaves nothing to be said
	o = cliffOutcome(all[:3], []*cliffRow{bare, turn(0, 0), busy})
	if goals, void := o.goals("P3"); goals != nil || !strings.Contains(void, "ours, b is a measure: void: others took 50%") {
		t.Errorf("goals: %+v, %q", goals, void)
	}
	if got := o.tables()[0].Rows[2]; got[3] != "1s" || got[10] != "void" {
		t.Errorf("one that is void: %q", got)
	}
	// so does a round in which the bare proxy was disturbed
	loud := &cliffRow{bare: true, foreign: 0.2}
	if _, void := cliffOutcome(all[:2], []*cliffRow{loud, turn(0, 0)}).goals("P3"); void == "" {
		t.Error("a round without a bare proxy to go by counted")
	}
}

func TestChosen(t *testing.T) {
	defer func() { *only = "" }()
	all := func() []subject { return []subject{{key: "plain", bare: true}, {key: "a"}, {key: "b"}, {key: "c"}} }
	for flags, want := range map[string][]string{"": {"plain", "a", "b", "c"}, "b": {"plain", "b"}, "c,a": {"plain", "a", "c"}} {
		*only = flags
		got, err := chosen(all(), func(s subject) bool { return s.bare })
		var keys []string
		for _, s := range got {
			keys = append(keys, s.key)
		}
		if err != nil || !slices.Equal(keys, want) {
			t.Errorf("-only %s: %q, %v", flags, keys, err)
		}
	}
	*only = "a,x"
	if got, err := chosen(all(), func(subject) bool { return false }); err == nil {
		t.Errorf("one that is not there: %v", got)
	}
}

func TestWholeAnswers(t *testing.T) {
	g := &crowd{callers: []*caller{new(caller)}}
	c := g.callers[0]
	if got := c.whole(200, 0); got != 200 {
		t.Errorf("an empty answer, where that may be: %d", got)
	}
	g.needBodies()
	for _, test := range [][3]int{{200, 0, 204}, {200, 6, 200}, {503, 0, 503}} {
		if got := c.whole(test[0], int64(test[1])); got != test[2] {
			t.Errorf("%d with %d bytes: %d", test[0], test[1], got)
		}
	}
}

func startOf(first time.Duration, resident int, others share) startRow {
	return startRow{first: first, idle: memory{resident: resident}, used: memory{resident: resident}, foreign: others}
}

func TestStartRuns(t *testing.T) {
	all := []subject{{name: startReference}, {name: startSidecar, ours: true}, {name: startAgain, ours: true}}
	runs := startRuns{all: all, rows: make(map[string][]startRow)}
	add := func(n int, rows ...startRow) {
		for range n {
			for i, row := range rows {
				runs.rows[all[i].name] = append(runs.rows[all[i].name], row)
			}
		}
	}
	add(startRounds, startOf(50*time.Millisecond, 50<<10, 0), startOf(25*time.Millisecond, 42<<10, 0), startOf(25*time.Millisecond, 42<<10, 0))
	add(1, startOf(50*time.Millisecond, 50<<10, 0), startOf(time.Second, 42<<10, 0.3), startOf(25*time.Millisecond, 42<<10, 0))
	if void := runs.void(); void != "" {
		t.Error(void)
	}
	goals := runs.goals()
	if len(goals) != 2 || !goals[0].Met || goals[0].Figure != "0.500 (0.500–0.500)" || goals[1].Met || goals[1].Figure != "0.840 (0.840–0.840)" {
		t.Errorf("goals: %+v", goals)
	}
	table := runs.table()
	want := []string{startSidecar, "25 (25–25)", "0.50", "42 (42–42)", "0.84", "0 (0–0)", "NaN", "42 (42–42)", "0.84", "0 (0–0)", "NaN", "6", "30%"}
	if got := table.Rows[1]; !slices.Equal(got, want) || len(table.Heads) != len(want) {
		t.Errorf("%q, want\n%q", got, want)
	}

	// too far from itself
	for i := range runs.rows[startAgain] {
		runs.rows[startAgain][i].idle.resident = 44 << 10
	}
	if void := runs.void(); !strings.Contains(void, "memory, the sidecar beside itself: 1.048") {
		t.Error(void)
	}
	// too few rounds
	runs.rows[startAgain][0].foreign = 0.3
	if void := runs.void(); !strings.Contains(void, "in 5 of") {
		t.Error(void)
	}
	for name := range runs.rows {
		for i := range runs.rows[name] {
			runs.rows[name][i].foreign = 1
		}
	}
	if goals, row := runs.goals(), runs.table().Rows[0]; goals != nil || row[1] != "–" {
		t.Errorf("nothing measured: %+v, %q", goals, row)
	}
}

func TestLabelled(t *testing.T) {
	if got := labelled([]string{"a", "b", "c"}, []string{"1", "", "3"}); !reflect.DeepEqual(got, []string{"a 1", "c 3"}) {
		t.Errorf("%q", got)
	}
}
