// Package kubernetes has the manifests of the sidecar, and their tests: every
// kustomization is built as kubectl apply -k builds it, and what comes of it is
// read by Kubernetes' own types, strictly, and judged by its own pod security.
package kubernetes

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// sidecar is the name of the container.
const sidecar = "upstream-auth"

// examples are the folders that are applied as they are.
func examples(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("examples/*/kustomization.yaml")
	if err != nil || len(files) < 6 {
		t.Fatal("where are the examples?", files, err)
	}
	for i, file := range files {
		files[i] = filepath.Dir(file)
	}
	return files
}

// yamls are all files of that kind.
func yamls(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".yaml") {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) < 20 {
		t.Fatal("where are the manifests?", files, err)
	}
	return files
}

// build is kubectl kustomize: the documents that it prints.
func build(t *testing.T, files filesys.FileSystem, folder string) string {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, folder)
	if err != nil {
		t.Fatalf("kustomize build %s: %v", folder, err)
	}
	text, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// objects are what a folder becomes in the cluster.
func objects(t *testing.T, folder string) []runtime.Object {
	t.Helper()
	return decode(t, folder, build(t, filesys.MakeFsOnDisk(), folder))
}

// kustomize builds a kustomization that is not on the disk, between the folders
// that are: its resources are in app.yaml, or in ../base, which has the component.
func kustomize(t *testing.T, kustomization, app string) []runtime.Object {
	t.Helper()
	memory := filesys.MakeFsInMemory()
	for _, folder := range []string{"component", "older", "networkpolicy", "monitoring"} {
		err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			return memory.WriteFile("/kubernetes/"+path, []byte(read(t, path)))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for path, content := range map[string]string{
		"mine/kustomization.yaml": kustomization, "mine/app.yaml": app,
		"base/kustomization.yaml": fmt.Sprintf(with, "component"), "base/app.yaml": anApp("apps/v1", "Deployment", "", ""),
	} {
		if err := memory.WriteFile("/kubernetes/"+path, []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	return decode(t, kustomization, build(t, memory, "/kubernetes/mine"))
}

// all are the objects of one kind.
func all[T runtime.Object](objects []runtime.Object) []T {
	var found []T
	for _, object := range objects {
		if o, ok := object.(T); ok {
			found = append(found, o)
		}
	}
	return found
}

// one is the only object of its kind.
func one[T runtime.Object](t *testing.T, objects []runtime.Object) T {
	t.Helper()
	found := all[T](objects)
	if len(found) != 1 {
		t.Fatalf("got %d of %T, want 1", len(found), *new(T))
	}
	return found[0]
}

// containers are all of a pod, in the order in which they start.
func containers(pod *corev1.PodSpec) []corev1.Container {
	return slices.Concat(pod.InitContainers, pod.Containers)
}

// sidecarOf is the sidecar of a pod, nil if it has none.
func sidecarOf(pod *corev1.PodSpec) *corev1.Container {
	for _, container := range containers(pod) {
		if container.Name == sidecar {
			return &container
		}
	}
	return nil
}
