package faults

import (
	"context"
	"encoding/json"
	"os"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func init() { caddy.RegisterModule(new(eventWriter)) }

// eventWriter writes each event of Caddy's to a file.
type eventWriter struct {
	Path string `json:"path"`
}

// eventsFile is its name in the column's folder.
const eventsFile = "events"

// eventsWriting keeps the lines whole.
var eventsWriting sync.Mutex

// CaddyModule returns the Caddy module information.
func (*eventWriter) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.faults", New: func() caddy.Module { return new(eventWriter) }}
}

// UnmarshalCaddyfile implements caddyfile.Unmarshaler.
func (w *eventWriter) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if !d.Next() || !d.Args(&w.Path) {
		return d.ArgErr()
	}
	return nil
}

// Handle writes an event.
func (w *eventWriter) Handle(_ context.Context, e caddy.Event) error {
	content, err := json.Marshal(e.CloudEvent())
	if err != nil {
		return err
	}
	eventsWriting.Lock()
	defer eventsWriting.Unlock()
	f, err := os.OpenFile(w.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(append(content, '\n')); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

// Interface guard
var _ caddyfile.Unmarshaler = (*eventWriter)(nil)
