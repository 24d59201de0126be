package program

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// root is where the repository begins.
const root = "../../.."

func TestMistakes(t *testing.T) {
	for name, test := range map[string]struct {
		change  func(*Options)
		mistake string
	}{
		"architecture":       {func(o *Options) { o.Arch = "mips" }, `"mips", expected one of amd64, arm64`},
		"version with a v":   {func(o *Options) { o.Version = "v0.1.0" }, `"v0.1.0", expected one such as 0.1.0`},
		"no version":         {func(o *Options) { o.Version = "latest" }, `"latest", expected`},
		"version for Debian": {func(o *Options) { o.Version = "0.1.0~rc.1" }, `"0.1.0~rc.1", expected`},
		"flags in a version": {func(o *Options) { o.Version = "0.1.0 -X a=b" }, "expected one such as"},
		"program":            {func(o *Options) { o.Name = "none" }, "building cmd/none for linux/amd64"},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Source: root, Name: "sidecar", OS: "linux", Arch: "amd64", Version: "0.1.0"}
			test.change(&o)
			if err := Build(t.Context(), o, filepath.Join(t.TempDir(), "program")); err == nil || !strings.Contains(err.Error(), test.mistake) {
				t.Errorf("%v, expected to read %s", err, test.mistake)
			}
		})
	}
}

func TestVersions(t *testing.T) {
	for _, text := range []string{"0.1.0", "10.20.30", "0.1.0-rc.1", "1.0.0-a-b.0c"} {
		if !versions.MatchString(text) {
			t.Errorf("%q is refused", text)
		}
	}
	for _, text := range []string{"0.1", "01.0.0", "0.1.0-", "0.1.0-rc..1", "0.1.0+linux", "0.1.0\n"} {
		if versions.MatchString(text) {
			t.Errorf("%q is a version", text)
		}
	}
}

func TestTimes(t *testing.T) {
	for _, test := range []struct{ epoch, want, mistake string }{
		{"0", "1970-01-01T00:00:00Z", ""},
		{"1700000000", "2023-11-14T22:13:20Z", ""},
		{"", "", "no number"},
		{"yesterday", "", "no number"},
		{"-1", "", "no number"},
	} {
		t.Setenv("SOURCE_DATE_EPOCH", test.epoch)
		got, err := Time(t.Context(), root)
		if test.mistake != "" {
			if err == nil || !strings.Contains(err.Error(), test.mistake) {
				t.Errorf("SOURCE_DATE_EPOCH=%q: %v", test.epoch, err)
			}
			continue
		}
		if err != nil || got.Format(time.RFC3339) != test.want {
			t.Errorf("SOURCE_DATE_EPOCH=%q: %s, %v", test.epoch, got, err)
		}
	}
	if err := os.Unsetenv("SOURCE_DATE_EPOCH"); err != nil {
		t.Fatal(err)
	}
	if got, err := Time(t.Context(), root); err != nil || got.Year() < 2026 {
		t.Errorf("the commit's time: %s, %v", got, err)
	}
	if _, err := Time(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "set SOURCE_DATE_EPOCH") {
		t.Errorf("outside of git: %v", err)
	}
}
