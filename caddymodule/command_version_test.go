package caddymodule

import (
	"bytes"
	"encoding/json"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

const caddyPath = "github.com/caddyserver/caddy/v2"

// TestVersionOfBuild: what the toolchain stamps, and what it does not.
func TestVersionOfBuild(t *testing.T) {
	vcs := []debug.BuildSetting{{Key: "vcs.revision", Value: "abc1234def5678"}, {Key: "vcs.time", Value: "2026-11-21T23:59:59Z"}, {Key: "vcs.modified", Value: "false"}}
	changed := []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.time", Value: "noon"}, {Key: "vcs.modified", Value: "true"}}
	withCaddy := []*debug.Module{{Path: "example.com/other", Version: "v9.9.9"}, {Path: caddyPath, Version: "v2.11.9"}}
	for name, tc := range map[string]struct {
		info    *debug.BuildInfo
		release string
		want    string // up to the platform
	}{
		"nothing is known":   {nil, "", "caddy-upstream-auth unknown, Caddy unknown, go"},
		"a release":          {&debug.BuildInfo{GoVersion: "go1.26.8", Main: debug.Module{Path: modulePath, Version: "(devel)"}, Deps: withCaddy, Settings: vcs}, "v0.1.0", "caddy-upstream-auth v0.1.0 (commit abc1234, 2026-11-21), Caddy v2.11.9, go1.26.8, "},
		"a release, no info": {nil, "v0.1.0", "caddy-upstream-auth v0.1.0, Caddy unknown, go"},
		"a working tree":     {&debug.BuildInfo{GoVersion: "go1.26.8", Main: debug.Module{Path: modulePath, Version: "(devel)"}, Deps: withCaddy, Settings: changed}, "", "caddy-upstream-auth (devel) (commit abc, modified), Caddy v2.11.9, go1.26.8, "},
		"go install":         {&debug.BuildInfo{GoVersion: "go1.26.8", Main: debug.Module{Path: modulePath, Version: "v0.2.0"}, Deps: withCaddy}, "", "caddy-upstream-auth v0.2.0, Caddy v2.11.9, go1.26.8, "},
		"xcaddy": {
			&debug.BuildInfo{GoVersion: "go1.26.8", Main: debug.Module{Path: "caddy", Version: "(devel)"}, Deps: append(withCaddy[:2:2], &debug.Module{Path: modulePath, Version: "v0.2.0"}), Settings: vcs}, "",
			"caddy-upstream-auth v0.2.0, Caddy v2.11.9, go1.26.8, ", // the commit is another repository's
		},
		"a fork": {
			&debug.BuildInfo{Main: debug.Module{Path: "caddy"}, Deps: []*debug.Module{{Path: modulePath, Version: "v0.2.0", Replace: &debug.Module{Path: "example.com/fork", Version: "v0.2.1"}}}}, "",
			"caddy-upstream-auth v0.2.1, Caddy unknown, go",
		},
		"from a folder": {
			&debug.BuildInfo{Main: debug.Module{Path: "caddy"}, Deps: []*debug.Module{{Path: modulePath, Version: "v0.0.0", Replace: &debug.Module{Path: "../fork"}}}}, "",
			"caddy-upstream-auth v0.0.0, Caddy unknown, go",
		},
		"no version": {&debug.BuildInfo{Main: debug.Module{Path: modulePath}}, "", "caddy-upstream-auth unknown, Caddy unknown, go"},
	} {
		b := newBuild(tc.info, tc.release)
		if got := b.String(); !strings.HasPrefix(got, tc.want) || strings.Count(got, "/") == 0 || strings.Contains(got, "\n") {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
		var out bytes.Buffer
		if err := printVersion(&out, b, true); err != nil {
			t.Fatal(err)
		}
		var again build
		if err := json.Unmarshal(out.Bytes(), &again); err != nil || again != *b {
			t.Errorf("%s: in JSON %s, %v", name, &out, err)
		}
	}
}

// TestVersionCommand: as it is called.
func TestVersionCommand(t *testing.T) {
	p := newParts(t, authserver.Config{})
	c := p.caddy("upstream-auth", "version")
	out := p.ended(c, 0)
	c.quiet()
	says(t, out, "caddy-upstream-auth ", ", Caddy ", ", go1.", "/")
	if strings.Count(out, "\n") != 1 {
		t.Errorf("got %q", out)
	}
	c = p.caddy("upstream-auth", "version", "--json")
	says(t, p.ended(c, 0), `"version": "`, `"caddy": "`, `"platform": "`)
	c.quiet()
	c = p.caddy("upstream-auth", "version", "please")
	p.ended(c, 1)
	says(t, c.errors.String(), "no argument")
}
