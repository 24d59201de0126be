package oauth

import (
	"fmt"
	"html"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Kind is what went wrong with a token request, as far as it changes what is
// done next. None is final.
type Kind uint8

const (
	// Unreachable: the server did not answer, or said that it cannot now:
	// network, timeout, 408, 425, 429, 5xx, temporarily_unavailable,
	// server_error.
	Unreachable Kind = iota + 1
	// Refused: the server understood and said no: any other 4xx, or an error
	// object under a 2xx; and a request that could not be made at all.
	Refused
	// Malformed: a 2xx without a usable token, 204, 206, any 3xx.
	Malformed
)

func (k Kind) String() string {
	switch k {
	case Unreachable:
		return "unreachable"
	case Refused:
		return "refused"
	case Malformed:
		return "malformed"
	}
	return "kind(" + strconv.Itoa(int(k)) + ")"
}

const (
	maxCode        = 64
	maxDescription = 200
)

// Failure is a token request that brought no token.
type Failure struct {
	Kind Kind
	// Status is the answer's HTTP status, 0 where none came.
	Status int
	// Code is the server's error code (RFC 6749 §5.2): at most 64 printable
	// ASCII characters, "" where it gave none.
	Code string
	// Description is what else the server said: at most 200 printable
	// characters, secrets masked. It is for a log, never for a client.
	Description string
	// RetryAfter is how long the server asked to be left alone, 0 if it did not.
	RetryAfter time.Duration
	// ServerTime is the server's clock when it answered (RFC 9110 §6.6.1), zero
	// where it does not tell.
	ServerTime time.Time
	// Lost tells that the server may have done what was asked and that its
	// answer did not come: the request was written and no complete answer was
	// read, or the answer was a 500, 502, 504 or a 2xx that cannot be read. What
	// can be spent only once may then have been spent.
	Lost bool
	// Err says in our own words what is wrong; nil where Status and Code say it.
	Err error
}

// Error holds no words of the server but the error code.
func (f *Failure) Error() string {
	var b strings.Builder
	b.WriteString(f.Kind.String())
	sep := ": "
	if f.Status != 0 {
		fmt.Fprintf(&b, "%sHTTP %d", sep, f.Status)
		sep = ", "
	}
	if f.Code != "" {
		b.WriteString(sep + f.Code)
		sep = ", "
	}
	if f.Err != nil {
		b.WriteString(sep + f.Err.Error())
	}
	return b.String()
}

func (f *Failure) Unwrap() error { return f.Err }

// mask hides what was sent in what came back: a server may echo a request.
type mask struct{ replacer *strings.Replacer }

func newMask(secrets []string) mask {
	var pairs []string
	for _, s := range secrets {
		for _, form := range spellings(s) {
			pairs = append(pairs, form, "***")
		}
	}
	return mask{strings.NewReplacer(pairs...)}
}

// spellings are the forms in which a secret travels and may come back.
func spellings(secret string) []string {
	if secret == "" {
		return nil
	}
	return []string{
		secret,
		url.QueryEscape(secret),
		lowerEscapes(url.QueryEscape(secret)),
		url.PathEscape(secret),
		lowerEscapes(url.PathEscape(secret)),
		strings.Trim(strconv.Quote(secret), `"`),
		html.EscapeString(secret),
	}
}

// lowerEscapes writes %2B as %2b.
func lowerEscapes(s string) string {
	parts := strings.Split(s, "%")
	for i, p := range parts[1:] {
		parts[i+1] = strings.ToLower(p[:2]) + p[2:]
	}
	return strings.Join(parts, "%")
}

func (m mask) text(s string) string { return m.replacer.Replace(s) }

func (m mask) error(err error) error {
	if text := err.Error(); m.text(text) != text {
		return maskedError{m.text(text), err}
	}
	return err
}

// maskedError keeps what errors.Is needs and changes what is printed.
type maskedError struct {
	text string
	err  error
}

func (e maskedError) Error() string { return e.text }
func (e maskedError) Unwrap() error { return e.err }

// code makes an error code of a server's word.
func (m mask) code(s string) string {
	if registered[s] {
		return s // is compared with; a secret that hides in it is no secret
	}
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return -1
		}
		return r
	}, m.text(s))
	return strings.TrimSpace(s[:min(len(s), maxCode)])
}

// registered are the codes that mean something to a program: of RFC 6749 §5.2,
// RFC 8628 §3.5, RFC 8693 §2.2.2, RFC 9449 §5 and §8.
var registered = map[string]bool{
	"invalid_request": true, "invalid_client": true, "invalid_grant": true, "unauthorized_client": true,
	"unsupported_grant_type": true, "invalid_scope": true, "invalid_target": true, "access_denied": true,
	"authorization_pending": true, "slow_down": true, "expired_token": true, "invalid_token": true,
	"invalid_dpop_proof": true, "use_dpop_nonce": true, "server_error": true, "temporarily_unavailable": true,
}

// description makes one printable line of a server's words.
func (m mask) description(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, m.text(s))
	runes := []rune(strings.Join(strings.Fields(s), " "))
	return string(runes[:min(len(runes), maxDescription)])
}
