package store

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestKeepAside: what cannot be read is copied as it is, once, to a place that
// was free.
func TestKeepAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		v := New(m, mustKeys(t, keyText(1))).Value(crmPath, "crm")
		if to, err := v.KeepAside(t.Context()); !errors.Is(err, ErrNotFound) || to != "" {
			t.Fatalf("nothing to keep: got %q, %v", to, err)
		}
		m.put(crmPath, "\x00cut")
		first, err := v.KeepAside(t.Context())
		if err != nil || first != crmPath+".kept-20000101T000000.000000000Z" || m.get(first) != "\x00cut" || m.get(crmPath) != "\x00cut" {
			t.Fatalf("got %q, %v; stored %q", first, err, m.values)
		}
		time.Sleep(time.Second)
		if again, err := v.KeepAside(t.Context()); err != nil || again != first {
			t.Errorf("the same once more: got %q, %v", again, err)
		}
		m.put(crmPath, "other")
		second, err := v.KeepAside(t.Context())
		if err != nil || second == first || m.get(second) != "other" || m.get(first) != "\x00cut" {
			t.Errorf("got %q, %v; stored %q", second, err, m.values)
		}

		// the place is taken: another instance was there in the same instant
		taken := crmPath + ".kept-" + time.Now().UTC().Format("20060102T150405.000000000Z")
		m.put(taken, "another's")
		m.put(crmPath, "third")
		if to, err := v.KeepAside(t.Context()); !errors.Is(err, fs.ErrExist) || to != "" || m.get(taken) != "another's" {
			t.Errorf("got %q, %v; there is %q", to, err, m.get(taken))
		}
		// a copy that is gone is made anew
		time.Sleep(time.Second)
		m.put(crmPath, "other")
		if err := m.Delete(t.Context(), second); err != nil {
			t.Fatal(err)
		}
		if to, err := v.KeepAside(t.Context()); err != nil || to == second || m.get(to) != "other" {
			t.Errorf("got %q, %v", to, err)
		}
	})
}

// TestKeepAsideUnsure: a copy is not begun where it is not known what is there.
func TestKeepAsideUnsure(t *testing.T) {
	m := &memory{fault: func(op, key string) error {
		if op == "load" && strings.Contains(key, ".kept-") {
			return errors.New("connection reset")
		}
		return nil
	}}
	m.put(crmPath, "cut")
	v := New(m, nil).Value(crmPath, "crm")
	to, err := v.KeepAside(t.Context())
	if f, ok := errors.AsType[*Failed](err); !ok || f.Op != "load" || to != "" || slices.Contains(m.begun(), "save") {
		t.Errorf("got %q, %v; %v", to, err, m.begun())
	}
}
