package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/caddyserver/caddy/v2"
)

// candidate is one credential of a config that is to be checked.
type candidate struct {
	name string
	// places are where in the config it is written in place, none for one with a
	// name of its own.
	places    []string
	requester *requester // nil if it could not be loaded, for which err is the reason
	err       error
}

// roster is all credentials of a config, provisioned and not started.
type roster struct {
	candidates []*candidate // those with names first
	store      string       // where refresh tokens are stored, for a person to read
	sealed     bool
	close      func()
}

// provisionAll provisions every credential of a config by itself, so that one
// that is broken leaves the others be, and nothing else of the config: a Caddy
// that runs with it has its ports.
func provisionAll(raw []byte) (*roster, error) {
	raw = caddy.RemoveMetaFields(raw)
	var config caddy.Config
	var all map[string]any
	if err := errors.Join(json.Unmarshal(raw, &config), json.Unmarshal(raw, &all)); err != nil {
		return nil, fmt.Errorf("decoding the configuration: %w", err)
	}
	var global struct {
		Credentials    map[string]json.RawMessage `json:"credentials"`
		EncryptionKeys []string                   `json:"encryption_keys"`
	}
	if raw, ok := config.AppsRaw[appName]; ok {
		if err := caddy.StrictUnmarshalJSON(raw, &global); err != nil {
			return nil, fmt.Errorf("decoding the configuration: %w", err)
		}
	}
	empty, err := json.Marshal(&App{EncryptionKeys: global.EncryptionKeys})
	if err != nil {
		return nil, err
	}
	ctx, err := caddy.ProvisionContext(&caddy.Config{
		Admin:      &caddy.AdminConfig{Disabled: true},
		StorageRaw: config.StorageRaw,
		AppsRaw:    caddy.ModuleMap{appName: empty},
	})
	if err != nil {
		return nil, err
	}
	loaded, err := ctx.App(appName)
	if err != nil {
		return nil, err
	}
	app := loaded.(*App)
	r := &roster{store: placeOf(app.storage), sealed: len(global.EncryptionKeys) > 0, close: func() { _ = app.Cleanup() }}
	for _, name := range sorted(global.Credentials) {
		c := &candidate{name: name}
		if c.err = checkName(name); c.err == nil {
			c.provision(ctx, app, name, global.Credentials[name])
		}
		r.candidates = append(r.candidates, c)
	}
	for _, found := range writtenInPlace(all["apps"], "apps") {
		r.addInline(ctx, app, found)
	}
	return r, nil
}

// provision adds a credential to the app; name is "" for one written in place.
func (c *candidate) provision(ctx caddy.Context, app *App, name string, raw json.RawMessage) {
	var configured *Credential
	if c.err = caddy.StrictUnmarshalJSON(raw, &configured); c.err != nil {
		c.err = fmt.Errorf("credential '%s': decoding it: %w", c.name, c.err)
		return
	}
	if configured == nil {
		c.err = fmt.Errorf("credential '%s' is null", c.name)
		return
	}
	if hash, err := fingerprint(configured); err == nil && name == "" {
		c.name = inlinePrefix + hash[:8]
	}
	entry, err := app.add(ctx, name, configured)
	if err != nil {
		c.err = err
		return
	}
	app.mu.Lock()
	defer app.mu.Unlock()
	for _, at := range app.keys {
		if at.entry == entry {
			c.requester = at.requester
		}
	}
}

// addInline adds a credential that is written in place. Equal ones are one.
func (r *roster) addInline(ctx caddy.Context, app *App, found inlineCredential) {
	c := &candidate{name: "inline", places: []string{found.place}}
	c.provision(ctx, app, "", found.raw)
	same := func(other *candidate) bool {
		return len(other.places) > 0 && other.name == c.name && c.requester == other.requester
	}
	if i := slices.IndexFunc(r.candidates, same); i >= 0 && c.name != "inline" {
		r.candidates[i].places = append(r.candidates[i].places, found.place)
		return
	}
	r.candidates = append(r.candidates, c)
}

// inlineCredential is one that is written in place, and where: as a path of the
// admin API below /config/.
type inlineCredential struct {
	place string
	raw   json.RawMessage
}

// writtenInPlace finds the credentials that are written into handlers and
// transports, wherever these stand.
func writtenInPlace(v any, place string) []inlineCredential {
	var found []inlineCredential
	switch v := v.(type) {
	case []any:
		for i, e := range v {
			found = append(found, writtenInPlace(e, place+"/"+strconv.Itoa(i))...)
		}
	case map[string]any:
		inline, ok := v["inline"].(map[string]any)
		if ok && (v["handler"] == appName || v["protocol"] == appName) {
			// with its keys in order, as Caddy itself hands it out
			if raw, err := json.Marshal(inline); err == nil {
				found = append(found, inlineCredential{place, raw})
			}
		}
		for _, name := range sorted(v) {
			found = append(found, writtenInPlace(v[name], place+"/"+name)...)
		}
	}
	return found
}

// only leaves those that are named, or all where none is.
func (r *roster) only(names []string) error {
	known := make([]string, 0, len(r.candidates))
	for _, c := range r.candidates {
		known = append(known, c.name)
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return unknownCredential(name, known)
		}
	}
	if len(names) > 0 {
		r.candidates = slices.DeleteFunc(r.candidates, func(c *candidate) bool { return !slices.Contains(names, c.name) })
	}
	if len(r.candidates) == 0 {
		return errors.New("the configuration has no credential: define one in the global options, upstream_auth { credential <name> { … } }")
	}
	return nil
}

// placeholders are what --value may give a value for the credentials that are
// checked.
func (r *roster) placeholders() []string {
	var names []string
	for _, c := range r.candidates {
		if c.requester == nil {
			continue
		}
		t := &c.requester.credential.template
		names = append(names, t.names...)
		if t.exchanges {
			names = append(names, subjectTokenValue)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
