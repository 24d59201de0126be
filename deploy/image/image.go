package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strconv"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/deploy/internal/program"
)

// built is an image for each platform, and the index that leads to them.
type built struct {
	options
	images map[string]v1.Image // by architecture
	index  v1.ImageIndex
}

func build(ctx context.Context, o options) (*built, error) {
	b := &built{options: o, images: make(map[string]v1.Image)}
	b.index = mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range o.platforms {
		img, err := b.image(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("the image for %s: %w", p, err)
		}
		b.images[p.Architecture] = img
		b.index = mutate.AppendManifests(b.index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &p}})
	}
	b.index = mutate.Annotations(b.index, b.labels()).(v1.ImageIndex)
	return b, nil
}

// labels stand in the configuration, where docker inspect shows them, and as
// annotations, where registries look.
// See https://github.com/opencontainers/image-spec/blob/main/annotations.md
func (b *built) labels() map[string]string {
	l := map[string]string{
		"org.opencontainers.image.title":       "caddy-upstream-auth",
		"org.opencontainers.image.description": "A proxy that puts OAuth access tokens on the requests of a program that knows none",
		"org.opencontainers.image.source":      "https://" + program.Module,
		"org.opencontainers.image.licenses":    "Apache-2.0",
	}
	if b.version != "" {
		l["org.opencontainers.image.version"] = b.version
	}
	if b.revision != "" {
		l["org.opencontainers.image.revision"] = b.revision
	}
	return l
}

// image has two layers: the small one is the same for all platforms, and for
// most versions.
func (b *built) image(ctx context.Context, p v1.Platform) (v1.Image, error) {
	nodes, err := tree(ctx, b.options, p)
	if err != nil {
		return nil, err
	}
	var system, binary []node
	for _, n := range nodes {
		if n.path == binaryPath {
			binary = append(binary, n)
		} else {
			system = append(system, n)
		}
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for i, part := range [][]node{system, binary} {
		layer, err := b.layer(part)
		if err != nil {
			return nil, err
		}
		img, err = mutate.Append(img, mutate.Addendum{Layer: layer, MediaType: types.OCILayer, History: v1.History{
			Created:   v1.Time{Time: b.epoch},
			CreatedBy: "deploy/image: " + [2]string{"certificates, configuration, folders", "cmd/sidecar"}[i],
		}})
		if err != nil {
			return nil, err
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Created = v1.Time{Time: b.epoch}
	config.OS, config.Architecture = p.OS, p.Architecture
	config.Config = v1.Config{
		User:       strconv.Itoa(user) + ":" + strconv.Itoa(user),
		Entrypoint: []string{"/" + binaryPath},
		Cmd:        []string{"run", "--config", "/" + configPath, "--adapter", "caddyfile"},
		Env: []string{
			"PATH=/usr/bin",
			"XDG_RUNTIME_DIR=/" + socketDir,
			"XDG_CONFIG_HOME=/" + configDir,
			"XDG_DATA_HOME=/" + dataDir,
			"HOME=/" + configDir, // unused; Caddy warns where there is none
			// for a configuration that does not say where its admin API is, and for
			// commands in the container that are not told
			"CADDY_ADMIN=unix//" + socketDir + "/admin.sock|0600",
		},
		WorkingDir: "/",
		Labels:     maps.Clone(b.labels()),
	}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return nil, err
	}
	return mutate.Annotations(img, b.labels()).(v1.Image), nil
}

func (b *built) layer(nodes []node) (v1.Layer, error) {
	plain, err := archive(nodes, b.epoch)
	if err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(plain)), nil },
		tarball.WithCompressionLevel(gzip.DefaultCompression),
		tarball.WithCompressedCaching,
		tarball.WithMediaType(types.OCILayer),
	)
}

// tag is what the image is called where it is loaded; whoever pushes it puts a
// registry before it.
func (b *built) tag() string {
	if b.version == "" {
		return "latest"
	}
	return b.version
}

// writeLayout writes an OCI image layout, whose one entry is the index.
func (b *built) writeLayout(dir string) error {
	if err := fresh(dir); err != nil {
		return err
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	return path.AppendIndex(b.index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": b.tag()}))
}

// writeArchive writes what docker load takes.
func (b *built) writeArchive(path string, p v1.Platform) error {
	tag, err := name.NewTag("caddy-upstream-auth:" + b.tag())
	if err != nil {
		return err
	}
	return create(path, func(f *os.File) error { return tarball.Write(tag, b.images[p.Architecture], f) })
}

// print tells the digests and what the layers weigh.
func (b *built) print(w io.Writer) error {
	for _, p := range b.platforms {
		digest, err := b.images[p.Architecture].Digest()
		if err != nil {
			return err
		}
		packed, plain, err := weight(b.images[p.Architecture])
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%-12s  %s  %.1f MB, unpacked %.1f MB\n", p, digest, float64(packed)/1e6, float64(plain)/1e6)
	}
	digest, err := b.index.Digest()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%-12s  %s\n", "all", digest)
	return err
}

// weight is the size of the layers in bytes, as they are stored and sent, and
// unpacked.
func weight(img v1.Image) (packed, plain int64, err error) {
	layers, err := img.Layers()
	if err != nil {
		return 0, 0, err
	}
	for _, l := range layers {
		size, err := l.Size()
		if err != nil {
			return 0, 0, err
		}
		r, err := l.Uncompressed()
		if err != nil {
			return 0, 0, err
		}
		n, err := io.Copy(io.Discard, r)
		if err := errors.Join(err, r.Close()); err != nil {
			return 0, 0, err
		}
		packed, plain = packed+size, plain+n
	}
	return packed, plain, nil
}
