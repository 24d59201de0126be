package kubernetes

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/deploy/internal/manifest"
)

// TestTenLines: so many does it take, and the documentation shows the same ones.
func TestTenLines(t *testing.T) {
	t.Parallel()
	text := read(t, "examples/legacy/kustomization.yaml")
	if got := strings.Count(text, "\n"); got > 10 {
		t.Errorf("it takes %d lines", got)
	}
	page := strings.ReplaceAll(read(t, "../../docs/kubernetes.md"),
		`"https://github.com/caddy-upstream-auth/caddy-upstream-auth//deploy/kubernetes/component?ref=v0.1.0"`, "../../component")
	if !strings.Contains(page, "```yaml\n"+text+"```\n") {
		t.Error("docs/kubernetes.md shows something else than examples/legacy/kustomization.yaml")
	}
}

// TestCaddyfile: the pods run what the image has.
func TestCaddyfile(t *testing.T) {
	t.Parallel()
	want := read(t, "../sidecar/Caddyfile")
	if read(t, "component/caddyfile/Caddyfile") != want {
		t.Error("component/caddyfile/Caddyfile is not deploy/sidecar/Caddyfile: copy it")
	}
	for _, cm := range all[*corev1.ConfigMap](objects(t, "examples/legacy")) {
		switch {
		case cm.Name == "upstream-auth-caddyfile":
			if cm.Data["Caddyfile"] != want {
				t.Error("the ConfigMap is not deploy/sidecar/Caddyfile")
			}
		// changed settings need new processes, and a changed name brings them
		case !strings.HasPrefix(cm.Name, "upstream-auth-") || len(cm.Name) != len("upstream-auth-fh7gmgmkd7"):
			t.Errorf("the settings are called %s, want a hash in it", cm.Name)
		}
	}
}

// anApp is a workload with a pod template; extra are lines of its pod.
func anApp(apiVersion, kind, label, extra string) string {
	pod := "spec:\n  template:\n"
	indent := "    "
	if kind == "CronJob" {
		pod, indent = "spec:\n  jobTemplate:\n    spec:\n      template:\n", "        "
	}
	spec := "metadata:\n  labels:\n    app: any\nspec:\n  containers:\n    - name: app\n      image: app:1.0.0\n" + extra
	return fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata:\n  name: any\n  labels:\n    upstream-auth: %q\n%s%s",
		apiVersion, kind, label, pod, indent+strings.ReplaceAll(strings.TrimSuffix(spec, "\n"), "\n", "\n"+indent)+"\n")
}

const with = "resources: [app.yaml]\ncomponents: [../%s]\nconfigMapGenerator:\n  - name: upstream-auth\n    literals: [UPSTREAM=https://api.example.com]\n"

// TestKinds: every kind gets the same container, but those that say no.
func TestKinds(t *testing.T) {
	t.Parallel()
	for component, kinds := range map[string]map[string]bool{
		"component": {"Deployment": true, "StatefulSet": true, "DaemonSet": true, "Job": true, "CronJob": true},
		"older":     {"Deployment": true, "StatefulSet": true, "DaemonSet": true, "Job": false, "CronJob": false},
	} {
		want := one[*appsv1.Deployment](t, kustomize(t, fmt.Sprintf(with, component), anApp("apps/v1", "Deployment", "", ""))).Spec.Template
		for kind, in := range kinds {
			group := "apps/v1"
			if strings.HasSuffix(kind, "Job") {
				group = "batch/v1"
			}
			for label, in := range map[string]bool{"": in, "sidecar": in, "none": false} {
				pod := podOf(t, kustomize(t, fmt.Sprintf(with, component), anApp(group, kind, label, "")))
				if in {
					equal(t, component+": "+kind, pod, &want)
				} else if sidecarOf(&pod.Spec) != nil || len(pod.Spec.Volumes) != 0 || pod.Labels["upstream-auth"] != "" {
					t.Errorf("%s, label %q: a %s has the sidecar", component, label, kind)
				}
			}
		}
	}
}

func podOf(t *testing.T, built []runtime.Object) *corev1.PodTemplateSpec {
	t.Helper()
	for _, object := range built {
		if pod := manifest.Template(object); pod != nil {
			return pod
		}
	}
	t.Fatal("no pod template")
	return nil
}

// TestApplication: nothing of the application is changed, whatever it has
// already, and the sidecar is in front of it.
func TestApplication(t *testing.T) {
	t.Parallel()
	for name, extra := range map[string]string{
		"nothing more": "",
		"volumes":      "  volumes:\n    - name: cache\n      emptyDir: {}\n",
		"an init container and a sidecar of another": "  initContainers:\n    - name: migrate\n      image: app:1.0.0\n" +
			"    - name: logs\n      image: logs:1.0.0\n      restartPolicy: Always\n",
		"security, service account, time to stop": "  securityContext:\n    runAsUser: 1000\n    fsGroup: 2000\n" +
			"  serviceAccountName: app\n  automountServiceAccountToken: false\n  terminationGracePeriodSeconds: 300\n",
	} {
		for component := range map[string]bool{"component": true, "older": true} {
			t.Run(component+"/"+name, func(t *testing.T) {
				t.Parallel()
				text := anApp("apps/v1", "Deployment", "", extra)
				before := one[*appsv1.Deployment](t, decode(t, name, text))
				after := one[*appsv1.Deployment](t, kustomize(t, fmt.Sprintf(with, component), text))
				pod := &after.Spec.Template.Spec
				first := &pod.InitContainers
				if component == "older" {
					first = &pod.Containers
				}
				if (*first)[0].Name != sidecar {
					t.Fatalf("the first is %s", (*first)[0].Name)
				}
				*first = (*first)[1:]
				for len(pod.Volumes) > 0 && strings.HasPrefix(pod.Volumes[0].Name, sidecar+"-") {
					pod.Volumes = pod.Volumes[1:]
				}
				delete(after.Spec.Template.Labels, "upstream-auth")
				if len(*first) == 0 {
					*first = nil
				}
				if len(pod.Volumes) == 0 {
					pod.Volumes = nil
				}
				equal(t, "the application", after, before)
			})
		}
	}
}

// TestOlder: the form for older clusters is the same container, but for how it
// comes first and goes last.
func TestOlder(t *testing.T) {
	t.Parallel()
	text := anApp("apps/v1", "Deployment", "", "")
	native := podOf(t, kustomize(t, fmt.Sprintf(with, "component"), text))
	older := podOf(t, kustomize(t, fmt.Sprintf(with, "older"), text))
	equal(t, "volumes", older.Spec.Volumes, native.Spec.Volumes)

	want, got := sidecarOf(&native.Spec), sidecarOf(&older.Spec)
	if want.RestartPolicy == nil || *want.RestartPolicy != corev1.ContainerRestartPolicyAlways || want.Lifecycle != nil {
		t.Error("not a native sidecar")
	}
	if want.StartupProbe.HTTPGet.Path != "/status" || want.StartupProbe.FailureThreshold*want.StartupProbe.PeriodSeconds < 3600 {
		t.Errorf("the start waits so: %v", want.StartupProbe)
	}
	if got.RestartPolicy != nil || got.StartupProbe != nil {
		t.Error("it has what older clusters do not know")
	}
	hook := strings.Join(got.Lifecycle.PostStart.Exec.Command, " ")
	if hook != "/usr/bin/caddy upstream-auth status --wait 10m --address unix//run/caddy-upstream-auth/admin.sock" {
		t.Errorf("the start waits by %s", hook)
	}
	// what is later in envFrom counts more
	if len(got.EnvFrom) != 2 || got.EnvFrom[0].ConfigMapRef == nil || !strings.HasPrefix(got.EnvFrom[0].ConfigMapRef.Name, "upstream-auth-older-") {
		t.Errorf("settings from %v", got.EnvFrom)
	}
	got.EnvFrom = got.EnvFrom[1:]
	got.Lifecycle, want.RestartPolicy, want.StartupProbe = nil, nil, nil
	equal(t, "the container", got, want)
}

// TestGrace: a pod of the older form has the time that its sidecar takes, and a
// token request that is under way.
func TestGrace(t *testing.T) {
	t.Parallel()
	built := objects(t, "examples/older")
	delay := ""
	for _, cm := range all[*corev1.ConfigMap](built) {
		if cm.Data["UPSTREAM"] != "" {
			delay = cm.Data["SHUTDOWN_DELAY"]
		}
	}
	if got := podOf(t, built).Spec.TerminationGracePeriodSeconds; delay != "40s" || got == nil || *got < 50 {
		t.Errorf("SHUTDOWN_DELAY %s", delay)
	}
}

// TestNoSecret: with a service-account token there is none.
func TestNoSecret(t *testing.T) {
	t.Parallel()
	pod := podOf(t, objects(t, "examples/jwt-file"))
	tokens := 0
	for _, volume := range pod.Spec.Volumes {
		if volume.Secret != nil {
			t.Errorf("%s is a secret", volume.Name)
		}
		if volume.Projected != nil {
			token := volume.Projected.Sources[0].ServiceAccountToken
			if token.Audience == "" || *token.ExpirationSeconds < 600 {
				t.Errorf("a token for %q", token.Audience)
			}
			tokens++
		}
	}
	if tokens != 1 {
		t.Errorf("%d tokens", tokens)
	}
	for _, variable := range sidecarOf(&pod.Spec).Env {
		if variable.Name == "CLIENT_SECRET_FILE" {
			t.Error("there is a path to a secret")
		}
	}
}

// TestJobs: what ends has the native form, which does not keep it from ending.
func TestJobs(t *testing.T) {
	t.Parallel()
	built := objects(t, "examples/job")
	one[*batchv1.Job](t, built)
	one[*batchv1.CronJob](t, built)
	for _, object := range built {
		if pod := manifest.Template(object); pod != nil && (len(pod.Spec.Containers) != 1 || pod.Spec.Containers[0].Name == sidecar) {
			t.Error("the sidecar is among the containers that have to end")
		}
	}
}

// TestLayers: an overlay over a kustomization with the component changes a
// setting with "behavior: merge".
func TestLayers(t *testing.T) {
	t.Parallel()
	built := kustomize(t, "resources: [../base]\nconfigMapGenerator:\n  - name: upstream-auth\n    behavior: merge\n    literals: [CLIENT_ID=mine]\n",
		"")
	for _, cm := range all[*corev1.ConfigMap](built) {
		if cm.Data["UPSTREAM"] != "" {
			equal(t, "settings", cm.Data, map[string]string{"UPSTREAM": "https://api.example.com", "CLIENT_ID": "mine"})
			want := []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: cm.Name},
			}}}
			equal(t, "where the sidecar has its settings from", sidecarOf(&podOf(t, built).Spec).EnvFrom, want)
		}
	}
}
