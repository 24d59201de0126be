package faults

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/certmagic"
)

func init() { caddy.RegisterModule(new(storage)) }

// storage is Caddy's file system storage with a switch for each credential: a
// file of the credential's name in the folder Faults, which says how what is
// stored of it fails. A disk of its own for each could not be had everywhere.
type storage struct {
	certmagic.FileStorage `json:"-"`

	Root   string `json:"root"`
	Faults string `json:"faults"`
}

// How storage fails.
const (
	diskFull      = "full"  // nothing can be written
	readOnly      = "ro"    // likewise
	storageLost   = "lost"  // nothing can be read, either
	storageHangs  = "hangs" // no call returns
	storageLiar   = "lies"  // what is written is not there afterwards
	storageFaults = "storage-faults"
)

// CaddyModule returns the Caddy module information.
func (*storage) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.storage.faulty", New: func() caddy.Module { return new(storage) }}
}

// CertMagicStorage implements caddy.StorageConverter.
func (s *storage) CertMagicStorage() (certmagic.Storage, error) {
	s.FileStorage.Path = s.Root
	return s, nil
}

// UnmarshalCaddyfile implements caddyfile.Unmarshaler.
func (s *storage) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if !d.Next() || !d.Args(&s.Root, &s.Faults) {
		return d.ArgErr()
	}
	return nil
}

// fault is how a key fails now, "" if it does not.
func (s *storage) fault(key string) string {
	parts := strings.Split(key, "/")
	if len(parts) < 2 || parts[0] != "upstream_auth" {
		return ""
	}
	content, err := os.ReadFile(filepath.Join(s.Faults, parts[1]))
	if err != nil {
		return ""
	}
	return string(content)
}

// Store implements certmagic.Storage.
func (s *storage) Store(ctx context.Context, key string, value []byte) error {
	switch s.fault(key) {
	case diskFull:
		return fmt.Errorf("writing %s: %w", key, syscall.ENOSPC)
	case readOnly:
		return fmt.Errorf("writing %s: %w", key, syscall.EROFS)
	case storageLost:
		return fmt.Errorf("writing %s: %w", key, syscall.EIO)
	case storageHangs:
		<-ctx.Done()
		return ctx.Err()
	case storageLiar:
		return nil
	}
	return s.FileStorage.Store(ctx, key, value)
}

// Load implements certmagic.Storage.
func (s *storage) Load(ctx context.Context, key string) ([]byte, error) {
	switch s.fault(key) {
	case storageLost:
		return nil, fmt.Errorf("reading %s: %w", key, syscall.EIO)
	case storageHangs:
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.FileStorage.Load(ctx, key)
}

// Delete implements certmagic.Storage.
func (s *storage) Delete(ctx context.Context, key string) error {
	if s.fault(key) == storageLost {
		return fmt.Errorf("deleting %s: %w", key, syscall.EIO)
	}
	return s.FileStorage.Delete(ctx, key)
}

// Lock implements certmagic.Locker.
func (s *storage) Lock(ctx context.Context, name string) error {
	switch s.fault(name) {
	case diskFull:
		return fmt.Errorf("locking %s: %w", name, syscall.ENOSPC)
	case readOnly:
		return fmt.Errorf("locking %s: %w", name, syscall.EROFS)
	case storageLost:
		return fmt.Errorf("locking %s: %w", name, syscall.EIO)
	case storageHangs:
		<-ctx.Done()
		return ctx.Err()
	}
	return s.FileStorage.Lock(ctx, name)
}

// Interface guards
var (
	_ caddy.StorageConverter = (*storage)(nil)
	_ caddyfile.Unmarshaler  = (*storage)(nil)
	_ certmagic.Storage      = (*storage)(nil)
)
