package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

var write = flag.Bool("write", false, "keep the figures in bench/results, and write the tables and plots of the documentation from them")

// resultsDir is where the figures of the documentation are kept, from the root.
const resultsDir = "bench/results"

// publish prints what a scenario has come to and, with -write, keeps it.
func publish(set *result.Set) error {
	set.Machine = machine()
	for _, t := range set.Tables {
		if t.Note != "" {
			fmt.Printf("  %s\n", t.Note)
		}
		w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintf(w, "    %s\n", strings.Join(t.Heads, "\t"))
		for _, row := range t.Rows {
			fmt.Fprintf(w, "    %s\n", strings.Join(row, "\t"))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	missed := false
	for _, g := range set.Goals {
		said := verdictMet
		if !g.Met {
			said, missed = verdictMissed, true
		}
		fmt.Printf("  %s %s: %s (%s) %s\n", g.ID, g.What, g.Figure, g.Want, said)
	}
	if set.Void != "" {
		fmt.Printf("  VOID: %s\n", set.Void)
	}
	if *write && set.Void == "" {
		if err := set.Save(resultsDir); err != nil {
			return err
		}
	}
	if *strict && (missed || set.Void != "") {
		return errMissed
	}
	return nil
}

// machine is this one.
func machine() result.Machine {
	m := result.Machine{Date: time.Now().UTC().Format(time.DateOnly), Cores: runtime.NumCPU(), Go: strings.TrimPrefix(runtime.Version(), "go")}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		_, rest, _ := strings.Cut(string(text), "model name")
		line, _, _ := strings.Cut(rest, "\n")
		_, name, _ := strings.Cut(line, ":")
		m.CPU = strings.TrimSpace(name)
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel, _, _ = strings.Cut(strings.TrimSpace(string(text)), "-")
	}
	m.Caddy = caddyVersion()
	return m
}

// caddyVersion is that of go.mod.
func caddyVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == "github.com/caddyserver/caddy/v2" {
				return strings.TrimPrefix(dep.Version, "v")
			}
		}
	}
	text, err := os.ReadFile("go.mod")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(text), "github.com/caddyserver/caddy/v2 v")
	version, _, _ := strings.Cut(rest, "\n")
	return version
}
