package store

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
)

// memory is a storage with faults.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte
	calls  []string                         // "load", "save" or "delete", as they came
	fault  func(op, key string) error       // what a call fails with
	hang   func(op, key string) <-chan bool // what a call waits for, whatever its context says
}

func (m *memory) enter(op, key string) error {
	m.mu.Lock()
	m.calls = append(m.calls, op)
	fault, hang := m.fault, m.hang
	m.mu.Unlock()
	if hang != nil {
		if wait := hang(op, key); wait != nil {
			<-wait
		}
	}
	if fault != nil {
		return fault(op, key)
	}
	return nil
}

func (m *memory) Store(_ context.Context, key string, value []byte) error {
	if err := m.enter("save", key); err != nil {
		return err
	}
	m.put(key, string(value))
	return nil
}

func (m *memory) Load(_ context.Context, key string) ([]byte, error) {
	if err := m.enter("load", key); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	value, ok := m.values[key]
	if !ok {
		return nil, fmt.Errorf("%s: %w", key, fs.ErrNotExist)
	}
	return bytes.Clone(value), nil
}

func (m *memory) Delete(_ context.Context, key string) error {
	if err := m.enter("delete", key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.values, key)
	return nil
}

func (m *memory) put(key, value string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.values == nil {
		m.values = make(map[string][]byte)
	}
	m.values[key] = []byte(value)
}

func (m *memory) get(key string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return string(m.values[key])
}

// begun are the calls so far.
func (m *memory) begun() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.calls)
}

func (m *memory) paths() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.values))
}

// keyText is a key of one byte, repeated.
func keyText(b byte) string {
	return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, keySize))
}

func mustKeys(t testing.TB, texts ...string) *Keys {
	t.Helper()
	k, err := ParseKeys(texts)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

const crmPath = "upstream_auth/crm/1.json"

func TestSaveAndLoad(t *testing.T) {
	const secret = `{"refresh_token":"s3cret-\u003c<&>"}`
	for name, keys := range map[string]*Keys{"plain": nil, "no keys": mustKeys(t), "sealed": mustKeys(t, keyText(1))} {
		t.Run(name, func(t *testing.T) {
			m := &memory{}
			v := New(m, keys).Value(crmPath, "crm")
			if _, err := v.Load(t.Context()); !errors.Is(err, ErrNotFound) {
				t.Fatalf("nothing is stored: got %v", err)
			}
			for _, want := range []string{secret, "null", `[1,2]`, `"x"`} {
				if err := v.Save(t.Context(), []byte(want)); err != nil {
					t.Fatal(err)
				}
				got, err := v.Load(t.Context())
				if err != nil || !sameJSON(t, string(got), want) {
					t.Errorf("got %q, %v; want %q", got, err, want)
				}
			}
			if err := v.Save(t.Context(), []byte(secret)); err != nil {
				t.Fatal(err)
			}
			if raw := m.get(crmPath); strings.Contains(raw, "s3cret") == (name == "sealed") || !json.Valid([]byte(raw)) {
				t.Errorf("stored is %s", raw)
			}
			for range 2 { // the second finds nothing
				if err := v.Delete(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := v.Load(t.Context()); !errors.Is(err, ErrNotFound) {
				t.Errorf("after its end: got %v", err)
			}
		})
	}
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal([]byte(a), &x), json.Unmarshal([]byte(b), &y)); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(x) == fmt.Sprint(y)
}

func TestSaveWhatIsNoJSON(t *testing.T) {
	for _, keys := range []*Keys{nil, mustKeys(t, keyText(1))} {
		m := &memory{}
		err := New(m, keys).Value(crmPath, "crm").Save(t.Context(), []byte(`{"s3cret`))
		if err == nil || strings.Contains(err.Error(), "s3cret") || len(m.paths()) > 0 {
			t.Errorf("got %v, stored %v", err, m.paths())
		}
	}
}

// TestStorageFails: a storage that is down is neither empty nor unreadable.
func TestStorageFails(t *testing.T) {
	full := errors.New("no space left on device")
	m := &memory{fault: func(string, string) error { return full }}
	v := New(m, nil).Value(crmPath, "crm")
	for op, call := range map[string]func() error{
		"load":   func() error { _, err := v.Load(t.Context()); return err },
		"save":   func() error { return v.Save(t.Context(), []byte("1")) },
		"delete": func() error { return v.Delete(t.Context()) },
	} {
		err := call()
		f, ok := errors.AsType[*Failed](err)
		if !ok || f.Op != op || !errors.Is(err, full) || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), crmPath) {
			t.Errorf("%s: got %v", op, err)
		}
	}
	m.fault = func(op, _ string) error {
		if op == "save" {
			return fs.ErrPermission // read-only
		}
		return nil
	}
	m.put(crmPath, `{"v":1,"plain":1}`)
	if got, err := v.Load(t.Context()); err != nil || string(got) != "1" {
		t.Errorf("read-only: got %q, %v", got, err)
	}
	if to, err := v.KeepAside(t.Context()); !errors.Is(err, fs.ErrPermission) || to != "" {
		t.Errorf("read-only: kept at %q, %v", to, err)
	}
	// a storage that errs where there is nothing to delete
	m.fault = func(string, string) error { return fs.ErrNotExist }
	if err := v.Delete(t.Context()); err != nil {
		t.Errorf("nothing to delete: %v", err)
	}
}

func TestPathFor(t *testing.T) {
	const want = "upstream_auth/crm/b7ab40218c1ca8da1dc36b691d1d0dfc.json"
	if got := PathFor("crm", "https://idp.example.com", "app"); got != want {
		t.Errorf("got %s, want %s: logins would be lost", got, want)
	}
	seen := map[string]bool{}
	for _, p := range [][3]string{
		{"crm", "https://idp.example.com", "app"},
		{"Crm", "https://idp.example.com", "app"},
		{"crm", "https://idp.example.org", "app"},
		{"crm", "https://idp.example.com", "App"},
		{"crm", "https://idp.example.coma", "pp"},
		{"crm", "", "https://idp.example.comapp"},
		{"c", "rmhttps://idp.example.com", "app"},
		{"c.r_m-1", "https://idp.example.com/../..", "../../app"},
	} {
		path := strings.ToLower(PathFor(p[0], p[1], p[2])) // as some file systems see it
		if seen[path] || strings.Count(path, "/") != 2 || strings.Contains(path, "..") {
			t.Errorf("%q: got %s", p, path)
		}
		seen[path] = true
	}
}
