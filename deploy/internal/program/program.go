// Package program makes the programs that are shipped. Image, Debian package and
// archives have theirs from here alone, so that one version of a program is the
// same in all of them, to the last byte.
package program

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	// Module is the repository's.
	Module = "github.com/caddy-upstream-auth/caddy-upstream-auth"
	// release is the variable that holds a release's version.
	release = Module + "/caddymodule.release"
	// tags leave out the databases in which Caddy's acme_server can keep what it
	// has issued, as Caddy's own releases do.
	tags = "nobadger,nomysql,nopgx"
)

// machines are the architectures, each with the oldest processor that a program
// is to run on.
var machines = map[string]string{"amd64": "GOAMD64=v1", "arm64": "GOARM64=v8.0"}

// versions are those of https://semver.org, without build metadata, for which
// names of images have no letter.
var versions = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`)

// Options are which program of those in cmd, and for what.
type Options struct {
	Source   string // the root of the repository
	Name     string // caddy or sidecar
	OS, Arch string // as Go calls them
	Version  string // of a release, without a v; "" if it is none
}

// Build writes a program to a file.
//
// What would make one commit's program another one is left out: the folder
// (-trimpath), the compiler's own build ID, whether git was there (-buildvcs),
// and settings of the environment that have a say in the code. That it is linked
// statically, without the C library, is CGO_ENABLED=0.
func Build(ctx context.Context, o Options, path string) error {
	machine, known := machines[o.Arch]
	if !known {
		return fmt.Errorf("no such architecture here: %q, expected one of %s", o.Arch, strings.Join(slices.Sorted(maps.Keys(machines)), ", "))
	}
	flags := "-s -w -buildid="
	if o.Version != "" {
		if !versions.MatchString(o.Version) {
			return fmt.Errorf("no such version: %q, expected one such as 0.1.0 or 0.1.0-rc.1, without a v", o.Version)
		}
		flags += " -X " + release + "=" + Tag(o.Version)
	}
	path, err := filepath.Abs(path) // it is built in another folder
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-tags", tags, "-ldflags", flags, "-o", path, "./cmd/"+o.Name)
	cmd.Dir = o.Source
	cmd.Env = append(os.Environ(), "GOOS="+o.OS, "GOARCH="+o.Arch, machine,
		"CGO_ENABLED=0", "GOFLAGS=", "GOEXPERIMENT=", "GOFIPS140=off", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building cmd/%s for %s/%s: %w\n%s", o.Name, o.OS, o.Arch, err, out)
	}
	return nil
}

// Tag is a version as git and Go have it: with a v.
func Tag(version string) string { return "v" + version }
