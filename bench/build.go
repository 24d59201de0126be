package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ours is the binary that is measured: that of the flag, or cmd/caddy.
func ours(ctx context.Context, dir string) (string, error) {
	if *binary != "" {
		return *binary, nil
	}
	return program(ctx, dir, "cmd/caddy")
}

// program builds one of the programs that are compared, once in a run: ours from
// cmd/caddy and cmd/sidecar, those of others from bench/peers. All are built
// alike: without the C library, symbols left out; the sidecar with the tags of
// the image's (deploy/internal/program), and the others with none, as xcaddy
// builds them. Ours have their profile. A peer with a go.mod is built in its own
// module.
func program(ctx context.Context, dir, from string, flags ...string) (string, error) {
	path := filepath.Join(dir, strings.NewReplacer("/", "-", "=", "-").Replace(strings.Join(append([]string{from}, flags...), "")))
	if exists(path) {
		return path, nil
	}
	args := []string{"build", "-o", path, "-trimpath", "-pgo=auto", "-ldflags=-s -w"} // whatever GOFLAGS say
	if from == "cmd/sidecar" {
		args = append(args, "-tags=nobadger,nomysql,nopgx")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, flags...)...) //nolint:gosec // our own flags
	if exists(filepath.Join(from, "go.mod")) {
		cmd.Dir = from
		cmd.Args = append(cmd.Args, ".")
	} else {
		cmd.Args = append(cmd.Args, "./"+from)
	}
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", from, err, out)
	}
	return path, nil
}
