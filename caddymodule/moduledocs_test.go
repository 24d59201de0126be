package caddymodule

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// The doc comments of modules are their pages on Caddy's website: that of the
// type, and that of each field that stands in JSON.
var (
	ourPackages = reflect.TypeFor[App]().PkgPath()
	// aDefault is what a comment has to tell of an option: what holds without it.
	aDefault = regexp.MustCompile(`Default: |\(the default\)|\b[Rr]equired\b|Either this or `)
)

// documented are the packages whose sources were read, by their import path.
type documented map[string]map[string]*ast.TypeSpec

// find reads the declaration of a type, with its comments. Types of tests are
// not found.
func (d documented) find(t *testing.T, of reflect.Type) *ast.TypeSpec {
	t.Helper()
	path := of.PkgPath()
	if d[path] == nil {
		d[path] = map[string]*ast.TypeSpec{}
		files, err := filepath.Glob(filepath.Join(".", strings.TrimPrefix(path, ourPackages), "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			for _, decl := range parsed.Decls {
				group, ok := decl.(*ast.GenDecl)
				if !ok || group.Tok != token.TYPE {
					continue
				}
				for _, spec := range group.Specs {
					spec := spec.(*ast.TypeSpec)
					if spec.Doc == nil {
						spec.Doc = group.Doc
					}
					d[path][spec.Name.Name] = spec
				}
			}
		}
	}
	return d[path][of.Name()]
}

// fieldComment is what stands before a field, and whether it is declared there.
func fieldComment(spec *ast.TypeSpec, name string) (comment string, found bool) {
	fields, ok := spec.Type.(*ast.StructType)
	if !ok {
		return "", false
	}
	for _, field := range fields.Fields.List {
		if slices.ContainsFunc(field.Names, func(n *ast.Ident) bool { return n.Name == name }) {
			return strings.Join(strings.Fields(field.Doc.Text()), " "), true
		}
	}
	return "", false
}

// check goes through the fields of a type that stand in JSON, and returns what
// is wrong with their comments.
func (d documented) check(t *testing.T, of reflect.Type, seen map[reflect.Type]bool) (wrong []string) {
	t.Helper()
	for slices.Contains([]reflect.Kind{reflect.Pointer, reflect.Slice, reflect.Map}, of.Kind()) {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct || !strings.HasPrefix(of.PkgPath(), ourPackages) || seen[of] {
		return nil
	}
	seen[of] = true
	spec := d.find(t, of)
	if spec == nil {
		return nil // of a test
	}
	if !strings.HasPrefix(spec.Doc.Text(), of.Name()+" ") {
		wrong = append(wrong, of.String()+": the comment does not begin with the type's name")
	}
	for field := range of.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if field.Anonymous && name == "" || field.IsExported() && name != "" && name != "-" {
			wrong = append(wrong, d.check(t, field.Type, seen)...)
		}
		if field.Anonymous || !field.IsExported() || name == "" || name == "-" {
			continue
		}
		place := of.String() + "." + field.Name + " (" + name + ")"
		switch comment, found := fieldComment(spec, field.Name); {
		case !found:
			t.Errorf("%s: not found in the source", place)
		case comment == "":
			wrong = append(wrong, place+": there is no comment")
		case !strings.HasSuffix(comment, "."):
			wrong = append(wrong, place+": the comment does not end with a full stop")
		case !aDefault.MatchString(comment):
			wrong = append(wrong, place+": the comment says neither what the default is nor that it is required: "+comment)
		}
	}
	return wrong
}

// TestModuleDocs: each module of ours, and each of its options, has a comment
// that says what it does and what holds without it.
func TestModuleDocs(t *testing.T) {
	d, seen, modules := documented{}, map[reflect.Type]bool{}, 0
	for _, id := range caddy.Modules() {
		if !strings.Contains(id, "upstream_auth") {
			continue
		}
		info, err := caddy.GetModule(id)
		if err != nil {
			t.Fatal(err)
		}
		of := reflect.TypeOf(info.New()).Elem()
		if spec := d.find(t, of); spec == nil {
			continue // of a test
		}
		modules++
		for _, wrong := range d.check(t, of, seen) {
			t.Errorf("%s: %s", id, wrong)
		}
	}
	if modules < 17 {
		t.Errorf("%d modules were found", modules)
	}
}
