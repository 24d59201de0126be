package main

import (
	"strings"
	"testing"
)

// TestBeside: what grows fails, what shrinks says so, and noise does neither.
func TestBeside(t *testing.T) {
	before := baseline{Go: "1.26.8", Caddy: "2.11.9", Arch: "amd64",
		Plain: cost{190, 200_000}, Handler: cost{6, 20_000}, Transport: cost{4, 20_000}, Injection: cost{1, 700}}
	for name, tc := range map[string]struct {
		change func(*baseline)
		grown  string // what stands in its line
		below  string
	}{
		"the same":                        {func(*baseline) {}, "", ""},
		"noise":                           {func(b *baseline) { b.Handler = cost{6.1, 20_100}; b.Transport = cost{3.9, 19_900} }, "", ""},
		"one allocation more":             {func(b *baseline) { b.Handler.Allocations = 7 }, "handler, over plain reverse_proxy: 7.0 allocations a request, the baseline has 6.0", ""},
		"instructions":                    {func(b *baseline) { b.Transport.Instructions = 20_500 }, "transport, over plain reverse_proxy: 20500 instructions", ""},
		"of the injection":                {func(b *baseline) { b.Injection.Instructions = 740 }, "injection alone: 740 instructions", ""},
		"fewer":                           {func(b *baseline) { b.Injection.Instructions = 600 }, "", "injection alone"},
		"another Go, all in proportion":   {func(b *baseline) { b.Go = "1.27"; b.Plain.Instructions = 220_000; b.Handler = cost{7, 22_500} }, "", ""},
		"another Go, and more of it ours": {func(b *baseline) { b.Go = "1.27"; b.Handler.Instructions = 23_000 }, "handler, over plain reverse_proxy: 23000 instructions", ""},
		"another Caddy, allocations":      {func(b *baseline) { b.Caddy = "2.12.0"; b.Handler.Allocations = 8 }, "8.0 allocations", ""},
		"plain proxying costs more":       {func(b *baseline) { b.Plain = cost{210, 230_000} }, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			now := before
			tc.change(&now)
			var grown, below []string
			for _, v := range now.beside(before) {
				if v.grown {
					grown = append(grown, v.says)
				}
				if strings.Contains(v.says, "well below") {
					below = append(below, v.says)
				}
			}
			if len(grown) != min(1, len(tc.grown)) || !strings.Contains(strings.Join(grown, "\n"), tc.grown) {
				t.Errorf("grown: %q, want %q", grown, tc.grown)
			}
			if tc.below == "" && len(below) > 0 || !strings.Contains(strings.Join(below, "\n"), tc.below) {
				t.Errorf("below: %q, want %q", below, tc.below)
			}
		})
	}
}

func TestReadBenchmark(t *testing.T) {
	ns, bytes, objects, err := readBenchmark("goos: linux\nBenchmarkInjection/upstream_auth-8         \t 1000000\t        85.31 ns/op\t      16 B/op\t       1 allocs/op\nPASS\n")
	if err != nil || ns != 85.31 || bytes != 16 || objects != 1 {
		t.Error(ns, bytes, objects, err)
	}
	if _, _, _, err := readBenchmark("PASS\n"); err == nil {
		t.Error("a benchmark that did not run was read")
	}
}
