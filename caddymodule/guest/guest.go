// Package guest reads the options of guest modules, which are grants and client
// authentication methods, in a Caddyfile. A mistake names its line, its word and
// what is expected.
package guest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Options are the options of a block by name. Each is read with the dispenser
// on its name.
type Options map[string]func(*caddyfile.Dispenser) error

// Mistake is a mistake in one option.
type Mistake struct {
	Option string
	Err    error
}

func (m *Mistake) Error() string { return m.Option + " " + m.Err.Error() }
func (m *Mistake) Unwrap() error { return m.Err }

// Mistakef makes a Mistake of what comes after the option's name in its message.
func Mistakef(option, format string, args ...any) error {
	return &Mistake{option, fmt.Errorf(format, args...)}
}

// Block reads the block of a module whose arguments are read already, each
// option at most once but for those named in repeat. Then validate looks at the
// whole: a Mistake of it is located at its option, another error at the
// module's name.
func Block(d *caddyfile.Dispenser, module string, options Options, validate func() error, repeat ...string) error {
	head, where := d.Token(), make(map[string]caddyfile.Token)
	for d.NextBlock(0) {
		name := d.Val()
		read, ok := options[name]
		if !ok {
			return d.Errf("unrecognized option '%s' of %s; known: %s", name, module, strings.Join(slices.Sorted(maps.Keys(options)), ", "))
		}
		if first, twice := where[name]; twice && !slices.Contains(repeat, name) {
			return d.Errf("%s is given twice, first at line %d", name, first.Line)
		}
		where[name] = d.Token()
		if err := read(d); err != nil {
			return err
		}
	}
	err := validate()
	if err == nil {
		return nil
	}
	token := head
	if m, ok := errors.AsType[*Mistake](err); ok {
		if at, ok := where[m.Option]; ok {
			token = at
		}
	}
	at := caddyfile.NewDispenser([]caddyfile.Token{token})
	at.Next()
	return at.WrapErr(err)
}

// NoArgument refuses an argument after a module's name. Its value may be a
// secret, so it is not repeated.
func NoArgument(d *caddyfile.Dispenser, module string) error {
	if d.NextArg() {
		return d.Errf("%s takes no argument, but a block with its options", module)
	}
	return nil
}

// Text reads an option with one argument.
func Text(to *string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		option := d.Val()
		if !d.NextArg() || d.Val() == "" {
			return d.Errf("%s needs an argument", option)
		}
		*to = d.Val()
		return end(d, option)
	}
}

// Flag reads an option without an argument.
func Flag(to *bool) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		*to = true
		option := d.Val()
		if d.NextArg() {
			return d.Errf("%s takes no argument", option)
		}
		return noBlock(d, option)
	}
}

// Duration reads an option that is a duration, and has check look at it.
func Duration(to *caddy.Duration, check func(caddy.Duration) error) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		option := d.Val()
		var text string
		if err := Text(&text)(d); err != nil {
			return err
		}
		v, err := caddy.ParseDuration(text)
		if err != nil {
			return d.Errf("%s: '%s' is not a duration such as 10s or 5m", option, text)
		}
		*to = caddy.Duration(v)
		if err := check(*to); err != nil {
			return d.Errf("%s %w", option, err)
		}
		return nil
	}
}

// Pair reads an option with a name and a value, each name at most once, and has
// check look at the name.
func Pair(to *map[string]string, check func(name string) error) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		option := d.Val()
		var name, value string
		if !d.AllArgs(&name, &value) {
			return d.Errf("%s takes two arguments, a name and a value (quote a value that holds blanks)", option)
		}
		if err := check(name); err != nil {
			return d.Errf("%s %s %w", option, name, err)
		}
		if _, twice := (*to)[name]; twice {
			return d.Errf("%s %s is given twice", option, name)
		}
		if *to == nil {
			*to = make(map[string]string)
		}
		(*to)[name] = value
		return noBlock(d, option)
	}
}

func end(d *caddyfile.Dispenser, option string) error {
	if d.NextArg() {
		return d.Errf("%s has an argument too many (quote one that holds blanks)", option)
	}
	return noBlock(d, option)
}

func noBlock(d *caddyfile.Dispenser, option string) error {
	last := d.Val()
	if d.NextBlock(d.Nesting()) {
		return d.Errf("%s takes no block, but has '%s' in one", option, d.Val())
	}
	if last != "}" && d.Val() == "}" {
		return d.Errf("%s takes no block, but has an empty one", option)
	}
	return nil
}
