package faults

import (
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// result is what a token request comes to that meets a fault: a token that is
// used, or one of the three failures.
type result string

const (
	used        result = "token"
	unreachable result = "unreachable"
	refused     result = "refused"
	malformed   result = "malformed"
)

// line is a line of the table: a fault, and what comes of it.
type line struct {
	name string
	how  breakage
	want result

	// first is what is wanted in place of want as long as no token request has
	// succeeded: "" where it is the same.
	first result
	// slow is a fault that only a timeout ends.
	slow bool
	// floor is the server's Retry-After: no request before it has passed.
	floor time.Duration
	// unasked is a fault before anything is written: the server must see
	// nothing.
	unasked bool
	// twice is a failure after which a second attempt follows at once, with the
	// secret that worked before.
	twice bool
	// due has the token be renewed within seconds in all columns.
	due bool
	// lifetime is how long the token must be taken to live, 0 for an hour;
	// assumed, where the answer has no usable one.
	lifetime time.Duration
	// says is what the log must say of it.
	says string

	guise   func(*guise)                       // changes it; nil for what the column has for it
	options string                             // of the credential
	config  func(*authserver.Config)           // of the server
	text    func(healthy string) string        // of the access tokens, while broken
	health  func(seconds int) authserver.Fault // what a good answer is; nil for the standard's
	clock   *jump                              // in place of sockets
	alone   map[when]func(*cell)               // in place of the column's own course
}

// assumed is the default_lifetime.
const assumed = 5 * time.Minute

// comesTo is the result, where no token request has succeeded before or one
// has.
func (l *line) comesTo(at when) result {
	if l.first != "" && (at == firstToken || at == atStop) {
		return l.first
	}
	return l.want
}

// when is a column of the table.
type when string

const (
	firstToken   when = "first token"
	atRefresh    when = "refresh"
	forced       when = "forced"
	atStop       when = "at shutdown"
	duringReload when = "during a reload"
)
