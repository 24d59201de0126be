package main

import (
	"cmp"
	"debug/buildinfo"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdx/v2/common"
	v23 "github.com/spdx/tools-golang/spdx/v2/v2_3"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/deploy/internal/program"
)

// writeSBOM lists the modules that the binaries were linked from, and the Go
// that did it: what the binaries say of themselves, for there is no other code
// in the image. The licenses of the modules are not judged.
func (b *built) writeSBOM(path string) error {
	packages, err := b.packages()
	if err != nil {
		return err
	}
	digest, err := b.index.Digest()
	if err != nil {
		return err
	}
	doc := &spdx.Document{
		SPDXVersion:       v23.Version,
		DataLicense:       v23.DataLicense,
		SPDXIdentifier:    "DOCUMENT",
		DocumentName:      "caddy-upstream-auth:" + b.tag(),
		DocumentNamespace: "https://" + program.Module + "/sbom/" + digest.Hex,
		CreationInfo: &v23.CreationInfo{
			Created:  b.epoch.Format(time.RFC3339),
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "caddy-upstream-auth-deploy-image"}},
		},
	}
	image := &v23.Package{
		PackageName:             "caddy-upstream-auth",
		PackageSPDXIdentifier:   "image",
		PackageVersion:          b.version,
		PackageDownloadLocation: "NOASSERTION",
		PackageLicenseDeclared:  "Apache-2.0",
		PackageLicenseConcluded: "NOASSERTION",
		PackageCopyrightText:    "NOASSERTION",
		PrimaryPackagePurpose:   "CONTAINER",
		PackageChecksums:        []common.Checksum{{Algorithm: common.SHA256, Value: digest.Hex}},
	}
	doc.Packages = append(doc.Packages, image)
	doc.Relationships = append(doc.Relationships, relation("DOCUMENT", common.TypeRelationshipDescribe, "image"))
	for _, p := range packages {
		doc.Packages = append(doc.Packages, p)
		doc.Relationships = append(doc.Relationships, relation("image", common.TypeRelationshipContains, p.PackageSPDXIdentifier))
	}
	return create(path, func(f *os.File) error { return json.Write(doc, f, json.Indent("  ")) })
}

// packages are the modules of all platforms, each once, sorted.
func (b *built) packages() ([]*v23.Package, error) {
	all := make(map[string]*v23.Package)
	for _, p := range b.platforms {
		path := b.binary(p)
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		add := func(module, version, license string) {
			all[module] = goPackage(module, version, license)
		}
		add("stdlib", strings.TrimPrefix(info.GoVersion, "go"), "BSD-3-Clause")
		version := info.Main.Version // unknown to the binary, without git
		if b.version != "" {
			version = program.Tag(b.version)
		}
		add(info.Main.Path, version, "Apache-2.0")
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			add(m.Path, m.Version, "NOASSERTION")
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b *v23.Package) int { return cmp.Compare(a.PackageName, b.PackageName) }), nil
}

// goPackage is a Go module, with the address by which scanners look for its
// vulnerabilities. See https://github.com/package-url/purl-spec
func goPackage(module, version, license string) *v23.Package {
	return &v23.Package{
		PackageName:             module,
		PackageSPDXIdentifier:   common.ElementID("go-" + identifier(module)),
		PackageVersion:          version,
		PackageDownloadLocation: "NOASSERTION",
		PackageLicenseDeclared:  license,
		PackageLicenseConcluded: "NOASSERTION",
		PackageCopyrightText:    "NOASSERTION",
		PackageExternalReferences: []*v23.PackageExternalReference{{
			Category: common.CategoryPackageManager,
			RefType:  common.TypePackageManagerPURL,
			Locator:  "pkg:golang/" + module + "@" + version,
		}},
	}
}

// identifier is text in the letters that SPDX allows: letters, digits, . and -.
func identifier(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' {
			return r
		}
		return '-'
	}, text)
}

func relation(from common.ElementID, kind string, to common.ElementID) *v23.Relationship {
	return &v23.Relationship{RefA: common.MakeDocElementID("", string(from)), Relationship: kind, RefB: common.MakeDocElementID("", string(to))}
}
