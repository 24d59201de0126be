package helm

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// shape is a set of values that changes what is made, and what then has to be so.
type shape struct {
	name, values, version string
	kinds                 string // of all objects, in order of their files
	check                 func(t *testing.T, r release)
}

func (s shape) kube() string {
	if s.version != "" {
		return s.version
	}
	return current
}

const deployment = "ConfigMap Deployment"

// shapes has each value that changes more than a text.
var shapes = []shape{
	{name: "least", kinds: deployment, check: func(t *testing.T, r release) {
		t.Helper()
		d := one[*appsv1.Deployment](t, r)
		equal(t, "replicas", d.Spec.Replicas, 1)
		equal(t, "strategy", d.Spec.Strategy, appsv1.DeploymentStrategy{})
		c, native := r.sidecar(t)
		if !native || c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			t.Error("not a native sidecar")
		}
		equal(t, "image", c.Image, "caddy-upstream-auth:0.1.0")
		equal(t, "startup", c.StartupProbe.HTTPGet.Path, "/status")
		equal(t, "readiness", c.ReadinessProbe.HTTPGet.Path, "/status")
		equal(t, "liveness", c.LivenessProbe.HTTPGet.Path, "/livez")
		equal(t, "lifecycle", c.Lifecycle, nil)
		equal(t, "args", c.Args, strings.Fields("run --config /etc/caddy/Caddyfile --adapter caddyfile --watch"))
		equal(t, "UPSTREAM", r.env(t, "UPSTREAM"), "https://api.example.com")
		equal(t, "SHUTDOWN_DELAY", r.env(t, "SHUTDOWN_DELAY"), "")
		equal(t, "volumes", volumes(r.pod(t)), strings.Fields("upstream-auth-caddyfile upstream-auth-secret upstream-auth-run upstream-auth-data"))
		equal(t, "mounts", mounts(c), volumes(r.pod(t)))
		equal(t, "fsGroup", r.pod(t).Spec.SecurityContext.FSGroup, nil)
		equal(t, "grace", r.pod(t).Spec.TerminationGracePeriodSeconds, 30)
		equal(t, "default container", r.pod(t).Annotations["kubectl.kubernetes.io/default-container"], "legacy")
		for key, value := range d.Spec.Selector.MatchLabels {
			equal(t, key, r.pod(t).Labels[key], value)
		}
	}},
	{name: "older", version: older, kinds: deployment, check: func(t *testing.T, r release) {
		t.Helper()
		c, native := r.sidecar(t)
		if native || c.RestartPolicy != nil || c.StartupProbe != nil {
			t.Error("a native sidecar on a cluster that has none")
		}
		equal(t, "hook", c.Lifecycle.PostStart.Exec.Command, strings.Fields("/usr/bin/caddy upstream-auth status --wait 10m --address unix//run/caddy-upstream-auth/admin.sock"))
		equal(t, "SHUTDOWN_DELAY", r.env(t, "SHUTDOWN_DELAY"), "20s")
		equal(t, "init containers", r.pod(t).Spec.InitContainers, nil)
	}},
	{name: "older by name", values: `sidecar: {native: false, shutdownDelaySeconds: 25, startTimeout: 2m}`, kinds: deployment, check: func(t *testing.T, r release) {
		t.Helper()
		c, native := r.sidecar(t)
		if native || !slices.Contains(c.Lifecycle.PostStart.Exec.Command, "2m") {
			t.Error("not the older form", c.Lifecycle)
		}
		equal(t, "SHUTDOWN_DELAY", r.env(t, "SHUTDOWN_DELAY"), "25s")
	}},
	{name: "native by name", version: older, values: `sidecar: {native: true}`, kinds: deployment, check: func(t *testing.T, r release) {
		t.Helper()
		if _, native := r.sidecar(t); !native {
			t.Error("not a native sidecar")
		}
	}},
	{name: "the first that has them", version: "v1.29.0-eks-1", kinds: deployment, check: func(t *testing.T, r release) {
		t.Helper()
		if _, native := r.sidecar(t); !native {
			t.Error("not a native sidecar")
		}
	}},
	{name: "a reference that is none", values: `clientId: "$(HOME)"`, kinds: deployment, check: func(t *testing.T, r release) {
		t.Helper()
		equal(t, "CLIENT_ID", r.env(t, "CLIENT_ID"), "$$(HOME)")
	}},
	{name: "process", values: `probes: {startup: {waitFor: process}}`, kinds: deployment, check: func(t *testing.T, r release) {
		t.Helper()
		c, _ := r.sidecar(t)
		equal(t, "startup", c.StartupProbe.HTTPGet.Path, "/livez")
	}},
	{name: "process, older", version: older, values: `probes: {startup: {waitFor: process}}`, kinds: deployment, check: func(t *testing.T, r release) {
		t.Helper()
		c, _ := r.sidecar(t)
		if c.Lifecycle != nil || c.StartupProbe == nil {
			t.Error("the application waits for a token")
		}
	}},
	{name: "probes off", values: `probes: {readiness: {enabled: false}, liveness: {enabled: false}}`, kinds: deployment, check: func(t *testing.T, r release) {
		t.Helper()
		c, _ := r.sidecar(t)
		if c.ReadinessProbe != nil || c.LivenessProbe != nil || c.StartupProbe == nil {
			t.Error(c.ReadinessProbe, c.LivenessProbe, c.StartupProbe)
		}
	}},
	{name: "restart", values: `caddyfileReload: restart`, kinds: deployment, check: func(t *testing.T, r release) {
		t.Helper()
		c, _ := r.sidecar(t)
		if slices.Contains(c.Args, "--watch") || len(r.pod(t).Annotations["upstream-auth-caddyfile"]) != 64 {
			t.Error(c.Args, r.pod(t).Annotations)
		}
	}},
	{name: "ports", values: `{listenPort: 18080, statusPort: 19180, networkPolicy: {enabled: true}}`, kinds: "ConfigMap NetworkPolicy Deployment", check: func(t *testing.T, r release) {
		t.Helper()
		c, _ := r.sidecar(t)
		equal(t, "port", c.Ports[0].ContainerPort, 19180)
		equal(t, "LISTEN_PORT", r.env(t, "LISTEN_PORT"), "18080")
		equal(t, "STATUS_PORT", r.env(t, "STATUS_PORT"), "19180")
		equal(t, "policy", one[*networkingv1.NetworkPolicy](t, r).Spec.Ingress[0].Ports[0].Port.IntVal, 19180)
		if !strings.Contains(r.notes, "http://127.0.0.1:18080") {
			t.Error(r.notes)
		}
	}},
	{name: "service account", values: `{clientId: "", clientAuth: jwt_file, secret: {name: ""}, serviceAccountToken: {audience: https://idp.example.com, expirationSeconds: 600}, pod: {serviceAccountName: legacy}}`, kinds: deployment, check: func(t *testing.T, r release) {
		t.Helper()
		token := r.volume(t, "upstream-auth-token").Projected.Sources[0].ServiceAccountToken
		equal(t, "token", token, &corev1.ServiceAccountTokenProjection{Audience: "https://idp.example.com", Path: "idp", ExpirationSeconds: new(int64(600))})
		equal(t, "account", r.pod(t).Spec.ServiceAccountName, "legacy")
		if r.volume(t, "upstream-auth-secret") != nil || r.env(t, "CLIENT_SECRET_FILE") != "" || r.env(t, "CLIENT_AUTH") != "" {
			t.Error("a secret where there is none")
		}
	}},
	{name: "token file", values: `{tokenFile: {enabled: true, containers: [legacy]}}`, kinds: deployment, check: func(t *testing.T, r release) {
		t.Helper()
		c, _ := r.sidecar(t)
		v := r.volume(t, "upstream-auth-token-file")
		equal(t, "volume", v.EmptyDir.Medium, corev1.StorageMediumMemory)
		equal(t, "options", r.env(t, "CREDENTIAL_OPTIONS"), "token_file /run/upstream-auth-token/token {\n\tmode 0440\n}")
		equal(t, "fsGroup", r.pod(t).Spec.SecurityContext.FSGroup, 65532)
		application := r.pod(t).Spec.Containers[0]
		equal(t, "application", application.VolumeMounts, []corev1.VolumeMount{{Name: v.Name, MountPath: "/run/upstream-auth-token", ReadOnly: true}})
		if i := slices.IndexFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == v.Name }); i < 0 || c.VolumeMounts[i].ReadOnly {
			t.Error("the sidecar cannot write it")
		}
	}},
	{name: "fsGroup of its own", values: `{tokenFile: {enabled: true, containers: [legacy]}, pod: {securityContext: {fsGroup: 2000}}}`, kinds: deployment, check: func(t *testing.T, r release) {
		t.Helper()
		equal(t, "fsGroup", r.pod(t).Spec.SecurityContext.FSGroup, 2000)
		equal(t, "policy", r.pod(t).Spec.SecurityContext.FSGroupChangePolicy, nil)
	}},
	{name: "persistence", values: `{persistence: {enabled: true, storageClassName: fast, size: 2Gi}}`, kinds: "ConfigMap PersistentVolumeClaim Deployment", check: func(t *testing.T, r release) {
		t.Helper()
		claim := one[*corev1.PersistentVolumeClaim](t, r)
		equal(t, "claim", r.volume(t, "upstream-auth-data").PersistentVolumeClaim.ClaimName, claim.Name)
		equal(t, "class", claim.Spec.StorageClassName, "fast")
		equal(t, "size", claim.Spec.Resources.Requests.Storage().String(), "2Gi")
		equal(t, "keep", claim.Annotations["helm.sh/resource-policy"], "keep")
		equal(t, "strategy", one[*appsv1.Deployment](t, r).Spec.Strategy.Type, "Recreate")
		equal(t, "fsGroup", r.pod(t).Spec.SecurityContext.FSGroup, 65532)
	}},
	{name: "persistence, not kept", values: `{persistence: {enabled: true, keep: false}}`, kinds: "ConfigMap PersistentVolumeClaim Deployment", check: func(t *testing.T, r release) {
		t.Helper()
		equal(t, "keep", one[*corev1.PersistentVolumeClaim](t, r).Annotations, nil)
	}},
	{name: "claim that is there", values: `{persistence: {enabled: true, existingClaim: mine, accessModes: [ReadWriteMany]}, workload: {replicas: 3}}`, kinds: deployment, check: func(t *testing.T, r release) {
		t.Helper()
		equal(t, "claim", r.volume(t, "upstream-auth-data").PersistentVolumeClaim.ClaimName, "mine")
		equal(t, "strategy", one[*appsv1.Deployment](t, r).Spec.Strategy.Type, "")
		equal(t, "replicas", one[*appsv1.Deployment](t, r).Spec.Replicas, 3)
	}},
	{name: "StatefulSet", values: `{workload: {kind: StatefulSet, replicas: 3, spec: {podManagementPolicy: Parallel}}, persistence: {enabled: true}}`, kinds: "ConfigMap StatefulSet", check: func(t *testing.T, r release) {
		t.Helper()
		s := one[*appsv1.StatefulSet](t, r)
		equal(t, "templates", len(s.Spec.VolumeClaimTemplates), 1)
		equal(t, "name", s.Spec.VolumeClaimTemplates[0].Name, "upstream-auth-data")
		equal(t, "policy", s.Spec.PodManagementPolicy, "Parallel")
		equal(t, "retention", s.Spec.PersistentVolumeClaimRetentionPolicy, nil)
		if r.volume(t, "upstream-auth-data") != nil {
			t.Error("the volume is in the pod, too")
		}
	}},
	{name: "StatefulSet, not kept", values: `{workload: {kind: StatefulSet}, persistence: {enabled: true, keep: false}}`, kinds: "ConfigMap StatefulSet", check: func(t *testing.T, r release) {
		t.Helper()
		equal(t, "retention", one[*appsv1.StatefulSet](t, r).Spec.PersistentVolumeClaimRetentionPolicy.WhenDeleted, "Delete")
	}},
	{name: "StatefulSet, a claim that is there", values: `{workload: {kind: StatefulSet}, persistence: {enabled: true, existingClaim: mine}}`, kinds: "ConfigMap StatefulSet", check: func(t *testing.T, r release) {
		t.Helper()
		equal(t, "templates", len(one[*appsv1.StatefulSet](t, r).Spec.VolumeClaimTemplates), 0)
		equal(t, "claim", r.volume(t, "upstream-auth-data").PersistentVolumeClaim.ClaimName, "mine")
	}},
	{name: "StatefulSet, nothing kept", values: `{workload: {kind: StatefulSet}}`, kinds: "ConfigMap StatefulSet", check: func(t *testing.T, r release) {
		t.Helper()
		equal(t, "templates", len(one[*appsv1.StatefulSet](t, r).Spec.VolumeClaimTemplates), 0)
		if r.volume(t, "upstream-auth-data").EmptyDir == nil {
			t.Error("no data")
		}
	}},
	{name: "Job", values: `{workload: {kind: Job, spec: {backoffLimit: 2}}}`, kinds: "ConfigMap Job", check: func(t *testing.T, r release) {
		t.Helper()
		equal(t, "backoff", one[*batchv1.Job](t, r).Spec.BackoffLimit, 2)
		equal(t, "restart", r.pod(t).Spec.RestartPolicy, "Never")
	}},
	{name: "CronJob", values: `{workload: {kind: CronJob, schedule: "*/15 * * * *", spec: {timeZone: Etc/UTC, jobTemplate: {spec: {backoffLimit: 1}}}}, pod: {spec: {restartPolicy: OnFailure}}}`, kinds: "ConfigMap CronJob", check: func(t *testing.T, r release) {
		t.Helper()
		c := one[*batchv1.CronJob](t, r)
		equal(t, "schedule", c.Spec.Schedule, "*/15 * * * *")
		equal(t, "zone", c.Spec.TimeZone, "Etc/UTC")
		equal(t, "backoff", c.Spec.JobTemplate.Spec.BackoffLimit, 1)
		equal(t, "restart", r.pod(t).Spec.RestartPolicy, "OnFailure")
		equal(t, "concurrency", c.Spec.ConcurrencyPolicy, "")
	}},
	{name: "CronJob with storage", values: `{workload: {kind: CronJob, schedule: "@daily"}, persistence: {enabled: true}}`, kinds: "ConfigMap PersistentVolumeClaim CronJob", check: func(t *testing.T, r release) {
		t.Helper()
		equal(t, "concurrency", one[*batchv1.CronJob](t, r).Spec.ConcurrencyPolicy, "Forbid")
	}},
	{name: "service", values: `service: {ports: [{name: http, port: 80, targetPort: 8000}]}`, kinds: "ConfigMap Service Deployment", check: func(t *testing.T, r release) {
		t.Helper()
		equal(t, "selector", one[*corev1.Service](t, r).Spec.Selector, one[*appsv1.Deployment](t, r).Spec.Selector.MatchLabels)
	}},
	{name: "policy", values: `networkPolicy: {enabled: true}`, kinds: "ConfigMap NetworkPolicy Deployment", check: func(t *testing.T, r release) {
		t.Helper()
		p := one[*networkingv1.NetworkPolicy](t, r)
		equal(t, "types", p.Spec.PolicyTypes, []string{"Ingress"})
		equal(t, "rules", len(p.Spec.Ingress), 2)
		for key, value := range p.Spec.PodSelector.MatchLabels {
			equal(t, key, r.pod(t).Labels[key], value)
		}
		for _, port := range p.Spec.Ingress[1].Ports {
			if port.Protocol == nil && port.Port.IntVal <= 9180 && *port.EndPort >= 9180 {
				t.Error("the status is open to all")
			}
		}
	}},
	{name: "policy, closed", values: `networkPolicy: {enabled: true, otherPorts: false, metricsFrom: [], ingress: [{ports: [{port: 8000}]}], egress: [{ports: [{port: 443}]}]}`, kinds: "ConfigMap NetworkPolicy Deployment", check: func(t *testing.T, r release) {
		t.Helper()
		p := one[*networkingv1.NetworkPolicy](t, r)
		equal(t, "types", p.Spec.PolicyTypes, []string{"Ingress", "Egress"})
		equal(t, "ingress", len(p.Spec.Ingress), 1)
		equal(t, "egress", p.Spec.Egress[0].Ports[0].Port.IntVal, 443)
	}},
	{name: "monitor", values: `{podMonitor: {enabled: true, interval: 30s, labels: {release: prometheus}}, prometheusRule: {enabled: true, labels: {release: prometheus}}}`, kinds: "ConfigMap PodMonitor PrometheusRule Deployment", check: func(t *testing.T, r release) {
		t.Helper()
		m := one[*monitoringv1.PodMonitor](t, r)
		c, _ := r.sidecar(t)
		equal(t, "port", m.Spec.PodMetricsEndpoints[0].Port, c.Ports[0].Name)
		equal(t, "interval", m.Spec.PodMetricsEndpoints[0].Interval, "30s")
		equal(t, "labels", []string{m.Labels["release"], one[*monitoringv1.PrometheusRule](t, r).Labels["release"]}, []string{"prometheus", "prometheus"})
		for key, value := range m.Spec.Selector.MatchLabels {
			equal(t, key, r.pod(t).Labels[key], value)
		}
	}},
	{name: "image", values: `{image: {repository: registry.example.com/x, digest: "sha256:0000000000000000000000000000000000000000000000000000000000000000", pullPolicy: Always}, imagePullSecrets: [pull]}`, kinds: deployment, check: func(t *testing.T, r release) {
		t.Helper()
		c, _ := r.sidecar(t)
		equal(t, "image", c.Image, "registry.example.com/x@sha256:"+strings.Repeat("0", 64))
		equal(t, "policy", c.ImagePullPolicy, "Always")
		equal(t, "secrets", r.pod(t).Spec.ImagePullSecrets, []corev1.LocalObjectReference{{Name: "pull"}})
	}},
	{name: "tag", values: `image: {tag: "1.0"}`, kinds: deployment, check: func(t *testing.T, r release) {
		t.Helper()
		c, _ := r.sidecar(t)
		equal(t, "image", c.Image, "caddy-upstream-auth:1.0")
	}},
	{name: "extras", values: `{sidecar: {resources: null, extraEnv: [{name: A, value: b}], extraEnvFrom: [{configMapRef: {name: c}}], extraVolumeMounts: [{name: ca, mountPath: /ca}]}, extraVolumes: [{name: ca, configMap: {name: ca}}], application: {initContainers: [{name: migrate, image: "legacy:1.4.2", securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}], volumes: [{name: cache, emptyDir: {}}]}}`, kinds: deployment, check: func(t *testing.T, r release) {
		t.Helper()
		c, _ := r.sidecar(t)
		equal(t, "env", r.env(t, "A"), "b")
		equal(t, "envFrom", c.EnvFrom[0].ConfigMapRef.Name, "c")
		equal(t, "mount", c.VolumeMounts[len(c.VolumeMounts)-1].MountPath, "/ca")
		equal(t, "resources", c.Resources, corev1.ResourceRequirements{})
		equal(t, "volumes", volumes(r.pod(t))[4:], []string{"ca", "cache"})
		equal(t, "init", r.pod(t).Spec.InitContainers[1].Name, "migrate")
	}},
	{name: "pod", values: `pod: {labels: {team: crm, upstream-auth: mine}, annotations: {a: b, kubectl.kubernetes.io/default-container: upstream-auth}, terminationGracePeriodSeconds: 90, automountServiceAccountToken: false, spec: {nodeSelector: {disk: fast}}}`, kinds: deployment, check: func(t *testing.T, r release) {
		t.Helper()
		p := r.pod(t)
		equal(t, "labels", []string{p.Labels["team"], p.Labels["upstream-auth"]}, []string{"crm", "sidecar"})
		equal(t, "annotations", p.Annotations, map[string]string{"a": "b", "kubectl.kubernetes.io/default-container": "upstream-auth"})
		equal(t, "grace", p.Spec.TerminationGracePeriodSeconds, 90)
		equal(t, "node", p.Spec.NodeSelector, map[string]string{"disk": "fast"})
	}},
	{name: "names", values: `{nameOverride: crm, fullnameOverride: crm-web}`, kinds: deployment, check: func(t *testing.T, r release) {
		t.Helper()
		d := one[*appsv1.Deployment](t, r)
		equal(t, "name", d.Name, "crm-web")
		equal(t, "label", d.Labels["app.kubernetes.io/name"], "crm")
		equal(t, "config", r.volume(t, "upstream-auth-caddyfile").ConfigMap.Name, one[*corev1.ConfigMap](t, r).Name)
	}},
	{name: "strategy", values: `workload: {replicas: 2, spec: {strategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 0}}}}`, kinds: deployment, check: func(t *testing.T, r release) {
		t.Helper()
		equal(t, "strategy", one[*appsv1.Deployment](t, r).Spec.Strategy.Type, "RollingUpdate")
	}},
}

func TestShapes(t *testing.T) {
	t.Parallel()
	for _, shape := range shapes {
		t.Run(shape.name, func(t *testing.T) {
			t.Parallel()
			r := install(t, shape.kube(), with(t, minimal, shape.values))
			var kinds []string
			for _, object := range r.objects {
				kinds = append(kinds, reflect.TypeOf(object).Elem().Name())
			}
			equal(t, "objects", strings.Join(kinds, " "), shape.kinds)
			if !strings.Contains(r.notes, "http://127.0.0.1:") {
				t.Errorf("the notes do not say where the proxy is: %s", r.notes)
			}
			shape.check(t, r)
		})
	}
}

func volumes(p *corev1.PodTemplateSpec) []string {
	var names []string
	for _, v := range p.Spec.Volumes {
		names = append(names, v.Name)
	}
	return names
}

func mounts(c corev1.Container) []string {
	var names []string
	for _, m := range c.VolumeMounts {
		names = append(names, m.Name)
	}
	return names
}
