package kubernetes

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"
)

// strict reads a manifest as an API server does with fieldValidation=Strict:
// unknown fields and those that are there twice are errors.
var strict = func() runtime.Decoder {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme, networkingv1.AddToScheme, monitoringv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	return json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
}()

// between are the lines between two documents.
var between = regexp.MustCompile(`(?m)^---\n`)

// decode reads documents, strictly.
func decode(t *testing.T, name, text string) []runtime.Object {
	t.Helper()
	var found []runtime.Object
	for _, document := range between.Split(text, -1) {
		object, _, err := strict.Decode([]byte(document), nil, nil)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, document)
		}
		found = append(found, object)
	}
	return found
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// removals are the words of a patch that takes something away.
var removals = regexp.MustCompile(`(?m)^ +\$patch: delete\n`)

// TestFiles: what is in the folders has no word that Kubernetes does not know.
func TestFiles(t *testing.T) {
	t.Parallel()
	for _, file := range yamls(t) {
		checkFile(t, file, removals.ReplaceAllString(read(t, file), ""))
	}
}

func checkFile(t *testing.T, name, text string) {
	t.Helper()
	if filepath.Base(name) != "kustomization.yaml" {
		decode(t, name, text)
		return
	}
	var k types.Kustomization
	if err := k.Unmarshal([]byte(text)); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if old := k.CheckDeprecatedFields(); old != nil && len(*old) != 0 {
		t.Errorf("%s: %v", name, *old)
	}
	k.FixKustomization()
	if errs := k.EnforceFields(); len(errs) != 0 {
		t.Errorf("%s: %v", name, errs)
	}
}

// blocks are those of a page that are marked as YAML.
var blocks = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```")

// TestPages: so it is with what the documentation shows.
func TestPages(t *testing.T) {
	t.Parallel()
	for page, want := range map[string]int{"../../docs/kubernetes.md": 5, "../../docs/status.md": 1} {
		found := blocks.FindAllStringSubmatch(read(t, page), -1)
		if len(found) < want {
			t.Errorf("%s has %d blocks of YAML, want %d or more", page, len(found), want)
		}
		for _, block := range found {
			checkBlock(t, page, block[1])
		}
	}
}

// checkBlock takes a manifest, a kustomization, or a part of a pod or of a
// container.
func checkBlock(t *testing.T, page, text string) {
	t.Helper()
	switch {
	case strings.HasPrefix(text, "apiVersion: "):
		decode(t, page, removals.ReplaceAllString(text, ""))
	case strings.HasPrefix(text, "resources:"), strings.HasPrefix(text, "components:"), strings.HasPrefix(text, "labels:"):
		checkFile(t, page+"/kustomization.yaml", text)
	default:
		var errs []error
		for _, part := range []any{new(corev1.PodSpec), new(corev1.Container)} {
			err := yaml.UnmarshalStrict([]byte(text), part)
			if err == nil {
				return
			}
			errs = append(errs, err)
		}
		t.Errorf("%s: neither of a pod nor of a container: %v\n%s", page, errs, text)
	}
}

// equal compares two values, and shows both.
func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if reflect.DeepEqual(got, want) {
		return
	}
	show := func(v any) []byte {
		text, err := yaml.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	t.Errorf("%s:\n%s\nwant\n%s", what, show(got), show(want))
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
