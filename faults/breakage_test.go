package faults

import (
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// breakage is a way in which something breaks, and is mended.
type breakage interface {
	set(c *cell, broken bool) error
}

// answers is an answer in place of the healthy one.
type answers struct{ authserver.Fault }

func (a answers) set(c *cell, broken bool) error {
	if broken {
		c.auth.SetFault(authserver.Chain(a.Fault, c.beside()))
	}
	return nil
}

// answersOf is one that has to know the cell.
type answersOf func(*cell) authserver.Fault

func (a answersOf) set(c *cell, broken bool) error { return answers{a(c)}.set(c, broken) }

// set has a wire fault take the connections.
func (w wire) set(c *cell, broken bool) error {
	if !broken {
		w = nil
	}
	c.server.turn(w)
	return nil
}

// noListener refuses connections.
type noListener struct{}

func (noListener) set(c *cell, broken bool) error {
	if broken {
		c.server.refuse()
		return nil
	}
	return c.server.listen()
}

// noName has the server be asked for under a name that does not exist (RFC 6761
// §6.4).
type noName struct{}

func (noName) set(c *cell, broken bool) error {
	if broken {
		return c.write("url", "https://idp.invalid"+authserver.TokenPath)
	}
	return c.write("url", c.tokenURL())
}

// certificate is one that must not be trusted, or none at all.
type certificate func(*authority) *tls.Config

func (f certificate) set(c *cell, broken bool) error {
	if broken {
		c.server.secure(f(c.column.authority), true)
		return nil
	}
	c.server.secure(c.column.authority.good(), false)
	return nil
}

// overTLS is a wire fault of a server that speaks TLS.
type overTLS struct{ wire }

// secretFile is what stands in the file with the client secret; "-" stands for
// no file.
type secretFile func(secret string) string

const noFile = "-"

func (f secretFile) set(c *cell, broken bool) error {
	content := c.secret
	if broken {
		content = f(c.secret)
	}
	if content == noFile {
		return os.Remove(c.path("secret"))
	}
	return c.write("secret", content)
}

// swapped has the file with the client secret be replaced without end, by
// turns with and without a newline at its end.
type secretSwapped struct{}

func (secretSwapped) set(c *cell, broken bool) error {
	if !broken {
		c.stopSwapping()
		return nil
	}
	c.swap()
	return nil
}

// stores is how the storage fails.
type stores string

func (s stores) set(c *cell, broken bool) error {
	path := filepath.Join(c.column.dir, storageFaults, c.name)
	if broken {
		return replaceFile(path, string(s))
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// text is what a line's own text breaks: there is nothing else to do.
type texts struct{}

func (texts) set(*cell, bool) error { return nil }

// replaceFile writes a file in one step, as a mounted secret is swapped.
func replaceFile(path, content string) error {
	next := path + ".next"
	if err := os.WriteFile(next, []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}
