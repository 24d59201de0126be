package helm

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	yaml3 "sigs.k8s.io/yaml/goyaml.v3"
)

// TestMisspelt: what the schema refuses, and the words in which.
func TestMisspelt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ values, at, want string }{
		{`upstreams: https://api.example.com`, "", "additional properties 'upstreams' not allowed"},
		{`{image: {repo: x}}`, "/image", "additional properties 'repo' not allowed"},
		{`upstream: http://api.example.com`, "/upstream", "does not match pattern"},
		{`upstream: api.example.com`, "/upstream", "does not match pattern"},
		{`upstream: https://api.example.com/v1`, "/upstream", "does not match pattern"},
		{`upstream: http://localhost.example.com`, "/upstream", "does not match pattern"},
		{`upstream: "https://a{$X}"`, "/upstream", "does not match pattern"},
		{`tokenUrl: http://idp.example.com/token`, "/tokenUrl", "does not match pattern"},
		{`tokenUrl: http://127.0.0.1.example.com/token`, "/tokenUrl", "does not match pattern"},
		{`tokenUrl: https://me@idp.example.com/token`, "/tokenUrl", "does not match pattern"},
		{`issuer: https://idp.example.com?a=b`, "/issuer", "does not match pattern"},
		{`clientId: 42`, "/clientId", "got number, want string"},
		{`clientAuth: basic`, "/clientAuth", "'client_secret_basic', 'client_secret_post'"},
		{`scopes: read`, "/scopes", "got string, want array"},
		{`scopes: ["read write"]`, "/scopes/0", "does not match pattern"},
		{`scopes: ['a"b']`, "/scopes/0", "does not match pattern"},
		{`audience: 'a"b'`, "/audience", "does not match pattern"},
		{`caddyfileReload: never`, "/caddyfileReload", "'watch', 'restart'"},
		{`listenPort: 80`, "/listenPort", "minimum: got 80, want 1,024"},
		{`listenPort: "8080"`, "/listenPort", "got string, want integer"},
		{`statusPort: 65536`, "/statusPort", "maximum"},
		{`secret: {value: hunter2}`, "/secret", "additional properties 'value' not allowed"},
		{`secret: {name: "Upper"}`, "/secret/name", "does not match pattern"},
		{`secret: {key: ../x}`, "/secret/key", "does not match pattern"},
		{`serviceAccountToken: {expirationSeconds: 60}`, "/serviceAccountToken/expirationSeconds", "want 600"},
		{`tokenFile: {mode: "0666"}`, "/tokenFile/mode", "does not match pattern"},
		{`tokenFile: {mode: 0440}`, "/tokenFile/mode", "want string"},
		{`tokenFile: {mountPath: run}`, "/tokenFile/mountPath", "does not match pattern"},
		{`persistence: {accessModes: []}`, "/persistence/accessModes", "minItems"},
		{`persistence: {accessModes: [ReadOnlyMany]}`, "/persistence/accessModes/0", "'ReadWriteOnce'"},
		{`persistence: {size: lots}`, "/persistence/size", "does not match pattern"},
		{`image: {digest: sha256:12}`, "/image/digest", "does not match pattern"},
		{`image: {pullPolicy: Sometimes}`, "/image/pullPolicy", "'Always', 'IfNotPresent', 'Never'"},
		{`imagePullSecrets: [{name: pull}]`, "/imagePullSecrets/0", "got object, want string"},
		{`sidecar: {native: "yes"}`, "/sidecar/native", "'auto', true, false"},
		{`sidecar: {startTimeout: 600}`, "/sidecar/startTimeout", "want string"},
		{`sidecar: {shutdownDelaySeconds: 20s}`, "/sidecar/shutdownDelaySeconds", "want integer"},
		{`sidecar: {extraEnv: {A: b}}`, "/sidecar/extraEnv", "got object, want array"},
		{`probes: {startup: {waitFor: nothing}}`, "/probes/startup/waitFor", "'token', 'process'"},
		{`probes: {readiness: {path: /}}`, "/probes/readiness", "additional properties 'path' not allowed"},
		{`application: {containers: [{image: legacy}]}`, "/application/containers/0", "missing property 'name'"},
		{`workload: {kind: Pod}`, "/workload/kind", "'Deployment', 'StatefulSet', 'Job', 'CronJob'"},
		{`workload: {replicas: -1}`, "/workload/replicas", "minimum"},
		{`pod: {labels: {a: 1}}`, "/pod/labels/a", "got number, want string"},
		{`pod: {nodeSelector: {a: b}}`, "/pod", "additional properties 'nodeSelector' not allowed"},
		{`podMonitor: {interval: "15"}`, "/podMonitor/interval", "does not match pattern"},
		{`fullnameOverride: A_b`, "/fullnameOverride", "does not match pattern"},
	} {
		t.Run(c.values, func(t *testing.T) {
			t.Parallel()
			_, err := render(t.Context(), load(t), current, with(t, minimal, c.values))
			if err == nil || !strings.Contains(err.Error(), "'"+c.at+"'") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want one at '%s' with %q", err, c.at, c.want)
			}
		})
	}
}

// TestTaken: forms that the schema must not be too narrow for.
func TestTaken(t *testing.T) {
	t.Parallel()
	for _, values := range []string{
		`{upstream: "https://api.example.com:8443", tokenUrl: "https://idp.example.com:8443/realms/a/token?tenant=4"}`,
		`{upstream: "http://localhost:9000", tokenUrl: "http://[::1]:9001/token"}`,
		`upstream: http://127.0.0.1`,
		`upstream: https://[2001:db8::1]:443`,
		`{tokenUrl: "", issuer: "https://idp.example.com/realms/a"}`,
		`scopes: ["https://graph.example.com/.default", "a:b", "x-y/z", "{tenant}"]`,
		`audience: https://api.example.com/?a=b&c=d`,
		`tokenFile: {mode: "0400"}`,
		`image: {repository: "registry.example.com:5000/team/caddy-upstream-auth"}`,
		`global: {anything: [1, 2]}`,
		`persistence: {size: 1.5Gi}`,
	} {
		if _, err := render(t.Context(), load(t), current, with(t, minimal, values)); err != nil {
			t.Errorf("%s: %v", values, err)
		}
	}
}

// schema is what of a JSON schema is looked at here.
type schema struct {
	Description          string
	Properties           map[string]schema
	AdditionalProperties any
}

// TestEachValue: the schema knows every key of values.yaml and no other, and each
// has a reason, in a comment above it.
func TestEachValue(t *testing.T) {
	t.Parallel()
	var s schema
	if err := json.Unmarshal([]byte(read(t, chartDir+"/values.schema.json")), &s); err != nil {
		t.Fatal(err)
	}
	delete(s.Properties, "global") // Helm's own
	compare(t, "", s, defaults(t))
}

func compare(t *testing.T, at string, s schema, node *yaml3.Node) {
	t.Helper()
	if s.AdditionalProperties != false {
		t.Errorf("%s. takes anything", at)
	}
	seen := map[string]bool{}
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		path := strings.TrimPrefix(at+"."+key.Value, ".")
		seen[key.Value] = true
		p, known := s.Properties[key.Value]
		if !known {
			t.Errorf("values.schema.json does not know %s", path)
			continue
		}
		if p.Description == "" {
			t.Errorf("values.schema.json does not describe %s", path)
		}
		if len(p.Properties) > 0 {
			compare(t, path, p, value)
			continue
		}
		if key.HeadComment == "" {
			t.Errorf("values.yaml has no reason for %s", path)
		}
	}
	for key := range s.Properties {
		if !seen[key] {
			t.Errorf("values.yaml has no %s.%s", at, key)
		}
	}
}

// defaults is values.yaml with its comments.
func defaults(t *testing.T) *yaml3.Node {
	t.Helper()
	var document yaml3.Node
	if err := yaml3.Unmarshal([]byte(read(t, chartDir+"/values.yaml")), &document); err != nil {
		t.Fatal(err)
	}
	return document.Content[0]
}

// leaves are the paths of all values.
func leaves(t *testing.T) []string {
	t.Helper()
	var s schema
	if err := json.Unmarshal([]byte(read(t, chartDir+"/values.schema.json")), &s); err != nil {
		t.Fatal(err)
	}
	delete(s.Properties, "global")
	var paths []string
	var walk func(at string, s schema)
	walk = func(at string, s schema) {
		for key, p := range s.Properties {
			path := strings.TrimPrefix(at+"."+key, ".")
			if len(p.Properties) > 0 {
				walk(path, p)
			} else {
				paths = append(paths, path)
			}
		}
	}
	walk("", s)
	slices.Sort(paths)
	return paths
}
