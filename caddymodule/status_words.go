package caddymodule

import (
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
)

// stateWords are the states as the page calls them.
var stateWords = map[state]string{
	stateStarting:    "Starting",
	stateOK:          "OK",
	stateFailing:     "Failing",
	stateRejected:    "Refused upstream",
	stateExpired:     "Expired",
	stateUnavailable: "No token",
	stateLogin:       "Login required",
	stateStorage:     "Storage unavailable",
}

// when is a moment as the page shows it: in UTC, until a script puts it into
// the reader's own time.
type when struct {
	ISO   string // for programs
	Clock string
	Span  string // from now: "in 3 minutes", "3 minutes ago"
}

func newWhen(t, now time.Time) when {
	format := "15:04:05"
	if t.UTC().Format(time.DateOnly) != now.UTC().Format(time.DateOnly) {
		format = "2 Jan 15:04"
	}
	return when{ISO: t.UTC().Format("2006-01-02T15:04:05.000Z"), Clock: t.UTC().Format(format), Span: spanFrom(t, now)}
}

// someWhen is a moment that may be none.
func someWhen(t, now time.Time) *when {
	if t.IsZero() {
		return nil
	}
	w := newWhen(t, now)
	return &w
}

// never tells of a moment that stands for none.
func never(t, now time.Time) bool { return t.Sub(now) > 365*24*time.Hour }

// spanFrom is how far a moment is away. status.js has the same rule.
func spanFrom(t, now time.Time) string {
	d := t.Sub(now)
	switch {
	case d > -time.Second && d < time.Second:
		return "now"
	case d > 0:
		return "in " + spanText(d)
	}
	return spanText(-d) + " ago"
}

// sentence begins with a capital, unless with a name, and ends with a full stop.
func sentence(s string) string {
	first, rest, _ := strings.Cut(s, " ")
	if rest != "" && strings.IndexFunc(strings.TrimRight(first, ":,"), func(r rune) bool { return r < 'a' || r > 'z' }) < 0 {
		s = string(unicode.ToUpper(rune(s[0]))) + s[1:]
	}
	if s == "" || strings.HasSuffix(s, ".") {
		return s
	}
	return s + "."
}

// steps are the parts of an advice: what stands between its semicolons.
func steps(s string) []string {
	var all []string
	depth, start := 0, 0
	for i := range len(s) {
		switch s[i] {
		case '(':
			depth++
		case ')':
			depth--
		case ';':
			if depth == 0 {
				all = append(all, strings.TrimSpace(s[start:i]))
				start = i + 1
			}
		}
	}
	return append(all, strings.TrimSpace(s[start:]))
}

// part is a piece of a text: words, or what is to be typed.
type part struct {
	Text string
	Code bool
}

// typed finds what is to be typed: what is said to be written or run, and
// commands. A full stop or a comma ends it.
var typed = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?:write: |run: |\b(?:curl|openssl|getent|caddy upstream-auth|cut|nft|ip route|timedatectl|chronyc|ls|date) )[^,;()]+`)
})

// untyped are the words behind a command that speak of it.
var untyped = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(` (?:shows?|hangs?|names?|tells?|finds?|and|or|in place of)(?: .*)?$|\.$`)
})

// setOff tells a text's words from what is to be typed. What it finds is only
// set in other letters.
func setOff(s string) []part {
	var parts []part
	add := func(text string, code bool) {
		if text != "" {
			parts = append(parts, part{text, code})
		}
	}
	for s != "" {
		at := typed().FindStringIndex(s)
		if at == nil {
			break
		}
		from, to := at[0], at[1]
		for _, lead := range []string{"write: ", "run: "} {
			if strings.HasPrefix(s[from:], lead) {
				from += len(lead)
			}
		}
		if rest := untyped().FindStringIndex(s[from:to]); rest != nil {
			to = from + rest[0]
		}
		to = from + len(strings.TrimRight(s[from:to], " "))
		add(s[:from], false)
		add(s[from:to], true)
		s = s[to:]
		if from == to {
			break
		}
	}
	if s != "." || len(parts) == 0 { // what is to be typed needs none
		add(s, false)
	}
	return parts
}

// thousands writes a number with a separator that no language takes for a point.
func thousands(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}
