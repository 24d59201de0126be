package caddymodule

import (
	"strings"
	"unicode"
)

// onlyPrintable makes words of others fit for a terminal: no escape, no newline,
// nothing that turns the direction of writing.
func onlyPrintable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, " "))
}

// printed is what a server says, as much of it as is shown.
func printed(s string) string {
	words := []rune(onlyPrintable(s))
	return string(words[:min(len(words), 200)])
}

// clipped is one line of at most so many characters.
func clipped(s string, most int) string {
	words := []rune(strings.Join(strings.Fields(onlyPrintable(s)), " "))
	if len(words) > most {
		return string(words[:most-1]) + "…"
	}
	return string(words)
}
