package helm

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	yaml3 "sigs.k8s.io/yaml/goyaml.v3"
)

const page = "../../docs/helm.md"

// blocks are those of the page that are marked as YAML. The first line says which
// file it is of.
var blocks = regexp.MustCompile("(?ms)^```yaml\n# ([^\n]*)\n(.*?)^```")

// TestPage: the chart takes each file of values that the page shows, and Caddy each
// Caddyfile in one; what it shows of the example is there.
func TestPage(t *testing.T) {
	text := read(t, page)
	counts := map[string]int{}
	for _, block := range blocks.FindAllStringSubmatch(text, -1) {
		file, content := block[1], block[2]
		counts[file]++
		switch file {
		case "values.yaml":
			r := install(t, current, parse(t, content))
			c, _ := r.sidecar(t)
			environment(t, c, "10.1.2.3")
			key := t.TempDir() + "/key"
			if err := os.WriteFile(key, []byte("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="), 0o600); err != nil {
				t.Fatal(err)
			}
			config := one[*corev1.ConfigMap](t, r).Data["Caddyfile"]
			adapt(t, strings.ReplaceAll(config, "/run/secrets/upstream-auth/store_key", key))
		case "legacy/values.yaml":
			equal(t, file, parse(t, content)["caddy-upstream-auth"], parse(t, read(t, exampleDir+"/values.yaml"))["caddy-upstream-auth"])
		default:
			have := read(t, exampleDir+"/"+file)
			for line := range strings.Lines(content) {
				if !strings.Contains(have, line) {
					t.Errorf("%s of the example has no line %q", file, line)
				}
			}
		}
	}
	if all := strings.Count(text, "```yaml"); counts["values.yaml"] < 9 || counts["templates/deployment.yaml"] != 1 || all != counts["values.yaml"]+3 {
		t.Errorf("%d blocks, of which %v", all, counts)
	}
}

const from, to = "<!-- values -->\n", "<!-- /values -->\n"

// TestReference: the page's table of values is made of values.yaml.
func TestReference(t *testing.T) {
	t.Parallel()
	text := read(t, page)
	before, rest, ok := strings.Cut(text, from)
	_, after, closed := strings.Cut(rest, to)
	if !ok || !closed {
		t.Fatal("the page has no place for the table")
	}
	var table strings.Builder
	table.WriteString("| value | default | what it is, and why the default is that |\n| --- | --- | --- |\n")
	var listed []string
	rows(defaults(t), "", func(path, value, reason string) {
		listed = append(listed, path)
		fmt.Fprintf(&table, "| `%s` | `%s` | %s |\n", path, value, strings.NewReplacer("<", "&lt;", "|", `\|`).Replace(reason))
	})
	if want := before + from + table.String() + to + after; text != want {
		if *update {
			if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		t.Errorf("%s is not what values.yaml says: go test ./helm -run TestReference -update", page)
	}
	slices.Sort(listed)
	equal(t, "values", listed, leaves(t))
}

// rows calls row for each value.
func rows(node *yaml3.Node, at string, row func(path, value, reason string)) {
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		path := strings.TrimPrefix(at+"."+key.Value, ".")
		if value.Kind == yaml3.MappingNode && len(value.Content) > 0 && !slices.Contains(whole, path) {
			rows(value, path, row)
			continue
		}
		row(path, flow(value), comment(key.HeadComment))
	}
}

// whole are values that are maps, of Kubernetes' own form.
var whole = []string{"sidecar.resources", "sidecar.securityContext", "pod.securityContext"}

// comment is the last paragraph of one, on a line.
func comment(text string) string {
	paragraphs := strings.Split(text, "\n\n")
	return strings.Join(strings.Fields(strings.ReplaceAll("\n"+paragraphs[len(paragraphs)-1], "\n# ", " ")), " ")
}

// flow is a value on a line, as YAML.
func flow(node *yaml3.Node) string {
	plain := *node
	strip(&plain)
	text, err := yaml3.Marshal(&plain)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}

func strip(node *yaml3.Node) {
	node.HeadComment, node.LineComment, node.FootComment = "", "", ""
	if node.Kind != yaml3.ScalarNode {
		node.Style = yaml3.FlowStyle
	}
	for _, child := range node.Content {
		strip(child)
	}
}
