package kubernetes

import (
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/deploy/internal/manifest"
)

// TestRules: what pod security does not ask for, and this project does.
func TestRules(t *testing.T) {
	t.Parallel()
	for _, folder := range examples(t) {
		t.Run(folder, func(t *testing.T) {
			t.Parallel()
			built := objects(t, folder)
			pods := 0
			for _, object := range built {
				if pod := manifest.Template(object); pod != nil {
					pods++
					checkPod(t, &pod.Spec, built)
				}
			}
			if pods == 0 {
				t.Error("no pod")
			}
			for _, service := range all[*corev1.Service](built) {
				for _, port := range service.Spec.Ports {
					if port.TargetPort.Type != intstr.String || port.TargetPort.StrVal == sidecar {
						t.Errorf("the service %s leads to %v, which may be the sidecar", service.Name, port.TargetPort)
					}
				}
			}
		})
	}
}

func checkPod(t *testing.T, pod *corev1.PodSpec, built []runtime.Object) {
	t.Helper()
	car := sidecarOf(pod)
	if car == nil {
		t.Fatal("no sidecar")
	}
	checkImage(t, car.Image)
	checkResources(t, &car.Resources)
	checkPorts(t, car)
	checkEnvironment(t, car, built)
	checkVolumes(t, pod, car, built)
	if got := car.Args; len(got) != 6 || got[5] != "--watch" {
		t.Errorf("args %q: an edited ConfigMap is not loaded", got)
	}
	if car.TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError {
		t.Error("why it ends is not told")
	}
}

// checkImage wants a version, so that a pod that is started again next year is
// the same.
func checkImage(t *testing.T, image string) {
	t.Helper()
	if want := "registry.example.com/caddy-upstream-auth:0.1.0"; image != want {
		t.Errorf("image %s, want %s", image, want)
	}
}

// checkResources wants all four: a quota refuses a pod without them.
func checkResources(t *testing.T, r *corev1.ResourceRequirements) {
	t.Helper()
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		request, limit := r.Requests[name], r.Limits[name]
		if request.IsZero() || limit.Cmp(request) < 0 {
			t.Errorf("%s: request %s, limit %s", name, request.String(), limit.String())
		}
	}
}

// checkPorts wants the port of the status alone: that of the proxy is nobody's
// outside of the pod.
func checkPorts(t *testing.T, car *corev1.Container) {
	t.Helper()
	equal(t, "ports", car.Ports, []corev1.ContainerPort{{Name: sidecar, ContainerPort: 9180}})
	for _, probe := range []*corev1.Probe{car.ReadinessProbe, car.LivenessProbe, car.StartupProbe} {
		if probe != nil && probe.HTTPGet.Port != intstr.FromString(sidecar) {
			t.Errorf("a probe asks %v", probe.HTTPGet)
		}
	}
	if got := car.LivenessProbe.HTTPGet.Path; got != "/livez" {
		t.Errorf("the liveness probe asks for %s: it must not depend on a token", got)
	}
}

// plain are the names of settings that may speak of secrets and hold none.
var plain = regexp.MustCompile(`^(TOKEN_URL|CLIENT_SECRET_FILE)$`)

// checkEnvironment wants no secret in a variable, where each child process, each
// crash report and "kubectl describe" shows it, and settings that are there.
func checkEnvironment(t *testing.T, car *corev1.Container, built []runtime.Object) {
	t.Helper()
	settings := make(map[string]*corev1.ConfigMap)
	for _, cm := range all[*corev1.ConfigMap](built) {
		settings[cm.Name] = cm
	}
	sources := 0
	for _, from := range car.EnvFrom {
		if from.SecretRef != nil {
			t.Errorf("the environment comes from the secret %s", from.SecretRef.Name)
			continue
		}
		cm := settings[from.ConfigMapRef.Name]
		if cm == nil {
			t.Errorf("there is no ConfigMap %s", from.ConfigMapRef.Name)
			continue
		}
		sources++
		for name := range cm.Data {
			checkVariable(t, name)
		}
	}
	if sources == 0 {
		t.Error("no settings")
	}
	for _, variable := range car.Env {
		checkVariable(t, variable.Name)
		if variable.ValueFrom != nil && variable.ValueFrom.SecretKeyRef != nil {
			t.Errorf("%s is a secret", variable.Name)
		}
	}
}

func checkVariable(t *testing.T, name string) {
	t.Helper()
	if regexp.MustCompile("SECRET|TOKEN|PASSWORD|KEY").MatchString(name) && !plain.MatchString(name) {
		t.Errorf("the variable %s may hold a secret", name)
	}
}

// checkVolumes wants the sidecar's volumes in no other container, others' not in
// the sidecar, and what it only reads read-only.
func checkVolumes(t *testing.T, pod *corev1.PodSpec, car *corev1.Container, built []runtime.Object) {
	t.Helper()
	for _, container := range containers(pod) {
		for _, mount := range container.VolumeMounts {
			if own := strings.HasPrefix(mount.Name, sidecar+"-"); own != (container.Name == sidecar) {
				t.Errorf("%s mounts %s", container.Name, mount.Name)
			}
		}
	}
	writable := map[string]bool{"/run/caddy-upstream-auth": true, "/data": true}
	for _, mount := range car.VolumeMounts {
		if mount.ReadOnly == writable[mount.MountPath] {
			t.Errorf("%s at %s: read-only %v", mount.Name, mount.MountPath, mount.ReadOnly)
		}
	}
	for _, volume := range pod.Volumes {
		if volume.ConfigMap == nil {
			continue
		}
		found := false
		for _, cm := range all[*corev1.ConfigMap](built) {
			found = found || cm.Name == volume.ConfigMap.Name && cm.Data["Caddyfile"] != ""
		}
		if !found {
			t.Errorf("there is no ConfigMap %s with a Caddyfile", volume.ConfigMap.Name)
		}
	}
}
