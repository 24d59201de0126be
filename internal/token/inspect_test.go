package token

import (
	"context"
	"errors"
	"io/fs"
	"testing"
	"time"
)

// shown is a store that is only read.
type shown struct {
	Store   // nil: whoever writes panics
	content []byte
	err     error
}

func (s shown) Load(context.Context) ([]byte, error) { return s.content, s.err }

// TestInspect tells what is stored, and writes nothing.
func TestInspect(t *testing.T) {
	at := time.Now().UTC().Add(-time.Hour)
	taken := new(record)
	taken.take("initial")
	logout := *taken
	logout.begin("")
	asked := taken.marked("another")
	answered := *asked
	answered.RefreshToken = "next" // the mark is of the one before it
	ended := taken.ended("invalid_grant", false)
	ended.Ended.At = at
	for name, tc := range map[string]struct {
		store   shown
		initial string
		err     error // of the inspection
		wrong   error
		check   func(*Inspection) bool
	}{
		"nothing":              {store: shown{err: fs.ErrNotExist}, wrong: ErrLoginRequired, check: func(i *Inspection) bool { return !i.Stored && i.Obtained.IsZero() }},
		"a configured one":     {store: shown{err: fs.ErrNotExist}, initial: "initial", check: func(i *Inspection) bool { return i.Configured && !i.Stored }},
		"one that was taken":   {store: shown{content: taken.bytes()}, initial: "initial", check: func(i *Inspection) bool { return i.Stored && !i.Configured && !i.Obtained.IsZero() }},
		"another configured":   {store: shown{content: ended.bytes()}, initial: "other", check: func(i *Inspection) bool { return i.Stored && i.Configured }},
		"a logout":             {store: shown{content: logout.bytes()}, initial: "initial", wrong: ErrLoginRequired, check: func(i *Inspection) bool { return !i.Stored && !i.Obtained.IsZero() }},
		"ended":                {store: shown{content: ended.bytes()}, initial: "initial", wrong: ErrEnded, check: func(i *Inspection) bool { return i.Ended.Equal(at) && i.Code == "invalid_grant" }},
		"asked":                {store: shown{content: asked.bytes()}, initial: "initial", wrong: ErrAnswerLost, check: func(i *Inspection) bool { return i.Stored && i.Asked.Equal(asked.Mark.At) }},
		"answered since":       {store: shown{content: answered.bytes()}, initial: "initial", check: func(i *Inspection) bool { return i.Asked.IsZero() }},
		"static":               {store: shown{content: taken.answered("").bytes()}, initial: "initial", check: func(i *Inspection) bool { return i.Static }},
		"no record":            {store: shown{content: []byte("[]")}, err: ErrUnreadable},
		"a storage that fails": {store: shown{err: errors.ErrUnsupported}, err: errors.ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			i, err := Inspect(t.Context(), tc.store, tc.initial)
			if !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) {
				t.Fatalf("got %v, want %v", err, tc.err)
			}
			if err == nil && (!errors.Is(i.Err(), tc.wrong) || !tc.check(i)) {
				t.Errorf("got %+v, which is %v", i, i.Err())
			}
		})
	}
}
