package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// fromDebian has find look for a peer and, if it is not there, installs Debian's
// packages with -install, as root. The second result says what to do about one
// that is missing; "" if it is there.
func fromDebian[found any](ctx context.Context, packages string, find func() (found, bool)) (it found, missing string) {
	it, ok := find()
	if !ok && *install && os.Geteuid() == 0 {
		fmt.Printf("  installing %s\n", packages)
		args := append([]string{"install", "-q", "-y", "--no-install-recommends"}, strings.Fields(packages)...)
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			missing = fmt.Sprintf("apt-get: %v: %s; after apt-get update, ", err, lastLine(out))
		}
		it, ok = find()
	}
	if !ok {
		return it, missing + "as root: apt-get install " + packages
	}
	return it, ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func lastLine(out []byte) string {
	text := strings.TrimSpace(string(out))
	return text[strings.LastIndexByte(text, '\n')+1:]
}
