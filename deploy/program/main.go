// Command program builds a program as it is shipped, for the archives of a
// release; image and debian, beside it, build theirs the same way. It is run in
// the folder deploy:
//
//	go run ./program -version 0.1.0 -platform darwin/arm64 -o ../dist/caddy caddy
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/deploy/internal/program"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "program:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	o := program.Options{}
	flag.StringVar(&o.Source, "source", "..", "the root of the repository")
	flag.StringVar(&o.Version, "version", "", "the version of a release, without a v")
	platform := flag.String("platform", runtime.GOOS+"/"+runtime.GOARCH, "what to build for")
	out := flag.String("o", "", "the file to write")
	flag.Parse()
	if flag.NArg() != 1 || *out == "" {
		flag.Usage()
		return errors.New("expected -o, and the name of a folder in cmd")
	}
	o.Name = flag.Arg(0)
	o.OS, o.Arch, _ = strings.Cut(*platform, "/")
	return program.Build(ctx, o, *out)
}
