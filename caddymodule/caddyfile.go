package caddymodule

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	httpcaddyfile.RegisterGlobalOption(appName, parseApp)
	httpcaddyfile.RegisterHandlerDirective("upstream_auth", parseHandler)
	// Not before reverse_proxy: in a handle block that would be too late.
	httpcaddyfile.RegisterDirectiveOrder("upstream_auth", httpcaddyfile.Before, "invoke")
}

// block reads the options of one block and remembers where each stands, so
// that a mistake found later names its line and word too.
type block struct {
	d     *caddyfile.Dispenser
	head  caddyfile.Token
	where map[string]caddyfile.Token
}

func newBlock(d *caddyfile.Dispenser) *block {
	return &block{d: d, head: d.Token(), where: make(map[string]caddyfile.Token)}
}

// once notes an option, and refuses a second one of its name.
func (b *block) once() error {
	name := b.d.Val()
	if first, ok := b.where[name]; ok {
		return b.d.Errf("'%s' is given twice, first at line %d", name, first.Line)
	}
	b.where[name] = b.d.Token()
	return nil
}

// note remembers where the first option of a name stands.
func (b *block) note(name string, at caddyfile.Token) {
	if _, ok := b.where[name]; !ok {
		b.where[name] = at
	}
}

// locate adds to an optionError where its option stands; if it does not, where
// the one around it does, or the block.
func (b *block) locate(err error) error {
	if err == nil {
		return nil
	}
	token := b.head
	if oe, ok := errors.AsType[*optionError](err); ok {
		for name, found := oe.option, true; found; {
			if t, ok := b.where[name]; ok {
				token = t
				break
			}
			i := strings.LastIndexByte(name, ' ')
			if found = i > 0; found {
				name = name[:i]
			}
		}
	}
	d := caddyfile.NewDispenser([]caddyfile.Token{token})
	d.Next()
	return d.WrapErr(err)
}

// one reads the single argument of an option.
func one(d *caddyfile.Dispenser, to *string) error {
	name := d.Val()
	if !d.NextArg() || d.Val() == "" {
		return d.Errf("'%s' needs an argument", name)
	}
	*to = d.Val()
	return end(d, name)
}

// some reads one argument or more.
func some(d *caddyfile.Dispenser, to *[]string) error {
	name := d.Val()
	args := d.RemainingArgs()
	if len(args) == 0 || slices.Contains(args, "") {
		return d.Errf("'%s' needs an argument, and none that is empty", name)
	}
	*to = append(*to, args...)
	return noBlock(d, name)
}

// two reads a name and a value.
func two(d *caddyfile.Dispenser) (name, value string, err error) {
	option := d.Val()
	if !d.AllArgs(&name, &value) {
		return "", "", d.Errf("'%s' takes two arguments, a name and a value (quote a value that holds blanks)", option)
	}
	return name, value, noBlock(d, option)
}

// none reads an option that is its own argument.
func none(d *caddyfile.Dispenser, to *bool) error {
	*to = true
	name := d.Val()
	if d.NextArg() {
		return d.Errf("'%s' takes no argument", name)
	}
	return noBlock(d, name)
}

func end(d *caddyfile.Dispenser, name string) error {
	if d.NextArg() {
		return d.Errf("'%s' has an argument too many (quote one that holds blanks)", name)
	}
	return noBlock(d, name)
}

func noBlock(d *caddyfile.Dispenser, name string) error {
	last := d.Val()
	if d.NextBlock(d.Nesting()) {
		return d.Errf("'%s' takes no block, but has '%s' in one", name, d.Val())
	}
	if last != "}" && d.Val() == "}" {
		return d.Errf("'%s' takes no block, but has an empty one", name)
	}
	return nil
}

func duration(d *caddyfile.Dispenser, to *caddy.Duration) error {
	option := d.Val()
	var text string
	if err := one(d, &text); err != nil {
		return err
	}
	v, err := caddy.ParseDuration(text)
	if err != nil {
		return d.Errf("%s: '%s' is not a duration such as 10s or 5m", option, text)
	}
	*to = caddy.Duration(v)
	if err := checkDuration(option, *to); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// percent reads a number of percent, with its sign or without.
func percent(d *caddyfile.Dispenser, to **float64) error {
	option := d.Val()
	var text string
	if err := one(d, &text); err != nil {
		return err
	}
	v, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
	if err != nil {
		return d.Errf("%s: '%s' is not a percentage such as 75%%", option, text)
	}
	*to = &v
	return nil
}

// count reads a whole number above 0.
func count(d *caddyfile.Dispenser, to *int) error {
	option := d.Val()
	var text string
	if err := one(d, &text); err != nil {
		return err
	}
	v, err := strconv.Atoi(text)
	if err != nil || v < 1 {
		return d.Errf("%s: '%s' is not a whole number above 0", option, text)
	}
	*to = v
	return nil
}

// perSecond reads a rate, written as 10 or 10/s.
func perSecond(d *caddyfile.Dispenser, to *float64) error {
	option := d.Val()
	var text string
	if err := one(d, &text); err != nil {
		return err
	}
	v, err := strconv.ParseFloat(strings.TrimSuffix(text, "/s"), 64)
	if err != nil || !(v > 0) {
		return d.Errf("%s: '%s' is not a number a second such as 10 or 10/s", option, text)
	}
	*to = v
	return nil
}

// unknownOption refuses a word that is no option here.
func unknownOption(d *caddyfile.Dispenser, where string, known []string) error {
	return d.Errf("unrecognized option '%s' in %s; known are: %s", d.Val(), where, strings.Join(known, ", "))
}

// expandShorthands gives the tokens of a global option the long forms of
// placeholders ({host}, {header.X-Tenant}), as Caddy does in a site.
func expandShorthands(d *caddyfile.Dispenser) *caddyfile.Dispenser {
	d.Next()
	segment := d.NextSegment()
	httpcaddyfile.NewShorthandReplacer().ApplyToSegment(&segment)
	return caddyfile.NewDispenser(segment)
}

// parseApp reads the global option, and merges it with an earlier one:
//
//	upstream_auth {
//		encryption_key <key> [<older key…>]
//		credential <name> {
//			…
//		}
//	}
func parseApp(d *caddyfile.Dispenser, existing any) (any, error) {
	app := &App{Credentials: make(map[string]*Credential)}
	if before, ok := existing.(httpcaddyfile.App); ok {
		if err := caddy.StrictUnmarshalJSON(before.Value, app); err != nil {
			return nil, d.WrapErr(err)
		}
	}
	d = expandShorthands(d)
	d.Next()
	if d.NextArg() {
		return nil, d.Errf("the global option upstream_auth takes no argument, but has '%s'", d.Val())
	}
	for d.NextBlock(0) {
		if d.Val() == "encryption_key" {
			if len(app.EncryptionKeys) > 0 {
				return nil, d.Err("'encryption_key' is given twice: write the older keys behind the newest one")
			}
			if err := some(d, &app.EncryptionKeys); err != nil {
				return nil, err
			}
			if err := checkKeys(app.EncryptionKeys); err != nil {
				return nil, d.WrapErr(err)
			}
			continue
		}
		if d.Val() != "credential" {
			return nil, unknownOption(d, "upstream_auth", []string{"credential", "encryption_key"})
		}
		var name string
		if !d.AllArgs(&name) {
			return nil, d.Err("'credential' takes one argument, its name")
		}
		if err := checkName(name); err != nil {
			return nil, d.WrapErr(err)
		}
		if _, ok := app.Credentials[name]; ok {
			return nil, d.Errf("the credential '%s' is defined twice", name)
		}
		c, err := parseCredential(d, app.Credentials)
		if err != nil {
			return nil, err
		}
		app.Credentials[name] = c
	}
	return httpcaddyfile.App{Name: appName, Value: caddyconfig.JSON(app, nil)}, nil
}

// injectionOptions read what handler and transport have in common.
var injectionOptions = map[string]func(*Injection, *caddyfile.Dispenser) error{
	"header": func(i *Injection, d *caddyfile.Dispenser) error {
		args := d.RemainingArgs()
		if len(args) < 1 || len(args) > 2 || args[0] == "" {
			return d.Err("'header' takes one or two arguments, a name and a scheme")
		}
		i.Header = args[0]
		if len(args) == 2 {
			i.Scheme = &args[1]
		}
		return noBlock(d, "header")
	},
	"client_authorization": func(i *Injection, d *caddyfile.Dispenser) error { return one(d, &i.ClientAuthorization) },
	"unavailable":          func(i *Injection, d *caddyfile.Dispenser) error { return one(d, &i.Unavailable) },
	"wait": func(i *Injection, d *caddyfile.Dispenser) error {
		i.Wait = new(caddy.Duration)
		return duration(d, i.Wait)
	},
}

// parseInjection reads a handler's or a transport's arguments and block: the
// name of a credential or, in its place, the options of one.
func parseInjection(d *caddyfile.Dispenser, i *Injection, own map[string]func(*caddyfile.Dispenser) error) (*block, error) {
	b := newBlock(d)
	what := d.Val()
	if d.NextArg() {
		i.Credential = d.Val()
		b.where["credential"] = d.Token()
		if err := checkName(i.Credential); err != nil {
			return nil, d.WrapErr(err)
		}
	}
	if d.NextArg() {
		return nil, d.Errf("'%s' takes one argument, the name of a credential; '%s' is a second one", what, d.Val())
	}
	inline := &credentialParser{block: b, credential: new(Credential)}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		_, isInjection := injectionOptions[name]
		_, isCredential := credentialOptions[name]
		_, isOwn := own[name]
		var err error
		switch {
		case isInjection || isOwn:
			if err = b.once(); err != nil {
				return nil, err
			}
			if isOwn {
				err = own[name](d)
			} else {
				err = injectionOptions[name](i, d)
			}
		case isCredential && i.Credential != "":
			err = d.Errf("'%s' belongs to a credential, and '%s' is defined elsewhere: write it there, or leave out the name", name, i.Credential)
		case isCredential:
			i.Inline = inline.credential
			err = inline.option(d)
		default:
			known := append(sorted(injectionOptions), sorted(own)...)
			if i.Credential == "" {
				known = append(known, sorted(credentialOptions)...)
			}
			err = unknownOption(d, what, known)
		}
		if err != nil {
			return nil, err
		}
	}
	if i.Inline != nil {
		err := cmp.Or(inline.finish(), b.locate(i.Inline.checkInline()), b.locate(i.checkExchange(&i.Inline.template)))
		if err != nil {
			return nil, err
		}
	}
	return b, b.locate(i.check())
}

// parseHandler reads:
//
//	upstream_auth [<matcher>] [<credential>] {
//		header <name> [<scheme>]
//		client_authorization replace|keep|reject
//		unavailable reject|pass
//		wait <duration>
//		<the options of a credential, in place of a name>
//	}
func parseHandler(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	h.Next() // the directive's name
	b, err := parseInjection(h.Dispenser, &handler.Injection, nil)
	if err != nil || handler.Credential == "" {
		return handler, err
	}
	app, err := definedApp(h)
	if err != nil {
		return nil, err
	}
	if err := app.defines(handler.Credential); err != nil {
		return nil, b.locate(err)
	}
	return handler, nil
}
