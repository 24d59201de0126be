package store

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// keySize is that of AES-256.
const keySize = 32

const makeKey = "make one with: openssl rand -base64 32"

// Keys are the configured encryption keys. The first seals, all open. A nil one
// has none.
type Keys struct{ list []key }

type key struct {
	id   string // names the key in what it sealed; 8 hex digits of its hash
	aead cipher.AEAD
}

// ParseKeys reads keys of 32 bytes in base64, of either alphabet, padded or not.
// No list is no keys. No error repeats a key.
func ParseKeys(texts []string) (*Keys, error) {
	k := &Keys{}
	var seen [][]byte
	for i, text := range texts {
		raw, err := decodeKey(text)
		if err != nil {
			return nil, fmt.Errorf("key %d of %d %w", i+1, len(texts), err)
		}
		for j, other := range seen {
			if bytes.Equal(raw, other) {
				return nil, fmt.Errorf("key %d of %d is the same as key %d: write each key once", i+1, len(texts), j+1)
			}
		}
		seen = append(seen, raw)
		block, err := aes.NewCipher(raw)
		if err != nil {
			return nil, fmt.Errorf("key %d of %d: %w", i+1, len(texts), err)
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, fmt.Errorf("key %d of %d: %w", i+1, len(texts), err)
		}
		sum := sha256.Sum256(raw)
		k.list = append(k.list, key{hex.EncodeToString(sum[:4]), aead})
	}
	return k, nil
}

func decodeKey(text string) ([]byte, error) {
	text = strings.TrimSpace(text) // a file's last line break
	if text == "" {
		return nil, errors.New("is empty: " + makeKey)
	}
	alphabet := strings.NewReplacer("-", "+", "_", "/")
	raw, err := base64.RawStdEncoding.DecodeString(alphabet.Replace(strings.TrimRight(text, "=")))
	switch {
	case err != nil:
		return nil, fmt.Errorf("is not base64: expected %d bytes in base64; %s", keySize, makeKey)
	case isHex(text):
		return nil, fmt.Errorf("looks hexadecimal: expected %d bytes in base64; %s", keySize, makeKey)
	case len(raw) != keySize:
		return nil, fmt.Errorf("has %d bytes, expected %d; %s", len(raw), keySize, makeKey)
	}
	return raw, nil
}

// isHex tells a key that was made with openssl rand -hex, which base64 would
// take for one of another length.
func isHex(text string) bool {
	raw, err := hex.DecodeString(text)
	return err == nil && len(raw) == keySize
}

func (k *Keys) none() bool { return k == nil || len(k.list) == 0 }

// ids are the names of the configured keys.
func (k *Keys) ids() string {
	var ids []string
	for _, key := range k.list {
		ids = append(ids, key.id)
	}
	return strings.Join(ids, ", ")
}

// Format keeps the keys out of whatever is printed.
func (k *Keys) Format(f fmt.State, _ rune) {
	if k.none() {
		fmt.Fprint(f, "no keys")
		return
	}
	fmt.Fprint(f, "keys ", k.ids())
}

var _ fmt.Formatter = (*Keys)(nil)
