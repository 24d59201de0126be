package caddymodule

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

const modulePath = "github.com/caddy-upstream-auth/caddy-upstream-auth"

// release is the version of a released binary. It is set when that is built, and
// then goes before what the Go toolchain has stamped:
//
//	go build -ldflags "-X github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule.release=v0.1.0" ./cmd/caddy
var release string

// unknown is what stands where nothing was stamped.
const unknown = "unknown"

// version is that of the plugin in this binary.
var version = sync.OnceValue(func() string { return thisBuild().Version })

// build is what is known of a binary.
type build struct {
	Version string `json:"version"`
	// Commit and Time are known of a binary that was built in the plugin's own
	// repository. Modified tells that there were changes beside them.
	Commit   string `json:"commit,omitempty"`
	Time     string `json:"time,omitempty"`
	Modified bool   `json:"modified,omitempty"`

	Caddy    string `json:"caddy"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func thisBuild() *build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = nil
	}
	return newBuild(info, release)
}

// newBuild reads what was stamped; info may be nil.
func newBuild(info *debug.BuildInfo, release string) *build {
	b := &build{Version: unknown, Caddy: unknown, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info != nil {
		b.read(info)
	}
	if release != "" {
		b.Version = release
	}
	return b
}

func (b *build) read(info *debug.BuildInfo) {
	if info.GoVersion != "" {
		b.Go = info.GoVersion
	}
	for _, m := range append(slices.Clip(info.Deps), &info.Main) {
		version := m.Version
		if r := m.Replace; r != nil && r.Version != "" {
			version = r.Version
		}
		switch {
		case version == "":
		case m.Path == modulePath:
			b.Version = version
		case m.Path == "github.com/caddyserver/caddy/v2":
			b.Caddy = version
		}
	}
	if info.Main.Path != modulePath {
		return // the commit is that of another repository
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
}

// shownCommit is how much of a commit a person needs.
const shownCommit = 7

// String is a line for people.
func (b *build) String() string {
	var from []string
	if b.Commit != "" {
		from = append(from, "commit "+b.Commit[:min(len(b.Commit), shownCommit)])
	}
	if t, err := time.Parse(time.RFC3339, b.Time); err == nil {
		from = append(from, t.UTC().Format(time.DateOnly))
	}
	if b.Modified {
		from = append(from, "modified")
	}
	text := "caddy-upstream-auth " + b.Version
	if len(from) > 0 {
		text += " (" + strings.Join(from, ", ") + ")"
	}
	return fmt.Sprintf("%s, Caddy %s, %s, %s", text, b.Caddy, b.Go, b.Platform)
}
