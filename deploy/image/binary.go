package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/deploy/internal/program"
)

// onePlatform is this machine's, or the first.
func onePlatform(all []v1.Platform) v1.Platform {
	i := slices.IndexFunc(all, func(p v1.Platform) bool { return p.Architecture == runtime.GOARCH })
	return all[max(i, 0)]
}

// binary is where that of a platform is put.
func (o options) binary(p v1.Platform) string { return filepath.Join(o.cache, p.Architecture, "caddy") }

// compile builds cmd/sidecar, once for each platform, and tells where it is.
func compile(ctx context.Context, o options, p v1.Platform) (string, error) {
	path := o.binary(p)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return path, program.Build(ctx, program.Options{Source: o.source, Name: "sidecar", OS: p.OS, Arch: p.Architecture, Version: o.version}, path)
}

// commit is what the source is, "" if that is not known: then no label says so.
func commit(ctx context.Context, source string) string {
	hash, err := git(ctx, source, "rev-parse", "HEAD")
	if err != nil {
		return ""
	}
	if changed, err := git(ctx, source, "status", "--porcelain"); err != nil || changed != "" {
		return hash + "-modified"
	}
	return hash
}

// git asks in a clone, be it another user's.
func git(ctx context.Context, dir string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "git", append([]string{"-c", "safe.directory=*", "-C", dir}, args...)...).Output() //nolint:gosec // the arguments are ours
	return strings.TrimSpace(string(out)), err
}
