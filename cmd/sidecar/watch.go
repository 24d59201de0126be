//go:build unix

package main

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// watchInterval is how long an edit of the configuration may go unseen.
const watchInterval = time.Second

// watch takes --watch out of the arguments of caddy run, and watches the file
// here: Caddy's own watch ends at the first edit that it cannot read, as that of
// a ConfigMap with a slip of the pen, and never sees the one that mends it. What
// is read is loaded by Caddy as ever, which is told by SIGUSR1.
func watch(args []string) []string {
	at := slices.Index(args, "--watch")
	if at == -1 {
		at = slices.Index(args, "-w")
	}
	path := configPath(args)
	if at == -1 || path == "" {
		return args
	}
	loaded, err := os.ReadFile(path) //nolint:gosec // the file that Caddy is told to read
	if err != nil {
		return args // Caddy says what is wrong with it
	}
	go func() {
		for range time.Tick(watchInterval) {
			// one that is not there is about to be: a ConfigMap is swapped
			if text, err := os.ReadFile(path); err == nil && !bytes.Equal(text, loaded) { //nolint:gosec // likewise
				loaded = text
				_ = syscall.Kill(os.Getpid(), syscall.SIGUSR1)
			}
		}
	}()
	return slices.Delete(slices.Clone(args), at, at+1)
}

// configPath is the file that caddy run is told to load, "" for none.
func configPath(args []string) string {
	if len(args) < 2 || args[1] != "run" {
		return ""
	}
	for i, arg := range args {
		for _, flag := range []string{"--config", "-c"} {
			if arg == flag && i+1 < len(args) {
				return args[i+1]
			}
			if path, ok := strings.CutPrefix(arg, flag+"="); ok {
				return path
			}
		}
	}
	return ""
}
