package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spdx/tools-golang/json"
	v23 "github.com/spdx/tools-golang/spdx/v2/v2_3"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/deploy/internal/program"
)

// TestSBOM writes the list of parts and reads it back.
func TestSBOM(t *testing.T) {
	t.Parallel()
	b := firstImage(t)
	file := filepath.Join(t.TempDir(), "sbom.json")
	if err := b.writeSBOM(file); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	doc, err := json.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	if doc.SPDXVersion != v23.Version || doc.DocumentName != "caddy-upstream-auth:0.1.0" || doc.CreationInfo.Created != "2023-11-14T22:13:20Z" {
		t.Errorf("%s, %s, %s", doc.SPDXVersion, doc.DocumentName, doc.CreationInfo.Created)
	}
	versions, ids := make(map[string]string), make(map[string]bool)
	for _, p := range doc.Packages {
		if ids[string(p.PackageSPDXIdentifier)] {
			t.Errorf("%s is there twice", p.PackageSPDXIdentifier)
		}
		ids[string(p.PackageSPDXIdentifier)] = true
		versions[p.PackageName] = p.PackageVersion
		if p.PackageName == "caddy-upstream-auth" {
			continue // the image, which is no package of a registry
		}
		if len(p.PackageExternalReferences) != 1 || p.PackageExternalReferences[0].Locator != "pkg:golang/"+p.PackageName+"@"+p.PackageVersion {
			t.Errorf("%s has no address", p.PackageName)
		}
	}
	// each part that is known, and its version, is told of
	for name, prefix := range map[string]string{
		"caddy-upstream-auth":              "0.1.0",
		program.Module:                     "v0.1.0",
		"stdlib":                           "1.",
		"github.com/caddyserver/caddy/v2":  "v2.",
		"github.com/caddyserver/certmagic": "v0.",
		"golang.org/x/crypto":              "v0.",
	} {
		if !strings.HasPrefix(versions[name], prefix) {
			t.Errorf("%s: version %q", name, versions[name])
		}
	}
	// all hang on the image, and the image on the document
	for _, r := range doc.Relationships {
		from, to := string(r.RefA.ElementRefID), string(r.RefB.ElementRefID)
		if !slices.Contains([]string{"DOCUMENT", "image"}, from) || !ids[to] {
			t.Errorf("%s %s %s", from, r.Relationship, to)
		}
	}
	if len(doc.Relationships) != len(doc.Packages) || len(doc.Packages) < 50 {
		t.Errorf("%d packages, %d relationships", len(doc.Packages), len(doc.Relationships))
	}
}
