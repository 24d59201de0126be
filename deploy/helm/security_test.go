package helm

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/deploy/internal/manifest"
)

// TestSidecarRestricted: in each shape the pod meets the strictest of the pod
// security standards, and the sidecar does so with nothing of the pod's own.
func TestSidecarRestricted(t *testing.T) {
	t.Parallel()
	for _, shape := range shapes {
		r := install(t, shape.kube(), with(t, minimal, shape.values))
		whole := r.pod(t)
		sidecar, _ := r.sidecar(t)
		alone := whole.DeepCopy()
		alone.Spec.InitContainers, alone.Spec.Containers = nil, []corev1.Container{sidecar}
		alone.Spec.SecurityContext = nil
		for name, pod := range map[string]*corev1.PodTemplateSpec{"whole": whole, "sidecar": alone} {
			wrong, err := manifest.Restricted(pod)
			if err != nil {
				t.Fatal(err)
			}
			for _, what := range wrong {
				t.Errorf("%s, %s, %s", shape.name, name, what)
			}
		}
	}
}

// TestSidecarPrivate: what proves the client is mounted in the sidecar alone, no
// port but that of the status is named, and the root file system is read-only.
func TestSidecarPrivate(t *testing.T) {
	t.Parallel()
	own := []string{"upstream-auth-secret", "upstream-auth-token", "upstream-auth-run", "upstream-auth-data", "upstream-auth-caddyfile"}
	for _, shape := range shapes {
		r := install(t, shape.kube(), with(t, minimal, shape.values))
		spec := r.pod(t).Spec
		for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
			for _, m := range c.VolumeMounts {
				if c.Name != "upstream-auth" && slices.Contains(own, m.Name) {
					t.Errorf("%s: %s mounts %s", shape.name, c.Name, m.Name)
				}
			}
		}
		c, _ := r.sidecar(t)
		if len(c.Ports) != 1 || c.Ports[0].HostPort != 0 || c.Ports[0].Name != "upstream-auth" {
			t.Errorf("%s: ports %v", shape.name, c.Ports)
		}
		if s := c.SecurityContext; s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
			t.Errorf("%s: the root file system can be written to", shape.name)
		}
		if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
			t.Errorf("%s: the pod has a token for Kubernetes' API", shape.name)
		}
	}
}
