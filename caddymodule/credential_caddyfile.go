package caddymodule

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/clientauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/grants"
)

// credentialParser reads the options of one credential.
type credentialParser struct {
	*block
	credential *Credential
}

// parseCredential reads a credential's block. others are those that are
// defined.
func parseCredential(d *caddyfile.Dispenser, others map[string]*Credential) (*Credential, error) {
	p := &credentialParser{block: newBlock(d), credential: new(Credential)}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := p.option(d); err != nil {
			return nil, err
		}
	}
	return p.credential, cmp.Or(p.finish(), p.locate(checkOwnFile("", p.credential.TokenFile, others)))
}

// option reads one option.
func (p *credentialParser) option(d *caddyfile.Dispenser) error {
	parse, ok := credentialOptions[d.Val()]
	if !ok {
		return unknownOption(d, "a credential", sorted(credentialOptions))
	}
	if name := d.Val(); name != "resource" && name != "param" {
		if err := p.once(); err != nil {
			return err
		}
	}
	return parse(p, d)
}

// finish checks the credential as a whole.
func (p *credentialParser) finish() error {
	c := p.credential
	if c.grant == nil {
		c.grant, c.grantName = grants.ClientCredentials{}, "client_credentials"
	}
	return p.locate(c.check())
}

// credentialOptions are the options by name; each is read with the dispenser
// on its name.
var credentialOptions = map[string]func(*credentialParser, *caddyfile.Dispenser) error{
	"issuer":    func(p *credentialParser, d *caddyfile.Dispenser) error { return one(d, &p.credential.Issuer) },
	"token_url": func(p *credentialParser, d *caddyfile.Dispenser) error { return one(d, &p.credential.TokenURL) },
	"client_id": func(p *credentialParser, d *caddyfile.Dispenser) error { return one(d, &p.credential.ClientID) },
	"audience":  func(p *credentialParser, d *caddyfile.Dispenser) error { return one(d, &p.credential.Audience) },
	"proxy":     func(p *credentialParser, d *caddyfile.Dispenser) error { return one(d, &p.credential.Proxy) },
	"scopes":    func(p *credentialParser, d *caddyfile.Dispenser) error { return some(d, &p.credential.Scopes) },
	"resource": func(p *credentialParser, d *caddyfile.Dispenser) error {
		at, before := d.Token(), len(p.credential.Resource)
		if err := some(d, &p.credential.Resource); err != nil {
			return err
		}
		for _, uri := range p.credential.Resource[before:] {
			p.note("resource "+uri, at)
		}
		return nil
	},
	"param": func(p *credentialParser, d *caddyfile.Dispenser) error {
		at := d.Token()
		name, value, err := two(d)
		if err != nil {
			return err
		}
		p.note("param "+name, at)
		if p.credential.Param == nil {
			p.credential.Param = make(map[string][]string)
		}
		p.credential.Param[name] = append(p.credential.Param[name], value)
		return nil
	},
	"refresh_at": func(p *credentialParser, d *caddyfile.Dispenser) error { return percent(d, &p.credential.RefreshAt) },
	"expiry_margin": func(p *credentialParser, d *caddyfile.Dispenser) error {
		return duration(d, &p.credential.ExpiryMargin)
	},
	"default_lifetime": func(p *credentialParser, d *caddyfile.Dispenser) error {
		return duration(d, &p.credential.DefaultLifetime)
	},
	"timeout": func(p *credentialParser, d *caddyfile.Dispenser) error { return duration(d, &p.credential.Timeout) },
	"refresh_scopes": func(p *credentialParser, d *caddyfile.Dispenser) error {
		return none(d, &p.credential.RefreshScopes)
	},
	"max_tokens": func(p *credentialParser, d *caddyfile.Dispenser) error { return count(d, &p.credential.MaxTokens) },
	"max_new":    func(p *credentialParser, d *caddyfile.Dispenser) error { return perSecond(d, &p.credential.MaxNew) },
	"idle_timeout": func(p *credentialParser, d *caddyfile.Dispenser) error {
		return duration(d, &p.credential.IdleTimeout)
	},
	"rejected_on": func(p *credentialParser, d *caddyfile.Dispenser) error {
		return statuses(d, &p.credential.RejectedOn)
	},
	"dpop":  (*credentialParser).dpop,
	"share": (*credentialParser).share,
	"insecure_token_url": func(p *credentialParser, d *caddyfile.Dispenser) error {
		return none(d, &p.credential.InsecureTokenURL)
	},
	"grant":       (*credentialParser).grant,
	"client_auth": (*credentialParser).clientAuth,
	"request":     (*credentialParser).request,
	"response":    (*credentialParser).response,
	"tls":         (*credentialParser).tls,
	"token_file":  (*credentialParser).tokenFile,
}

// guest reads a guest module: its name, its arguments, its block.
func (p *credentialParser) guest(d *caddyfile.Dispenser, namespace, inlineKey string) (mod any, raw json.RawMessage, name string, err error) {
	option := d.Val()
	if !d.NextArg() {
		return nil, nil, "", d.Errf("'%s' needs an argument: expected %s", option, knownModules(namespace))
	}
	name = d.Val()
	if _, err := caddy.GetModule(namespace + "." + name); err != nil {
		return nil, nil, "", d.WrapErr(unknownGuest(option, name, namespace))
	}
	unmarshaled, err := caddyfile.UnmarshalModule(d, namespace+"."+name)
	if err != nil {
		return nil, nil, "", err
	}
	raw = caddyconfig.JSONModuleObject(unmarshaled, inlineKey, name, nil)
	var guest any
	if option == "grant" {
		guest = unmarshaled
	}
	return unmarshaled, raw, name, p.locate(p.credential.checkGuest(raw, option, guest))
}

func (p *credentialParser) grant(d *caddyfile.Dispenser) error {
	mod, raw, name, err := p.guest(d, grants.Namespace, "type")
	if err != nil {
		return err
	}
	g, ok := mod.(grants.Grant)
	if !ok {
		return d.Errf("grant: module %T is not a grants.Grant", mod)
	}
	p.credential.grant, p.credential.grantName, p.credential.GrantRaw = g, name, raw
	return nil
}

func (p *credentialParser) clientAuth(d *caddyfile.Dispenser) error {
	mod, raw, _, err := p.guest(d, clientauth.Namespace, "method")
	if err != nil {
		return err
	}
	m, ok := mod.(clientauth.Method)
	if !ok {
		return d.Errf("client_auth: module %T is not a clientauth.Method", mod)
	}
	p.credential.method, p.credential.ClientAuthRaw = m, raw
	return nil
}

// sub reads an option that is a block of options: each at most once, but for
// those that are named in repeat.
func (p *block) sub(d *caddyfile.Dispenser, options map[string]func(*caddyfile.Dispenser) error, repeat ...string) error {
	option := d.Val()
	given, err := p.options(d, options, repeat...)
	if err == nil && !given {
		return d.Errf("'%s' needs a block with one option at least: %s", option, strings.Join(sorted(options), ", "))
	}
	return err
}

// options reads the options in a block, if there is one, and tells whether there
// are any.
func (p *block) options(d *caddyfile.Dispenser, options map[string]func(*caddyfile.Dispenser) error, repeat ...string) (given bool, err error) {
	option := d.Val()
	if d.CountRemainingArgs() > 0 {
		return false, d.Errf("'%s' takes no argument, but a block", option)
	}
	return p.within(d, option, options, repeat...)
}

// within reads the block of an option whose arguments have been read.
func (p *block) within(d *caddyfile.Dispenser, option string, options map[string]func(*caddyfile.Dispenser) error, repeat ...string) (given bool, err error) {
	b := newBlock(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		parse, ok := options[name]
		if !ok {
			return false, unknownOption(d, option, sorted(options))
		}
		if !slices.Contains(repeat, name) {
			if err := b.once(); err != nil {
				return false, err
			}
		}
		p.note(option+" "+name, d.Token())
		if err := parse(d); err != nil {
			return false, err
		}
		given = true
	}
	return given, nil
}

// text reads a string option.
func text(to *string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error { return one(d, to) }
}

// pairs reads an option with a name and a value into a map.
func (p *credentialParser) pairs(block string, to *map[string]string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		option, at := d.Val(), d.Token()
		name, value, err := two(d)
		if err != nil {
			return err
		}
		p.note(block+" "+option+" "+name, at)
		if *to == nil {
			*to = make(map[string]string)
		}
		if _, ok := (*to)[name]; ok {
			return d.Errf("%s '%s' is given twice", option, name)
		}
		(*to)[name] = value
		return nil
	}
}

func (p *credentialParser) request(d *caddyfile.Dispenser) error {
	s := new(RequestShape)
	p.credential.Request = s
	return p.sub(d, map[string]func(*caddyfile.Dispenser) error{
		"method":     text(&s.Method),
		"body":       text(&s.Body),
		"grant_type": text(&s.GrantType),
		"rename":     p.pairs("request", &s.Rename),
		"header":     p.pairs("request", &s.Header),
	}, "rename", "header")
}

func (p *credentialParser) response(d *caddyfile.Dispenser) error {
	s := new(ResponseShape)
	p.credential.Response = s
	return p.sub(d, map[string]func(*caddyfile.Dispenser) error{
		"access_token":      text(&s.AccessToken),
		"refresh_token":     text(&s.RefreshToken),
		"expires_in":        text(&s.ExpiresIn),
		"token_type":        text(&s.TokenType),
		"error":             text(&s.Error),
		"error_description": text(&s.ErrorDescription),
		"expires_unit":      text(&s.ExpiresUnit),
	})
}

func (p *credentialParser) dpop(d *caddyfile.Dispenser) error {
	p.credential.DPoP = new(DPoP)
	return p.sub(d, map[string]func(*caddyfile.Dispenser) error{
		"key_file": text(&p.credential.DPoP.KeyFile),
	})
}

func (p *credentialParser) share(d *caddyfile.Dispenser) error {
	p.credential.Share = new(Share)
	_, err := p.options(d, map[string]func(*caddyfile.Dispenser) error{
		"on_storage_failure": text(&p.credential.Share.OnStorageFailure),
	})
	return err
}

func (p *credentialParser) tls(d *caddyfile.Dispenser) error {
	t := new(TLS)
	p.credential.TLS = t
	return p.sub(d, map[string]func(*caddyfile.Dispenser) error{
		"ca":                   text(&t.CA),
		"server_name":          text(&t.ServerName),
		"cert":                 text(&t.Cert),
		"key":                  text(&t.Key),
		"insecure_skip_verify": func(d *caddyfile.Dispenser) error { return none(d, &t.InsecureSkipVerify) },
	})
}

// statuses reads one status of HTTP or more.
func statuses(d *caddyfile.Dispenser, to *[]int) error {
	option := d.Val()
	var words []string
	if err := some(d, &words); err != nil {
		return err
	}
	for _, word := range words {
		v, err := strconv.Atoi(word)
		if err != nil {
			return d.Errf("%s: '%s' is not a status such as 401", option, word)
		}
		*to = append(*to, v)
	}
	return nil
}
