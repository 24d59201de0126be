// Package helm has the tests of the chart: what it renders is decoded strictly by
// the types of Kubernetes, held against the pod security standards, and its
// Caddyfiles are given to Caddy.
package helm

import (
	"bytes"
	"context"
	"maps"
	"os"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	commonutil "helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

const (
	chartDir = "caddy-upstream-auth"
	// current has native sidecars, older has none
	current = "v1.37.0"
	older   = "v1.28.9"
)

// minimal is the least that renders.
const minimal = `
upstream: https://api.example.com
tokenUrl: https://idp.example.com/token
clientId: legacy
secret: {name: upstream-auth}
application:
  containers:
    - name: legacy
      image: legacy:1.4.2
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`

// load reads the chart, anew each time: Helm changes what it renders.
func load(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.LoadDir(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// render does what helm template does, and returns the files by name, those that
// are empty left out.
func render(ctx context.Context, c *chart.Chart, version string, values map[string]any) (map[string]string, error) {
	kube, err := common.ParseKubeVersion(version)
	if err != nil {
		return nil, err
	}
	caps := common.DefaultCapabilities.Copy()
	caps.KubeVersion = *kube
	if err := chartutil.ProcessDependencies(c, values); err != nil {
		return nil, err
	}
	release := common.ReleaseOptions{Name: "shop", Namespace: "default", IsInstall: true, Revision: 1}
	all, err := commonutil.ToRenderValues(c, values, release, caps)
	if err != nil {
		return nil, err
	}
	files, err := engine.Engine{}.RenderWithContext(ctx, c, all)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(files, func(name, text string) bool {
		return strings.HasSuffix(name, ".tpl") || strings.TrimSpace(text) == ""
	})
	return files, nil
}

// with parses values, and lays those of the second over the first, lists whole.
func with(t *testing.T, base, more string) map[string]any {
	t.Helper()
	return loader.MergeMaps(parse(t, base), parse(t, more))
}

func parse(t *testing.T, text string) map[string]any {
	t.Helper()
	values, err := loader.LoadValues(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return values
}

// release is what a set of values makes.
type release struct {
	objects []runtime.Object
	notes   string
	text    string // all manifests, in order of their file names
}

// install renders the chart and decodes what comes out.
func install(t *testing.T, version string, values map[string]any) release {
	t.Helper()
	return installed(t, load(t), version, values)
}

func installed(t *testing.T, c *chart.Chart, version string, values map[string]any) release {
	t.Helper()
	files, err := render(t.Context(), c, version, values)
	if err != nil {
		t.Fatal(err)
	}
	var r release
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text := strings.Trim(files[name], "\n") + "\n"
		if path.Base(name) == "NOTES.txt" {
			r.notes = text
			continue
		}
		r.text += "---\n# " + name + "\n" + text
		r.objects = append(r.objects, decode(t, name, text))
	}
	return r
}

// one is the object of a kind, of which there has to be one.
func one[T runtime.Object](t *testing.T, r release) T {
	t.Helper()
	found := every[T](r)
	if len(found) != 1 {
		t.Fatalf("%d of %v, want 1, in\n%s", len(found), reflect.TypeFor[T](), r.text)
	}
	return found[0]
}

func every[T runtime.Object](r release) []T {
	var found []T
	for _, object := range r.objects {
		if o, ok := object.(T); ok {
			found = append(found, o)
		}
	}
	return found
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// equal compares two values as YAML.
func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	g, err := yaml.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	w, err := yaml.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(g, w) {
		t.Errorf("%s:\n%s\nwant\n%s", what, g, w)
	}
}
