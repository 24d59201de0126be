// Command image builds the container image of the sidecar without Docker, and
// twice from one commit with the same Go it builds the same, to the last byte.
// It is run in the folder deploy:
//
//	go run ./image -version 0.1.0 -o ../dist/image -docker ../dist/image.tar
//
// The first is an OCI image layout for all platforms, the second what docker load
// takes. The Dockerfile beside uses -rootfs, so that there is one description of
// what is in the image: tree.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/deploy/internal/program"
)

// options are what is to be built, and from what.
type options struct {
	source    string // the root of the repository
	platforms []v1.Platform
	version   string // "" when it is no release
	revision  string // the commit, "" if unknown
	epoch     time.Time
	cache     string // where the binaries are put
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	source := flag.String("source", "..", "the root of the repository")
	platforms := flag.String("platforms", "linux/amd64,linux/arm64", "what to build for")
	version := flag.String("version", "", "the version of a release, without a v; it goes into binary, labels and name")
	revision := flag.String("revision", "", "the commit, for the labels (default: what git says of -source)")
	layoutDir := flag.String("o", "", "write an OCI image layout with all platforms to this folder")
	archive := flag.String("docker", "", "write an image of one platform to this file, for docker load")
	rootfs := flag.String("rootfs", "", "write the files of the image of one platform to this folder")
	sbom := flag.String("sbom", "", "write what the binaries are made of to this file, as SPDX 2.3 in JSON")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: go run ./image [flags], in the folder deploy\n\nOne platform is this machine's if it is among -platforms, else the first.\nTimes in the image are SOURCE_DATE_EPOCH, else the commit's.")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() > 0 || *layoutDir+*archive+*rootfs+*sbom == "" {
		flag.Usage()
		return errors.New("expected one at least of -o, -docker, -rootfs and -sbom, and no other arguments")
	}

	o := options{source: *source, version: *version, revision: *revision}
	var err error
	if o.platforms, err = parsePlatforms(*platforms); err != nil {
		return err
	}
	if o.cache, err = os.MkdirTemp("", "image"); err != nil {
		return err
	}
	defer os.RemoveAll(o.cache)

	if *rootfs != "" {
		nodes, err := tree(ctx, o, onePlatform(o.platforms))
		if err != nil {
			return err
		}
		if err := unpack(nodes, *rootfs); err != nil {
			return err
		}
	}
	if *layoutDir+*archive+*sbom == "" {
		return nil // a folder of files needs neither a time nor a commit
	}
	if o.epoch, err = program.Time(ctx, o.source); err != nil {
		return err
	}
	if o.revision == "" {
		o.revision = commit(ctx, o.source)
	}
	b, err := build(ctx, o)
	if err != nil {
		return err
	}
	if *layoutDir != "" {
		if err := b.writeLayout(*layoutDir); err != nil {
			return err
		}
	}
	if *archive != "" {
		if err := b.writeArchive(*archive, onePlatform(o.platforms)); err != nil {
			return err
		}
	}
	if *sbom != "" {
		if err := b.writeSBOM(*sbom); err != nil {
			return err
		}
	}
	return b.print(os.Stdout)
}

// parsePlatforms reads linux/amd64,linux/arm64.
func parsePlatforms(text string) ([]v1.Platform, error) {
	var out []v1.Platform
	for name := range strings.SplitSeq(text, ",") {
		p, err := v1.ParsePlatform(name)
		if err != nil {
			return nil, fmt.Errorf("-platforms: %w", err)
		}
		if p.OS != "linux" || !slices.Contains([]string{"amd64", "arm64"}, p.Architecture) || p.Variant != "" {
			return nil, fmt.Errorf("-platforms: %q is not one of linux/amd64 and linux/arm64", name)
		}
		out = append(out, *p)
	}
	return out, nil
}

// create makes a file and the folder that it is in, and is done with it only
// when all is written.
func create(path string, write func(*os.File) error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", path, err), f.Close())
	}
	return f.Close()
}
