package pod

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// overlay is what an operator whose servers have certificates of a private
// authority writes on top of an example. Go reads all of SSL_CERT_DIR, besides
// the authorities that are in the image.
const overlay = `
resources: [%s]
patches:
  - target:
      kind: Deployment|Job
    patch: |
      apiVersion: apps/v1
      kind: any
      metadata:
        name: any
      spec:
        template:
          spec:
            %s:
              - name: upstream-auth
                env:
                  - name: SSL_CERT_DIR
                    value: /run/authorities
                volumeMounts:
                  - name: authorities
                    mountPath: /run/authorities
                    readOnly: true
            volumes:
              - name: authorities
                configMap:
                  name: authorities
`

// The examples, and under what their templates have the sidecar.
var (
	legacyExample = example{"legacy", "initContainers"}
	olderExample  = example{"older", "containers"}
	jobExample    = example{"job", "initContainers"}
	tokenExample  = example{"jwt-file", "initContainers"}
)

type example struct{ name, place string }

// load builds an example as kubectl apply -k does, and makes the one pod of its
// template that a controller would.
func (e example) load(t *testing.T, c *cluster) (*corev1.Pod, *objects) {
	t.Helper()
	disk := filesys.MakeFsOnDisk()
	root, err := filepath.Abs("../kubernetes/examples")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path, err := filepath.Rel(dir, filepath.Join(root, e.name))
	if err != nil {
		t.Fatal(err)
	}
	if err := disk.WriteFile(filepath.Join(dir, "kustomization.yaml"), fmt.Appendf(nil, overlay, path, e.place)); err != nil {
		t.Fatal(err)
	}
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(disk, dir)
	if err != nil {
		t.Fatal(err)
	}
	o := &objects{
		configMaps: map[string]*corev1.ConfigMap{"authorities": {Data: map[string]string{"ca.crt": string(c.authority)}}},
		secrets:    map[string]*corev1.Secret{"upstream-auth": {Data: map[string][]byte{"client_secret": []byte(c.secret())}}},
	}
	var template *corev1.PodTemplateSpec
	for _, r := range resources.Resources() {
		text := []byte(r.MustYaml())
		switch r.GetKind() {
		case "ConfigMap":
			m := decode[corev1.ConfigMap](t, text)
			o.configMaps[m.Name] = m
		case "Deployment":
			template = &decode[appsv1.Deployment](t, text).Spec.Template
		case "Job":
			template = &decode[batchv1.Job](t, text).Spec.Template
		}
	}
	if template == nil {
		t.Fatalf("the example %s has neither a Deployment nor a Job", e.name)
	}
	c.serveNames(t, o)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: e.name + "-0", Labels: template.Labels},
		Spec:       template.Spec,
	}, o
}

func decode[T any](t *testing.T, text []byte) *T {
	t.Helper()
	out := new(T)
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	if err := d.Decode(out); err != nil {
		t.Fatal(err)
	}
	return out
}

// serveNames makes sure that the cluster is the one that the settings name.
func (c *cluster) serveNames(t *testing.T, o *objects) {
	t.Helper()
	for name, m := range o.configMaps {
		if !strings.HasPrefix(name, "upstream-auth") || m.Data["TOKEN_URL"] == "" {
			continue
		}
		want := map[string]string{"TOKEN_URL": "https://" + serverName + "/token", "UPSTREAM": "https://" + apiName, "CLIENT_ID": m.Data["CLIENT_ID"]}
		for key, value := range want {
			if m.Data[key] != value {
				t.Errorf("%s of the example's settings is %q, and the cluster here has %q", key, m.Data[key], value)
			}
		}
		c.setClient(m.Data["CLIENT_ID"])
		return
	}
	t.Fatalf("no ConfigMap upstream-auth among %v", slices.Collect(maps.Keys(o.configMaps)))
}

// know makes sure that there is nothing in the template that this kubelet
// would pass over.
func (k *kubelet) know() error {
	spec := k.pod.Spec.DeepCopy()
	spec.Volumes, spec.RestartPolicy, spec.TerminationGracePeriodSeconds = nil, "", nil
	spec.ServiceAccountName, spec.DeprecatedServiceAccount = "", ""
	if p := spec.SecurityContext; p != nil {
		*p = corev1.PodSecurityContext{SELinuxOptions: p.SELinuxOptions, SupplementalGroups: p.SupplementalGroups, Sysctls: p.Sysctls}
		if reflect.DeepEqual(*p, corev1.PodSecurityContext{}) {
			spec.SecurityContext = nil
		}
	}
	spec.AutomountServiceAccountToken, spec.EnableServiceLinks = nil, nil // it gives neither
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			list[i] = corev1.Container{
				Stdin: list[i].Stdin, TTY: list[i].TTY, VolumeDevices: list[i].VolumeDevices, ResizePolicy: list[i].ResizePolicy,
			}
			if !reflect.DeepEqual(list[i], corev1.Container{}) {
				return fmt.Errorf("container %d has what this kubelet does not know: %+v", i, list[i])
			}
		}
	}
	spec.InitContainers, spec.Containers = nil, nil
	if !reflect.DeepEqual(*spec, corev1.PodSpec{}) {
		return fmt.Errorf("the template has what this kubelet does not know: %+v", *spec)
	}
	return nil
}
