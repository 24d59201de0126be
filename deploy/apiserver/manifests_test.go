package apiserver

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// manifests is the folder of what is tried.
const manifests = "../kubernetes"

// TestManifests: an API server takes every example and what the Helm chart makes,
// without a warning, in namespaces where nothing but restricted pods is let in.
func TestManifests(t *testing.T) {
	c := start(t)
	c.definitions(t)
	if warnings := c.warned(); len(warnings) != 0 {
		t.Logf("of the operator's definitions it warns: %q", warnings)
	}
	c.refuses(t)

	examples, err := filepath.Glob(manifests + "/examples/*/kustomization.yaml")
	if err != nil || len(examples) < 6 {
		t.Fatal("where are the examples?", examples, err)
	}
	for _, example := range examples {
		folder := filepath.Dir(example)
		c.takes(t, filepath.Base(folder), kustomize(t, folder))
	}
	c.takes(t, "all", kustomize(t, all(t)))

	// what the chart is expected to make of several values
	charts, err := filepath.Glob("../helm/testdata/*.yaml")
	if err != nil || len(charts) < 4 {
		t.Fatal("where is the chart?", charts, err)
	}
	for _, chart := range charts {
		text, err := os.ReadFile(chart)
		if err != nil {
			t.Fatal(err)
		}
		c.takes(t, "chart-"+strings.ToLower(strings.TrimSuffix(filepath.Base(chart), ".yaml")), documents(t, string(text)))
	}
}

// all is a kustomization with everything that there is.
func all(t *testing.T) string {
	t.Helper()
	folder, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs(manifests)
	if err != nil {
		t.Fatal(err)
	}
	path, err := filepath.Rel(folder, here)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("resources: [%[1]s/examples/legacy]\ncomponents: [%[1]s/networkpolicy, %[1]s/monitoring]\n", path)
	if err := os.WriteFile(filepath.Join(folder, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return folder
}

// kustomize is kubectl kustomize.
func kustomize(t *testing.T, folder string) []*unstructured.Unstructured {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		t.Fatal(err)
	}
	text, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return documents(t, string(text))
}

// documents are those of a file of YAML.
func documents(t *testing.T, text string) []*unstructured.Unstructured {
	t.Helper()
	var found []*unstructured.Unstructured
	for document := range strings.SplitSeq("\n"+text, "\n---\n") {
		object := new(unstructured.Unstructured)
		if err := yaml.Unmarshal([]byte(document), &object.Object); err != nil {
			t.Fatal(err)
		}
		if len(object.Object) != 0 {
			found = append(found, object)
		}
	}
	return found
}

// namespace makes one that lets only restricted pods in.
func (c *cluster) namespace(t *testing.T, name string) {
	t.Helper()
	labels := make(map[string]string)
	for _, mode := range []string{"enforce", "audit", "warn"} {
		labels["pod-security.kubernetes.io/"+mode] = "restricted"
		labels["pod-security.kubernetes.io/"+mode+"-version"] = "latest"
	}
	space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	if _, err := c.client.CoreV1().Namespaces().Create(t.Context(), space, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// the first a controller makes else, and here are none; the other is that of
	// an application
	for _, name := range []string{"default", "legacy"} {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := c.client.CoreV1().ServiceAccounts(space.Name).Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// apply is kubectl apply --server-side --validate=strict.
func (c *cluster) apply(t *testing.T, namespace string, object *unstructured.Unstructured) error {
	t.Helper()
	kind := object.GroupVersionKind()
	mapping, err := c.kinds.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return err
	}
	var at dynamic.ResourceInterface = c.objects.Resource(mapping.Resource)
	if namespace != "" {
		at = c.objects.Resource(mapping.Resource).Namespace(namespace)
	}
	text, err := json.Marshal(object)
	if err != nil {
		return err
	}
	_, err = at.Patch(t.Context(), object.GetName(), types.ApplyPatchType, text,
		metav1.PatchOptions{FieldManager: "test", FieldValidation: metav1.FieldValidationStrict})
	return err
}

// takes has the server store objects, and a pod of each pod template.
func (c *cluster) takes(t *testing.T, name string, objects []*unstructured.Unstructured) {
	t.Helper()
	c.namespace(t, name)
	pods := 0
	for _, object := range objects {
		if object.GetNamespace() != "" {
			object.SetNamespace(name)
		}
		what := fmt.Sprintf("%s: %s %s", name, object.GetKind(), object.GetName())
		err := c.apply(t, name, object)
		if warnings := c.warned(); err != nil || len(warnings) != 0 {
			t.Errorf("%s: %v %q", what, err, warnings)
			continue
		}
		t.Log(what)
		pod := c.pod(t, object)
		if pod == nil {
			continue
		}
		pods++
		pod, err = c.client.CoreV1().Pods(name).Create(t.Context(), pod, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
		if warnings := c.warned(); err != nil || len(warnings) != 0 {
			t.Errorf("%s: its pod: %v %q", what, err, warnings)
			continue
		}
		t.Logf("%s: its pod: init containers %d, containers %d", what, len(pod.Spec.InitContainers), len(pod.Spec.Containers))
	}
	if pods == 0 {
		t.Errorf("%s has no pod", name)
	}
}

// pod is what a controller would make of an object, nil if that is nothing.
func (c *cluster) pod(t *testing.T, object *unstructured.Unstructured) *corev1.Pod {
	t.Helper()
	path := []string{"spec", "template"}
	if object.GetKind() == "CronJob" {
		path = []string{"spec", "jobTemplate", "spec", "template"}
	}
	found, ok, err := unstructured.NestedMap(object.Object, path...)
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return nil
	}
	var template corev1.PodTemplateSpec
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(found, &template, true); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.Name = strings.ToLower(object.GetKind()) + "-" + object.GetName()
	for _, mount := range mounts(pod) {
		// of a claim that the controller of a StatefulSet would have made
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: mount, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: mount + "-" + object.GetName() + "-0"},
		}})
	}
	return pod
}

// mounts are the names of what is mounted and is no volume of the pod.
func mounts(pod *corev1.Pod) []string {
	known := make(map[string]bool)
	for _, volume := range pod.Spec.Volumes {
		known[volume.Name] = true
	}
	var missing []string
	for _, container := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		for _, mount := range container.VolumeMounts {
			if !known[mount.Name] {
				known[mount.Name] = true
				missing = append(missing, mount.Name)
			}
		}
	}
	return missing
}

// refuses: the server would say so if something were wrong.
func (c *cluster) refuses(t *testing.T) {
	t.Helper()
	c.namespace(t, "refused")
	for change, want := range map[string]string{
		`"allowPrivilegeEscalation":true`:                 "violates PodSecurity",
		`"allowPrivilegeEscalatoin":true`:                 "field not declared in schema",
		`"allowPrivilegeEscalation":false,"runAsUser":0`:  "violates PodSecurity",
		`"allowPrivilegeEscalation":false,"runAsUser":-1`: "must be between 0 and",
	} {
		text := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"bad"},"spec":{"containers":[{"name":"bad","image":"bad",
			"securityContext":{"runAsNonRoot":true,"capabilities":{"drop":["ALL"]},"seccompProfile":{"type":"RuntimeDefault"},` + change + `}}]}}`
		err := c.apply(t, "refused", documents(t, text)[0])
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with %s: %v, want %q", change, err, want)
		}
	}
	c.warned()
}
