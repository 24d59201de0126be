package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/certmagic"
)

func init() { caddy.RegisterModule(new(Storage)) }

// Storage is Caddy's storage in files, or one in Redis, with a gate before each
// call for the plugin: behind the gate is a test.
type Storage struct {
	// Root is the folder of files, Redis the address of a server.
	Root  string `json:"root,omitempty"`
	Redis string `json:"redis,omitempty"`
	// Gate is a unix socket, and Name who calls there; "" for no gate.
	Gate string `json:"gate,omitempty"`
	Name string `json:"name,omitempty"`
}

// CaddyModule implements caddy.Module.
func (*Storage) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.storage.interop", New: func() caddy.Module { return new(Storage) }}
}

// UnmarshalCaddyfile implements caddyfile.Unmarshaler.
func (s *Storage) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	options := map[string]*string{"root": &s.Root, "redis": &s.Redis, "gate": &s.Gate, "name": &s.Name}
	for d.NextBlock(0) {
		option, known := options[d.Val()]
		if !known {
			return d.Errf("unknown option %q", d.Val())
		}
		if !d.AllArgs(option) {
			return d.ArgErr()
		}
	}
	return nil
}

// CertMagicStorage implements caddy.StorageConverter.
func (s *Storage) CertMagicStorage() (certmagic.Storage, error) {
	var behind certmagic.Storage
	switch {
	case (s.Root == "") == (s.Redis == ""):
		return nil, errors.New("either root or redis")
	case s.Redis != "":
		behind = newRedis(s.Redis)
	default:
		behind = &certmagic.FileStorage{Path: s.Root}
	}
	if s.Gate == "" {
		return behind, nil
	}
	return &gated{Storage: behind, options: *s, gate: newGate(s.Gate, s.Name)}, nil
}

// gated is a storage behind a gate.
type gated struct {
	certmagic.Storage
	options Storage
	gate    *gate
}

// MarshalJSON has it tell where it stores, as those of one place share what they
// know of it.
func (g *gated) MarshalJSON() ([]byte, error) { return json.Marshal(g.options) }

// pass makes a call between two questions at the gate.
func (g *gated) pass(op, key string, call func() error) error {
	if !strings.HasPrefix(key, "upstream_auth/") {
		return call()
	}
	switch g.gate.ask("before", op, key) {
	case "fail":
		return errors.New("this storage fails, as the test wants it")
	case "forget":
		if op == "load" {
			return fs.ErrNotExist
		}
		return nil
	}
	err := call()
	g.gate.ask("after", op, key)
	return err
}

// Store implements certmagic.Storage.
func (g *gated) Store(ctx context.Context, key string, value []byte) error {
	return g.pass("store", key, func() error { return g.Storage.Store(ctx, key, value) })
}

// Load implements certmagic.Storage.
func (g *gated) Load(ctx context.Context, key string) (value []byte, err error) {
	err = g.pass("load", key, func() error {
		var err error
		value, err = g.Storage.Load(ctx, key)
		return err
	})
	return value, err
}

// Lock implements certmagic.Storage.
func (g *gated) Lock(ctx context.Context, name string) error {
	return g.pass("lock", name, func() error { return g.Storage.Lock(ctx, name) })
}

// Unlock implements certmagic.Storage.
func (g *gated) Unlock(ctx context.Context, name string) error {
	return g.pass("unlock", name, func() error { return g.Storage.Unlock(ctx, name) })
}

// Interface guards
var (
	_ caddy.StorageConverter = (*Storage)(nil)
	_ caddyfile.Unmarshaler  = (*Storage)(nil)
	_ certmagic.Storage      = (*gated)(nil)
)
