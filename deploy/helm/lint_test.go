package helm

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
)

// TestLint: no error and no warning, for what is there by default and for each
// shape. That there is no icon is worth a remark of Helm's, and no icon.
func TestLint(t *testing.T) {
	t.Parallel()
	lintOne(t, "defaults", current, nil)
	for _, shape := range shapes {
		lintOne(t, shape.name, shape.kube(), with(t, minimal, shape.values))
	}
}

func lintOne(t *testing.T, name, version string, values map[string]any) {
	t.Helper()
	kube, err := common.ParseKubeVersion(version)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range lint.RunAll(chartDir, values, "default", lint.WithKubeVersion(kube)).Messages {
		if m.Severity > support.InfoSev || !strings.Contains(m.Err.Error(), "icon is recommended") {
			t.Errorf("%s: %v", name, m)
		}
	}
}

// TestCopies: a chart can only read what is in its folder, so two files are there
// a second time.
func TestCopies(t *testing.T) {
	t.Parallel()
	for file, origin := range map[string]string{"Caddyfile": "../sidecar/Caddyfile", "alerts.yml": "../prometheus/alerts.yml"} {
		want, path := read(t, origin), filepath.Join(chartDir, "files", file)
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if read(t, path) != want {
			t.Errorf("%s is not %s: go test ./helm -run TestCopies -update", path, origin)
		}
	}
}

// secrets are words that a value for a secret itself would have.
var secrets = regexp.MustCompile(`(?i)password|secretvalue|clientsecret|stringData`)

// TestNoLiterals: no value takes a secret, and no Secret is made.
func TestNoLiterals(t *testing.T) {
	t.Parallel()
	for _, path := range leaves(t) {
		if secrets.MatchString(path) {
			t.Errorf("%s looks like a secret in the values", path)
		}
	}
	c := load(t)
	for _, f := range c.Templates {
		if strings.Contains(string(f.Data), "kind: Secret") || secrets.Match(f.Data) {
			t.Errorf("%s makes a Secret", f.Name)
		}
	}
}

// TestVersions: the chart, the application and the clusters it is for.
func TestVersions(t *testing.T) {
	t.Parallel()
	about := load(t).Metadata
	for version, want := range map[string]bool{"v1.24.17": false, "v1.25.0-gke.100": true, older: true, current: true} {
		if got := chartutil.IsCompatibleRange(about.KubeVersion, version); got != want {
			t.Errorf("%s: %v", version, got)
		}
	}
}
