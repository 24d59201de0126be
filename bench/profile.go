package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

var profileRounds = flag.Int("profiles", 6, "profiles of 5 s that are taken of each in the scenario profile")

const (
	profileSlice = 5 * time.Second
	// profileFunctions is how many of our functions are listed.
	profileFunctions = 10
)

// the two ways to use the module
const (
	withHandler = `
	upstream_auth api
	reverse_proxy API`
	withTransport = `
	reverse_proxy API {
		transport upstream_auth api
	}`
)

// profiles tells where the processor time of a request goes: each has a profile
// every round, under a load that keeps its processor busy. What belongs to whom
// is told by the innermost function that belongs to anybody (payers).
func profiles(ctx context.Context, s *stage) error {
	on, undo := pin()
	defer undo()
	probes, err := profileProbes(ctx, s.dir, on)
	defer func() {
		for _, p := range probes {
			p.close()
		}
	}()
	if err != nil {
		return err
	}
	spent, burdens := make([]spending, len(probes)), make([]burden, len(probes))
	for range *profileRounds {
		for i, p := range probes {
			text, b, err := p.take(ctx, profileSlice)
			if err != nil {
				return err
			}
			traces, err := tracesOf(ctx, s.dir, text)
			if err != nil {
				return err
			}
			if err := spent[i].add(traces); err != nil {
				return err
			}
			burdens[i].requests += b.requests
			burdens[i].cpu += b.cpu
		}
	}
	return publish(profileSet(probes, spent, burdens, on.note))
}

// profileProbes are those that are profiled: Caddy's programs as Go builds and
// runs them with nothing done about it, and the sidecar as it is shipped.
func profileProbes(ctx context.Context, dir string, on pins) (probes []*probe, err error) {
	paths := make(map[string]string)
	for from, flags := range map[string][]string{"cmd/caddy": {"-pgo=off"}, "cmd/sidecar": nil, "bench/peers/xoauth2": nil} {
		if paths[from], err = program(ctx, dir, from, flags...); err != nil {
			return nil, err
		}
	}
	if *binary != "" {
		paths["cmd/caddy"] = *binary
	}
	for _, s := range []subject{
		{name: "reverse_proxy alone", command: caddy(paths["cmd/caddy"], "", `
	reverse_proxy API`)},
		{name: "x/oauth2 handler", command: caddy(paths["bench/peers/xoauth2"], "", `
	xoauth2 TOKEN_URL CLIENT {$SECRET}
	reverse_proxy API`)},
		{name: "upstream_auth, handler", command: caddy(paths["cmd/caddy"], options, withHandler)},
		{name: "upstream_auth, transport", command: caddy(paths["cmd/caddy"], options, withTransport)},
		{name: "upstream_auth, sidecar", command: caddy(paths["cmd/sidecar"], options, withTransport)},
	} {
		p, err := newProbe(ctx, dir, s, time.Hour, on)
		if err != nil {
			return probes, err
		}
		probes = append(probes, p)
	}
	return probes, nil
}

// tracesOf has Go's own tool read a profile.
func tracesOf(ctx context.Context, dir string, profile []byte) (string, error) {
	file := filepath.Join(dir, "profile")
	if err := os.WriteFile(file, profile, 0o600); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "tool", "pprof", "-traces", "-unit=ns", "-symbolize=none", file)
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go tool pprof: %w", err)
	}
	return string(out), nil
}

// profileSet are the tables: of the payers, and of our functions. The kernel's
// own account says what a request costs, and the samples, how that is shared.
func profileSet(probes []*probe, spent []spending, burdens []burden, note string) *result.Set {
	whose := result.Table{
		Name: "owners", Heads: []string{"µs of processor time a request"},
		Note: fmt.Sprintf("%d profiles of %s each, %d callers, of whom each eighth sends a body of %d bytes; %s", *profileRounds, profileSlice, probeCallers, probeBody, note),
	}
	ours := result.Table{
		Name: "functions", Heads: []string{"function of ours"},
		Note: "of those above: what the functions of ours take that take most, with what they call of neutral packages (strings, sync, time and the like); and of the garbage collector's, what is allocated for them",
	}
	each := make([]float64, len(probes)) // µs a request
	sum := make(map[string]float64)
	for i, p := range probes {
		whose.Heads = append(whose.Heads, p.name)
		each[i] = float64(burdens[i].cpu) / float64(time.Microsecond) / float64(max(1, burdens[i].requests))
		if len(spent[i].ours) > 0 {
			ours.Heads = append(ours.Heads, p.name, "for its memory")
		}
		for name, f := range spent[i].ours {
			sum[name] += each[i] * (f.itself + f.memory).of(spent[i].all)
		}
	}
	line := func(name string, cell func(i int) string) []string {
		row := []string{name}
		for i := range probes {
			row = append(row, cell(i))
		}
		return row
	}
	whose.Rows = append(whose.Rows, line("all", func(i int) string { return fmt.Sprintf("%.1f", each[i]) }))
	for _, o := range payers {
		whose.Rows = append(whose.Rows, line(string(o), func(i int) string {
			part := spent[i].by[o].of(spent[i].all)
			return fmt.Sprintf("%.1f (%.1f%%)", each[i]*part, 100*part)
		}))
	}
	names := slices.SortedFunc(maps.Keys(sum), func(a, b string) int {
		return cmp.Or(cmp.Compare(sum[b], sum[a]), cmp.Compare(a, b))
	})
	for _, name := range names[:min(len(names), profileFunctions)] {
		row := []string{name}
		for i := range probes {
			if len(spent[i].ours) > 0 {
				f := spent[i].ours[name]
				row = append(row, fmt.Sprintf("%.2f", each[i]*f.itself.of(spent[i].all)), fmt.Sprintf("%.2f", each[i]*f.memory.of(spent[i].all)))
			}
		}
		ours.Rows = append(ours.Rows, row)
	}
	return &result.Set{Scenario: "profile", Command: command("profile"), Tables: []result.Table{whose, ours}}
}
