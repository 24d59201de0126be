package pod

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// file is one of a volume.
type file struct {
	content []byte
	mode    os.FileMode
	uid     int
	gid     int
}

// objects are what the volumes of a namespace are made from, by name.
type objects struct {
	configMaps map[string]*corev1.ConfigMap
	secrets    map[string]*corev1.Secret
}

// makeVolume makes a directory for a volume of the pod.
func (k *kubelet) makeVolume(v *corev1.Volume) (dir string, err error) {
	dir = filepath.Join(k.dir, "volumes", v.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if v.EmptyDir == nil {
		return dir, k.fillVolume(v, dir)
	}
	options := "mode=0777"
	if size := v.EmptyDir.SizeLimit; size != nil {
		options += fmt.Sprintf(",size=%d", size.Value())
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		return "", fmt.Errorf("volume %s: %w", v.Name, err)
	}
	if group := k.fsGroup(); group != nil {
		return dir, errors.Join(os.Chown(dir, 0, int(*group)), os.Chmod(dir, os.ModeSetgid|0o777))
	}
	return dir, os.Chmod(dir, 0o777)
}

// fillVolume puts into a volume what its objects hold now.
func (k *kubelet) fillVolume(v *corev1.Volume, dir string) error {
	files := map[string]file{}
	var err error
	switch {
	case v.ConfigMap != nil:
		err = k.addConfigMap(files, v.ConfigMap.Name, v.ConfigMap.Items, v.ConfigMap.DefaultMode, v.ConfigMap.Optional)
	case v.Secret != nil:
		err = k.addSecret(files, v.Secret.SecretName, v.Secret.Items, v.Secret.DefaultMode, v.Secret.Optional)
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			switch {
			case s.ConfigMap != nil:
				err = errors.Join(err, k.addConfigMap(files, s.ConfigMap.Name, s.ConfigMap.Items, v.Projected.DefaultMode, s.ConfigMap.Optional))
			case s.Secret != nil:
				err = errors.Join(err, k.addSecret(files, s.Secret.Name, s.Secret.Items, v.Projected.DefaultMode, s.Secret.Optional))
			case s.ServiceAccountToken != nil:
				err = errors.Join(err, k.addServiceAccountToken(files, s.ServiceAccountToken))
			default:
				err = errors.New("a projected source that this kubelet does not know")
			}
		}
	default:
		err = errors.New("a kind that this kubelet does not know")
	}
	if err == nil {
		err = replace(dir, files)
	}
	if err != nil {
		return fmt.Errorf("volume %s: %w", v.Name, err)
	}
	return nil
}

func (k *kubelet) addConfigMap(files map[string]file, name string, items []corev1.KeyToPath, mode *int32, optional *bool) error {
	m, found := k.objects.configMaps[name]
	if !found && optional != nil && *optional {
		return nil
	}
	if !found {
		return fmt.Errorf("configmap %q not found", name)
	}
	data := map[string][]byte{}
	for key, text := range m.Data {
		data[key] = []byte(text)
	}
	return k.add(files, data, items, mode)
}

func (k *kubelet) addSecret(files map[string]file, name string, items []corev1.KeyToPath, mode *int32, optional *bool) error {
	s, found := k.objects.secrets[name]
	if !found && optional != nil && *optional {
		return nil
	}
	if !found {
		return fmt.Errorf("secret %q not found", name)
	}
	return k.add(files, s.Data, items, mode)
}

// add takes all keys, or those that are listed, to the paths that they name.
func (k *kubelet) add(files map[string]file, data map[string][]byte, items []corev1.KeyToPath, mode *int32) error {
	of := func(own *int32) os.FileMode {
		given := int32(0o644)
		if own = cmp.Or(own, mode); own != nil {
			given = *own
		}
		return os.FileMode(given)
	}
	if len(items) == 0 {
		for key, content := range data {
			files[key] = k.owned(file{content: content, mode: of(nil)})
		}
	}
	for _, item := range items {
		content, found := data[item.Key]
		if !found {
			return fmt.Errorf("no key %q", item.Key)
		}
		files[item.Path] = k.owned(file{content: content, mode: of(item.Mode)})
	}
	return nil
}

// owned gives a file to the pod's group, if it has one.
func (k *kubelet) owned(f file) file {
	if group := k.fsGroup(); group != nil {
		f.gid, f.mode = int(*group), f.mode|0o440
	}
	return f
}

func (k *kubelet) fsGroup() *int64 {
	if c := k.pod.Spec.SecurityContext; c != nil {
		return c.FSGroup
	}
	return nil
}

// addServiceAccountToken adds a token as the API server signs it. A kubelet
// gives it to the one user that all containers have, and else to all.
func (k *kubelet) addServiceAccountToken(files map[string]file, s *corev1.ServiceAccountTokenProjection) error {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: k.cluster.tokenKey}, nil)
	if err != nil {
		return err
	}
	life := time.Hour
	if s.ExpirationSeconds != nil {
		life = time.Duration(*s.ExpirationSeconds) * time.Second
	}
	token, err := jwt.Signed(signer).Claims(map[string]any{
		"iss": tokenIssuer, "aud": []string{s.Audience}, "sub": tokenSubject, "jti": rand.Text(),
		"iat": time.Now().Unix(), "exp": time.Now().Add(life).Unix(),
	}).Serialize()
	if err != nil {
		return err
	}
	f := file{content: []byte(token), mode: 0o644}
	if user := k.onlyUser(); user != nil {
		f.mode, f.uid = 0o600, int(*user)
	}
	files[s.Path] = k.owned(f)
	k.cluster.sign(token)
	return nil
}

// onlyUser is the user of all containers, nil if they differ or have none.
func (k *kubelet) onlyUser() (user *int64) {
	for i, c := range k.specs() {
		own := k.securityContext(c).RunAsUser
		if own == nil || i > 0 && *own != *user {
			return nil
		}
		user = own
	}
	return user
}

// replace writes a volume's files into a new folder and leads ..data to it in
// one step, so that a reader sees all of the old or all of the new.
func replace(dir string, files map[string]file) error {
	fresh, err := os.MkdirTemp(dir, time.Now().UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return err
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return err
	}
	for name, f := range files {
		path := filepath.Join(fresh, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, f.content, f.mode),
			os.Chown(path, f.uid, f.gid), os.Chmod(path, f.mode)); err != nil {
			return err
		}
	}
	data, next := filepath.Join(dir, "..data"), filepath.Join(dir, "..data_tmp")
	old, _ := os.Readlink(data) // none at first
	if err := errors.Join(os.Symlink(filepath.Base(fresh), next), os.Rename(next, data)); err != nil {
		return err
	}
	for name := range files {
		first, _, _ := strings.Cut(name, "/")
		if err := os.Symlink(filepath.Join("..data", first), filepath.Join(dir, first)); err != nil && !os.IsExist(err) {
			return err
		}
	}
	if old == "" {
		return nil
	}
	return os.RemoveAll(filepath.Join(dir, old))
}

// updateVolumes brings what has changed of the objects into the volumes, and
// fresh tokens of the service account. A kubelet does the one within about a
// minute, and the other when a fifth of a token's life is left.
func (k *kubelet) updateVolumes() error {
	for i, v := range k.pod.Spec.Volumes {
		if v.EmptyDir != nil {
			continue
		}
		if err := k.fillVolume(&k.pod.Spec.Volumes[i], k.volumes[v.Name]); err != nil {
			return err
		}
	}
	return nil
}
