// Package browser looks at the status page with a real browser: Chromium,
// headless, before a real Caddy.
package browser

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

var (
	binary   = flag.String("caddy", "", "the Caddy to look at; by default it is built from the tree")
	pictures = flag.String("screenshots", "", "the folder that pictures of each state are written to; none by default")
	busy     = flag.Duration("screenshots.busy", 0, "how long requests come before pictures are taken, so that the last hour shows some")
)

// Past this something hangs, however slow the machine is.
const deadline = time.Minute

// chromium is the browser that all tests share. Each page has a window, and a
// profile, of its own.
var chromium context.Context

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "browser:", err)
		return 1
	}
	path, err := exec.LookPath("chromium")
	if err != nil {
		return fail(fmt.Errorf("%w: install it with: apt-get install --no-install-recommends chromium", err))
	}
	dir, err := os.MkdirTemp("", "browser")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	if *binary == "" {
		if err := buildCaddy(dir); err != nil {
			return fail(err)
		}
	}
	if *pictures != "" {
		if err := os.MkdirAll(*pictures, 0o755); err != nil {
			return fail(err)
		}
	}
	// most of a test is waiting for what a page or a token does with time
	parallel := "6"
	if *busy > 0 {
		parallel = "20"
	}
	if err := flag.Set("test.parallel", parallel); err != nil {
		return fail(err)
	}
	allocator, end := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.Env("HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_CACHE_HOME="+dir, "TMPDIR="+dir, "LANGUAGE=en", "LC_ALL=C.UTF-8"),
		chromedp.Flag("no-sandbox", os.Geteuid() == 0), // which cannot be had as root
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.*"),
		chromedp.Flag("no-proxy-server", true),
		chromedp.Flag("font-render-hinting", "none"), // pictures that do not depend on it
		chromedp.DisableGPU, // which is none here, and costs
		chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("lang", "en"),
	)...)
	defer end()
	ctx, cancel := chromedp.NewContext(allocator)
	defer cancel()
	if err := chromedp.Do(ctx); err != nil {
		return fail(fmt.Errorf("%s: %w", path, err))
	}
	chromium = ctx //nolint:fatcontext // it is made once
	code := m.Run()
	if err := quit(ctx); err != nil {
		return fail(err)
	}
	return code
}

// quit ends the browser as a person does, and waits for it.
func quit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	if err := chromedp.Cancel(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("the browser does not end: %w", err)
	}
	return nil
}

func buildCaddy(dir string) error {
	*binary = filepath.Join(dir, "caddy")
	cmd := exec.Command("go", "build", "-pgo=off", "-o", *binary, "./cmd/caddy")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build ./cmd/caddy: %w\n%s", err, out)
	}
	return nil
}

// eventually asks until the answer is good, or the deadline passes.
func eventually(t *testing.T, what string, ask func() error) {
	t.Helper()
	past := time.After(deadline)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-past:
			t.Fatalf("%s: not within %s: %v", what, deadline, err)
		case <-tick.C:
		}
	}
}
