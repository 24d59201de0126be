package caddymodule

import (
	"cmp"
	"encoding/json"
	"errors"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective(tokenDirective, parseTokenEndpoint)
	// Beside upstream_auth_status, which is registered by another file: before
	// upstream_auth in any case, so that it answers first.
	httpcaddyfile.RegisterDirectiveOrder(tokenDirective, httpcaddyfile.After, "templates")
}

var (
	errManyTokens = &optionError{"credential", errors.New("it has a token for each value that requests bring, so there is no one token to hand out")}
	errNeedsKey   = &optionError{"credential", errors.New("its tokens are bound by dpop to a key, and of no use to a program without that")}
)

// parseTokenEndpoint reads:
//
//	upstream_auth_token [<matcher>] [<credential>] {
//		wait <duration>
//		<the options of a credential, in place of a name>
//	}
func parseTokenEndpoint(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	e := new(TokenEndpoint)
	h.Next() // the directive's name
	b, err := e.parse(h.Dispenser)
	if err != nil || e.Credential == "" {
		return e, err
	}
	app, err := definedApp(h)
	if err != nil {
		return nil, err
	}
	if err := app.defines(e.Credential); err != nil {
		return nil, b.locate(err)
	}
	return e, b.locate(handsOut(app.Credentials[e.Credential]))
}

// parse reads the argument and the block.
func (e *TokenEndpoint) parse(d *caddyfile.Dispenser) (*block, error) {
	b := newBlock(d)
	if d.NextArg() {
		e.Credential = d.Val()
		b.where["credential"] = d.Token()
		if err := checkName(e.Credential); err != nil {
			return nil, d.WrapErr(err)
		}
	}
	if d.NextArg() {
		return nil, d.Errf("'%s' takes one argument, the name of a credential; '%s' is a second one", tokenDirective, d.Val())
	}
	inline := &credentialParser{block: b, credential: new(Credential)}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		_, isCredential := credentialOptions[d.Val()]
		var err error
		switch {
		case d.Val() == "wait":
			e.Wait = new(caddy.Duration)
			err = cmp.Or(b.once(), duration(d, e.Wait))
		case isCredential && e.Credential != "":
			err = d.Errf("'%s' belongs to a credential, and '%s' is defined elsewhere: write it there, or leave out the name", d.Val(), e.Credential)
		case isCredential:
			e.Inline = inline.credential
			err = inline.option(d)
		default:
			known := []string{"wait"}
			if e.Credential == "" {
				known = append(known, sorted(credentialOptions)...)
			}
			err = unknownOption(d, tokenDirective, known)
		}
		if err != nil {
			return nil, err
		}
	}
	if e.Inline != nil {
		if err := cmp.Or(inline.finish(), b.locate(e.Inline.checkInline()), b.locate(inPlace(handsOut(e.Inline)))); err != nil {
			return nil, err
		}
	}
	return b, b.locate(e.injection().check())
}

// handsOut tells why a credential's token cannot be handed out, as far as its
// options tell by themselves. Where no others are allowed, a placeholder of a
// request makes a template; subject_token request is seen at the load.
func handsOut(c *Credential) error {
	if c == nil {
		return nil
	}
	if c.DPoP != nil {
		return errNeedsKey
	}
	raw, err := json.Marshal(c)
	if err != nil {
		return err
	}
	var options any
	if err := json.Unmarshal(raw, &options); err != nil {
		return err
	}
	for _, s := range stringsIn(options) {
		if slices.ContainsFunc(placeholders(s), ofRequest) {
			return errManyTokens
		}
	}
	if c.template.is() {
		return errManyTokens
	}
	return nil
}

// inPlace is a mistake of a credential without a name.
func inPlace(err error) error {
	if oe, ok := errors.AsType[*optionError](err); ok {
		return &optionError{"the credential written in place", oe.err}
	}
	return err
}
