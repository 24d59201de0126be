// Command debian builds the Debian package of the sidecar, for each architecture,
// with Debian's dpkg-deb. One commit, one Go and one dpkg give the same bytes each
// time. It is run in the folder deploy:
//
//	go run ./debian -version 0.1.0 -o ../dist
//
// What is in the package is in files.go, what is told of it in the file control.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/deploy/internal/program"
)

const name = "caddy-upstream-auth"

// options are what is to be built, and from what.
type options struct {
	source  string // the root of the repository
	version string // without a v
	arch    string
	epoch   time.Time // of all files
	folder  string    // for the package
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "debian:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	o := options{}
	flag.StringVar(&o.source, "source", "..", "the root of the repository")
	flag.StringVar(&o.version, "version", "", "the version, without a v; one before a release is 0.1.0-rc.1")
	flag.StringVar(&o.folder, "o", "dist", "the folder for the packages")
	archs := flag.String("arch", "amd64,arm64", "what to build for")
	flag.Parse()
	if flag.NArg() > 0 || o.version == "" {
		flag.Usage()
		return errors.New("expected -version, and no other arguments")
	}
	var err error
	if o.epoch, err = program.Time(ctx, o.source); err != nil {
		return err
	}
	for arch := range strings.SplitSeq(*archs, ",") {
		o.arch = arch
		path, err := build(ctx, o)
		if err != nil {
			return fmt.Errorf("the package for %s: %w", arch, err)
		}
		fmt.Println(path)
	}
	return nil
}

// build makes one package, program and all, and tells where it is.
func build(ctx context.Context, o options) (string, error) {
	dir, err := os.MkdirTemp("", "debian")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, name)
	if err := compile(ctx, o, binary); err != nil {
		return "", err
	}
	return pack(ctx, o, binary)
}

// compile builds the program, the same as in the image.
func compile(ctx context.Context, o options, path string) error {
	return program.Build(ctx, program.Options{Source: o.source, Name: "sidecar", OS: "linux", Arch: o.arch, Version: o.version}, path)
}

// pack makes a package of a program, and tells where it is.
func pack(ctx context.Context, o options, binary string) (string, error) {
	dir, err := os.MkdirTemp("", "debian")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	files, err := contents(ctx, o, binary)
	if err != nil {
		return "", err
	}
	tree := filepath.Join(dir, "tree")
	if err := lay(tree, append(files, control(o, files)...), o.epoch); err != nil {
		return "", err
	}
	if err := os.MkdirAll(o.folder, 0o755); err != nil { //nolint:gosec // packages are everybody's to read
		return "", err
	}
	path := filepath.Join(o.folder, fmt.Sprintf("%s_%s_%s.deb", name, o.debianVersion(), o.arch))
	// each Debian knows gzip, and at the level 6 it is done in a moment
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--root-owner-group", "-Zgzip", "-z6", "--build", tree, path)
	cmd.Env = append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", o.epoch.Unix()))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("dpkg-deb, of Debian's package dpkg: %w\n%s", err, out)
	}
	return path, nil
}

// debianVersion is the version as Debian has it, for which 0.1.0~rc.1 is before
// 0.1.0, and 0.1.0-rc.1 after it.
func (o options) debianVersion() string { return strings.Replace(o.version, "-", "~", 1) }
