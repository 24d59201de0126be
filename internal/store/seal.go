package store

import (
	"encoding/json"
	"errors"
	"fmt"
)

// version is that of the form in which values are stored.
const version = 1

// sealing is the first word of what a sealed value is bound to: a value that
// another version or another program sealed with the same key does not open.
const sealing = "caddy-upstream-auth value v1"

// stored is the form of a value in the storage: Sealed with Key, or Plain.
type stored struct {
	Version *int            `json:"v"`
	Key     string          `json:"key,omitempty"`
	Sealed  []byte          `json:"sealed,omitempty"`
	Plain   json.RawMessage `json:"plain,omitempty"`
}

// seal makes the stored form of a JSON value. It is bound to where it belongs:
// moved elsewhere it does not open.
func (k *Keys) seal(value, bound []byte) ([]byte, error) {
	doc := stored{Version: new(version)}
	if k.none() {
		doc.Plain = value
	} else {
		// the nonce stands in front: 2^32 of them to a key (NIST SP 800-38D §8.3)
		// are a value a second for a hundred years
		doc.Key = k.list[0].id
		doc.Sealed = k.list[0].aead.Seal(nil, nil, value, bound) //nolint:gosec // G407: this AEAD draws a nonce itself, and takes none
	}
	return json.Marshal(doc)
}

// open reads the stored form. Its error is a predicate: it says what the stored
// value is, and what to do.
func (k *Keys) open(raw, bound []byte) ([]byte, error) {
	if len(raw) == 0 {
		return nil, errors.New("is empty, as if its writing had been cut short: restore it from a backup, or delete it")
	}
	var doc stored
	if err := json.Unmarshal(raw, &doc); err != nil || doc.Version == nil {
		// the parser's words quote what it read
		return nil, errors.New("is cut short or was never written by this program: restore it from a backup, or delete it")
	}
	switch {
	case *doc.Version != version:
		return nil, fmt.Errorf("has version %d, and this program knows version %d: run the program that wrote it, or delete it", *doc.Version, version)
	case (doc.Sealed == nil) == (doc.Plain == nil):
		return nil, errors.New("is neither a sealed nor a plain value: restore it from a backup, or delete it")
	case doc.Plain != nil && !k.none():
		return nil, ErrPlain
	case doc.Plain != nil:
		return doc.Plain, nil
	}
	id := keyID(doc.Key)
	if k.none() {
		return nil, fmt.Errorf("%w: write the key that sealed it, %s, in encryption_key", ErrSealed, id)
	}
	known := false
	for _, key := range k.list {
		if key.id != doc.Key {
			continue
		}
		known = true
		if value, err := key.aead.Open(nil, nil, doc.Sealed, bound); err == nil {
			return value, nil
		}
	}
	if !known {
		return nil, fmt.Errorf("is sealed with the key %s, which is not configured (%s): write the older key behind the new one in encryption_key", id, k.ids())
	}
	return nil, fmt.Errorf("does not open with its key %s: it was altered, or moved here from another path or credential; restore it from a backup, or delete it", id)
}

// keyID is a key's name as it may be shown: whoever can write to the storage
// can write anything there.
func keyID(id string) string {
	if len(id) != 8 {
		return "(unnamed)"
	}
	for _, c := range id {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "(unnamed)"
		}
	}
	return id
}
