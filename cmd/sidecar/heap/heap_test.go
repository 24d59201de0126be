package heap

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"testing"
	"time"
)

// asChild has the test binary do what stands in it, and print what it sees.
const asChild = "UPSTREAM_AUTH_TEST_HEAP"

func TestMain(m *testing.M) {
	switch os.Getenv(asChild) {
	case "":
		os.Exit(m.Run())
	case "start":
		fmt.Print(gogc())
	case "life":
		fmt.Print(life())
	}
}

func TestPercent(t *testing.T) {
	const mib = 1 << 20
	for _, tc := range []struct {
		name          string
		live, scanned uint64
		limit         uint64
		want          int
	}{
		{"at the start", 0, 0, math.MaxInt64, 1200},
		{"a sidecar at rest", 3 * mib, 4 * mib, math.MaxInt64, 1125},
		{"little is in use: Go's smallest goal would be above the floor", mib, mib, math.MaxInt64, 1200},
		{"many connections", 16 * mib, 16 * mib, math.MaxInt64, 200},
		{"stacks count, too", 16 * mib, 20 * mib, math.MaxInt64, 160},
		{"half the floor", 24 * mib, 24 * mib, math.MaxInt64, 100},
		{"near the floor", 40 * mib, 40 * mib, math.MaxInt64, 100},
		{"above it", 500 * mib, 510 * mib, math.MaxInt64, 100},
		{"a container of 128 MiB, of which Caddy takes 0.9", 3 * mib, 4 * mib, 115 * mib, 1125},
		{"a container of 64 MiB", 3 * mib, 4 * mib, 58 * mib, 650},
		{"a container of 16 MiB", 3 * mib, 4 * mib, 14 * mib, 100},
		{"a limit below what is in use", 300 * mib, 310 * mib, 200 * mib, 100},
		{"a limit of nothing", 3 * mib, 4 * mib, 0, 100},
	} {
		if got := percent(tc.live, tc.scanned, tc.limit); got != tc.want {
			t.Errorf("%s: %d, expected %d", tc.name, got, tc.want)
		}
	}
}

// TestPercentGoal: the goal that Go makes of it is the floor, or what Go would
// make by itself if that is more.
func TestPercentGoal(t *testing.T) {
	goal := func(live, scanned, percent uint64) uint64 {
		return max(live+scanned*percent/usual, step*percent/usual)
	}
	for live := uint64(1 << 18); live < 1<<30; live += live / 7 {
		for _, limit := range []uint64{8 << 20, 32 << 20, 115 << 20, 1 << 40} {
			scanned := live + live/4
			got := goal(live, scanned, uint64(percent(live, scanned, limit)))
			if most := max(min(floor, limit/2), goal(live, scanned, usual)); got > most {
				t.Errorf("%d bytes in use, limit %d: a goal of %d, more than %d", live, limit, got, most)
			}
		}
	}
}

// TestEnvironment: what an operator sets stays.
func TestEnvironment(t *testing.T) {
	for set, want := range map[string]string{
		"":                        "1200",
		"GOGC=":                   "1200",
		"GOGC=150":                "150",
		"GOGC=off":                fmt.Sprint(uint64(math.MaxUint64)), // how the runtime says -1
		"GOMEMLIMIT=64MiB":        "100",
		"GOGC=80 GOMEMLIMIT=1GiB": "80",
	} {
		if got := child(t, "start", strings.Fields(set)...); got != want {
			t.Errorf("%q: GOGC is %s, expected %s", set, got, want)
		}
	}
}

// TestLife has a process of its own whose heap grows and shrinks, and whose
// limit changes.
func TestLife(t *testing.T) {
	if got, want := child(t, "life"), "start 1200, large 100, small 1200, limited 800"; got != want {
		t.Errorf("got  %s\nexpected %s", got, want)
	}
}

func life() string {
	said := []string{fmt.Sprint("start ", gogc())}
	large := make([]byte, floor*2)
	said = append(said, "large "+collect(100))
	runtime.KeepAlive(large)
	said = append(said, "small "+collect(1200))
	debug.SetMemoryLimit(64 << 20)
	said = append(said, "limited "+collect(800))
	return strings.Join(said, ", ")
}

// collect collects until GOGC is that, and gives up after a while.
func collect(want uint64) string {
	for deadline := time.Now().Add(10 * time.Second); gogc() != want && time.Now().Before(deadline); {
		runtime.GC()
	}
	return fmt.Sprint(gogc())
}

func gogc() uint64 { return read("/gc/gogc:percent") }

func read(name string) uint64 {
	sample := []metrics.Sample{{Name: name}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// child runs the test binary with nothing of GOGC in the environment but this.
func child(t *testing.T, what string, environment ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append([]string{asChild + "=" + what}, environment...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}
