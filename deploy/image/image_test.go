package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/x509"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// contents are all files of an image: mode, owner, path.
const contents = `
drwx------ 65532:65532 config/
drwx------ 65532:65532 data/
drwxr-xr-x 0:0 etc/
drwxr-xr-x 0:0 etc/caddy/
-rw-r--r-- 0:0 etc/caddy/Caddyfile
drwxr-xr-x 0:0 etc/ssl/
drwxr-xr-x 0:0 etc/ssl/certs/
-rw-r--r-- 0:0 etc/ssl/certs/ca-certificates.crt
drwxr-xr-x 0:0 run/
drwx------ 65532:65532 run/caddy-upstream-auth/
drwxr-xr-x 0:0 usr/
drwxr-xr-x 0:0 usr/bin/
-rwxr-xr-x 0:0 usr/bin/caddy
`

// most is what an image may weigh, compressed.
const most = 45e6

var (
	ctx     = context.Background() // of what is built once, for all tests
	scratch string                 // a folder for it
)

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "image-test"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(scratch); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// TestLayout writes the image for all platforms, reads it back, and looks at
// each.
func TestLayout(t *testing.T) {
	t.Parallel()
	b := firstImage(t)
	dir := t.TempDir()
	if err := b.writeLayout(dir); err != nil {
		t.Fatal(err)
	}
	outer, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(outer); err != nil {
		t.Fatal(err)
	}
	manifest, err := outer.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Manifests) != 1 || manifest.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != "0.1.0" {
		t.Fatalf("index.json: %+v", manifest.Manifests)
	}
	index, err := outer.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if manifest, err = index.IndexManifest(); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(manifest.Annotations, b.labels()) {
		t.Errorf("annotations of the index: %v", manifest.Annotations)
	}
	for i, want := range []struct {
		platform string
		machine  elf.Machine
	}{{"linux/amd64", elf.EM_X86_64}, {"linux/arm64", elf.EM_AARCH64}} {
		d := manifest.Manifests[i]
		if d.Platform.String() != want.platform {
			t.Fatalf("platform %d: %s", i, d.Platform)
		}
		img, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(want.platform, func(t *testing.T) {
			t.Parallel()
			files := testContents(t, img)
			testBinary(t, files["usr/bin/caddy"], want.machine)
			testConfig(t, img, b.labels())
			testWeight(t, img)
		})
	}
}

// testContents compares the files, and returns what is in them.
func testContents(t *testing.T, img v1.Image) map[string][]byte {
	t.Helper()
	r := mutate.Extract(img)
	defer r.Close()
	files := make(map[string][]byte)
	var lines []string
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(moment) {
			t.Errorf("%s is of %s", h.Name, h.ModTime)
		}
		if h.Uname+h.Gname != "" {
			t.Errorf("%s has an owner by name: %s:%s", h.Name, h.Uname, h.Gname)
		}
		name := strings.TrimSuffix(h.Name, "/")
		if h.Typeflag == tar.TypeDir {
			name += "/"
		}
		lines = append(lines, fmt.Sprintf("%s %d:%d %s", h.FileInfo().Mode(), h.Uid, h.Gid, name))
		if files[name], err = io.ReadAll(archive); err != nil {
			t.Fatal(err)
		}
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(path(a), path(b)) })
	if got := strings.Join(lines, "\n"); got != strings.TrimSpace(contents) {
		t.Errorf("the image holds\n%s\nand not\n%s", got, strings.TrimSpace(contents))
	}
	config, err := os.ReadFile(filepath.Join(root, "deploy/sidecar/Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(files["etc/caddy/Caddyfile"], config) {
		t.Error("the configuration is not deploy/sidecar/Caddyfile")
	}
	return files
}

func path(line string) string { return line[strings.LastIndex(line, " ")+1:] }

// testBinary looks for what would need a loader or a C library, of which the
// image has none.
func testBinary(t *testing.T, binary []byte, machine elf.Machine) {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(binary))
	if err != nil {
		t.Fatal(err)
	}
	if f.Machine != machine {
		t.Errorf("the binary is for %s", f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the binary is linked dynamically: it has %s", p.Type)
		}
	}
	if f.Section(".symtab") != nil || f.Section(".debug_info") != nil {
		t.Error("the binary has symbols")
	}
	// of the folder of the sources nothing is told, so it is the same anywhere
	if here, err := filepath.Abs(root); err != nil || bytes.Contains(binary, []byte(here)) {
		t.Errorf("the binary names the folder that it was built in, %s (%v)", here, err)
	}
}

func testConfig(t *testing.T, img v1.Image, labels map[string]string) {
	t.Helper()
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c := file.Config
	if c.User != "65532:65532" {
		t.Errorf("user %s", c.User)
	}
	if want := []string{"/usr/bin/caddy"}; !slices.Equal(c.Entrypoint, want) {
		t.Errorf("entrypoint %q", c.Entrypoint)
	}
	if want := []string{"run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"}; !slices.Equal(c.Cmd, want) {
		t.Errorf("command %q", c.Cmd)
	}
	if want := []string{"PATH=/usr/bin", "XDG_RUNTIME_DIR=/run/caddy-upstream-auth", "XDG_CONFIG_HOME=/config", "XDG_DATA_HOME=/data", "HOME=/config", "CADDY_ADMIN=unix//run/caddy-upstream-auth/admin.sock|0600"}; !slices.Equal(c.Env, want) {
		t.Errorf("environment %q", c.Env)
	}
	if len(c.ExposedPorts)+len(c.Volumes) > 0 {
		t.Errorf("ports %v, volumes %v", c.ExposedPorts, c.Volumes)
	}
	if !maps.Equal(c.Labels, labels) || labels["org.opencontainers.image.version"] != "0.1.0" || labels["org.opencontainers.image.revision"] == "" {
		t.Errorf("labels %v", c.Labels)
	}
	manifest, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(manifest.Annotations, labels) {
		t.Errorf("annotations %v", manifest.Annotations)
	}
	if !file.Created.Equal(moment) {
		t.Errorf("created %s", file.Created)
	}
	if len(file.History) != 2 || len(file.RootFS.DiffIDs) != 2 {
		t.Errorf("%d steps, %d layers", len(file.History), len(file.RootFS.DiffIDs))
	}
}

func testWeight(t *testing.T, img v1.Image) {
	t.Helper()
	packed, plain, err := weight(img)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MB, unpacked %.1f MB", float64(packed)/1e6, float64(plain)/1e6)
	if packed > most {
		t.Errorf("the image weighs %d bytes, of which %.0f are agreed on", packed, most)
	}
}

// TestArchive reads back what docker load takes.
func TestArchive(t *testing.T) {
	t.Parallel()
	b := firstImage(t)
	file := filepath.Join(t.TempDir(), "new", "image.tar")
	if err := b.writeArchive(file, b.platforms[0]); err != nil {
		t.Fatal(err)
	}
	manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(file) })
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest) != 1 || !slices.Equal(manifest[0].RepoTags, []string{"caddy-upstream-auth:0.1.0"}) {
		t.Errorf("the manifest: %+v", manifest)
	}
	img, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Fatal(err)
	}
	testContents(t, img)
}

// TestUnpack writes the files to a folder; the tests run as root.
func TestUnpack(t *testing.T) {
	t.Parallel()
	b := firstImage(t)
	nodes, err := tree(t.Context(), b.options, b.platforms[0])
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "root")
	if err := unpack(nodes, dir); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		info, err := os.Stat(filepath.Join(dir, n.path))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != n.mode {
			t.Errorf("%s: %s, expected %s", n.path, info.Mode(), n.mode)
		}
		if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != n.owner {
			t.Errorf("%s belongs to %d, expected %d: this test has to run as root", n.path, owner, n.owner)
		}
	}
}

// TestCertificates: the file has roots, and none that is trusted with a
// condition, which a file cannot tell.
func TestCertificates(t *testing.T) {
	text, err := certificates()
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		t.Fatal("no certificates")
	}
	all, conditional := 0, 0
	for root := range bundle.Roots() {
		all++
		if root.Constraint == nil {
			continue
		}
		conditional++
		cert, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err == nil {
			t.Errorf("%s is trusted without its condition", cert.Subject)
		}
	}
	if got := bytes.Count(text, []byte("BEGIN CERTIFICATE")); got != all-conditional || got < 100 {
		t.Errorf("%d certificates of %d, of which %d have a condition", got, all, conditional)
	}
}
