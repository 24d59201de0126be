package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const unit = "caddy-upstream-auth@.service"

// exposure is the most that systemd-analyze may say of the unit, out of 10. What
// is left: it needs the network, and no root directory of its own.
const exposure = 1.1

// systemd finds no mistake in the unit, for an instance that exists.
func TestUnit(t *testing.T) {
	root := t.TempDir()
	if err := layFile(unit, filepath.Join(root, "etc/systemd/system", unit), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := layFile(program, filepath.Join(root, "usr/bin/caddy-upstream-auth"), 0o755); err != nil {
		t.Fatal(err)
	}
	// the units that every system has, and that this one names
	if err := os.CopyFS(filepath.Join(root, "usr/lib/systemd/system"), os.DirFS("/usr/lib/systemd/system")); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("systemd-analyze", "verify", "--root="+root, "--man=no", "caddy-upstream-auth@crm.service").CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "upstream-auth") {
			t.Error(strings.TrimSpace(line))
		}
	}
	if err != nil {
		t.Fatalf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func TestExposure(t *testing.T) {
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", unit).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze security: %v\n%s", err, out)
	}
	found := regexp.MustCompile(`Overall exposure level .*: ([0-9.]+) `).FindSubmatch(out)
	if found == nil {
		t.Fatalf("no overall exposure in:\n%s", out)
	}
	t.Logf("exposure: %s of 10", found[1])
	if got, err := strconv.ParseFloat(string(found[1]), 64); err != nil || got > exposure {
		t.Fatalf("exposure %s, want at most %v\n%s", found[1], exposure, out)
	}
}
