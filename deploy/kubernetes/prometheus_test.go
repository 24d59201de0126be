package kubernetes

import (
	"flag"
	"os"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write monitoring/prometheusrule.yaml anew")

const ruleHead = `# Made of deploy/prometheus/alerts.yml, which has the tests:
#
#	cd deploy && go test ./kubernetes -run TestAlerts -update
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: upstream-auth
spec:
`

// TestAlerts: the operator's alerts are the same as those that are tested.
func TestAlerts(t *testing.T) {
	t.Parallel()
	alerts := read(t, "../prometheus/alerts.yml")
	_, groups, found := strings.Cut(alerts, "\ngroups:\n")
	if !found {
		t.Fatal("alerts.yml has no groups")
	}
	var text strings.Builder
	text.WriteString(ruleHead)
	for line := range strings.Lines("groups:\n" + groups) {
		if line != "\n" {
			text.WriteString("  ")
		}
		text.WriteString(line)
	}
	const file = "monitoring/prometheusrule.yaml"
	if *update {
		if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have := read(t, file)
	if have != text.String() {
		t.Errorf("%s is not what comes of deploy/prometheus/alerts.yml: run this test with -update", file)
	}
	var want monitoringv1.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict([]byte(alerts), &want); err != nil {
		t.Fatal(err)
	}
	if len(want.Groups) == 0 || len(want.Groups[0].Rules) < 5 {
		t.Fatal("where are the rules?")
	}
	equal(t, "rules", one[*monitoringv1.PrometheusRule](t, decode(t, file, have)).Spec, want)
}

// watched is an application with all there is.
func watched(t *testing.T) (*corev1.PodTemplateSpec, *monitoringv1.PodMonitor, *networkingv1.NetworkPolicy) {
	t.Helper()
	built := kustomize(t, "resources: [app.yaml]\ncomponents: [../component, ../networkpolicy, ../monitoring]\n", anApp("apps/v1", "Deployment", "", ""))
	return podOf(t, built), one[*monitoringv1.PodMonitor](t, built), one[*networkingv1.NetworkPolicy](t, built)
}

// TestMonitor: it finds the pods, and the port in them.
func TestMonitor(t *testing.T) {
	t.Parallel()
	pod, monitor, _ := watched(t)
	for name, value := range monitor.Spec.Selector.MatchLabels {
		if pod.Labels[name] != value {
			t.Errorf("no pod has %s=%s", name, value)
		}
	}
	endpoint := monitor.Spec.PodMetricsEndpoints[0]
	if got := sidecarOf(&pod.Spec).Ports[0].Name; *endpoint.Port != got || endpoint.Path != "/metrics" {
		t.Errorf("it asks %s for %s", *endpoint.Port, endpoint.Path)
	}
}

// TestNetworkPolicy: the port of the status is for one namespace, and every other
// port as open as before.
func TestNetworkPolicy(t *testing.T) {
	t.Parallel()
	pod, _, policy := watched(t)
	for name, value := range policy.Spec.PodSelector.MatchLabels {
		if pod.Labels[name] != value {
			t.Errorf("no pod has %s=%s", name, value)
		}
	}
	equal(t, "types", policy.Spec.PolicyTypes, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress})
	if len(policy.Spec.PodSelector.MatchLabels) != 1 || len(policy.Spec.Ingress) != 2 {
		t.Fatal("another policy than this test knows")
	}
	status, rest := policy.Spec.Ingress[0], policy.Spec.Ingress[1]
	equal(t, "whom the status is for", status.From, []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{
		MatchLabels: map[string]string{"kubernetes.io/metadata.name": "monitoring"},
	}}})
	if got := sidecarOf(&pod.Spec).Ports[0].ContainerPort; len(status.Ports) != 1 || status.Ports[0].Port.IntVal != got {
		t.Errorf("%v, want %d", status.Ports, got)
	}
	for _, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP} {
		for port := int32(1); port <= 65535; port++ {
			if want := protocol != corev1.ProtocolTCP || port != 9180; open(rest.Ports, protocol, port) != want {
				t.Fatalf("%s %d: open to all is %v", protocol, port, !want)
			}
		}
	}
}

// open tells whether one of the rules lets a port in.
func open(ports []networkingv1.NetworkPolicyPort, protocol corev1.Protocol, port int32) bool {
	for _, p := range ports {
		of := corev1.ProtocolTCP
		if p.Protocol != nil {
			of = *p.Protocol
		}
		if of == protocol && p.Port.IntVal <= port && port <= *p.EndPort {
			return true
		}
	}
	return false
}
