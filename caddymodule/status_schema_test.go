package caddymodule

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// schema is what docs/status.schema.json uses of JSON Schema, and nothing more.
type schema struct {
	Schema      string             `json:"$schema"`
	ID          string             `json:"$id"`
	Ref         string             `json:"$ref"`
	Defs        map[string]*schema `json:"$defs"`
	Title       string             `json:"title"`
	Description string             `json:"description"`
	Type        string             `json:"type"`
	Format      string             `json:"format"`
	Enum        []string           `json:"enum"`
	Required    []string           `json:"required"`
	Properties  map[string]*schema `json:"properties"`
	Items       *schema            `json:"items"`
	MinItems    int                `json:"minItems"`
	MaxItems    int                `json:"maxItems"`
	Minimum     *float64           `json:"minimum"`
	Maximum     *float64           `json:"maximum"`
	MaxLength   int                `json:"maxLength"`
}

func readSchema(t *testing.T) *schema {
	t.Helper()
	f, err := os.Open("../docs/status.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := json.NewDecoder(f)
	d.DisallowUnknownFields()
	root := new(schema)
	if err := d.Decode(root); err != nil {
		t.Fatal(err)
	}
	return root
}

// at is the schema that one refers to.
func (s *schema) at(root *schema) *schema {
	if name, ok := strings.CutPrefix(s.Ref, "#/$defs/"); ok && root.Defs[name] != nil {
		return root.Defs[name]
	}
	return s
}

// validate tells what in a value is not as the schema says.
func (s *schema) validate(root *schema, path string, v any) (wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, path+": "+fmt.Sprintf(format, args...)) }
	s = s.at(root)
	switch s.Type {
	case "object":
		members, ok := v.(map[string]any)
		if !ok {
			say("%v is no object", v)
		}
		for _, name := range s.Required {
			if _, ok := members[name]; !ok {
				say("%s is missing", name)
			}
		}
		for name, member := range members {
			if s.Properties[name] == nil {
				say("%s is unknown", name)
				continue
			}
			wrong = append(wrong, s.Properties[name].validate(root, path+"."+name, member)...)
		}
	case "array":
		items, ok := v.([]any)
		if !ok || len(items) < s.MinItems || s.MaxItems > 0 && len(items) > s.MaxItems {
			say("%v is no such array", v)
		}
		for i, item := range items {
			wrong = append(wrong, s.Items.validate(root, fmt.Sprintf("%s[%d]", path, i), item)...)
		}
	case "string":
		text, ok := v.(string)
		if !ok || s.Enum != nil && !slices.Contains(s.Enum, text) || s.MaxLength > 0 && len(text) > s.MaxLength {
			say("%v is no such string", v)
		}
		if _, err := time.Parse(time.RFC3339, text); s.Format == "date-time" && (err != nil || !strings.HasSuffix(text, "Z")) {
			say("%s is no moment", text)
		}
	case "integer", "number":
		n, ok := v.(float64)
		if !ok || s.Type == "integer" && n != float64(int64(n)) || s.Minimum != nil && n < *s.Minimum || s.Maximum != nil && n > *s.Maximum {
			say("%v is no such number", v)
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			say("%v is no boolean", v)
		}
	default:
		say("the schema has no type")
	}
	return wrong
}

// asSchema checks an answer.
func (p *parts) asSchema(when, body string) {
	p.t.Helper()
	var v any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		p.t.Fatal(err)
	}
	root := readSchema(p.t)
	for _, wrong := range root.validate(root, "", v) {
		p.t.Errorf("%s: %s", when, wrong)
	}
}

// TestSchemaOfSamples: every state, and what is always there is required.
func TestSchemaOfSamples(t *testing.T) {
	p := &parts{t: t}
	for st := range stateWords {
		raw, err := json.Marshal(sampleOverview(sample("crm", st), sampleTemplate("tenants")))
		if err != nil {
			t.Fatal(err)
		}
		p.asSchema(string(st), string(raw))
	}
	root := readSchema(t)
	if wrong := root.validate(root, "", map[string]any{"ready": 1.0, "time": "noon", "version": "v1", "credentials": []any{map[string]any{"state": "odd", "more": 1.0}}}); len(wrong) != 16 {
		t.Errorf("of something else: %d\n%s", len(wrong), strings.Join(wrong, "\n"))
	}
}

// TestSchemaHasAll: the schema and the structs name the same members, and the
// schema says what each of them means.
func TestSchemaHasAll(t *testing.T) {
	root := readSchema(t)
	alike(t, root, root, "overview", reflect.TypeFor[overview]())
	states := root.Defs["credential"].Properties["state"]
	var known []string
	for st := range stateWords {
		known = append(known, string(st))
	}
	slices.Sort(known)
	if got := slices.Sorted(slices.Values(states.Enum)); !slices.Equal(got, known) {
		t.Errorf("the schema has the states %v, want %v", got, known)
	}
	for _, st := range known {
		if !strings.Contains(states.Description, st+": ") {
			t.Errorf("the schema does not say what %s is", st)
		}
	}
}

func alike(t *testing.T, root, s *schema, path string, of reflect.Type) {
	t.Helper()
	if s.Description == "" {
		t.Errorf("%s has no description", path)
	}
	s = s.at(root)
	for of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	want := map[reflect.Kind]string{
		reflect.Bool: "boolean", reflect.String: "string", reflect.Int: "integer", reflect.Uint64: "integer", reflect.Float64: "number", reflect.Slice: "array", reflect.Struct: "object",
	}[of.Kind()]
	if of == reflect.TypeFor[time.Time]() {
		want = "string"
		if s.Format != "date-time" {
			t.Errorf("%s is no moment in the schema", path)
		}
	}
	if s.Type != want {
		t.Errorf("%s is %q in the schema, want %q", path, s.Type, want)
	}
	switch want {
	case "array":
		item := *s.Items
		if item.Description == "" {
			item.Description = s.Description
		}
		alike(t, root, &item, path+"[]", of.Elem())
	case "object":
		var names, required []string
		for field := range of.Fields() {
			name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			names = append(names, name)
			if options == "" {
				required = append(required, name)
			}
			if s.Properties[name] != nil {
				alike(t, root, s.Properties[name], path+"."+name, field.Type)
			}
		}
		slices.Sort(names)
		if got := sorted(s.Properties); !slices.Equal(got, names) {
			t.Errorf("%s has in the schema\n%v, want\n%v", path, got, names)
		}
		if !slices.Equal(s.Required, required) {
			t.Errorf("%s requires in the schema\n%v, want\n%v", path, s.Required, required)
		}
	}
}
