package caddymodule

import (
	"math"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/dustin/go-humanize"
)

// UnmarshalCaddyfile reads:
//
//	transport upstream_auth [<credential>] {
//		upstreams <host…>
//		insecure_upstream
//		health_checks on|off
//		replay off
//		replay {
//			max_body <size>
//			methods <method…>
//		}
//		http {
//			<the options of transport http>
//		}
//		<what the directive upstream_auth takes>
//	}
func (t *Transport) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the transport's name
	b, err := parseInjection(d, &t.Injection, map[string]func(*caddyfile.Dispenser) error{
		"upstreams":         func(d *caddyfile.Dispenser) error { return some(d, &t.Upstreams) },
		"insecure_upstream": func(d *caddyfile.Dispenser) error { return none(d, &t.InsecureUpstream) },
		"health_checks":     func(d *caddyfile.Dispenser) error { return one(d, &t.HealthChecks) },
		"replay": func(d *caddyfile.Dispenser) error {
			t.Replay = new(Replay)
			return t.Replay.parse(d)
		},
		"http": func(d *caddyfile.Dispenser) error {
			if d.CountRemainingArgs() > 0 {
				return d.Err("'http' takes no argument, but a block with the options of transport http")
			}
			return t.HTTPTransport.UnmarshalCaddyfile(d.NewFromNextSegment())
		},
	})
	if err != nil {
		return err
	}
	return b.locate(t.checkOptions())
}

// parse reads:
//
//	replay off
//	replay {
//		max_body <size>
//		methods <method…>
//	}
func (r *Replay) parse(d *caddyfile.Dispenser) error {
	b := newBlock(d)
	if d.CountRemainingArgs() > 0 {
		var word string
		if err := one(d, &word); err != nil {
			return err
		}
		if word != "off" {
			return d.Errf("replay: '%s' is unknown, expected off or a block with max_body, methods or both", word)
		}
		r.Off = true
		return nil
	}
	err := b.sub(d, map[string]func(*caddyfile.Dispenser) error{
		"max_body": func(d *caddyfile.Dispenser) error { return size(d, &r.MaxBody) },
		"methods":  func(d *caddyfile.Dispenser) error { return some(d, &r.Methods) },
	})
	if err != nil {
		return err
	}
	return b.locate(r.check())
}

// size reads a number of bytes, as Caddy does.
func size(d *caddyfile.Dispenser, to **int64) error {
	option := d.Val()
	var text string
	if err := one(d, &text); err != nil {
		return err
	}
	v, err := humanize.ParseBytes(text)
	if err != nil || v > math.MaxInt64 {
		return d.Errf("%s: '%s' is not a size such as 64KiB or 1MB", option, text)
	}
	n := int64(v)
	*to = &n
	return nil
}
