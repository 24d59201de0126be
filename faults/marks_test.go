package faults

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// marker begins and ends each mark, so that what is cut on either side still
// holds it. It is random, anew in each run: nothing but a secret holds it.
var marker = rand.Text()[:window]

// kindOf is what a mark stands in.
type kindOf string

// What passes through and may come to light nowhere.
const (
	ofSecret    kindOf = "client-secret"
	ofKey       kindOf = "private-key"
	ofProof     kindOf = "client-assertion" // its signature, for its claims are Caddy's
	ofJTI       kindOf = "assertion-jti"
	ofStoreKey  kindOf = "encryption-key"
	ofDPoP      kindOf = "dpop-proof"
	ofAssertion kindOf = "assertion"
	ofSubject   kindOf = "subject-token"
	ofActor     kindOf = "actor-token"
	ofHeader    kindOf = "request-header"
	ofAccess    kindOf = "access-token"
	ofRefresh   kindOf = "refresh-token"
	ofID        kindOf = "id-token"
	ofBody      kindOf = "answer-body"
	ofAnswer    kindOf = "answer-header"
	ofClient    kindOf = "client-header" // what a client of the proxy sends
	ofCode      kindOf = "code"
	ofVerifier  kindOf = "code-verifier"
)

// mark is a secret that nobody else has: of a credential, or of nobody's.
func mark(kind kindOf, of string) string {
	return strings.Join([]string{marker, string(kind), of, marker}, ".")
}

// window is how much of a mark is enough to know it by: one that is cut to so
// few characters is found.
const window = 12

// A spelling is a form in which a secret may come to light.
type spelling struct {
	name string
	of   func(text string) string
}

// spellings are all that are looked for. What needs no escape (in a URL, in
// JSON, in HTML) stands as it is in all of them: here are the forms in which
// every character is another.
var spellings = []spelling{
	{"plain", func(s string) string { return s }},
	{"in lower case", strings.ToLower},
	{"in upper case", strings.ToUpper},
	{"base64", aligned(base64.RawStdEncoding, 0)},
	{"base64, one byte on", aligned(base64.RawStdEncoding, 1)},
	{"base64, two bytes on", aligned(base64.RawStdEncoding, 2)},
	{"base64url", aligned(base64.RawURLEncoding, 0)},
	{"base64url, one byte on", aligned(base64.RawURLEncoding, 1)},
	{"base64url, two bytes on", aligned(base64.RawURLEncoding, 2)},
	{"hex", func(s string) string { return hex.EncodeToString([]byte(s)) }},
	{"hex in capitals", func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) }},
	{"URL-escaped", bytewise("%%%02X", "")},
	{"URL-escaped, in lower case", bytewise("%%%02x", "")},
	{"JSON-escaped", bytewise(`\u%04x`, "")},
	{"JSON-escaped in capitals", bytewise(`\u%04X`, "")},
	{"as a Go string of bytes", bytewise(`\x%02x`, "")},
	{"as bytes that Go prints", bytewise("%d", " ")},
	{"as bytes in JSON", bytewise("%d", ",")},
	{"as a Go slice", bytewise("%#x", ", ")},
}

// aligned is base64 of a text that stands so many bytes after the beginning of
// what was encoded: the characters that its neighbours have a part in are left
// out.
func aligned(e *base64.Encoding, before int) func(string) string {
	return func(s string) string {
		all := e.EncodeToString(append(make([]byte, before), s...))
		return all[(before*8+5)/6 : (before+len(s))*8/6]
	}
}

func bytewise(format, between string) func(string) string {
	return func(s string) string {
		parts := make([]string, len(s))
		for n := range len(s) {
			parts[n] = fmt.Sprintf(format, s[n])
		}
		return strings.Join(parts, between)
	}
}
