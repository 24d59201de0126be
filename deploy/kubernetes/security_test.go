package kubernetes

import (
	"testing"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/deploy/internal/manifest"
)

// TestRestricted: every pod of every example meets the strictest of the pod
// security standards.
func TestRestricted(t *testing.T) {
	t.Parallel()
	for _, folder := range examples(t) {
		pods := 0
		for _, object := range objects(t, folder) {
			pod := manifest.Template(object)
			if pod == nil {
				continue
			}
			pods++
			wrong, err := manifest.Restricted(pod)
			if err != nil {
				t.Fatal(err)
			}
			for _, what := range wrong {
				t.Errorf("%s, %s", folder, what)
			}
		}
		if pods == 0 {
			t.Errorf("%s has no pod", folder)
		}
	}
}
