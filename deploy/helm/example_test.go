package helm

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

const exampleDir = "examples/legacy"

// example is the example with this chart in it, packed as helm dependency update
// packs it.
func example(t *testing.T) string {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "legacy")
	if err := os.CopyFS(folder, os.DirFS(exampleDir)); err != nil {
		t.Fatal(err)
	}
	charts := filepath.Join(folder, "charts")
	if err := os.RemoveAll(charts); err != nil {
		t.Fatal(err)
	}
	if _, err := chartutil.Save(load(t), charts); err != nil {
		t.Fatal(err)
	}
	return folder
}

func installExample(t *testing.T, version, values string) release {
	t.Helper()
	c, err := loader.Load(example(t))
	if err != nil {
		t.Fatal(err)
	}
	return installed(t, c, version, parse(t, values))
}

// TestExample: a chart of one's own with the sidecar has the same container and
// the same volumes as this one by itself, native and older.
func TestExample(t *testing.T) {
	t.Parallel()
	for version, native := range map[string]bool{current: true, older: false} {
		r := installExample(t, version, "")
		d := one[*appsv1.Deployment](t, r)
		equal(t, "name", d.Name, "shop")
		c, is := r.sidecar(t)
		equal(t, "native", is, native)
		config := one[*corev1.ConfigMap](t, r)
		equal(t, "Caddyfile", config.Data["Caddyfile"], read(t, "../sidecar/Caddyfile"))
		equal(t, "volume", r.volume(t, "upstream-auth-caddyfile").ConfigMap.Name, config.Name)
		alone := install(t, version, with(t, minimal, `image: {repository: registry.example.com/caddy-upstream-auth}`))
		want, _ := alone.sidecar(t)
		equal(t, "sidecar", c, want)
		equal(t, "volumes", r.pod(t).Spec.Volumes, alone.pod(t).Spec.Volumes)
		if r.notes != "" {
			t.Error("notes of a dependency")
		}
		golden(t, map[bool]string{true: "example", false: "example-older"}[native], r)
	}
}

// TestExampleAround: what stands around the pod finds the pod of the other chart.
func TestExampleAround(t *testing.T) {
	t.Parallel()
	r := installExample(t, current, `caddy-upstream-auth: {networkPolicy: {enabled: true}, podMonitor: {enabled: true}, prometheusRule: {enabled: true}, persistence: {enabled: true}, caddyfileReload: restart}`)
	equal(t, "objects", len(r.objects), 6)
	equal(t, "claim", r.volume(t, "upstream-auth-data").PersistentVolumeClaim.ClaimName, one[*corev1.PersistentVolumeClaim](t, r).Name)
	p := r.pod(t)
	equal(t, "labels", []string{p.Labels["upstream-auth"], p.Labels["upstream-auth-instance"]}, []string{"sidecar", "shop-caddy-upstream-auth"})
	if len(p.Annotations["upstream-auth-caddyfile"]) != 64 {
		t.Error(p.Annotations)
	}
}

// TestExampleRefused: a mistake in the dependency's values is found, too.
func TestExampleRefused(t *testing.T) {
	t.Parallel()
	for values, want := range map[string]string{
		`caddy-upstream-auth: {upstream: ""}`:                                       "upstream is not set",
		`caddy-upstream-auth: {upstreams: x}`:                                       "additional properties 'upstreams' not allowed",
		`caddy-upstream-auth: {service: {ports: [{port: 80}]}}`:                     "this chart makes no pods here",
		`caddy-upstream-auth: {credentialOptions: "grant refresh_token {file./x}"}`: "set persistence.enabled",
	} {
		c, err := loader.Load(example(t))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := render(t.Context(), c, current, parse(t, values)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want one with %q", err, want)
		}
	}
}

// TestPackage: what is packed is what is there, and no more.
func TestPackage(t *testing.T) {
	t.Parallel()
	archive, err := chartutil.Save(load(t), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "name", filepath.Base(archive), "caddy-upstream-auth-0.1.0.tgz")
	packed, err := loader.Load(archive)
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, f := range packed.Raw {
		got = append(got, f.Name)
	}
	err = fs.WalkDir(os.DirFS(chartDir), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			want = append(want, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	slices.Sort(want)
	equal(t, "files", got, want)
}
