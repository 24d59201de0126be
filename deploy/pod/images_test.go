package pod

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// image is what a registry would hand out, unpacked.
type image struct {
	dir    string
	config v1.Config
	packed int64 // bytes, of its layers as they are pulled
}

// sidecarImage is that of ../image, as docker load takes it; applicationImage
// holds the application, and nothing else.
var sidecarImage, applicationImage image

func makeImages() error {
	failed := make(chan error, 2)
	go func() { failed <- makeSidecarImage() }()
	go func() { failed <- makeApplicationImage() }()
	return errors.Join(<-failed, <-failed)
}

func makeSidecarImage() error {
	archive := filepath.Join(workspace, "image.tar")
	if err := run("go", "run", "../image", "-source", "../..", "-platforms", "linux/"+runtime.GOARCH, "-docker", archive); err != nil {
		return err
	}
	img, err := tarball.ImageFromPath(archive, nil)
	if err != nil {
		return err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, layer := range layers {
		size, err := layer.Size()
		if err != nil {
			return err
		}
		sidecarImage.packed += size
	}
	sidecarImage.dir, sidecarImage.config = filepath.Join(workspace, "image"), config.Config
	files := mutate.Extract(img)
	defer files.Close()
	return unpack(files, sidecarImage.dir)
}

func makeApplicationImage() error {
	applicationImage = image{
		dir:    filepath.Join(workspace, "application"),
		config: v1.Config{Entrypoint: []string{"/application"}, User: "1000:1000", WorkingDir: "/"},
	}
	if err := os.Mkdir(applicationImage.dir, 0o755); err != nil {
		return err
	}
	return run("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(applicationImage.dir, "application"), "./application")
}

// run runs a command without cgo: there is no libc in the images.
func run(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, said.Bytes())
	}
	return nil
}

// unpack writes the files of an image as a runtime does, owners included.
func unpack(files io.Reader, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for r := tar.NewReader(files); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		path := filepath.Join(dir, filepath.Clean("/"+header.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		mode := header.FileInfo().Mode()
		switch header.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		case tar.TypeReg:
			err = write(path, r)
		default:
			err = fmt.Errorf("%s: neither a file nor a folder", header.Name)
		}
		if err == nil {
			err = errors.Join(os.Chown(path, header.Uid, header.Gid), os.Chmod(path, mode))
		}
		if err != nil {
			return err
		}
	}
}

func write(path string, content io.Reader) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}

// owner is the user of an image. A name would need an /etc/passwd.
func (i *image) owner() (uid, gid uint32, err error) {
	user, group, _ := strings.Cut(i.config.User, ":")
	for _, part := range []struct {
		text string
		to   *uint32
	}{{user, &uid}, {group, &gid}} {
		if part.text == "" {
			continue
		}
		n, err := strconv.ParseUint(part.text, 10, 32)
		if err != nil {
			return 0, 0, fmt.Errorf("the image's user %q is no number: a kubelet cannot tell that it is not root", i.config.User)
		}
		*part.to = uint32(n)
	}
	return uid, gid, nil
}
