package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	// user is nobody in particular. It is a number, so that Kubernetes can see
	// that it is not root, and there is no /etc/passwd to look a name up in.
	user = 65532

	binaryPath = "usr/bin/caddy"
	configPath = "etc/caddy/Caddyfile"
	rootsPath  = "etc/ssl/certs/ca-certificates.crt" // where Go looks first
	// socketDir is for the admin API's socket, configDir and dataDir for Caddy's
	// own state: tokens that are shared, refresh tokens.
	socketDir = "run/caddy-upstream-auth"
	configDir = "config"
	dataDir   = "data"
)

// node is a folder or a file of the image.
type node struct {
	path    string // without a / at the beginning
	mode    os.FileMode
	owner   int // user and group
	content []byte
}

// tree is all that the image holds, sorted by path. What the process may write
// to belongs to its user and to nobody else, the rest to root; there is no /tmp,
// since nothing of this writes there.
func tree(ctx context.Context, o options, p v1.Platform) ([]node, error) {
	path, err := compile(ctx, o, p)
	if err != nil {
		return nil, err
	}
	binary, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	config, err := os.ReadFile(filepath.Join(o.source, "deploy/sidecar/Caddyfile"))
	if err != nil {
		return nil, err
	}
	roots, err := certificates()
	if err != nil {
		return nil, err
	}
	nodes := []node{
		{path: binaryPath, mode: 0o755, content: binary},
		{path: configPath, mode: 0o644, content: config},
		{path: rootsPath, mode: 0o644, content: roots},
	}
	for _, dir := range []string{"etc", "etc/caddy", "etc/ssl", "etc/ssl/certs", "run", "usr", "usr/bin"} {
		nodes = append(nodes, node{path: dir, mode: os.ModeDir | 0o755})
	}
	for _, dir := range []string{socketDir, configDir, dataDir} {
		nodes = append(nodes, node{path: dir, mode: os.ModeDir | 0o700, owner: user})
	}
	slices.SortFunc(nodes, func(a, b node) int { return cmp.Compare(a.path, b.path) })
	return nodes, nil
}

// archive writes nodes as a tar, every file with the same time and no names of
// users, so that equal nodes make equal bytes.
func archive(nodes []node, modified time.Time) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, n := range nodes {
		h := &tar.Header{
			Typeflag: tar.TypeReg,
			Name:     n.path,
			Mode:     int64(n.mode.Perm()),
			Uid:      n.owner,
			Gid:      n.owner,
			Size:     int64(len(n.content)),
			ModTime:  modified,
			Format:   tar.FormatPAX,
		}
		if n.mode.IsDir() {
			h.Typeflag, h.Name = tar.TypeDir, n.path+"/"
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := io.Copy(w, bytes.NewReader(n.content)); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil { // which writes the end
		return nil, err
	}
	return out.Bytes(), nil
}

// unpack writes nodes into a folder, which has to be empty or not there. Only
// root can give files away: for anybody else all of them are their own.
func unpack(nodes []node, dir string) error {
	if err := fresh(dir); err != nil {
		return err
	}
	for _, n := range nodes {
		path := filepath.Join(dir, n.path)
		var err error
		if n.mode.IsDir() {
			err = os.Mkdir(path, 0o700)
		} else {
			err = os.WriteFile(path, n.content, 0o600)
		}
		if err != nil {
			return err
		}
		if os.Geteuid() == 0 {
			if err := os.Lchown(path, n.owner, n.owner); err != nil {
				return err
			}
		}
		// not left to the umask
		if err := os.Chmod(path, n.mode.Perm()); err != nil {
			return err
		}
	}
	return nil
}

// fresh makes a folder and refuses one that holds something, which would be
// mixed up with what is written there.
func fresh(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the root of an image is everybody's to read
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is not empty: remove what is in it, or name another folder", dir)
	}
	return nil
}
