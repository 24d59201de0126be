// Package manifest reads what is sent to a Kubernetes API server, for the tests
// of the manifests and of the chart, as the server itself would.
package manifest

import (
	"fmt"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

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

// Decode reads one manifest as with fieldValidation=Strict: unknown fields and
// those that are there twice are errors.
func Decode(document string) (runtime.Object, error) {
	object, _, err := strict.Decode([]byte(document), nil, nil)
	return object, err
}

// Template is the pod template of an object, nil if it has none.
func Template(object runtime.Object) *corev1.PodTemplateSpec {
	switch o := object.(type) {
	case *appsv1.Deployment:
		return &o.Spec.Template
	case *appsv1.StatefulSet:
		return &o.Spec.Template
	case *appsv1.DaemonSet:
		return &o.Spec.Template
	case *batchv1.Job:
		return &o.Spec.Template
	case *batchv1.CronJob:
		return &o.Spec.JobTemplate.Spec.Template
	}
	return nil
}

// pinned are the versions of the pod security standards: the newest, and those
// that people have pinned.
var pinned = []api.Version{api.LatestVersion(), api.MajorMinorVersion(1, 25), api.MajorMinorVersion(1, 29)}

// Restricted tells in what a pod does not meet the strictest of the pod security
// standards.
func Restricted(pod *corev1.PodTemplateSpec) (wrong []string, err error) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return nil, err
	}
	for _, version := range pinned {
		at := api.LevelVersion{Level: api.LevelRestricted, Version: version}
		if result := policy.AggregateCheckResults(evaluator.EvaluatePod(at, &pod.ObjectMeta, &pod.Spec)); !result.Allowed {
			wrong = append(wrong, fmt.Sprintf("%s: %s", version, result.ForbiddenDetail()))
		}
	}
	return wrong, nil
}
