package main

import (
	"cmp"
	"crypto/md5" //nolint:gosec // which is what dpkg --verify compares with
	_ "embed"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

const maintainer = "The authors of caddy-upstream-auth <caddy-upstream-auth@users.noreply.github.com>"

var (
	//go:embed control
	description string
	//go:embed postinst
	postinst []byte
	//go:embed prerm
	prerm []byte
	//go:embed postrm
	postrm []byte
)

// control are the files that tell dpkg of the others.
// See https://www.debian.org/doc/debian-policy/ch-controlfields.html
func control(o options, files []file) []file {
	fields := map[string]string{
		"VERSION":    o.debianVersion(),
		"ARCH":       o.arch,
		"MAINTAINER": maintainer,
		"KIBIBYTES":  strconv.Itoa(installed(files)),
	}
	var settings, sums strings.Builder
	for _, f := range slices.SortedFunc(slices.Values(files), func(a, b file) int { return cmp.Compare(a.path, b.path) }) {
		if f.settings {
			fmt.Fprintf(&settings, "/%s\n", f.path) // dpkg has its sum
		} else {
			fmt.Fprintf(&sums, "%x  %s\n", md5.Sum(f.content), f.path) //nolint:gosec // as above
		}
	}
	return []file{
		{path: "DEBIAN/control", mode: 0o644, content: []byte(os.Expand(description, func(name string) string { return fields[name] }))},
		{path: "DEBIAN/conffiles", mode: 0o644, content: []byte(settings.String())},
		{path: "DEBIAN/md5sums", mode: 0o644, content: []byte(sums.String())},
		{path: "DEBIAN/postinst", mode: 0o755, content: postinst},
		{path: "DEBIAN/prerm", mode: 0o755, content: prerm},
		{path: "DEBIAN/postrm", mode: 0o755, content: postrm},
	}
}

// installed is what the files take, in KiB: each file rounded up, and one for each
// folder, as the policy has it.
func installed(files []file) int {
	size := 0
	folders := make(map[string]bool)
	for _, f := range files {
		size += (len(f.content) + 1023) / 1024
		for dir := path.Dir(f.path); dir != "."; dir = path.Dir(dir) {
			folders[dir] = true
		}
	}
	return size + len(folders)
}
