package guest

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// sample has an option of each kind.
type sample struct {
	text  string
	flag  bool
	span  caddy.Duration
	pairs map[string]string
}

func (s *sample) read(input string) error {
	d := caddyfile.NewTestDispenser(input)
	d.Next()
	if err := NoArgument(d, "sample"); err != nil {
		return err
	}
	return Block(d, "sample", Options{
		"text": Text(&s.text),
		"flag": Flag(&s.flag),
		"span": Duration(&s.span, func(d caddy.Duration) error {
			if d < 0 {
				return errors.New("is negative")
			}
			return nil
		}),
		"pair": Pair(&s.pairs, func(name string) error {
			if name == "own" {
				return errors.New("is set elsewhere")
			}
			return nil
		}),
	}, func() error {
		switch s.text {
		case "whole":
			return errors.New("the whole is wrong")
		case "wrong":
			return fmt.Errorf("sample: %w", Mistakef("text", "is '%s'", s.text))
		case "elsewhere":
			return Mistakef("other", "is missing")
		}
		return nil
	}, "pair")
}

func TestBlock(t *testing.T) {
	var s sample
	if err := s.read("sample {\ntext \"a b\"\nflag\nspan 90s\npair a 1\npair b \"\"\npair c \"2 3\"\n}"); err != nil {
		t.Fatal(err)
	}
	if s.text != "a b" || !s.flag || s.span != caddy.Duration(90*time.Second) || !maps.Equal(s.pairs, map[string]string{"a": "1", "b": "", "c": "2 3"}) {
		t.Errorf("got %+v", s)
	}
	for _, empty := range []string{"sample", "sample {\n}"} {
		if err := new(sample).read(empty); err != nil {
			t.Errorf("%q: %v", empty, err)
		}
	}
}

func TestBlockFails(t *testing.T) {
	for _, test := range []struct {
		input string
		want  []string
	}{
		{"sample s3cr3t", []string{"sample takes no argument", ":1"}},
		{"sample {\nbogus 1\n}", []string{"unrecognized option 'bogus' of sample", "flag, pair, span, text", ":2"}},
		{"sample {\nflag\ntext a\ntext b\n}", []string{"text is given twice, first at line 3", ":4"}},
		{"sample {\nflag\nflag\n}", []string{"flag is given twice", ":3"}},
		{"sample {\ntext\n}", []string{"text needs an argument", ":2"}},
		{"sample {\ntext \"\"\n}", []string{"text needs an argument", ":2"}},
		{"sample {\ntext a b\n}", []string{"text has an argument too many", ":2"}},
		{"sample {\ntext a {\nb\n}\n}", []string{"text takes no block, but has 'b'", ":3"}},
		{"sample {\ntext a {\n}\n}", []string{"text takes no block, but has an empty one", ":3"}},
		{"sample {\nflag yes\n}", []string{"flag takes no argument", ":2"}},
		{"sample {\nflag {\nb\n}\n}", []string{"flag takes no block", ":3"}},
		{"sample {\nspan\n}", []string{"span needs an argument", ":2"}},
		{"sample {\nspan soon\n}", []string{"span: 'soon' is not a duration", "10s", ":2"}},
		{"sample {\nspan -1s\n}", []string{"span is negative", ":2"}},
		{"sample {\npair a\n}", []string{"pair takes two arguments", ":2"}},
		{"sample {\npair a b c\n}", []string{"pair takes two arguments", ":2"}},
		{"sample {\npair a b\npair a c\n}", []string{"pair a is given twice", ":3"}},
		{"sample {\npair own b\n}", []string{"pair own is set elsewhere", ":2"}},
		{"sample {\npair a b {\nc\n}\n}", []string{"pair takes no block", ":3"}},
		{"sample {\nflag\ntext wrong\nspan 1s\n}", []string{"sample: text is 'wrong'", ":3"}},
		{"sample {\nflag\ntext whole\n}", []string{"the whole is wrong", ":1"}},
		{"sample {\nflag\ntext elsewhere\n}", []string{"other is missing", ":1"}},
	} {
		err := new(sample).read(test.input)
		if err == nil {
			t.Errorf("%q: no error", test.input)
			continue
		}
		for _, word := range test.want {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q: the error lacks %q: %v", test.input, word, err)
			}
		}
		if strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("the error repeats an argument: %v", err)
		}
	}
}
