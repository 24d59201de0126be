package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// hanging makes calls of one kind hang until the channel is closed.
func (m *memory) hanging(what string) chan bool {
	until := make(chan bool)
	m.mu.Lock()
	m.hang = func(op, _ string) <-chan bool {
		if op == what {
			return until
		}
		return nil
	}
	m.mu.Unlock()
	return until
}

// TestHangs: a storage that heeds no context costs 2s once, and one goroutine;
// a late write lands before the next one.
func TestHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		s := New(m, nil)
		v := s.Value(crmPath, "crm")
		until := m.hanging("save")

		begin := time.Now()
		err := v.Save(t.Context(), []byte(`"old"`))
		if f, ok := errors.AsType[*Failed](err); !ok || f.Op != "save" || !errors.Is(err, ErrHangs) || time.Since(begin) != 2*time.Second {
			t.Fatalf("got %v after %s", err, time.Since(begin))
		}
		for range 100 {
			same := s.Value(crmPath, "crm") // the path counts, not the Value
			for _, call := range []func() error{
				func() error { _, err := v.Load(t.Context()); return err },
				func() error { return same.Save(t.Context(), []byte(`"new"`)) },
				func() error { return v.Delete(t.Context()) },
				func() error { _, err := v.KeepAside(t.Context()); return err },
			} {
				if err := call(); !errors.Is(err, ErrHangs) || !strings.Contains(fmt.Sprint(err), "its save of 2s ago has not returned") {
					t.Fatalf("got %v", err)
				}
			}
		}
		if time.Since(begin) != 2*time.Second || len(m.begun()) != 1 {
			t.Fatalf("%s and %d calls of the storage", time.Since(begin), len(m.begun()))
		}
		if err := s.Value("upstream_auth/other/1.json", "other").Delete(t.Context()); err != nil {
			t.Errorf("another path: %v", err)
		}

		close(until)
		synctest.Wait()
		if got, err := v.Load(t.Context()); err != nil || string(got) != `"old"` {
			t.Errorf("the late write: got %s, %v", got, err)
		}
		if err := v.Save(t.Context(), []byte(`"new"`)); err != nil {
			t.Fatal(err)
		}
		if got, err := v.Load(t.Context()); err != nil || string(got) != `"new"` {
			t.Errorf("got %s, %v", got, err)
		}
	})
}

// TestTurns: behind a call that is slow one waits, at most to the end of its
// time.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		v := New(m, nil).Value(crmPath, "crm")
		until := m.hanging("save")
		go func() { _ = v.Save(t.Context(), []byte(`"first"`)) }()
		synctest.Wait()
		time.Sleep(time.Second)

		second := make(chan error)
		go func() { second <- v.Save(t.Context(), []byte(`"second"`)) }()
		synctest.Wait()
		if len(m.begun()) != 1 {
			t.Fatalf("two writes at once: %v", m.begun())
		}
		begin := time.Now()
		if err := <-second; !errors.Is(err, ErrHangs) || time.Since(begin) != time.Second {
			t.Errorf("got %v after %s", err, time.Since(begin))
		}
		close(until)
		synctest.Wait()

		until = m.hanging("save")
		go func() { _ = v.Save(t.Context(), []byte(`"first"`)) }()
		synctest.Wait()
		go func() { second <- v.Save(t.Context(), []byte(`"second"`)) }()
		synctest.Wait()
		time.Sleep(time.Second)
		close(until)
		if err := <-second; err != nil || !strings.Contains(m.get(crmPath), "second") {
			t.Errorf("got %v, stored %s", err, m.get(crmPath))
		}
	})
}

// TestLeaving: one who leaves early frees no turn and ends no write.
func TestLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		v := New(m, nil).Value(crmPath, "crm")
		until := m.hanging("save")
		gone := errors.New("the caller has gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		first, second, third := make(chan error), make(chan error), make(chan error)
		go func() { first <- v.Save(ctx, []byte(`"first"`)) }()
		synctest.Wait()
		go func() { second <- v.Save(ctx, []byte(`"second"`)) }()
		synctest.Wait()
		cancel(gone)
		for _, c := range []chan error{first, second} {
			if err := <-c; !errors.Is(err, gone) || errors.Is(err, ErrHangs) {
				t.Errorf("got %v", err)
			}
		}
		go func() { third <- v.Save(t.Context(), []byte(`"third"`)) }()
		synctest.Wait()
		if len(m.begun()) != 1 {
			t.Errorf("begun: %v", m.begun())
		}
		close(until)
		if err := <-third; err != nil || !strings.Contains(m.get(crmPath), "third") || len(m.begun()) != 2 {
			t.Errorf("got %v, stored %s, %v", err, m.get(crmPath), m.begun())
		}
		err := v.Save(ctx, []byte(`"never"`))
		synctest.Wait()
		if !errors.Is(err, gone) || len(m.begun()) != 2 {
			t.Errorf("with a context that has ended: got %v, %v", err, m.begun())
		}
	})
}
