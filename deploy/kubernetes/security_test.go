package kubernetes

import (
	"testing"

	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// TestRestricted: every pod of every example meets the strictest of the pod
// security standards, of this version of Kubernetes and of those that people
// have pinned.
func TestRestricted(t *testing.T) {
	t.Parallel()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range examples(t) {
		pods := 0
		for _, object := range objects(t, folder) {
			pod := template(object)
			if pod == nil {
				continue
			}
			pods++
			for _, version := range []api.Version{api.LatestVersion(), api.MajorMinorVersion(1, 25), api.MajorMinorVersion(1, 29)} {
				at := api.LevelVersion{Level: api.LevelRestricted, Version: version}
				result := policy.AggregateCheckResults(evaluator.EvaluatePod(at, &pod.ObjectMeta, &pod.Spec))
				if !result.Allowed {
					t.Errorf("%s, %s: %s", folder, version, result.ForbiddenDetail())
				}
			}
		}
		if pods == 0 {
			t.Errorf("%s has no pod", folder)
		}
	}
}
