package kubernetes

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/deploy/internal/manifest"
)

// between are the lines between two documents.
var between = regexp.MustCompile(`(?m)^---\n`)

// decode reads documents, strictly.
func decode(t *testing.T, name, text string) []runtime.Object {
	t.Helper()
	var found []runtime.Object
	for _, document := range between.Split(text, -1) {
		object, err := manifest.Decode(document)
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
	for page, want := range map[string]int{"../../docs/kubernetes.md": 5, "../../docs/status.md": 1, "../../README.md": 1} {
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
