package helm

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/deploy/internal/manifest"
)

// decode reads one manifest, strictly, and looks at what every object has.
func decode(t *testing.T, name, text string) runtime.Object {
	t.Helper()
	object, err := manifest.Decode(text)
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, text)
	}
	about, err := meta.Accessor(object)
	if err != nil {
		t.Fatal(err)
	}
	if errs := validation.IsDNS1123Subdomain(about.GetName()); len(errs) != 0 {
		t.Errorf("%s: the name %q: %v", name, about.GetName(), errs)
	}
	for key, value := range about.GetLabels() {
		if errs := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...); len(errs) != 0 {
			t.Errorf("%s: the label %s: %s: %v", name, key, value, errs)
		}
	}
	return object
}

// pod is the template of the one workload.
func (r release) pod(t *testing.T) *corev1.PodTemplateSpec {
	t.Helper()
	for _, object := range r.objects {
		if p := manifest.Template(object); p != nil {
			return p
		}
	}
	t.Fatalf("no workload in\n%s", r.text)
	return nil
}

// sidecar is the container, wherever in the pod it is, and whether it is a native
// one.
func (r release) sidecar(t *testing.T) (c corev1.Container, native bool) {
	t.Helper()
	spec := r.pod(t).Spec
	for i, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for at, c := range list {
			if c.Name != "upstream-auth" {
				continue
			}
			if at != 0 {
				t.Errorf("the sidecar is number %d of its containers: the others would start before it", at)
			}
			return c, i == 0
		}
	}
	t.Fatalf("no sidecar in\n%s", r.text)
	return corev1.Container{}, false
}

// volume is the volume of a name in the pod.
func (r release) volume(t *testing.T, name string) *corev1.Volume {
	t.Helper()
	for _, v := range r.pod(t).Spec.Volumes {
		if v.Name == name {
			return &v
		}
	}
	return nil
}

// env is what the sidecar's environment has under a name, "" for nothing.
func (r release) env(t *testing.T, name string) string {
	t.Helper()
	c, _ := r.sidecar(t)
	for _, e := range c.Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}
