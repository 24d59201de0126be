package main

import (
	"net/url"
	"strings"
	"sync"
)

// watch knows all that is secret, and looks for it in what Caddy prints.
type watch struct {
	mu      sync.Mutex
	words   map[string]string // what each is, for those of word characters alone
	lengths map[int]bool
	odd     map[string]string // the others
}

func newWatch() *watch {
	return &watch{words: make(map[string]string), lengths: make(map[int]bool), odd: make(map[string]string)}
}

// secret adds one; what says what it is.
func (w *watch) secret(what, value string) {
	if value == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if strings.IndexFunc(value, outside) >= 0 {
		w.odd[value] = what
		return
	}
	w.words[value], w.lengths[len(value)] = what, true
}

// form adds what is secret in a token request's body.
func (w *watch) form(body []byte) {
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return
	}
	w.secret("a refresh token", values.Get("refresh_token"))
	if assertion := values.Get("client_assertion"); assertion != "" {
		// its signature is what nobody else can make
		w.secret("an assertion", assertion[strings.LastIndexByte(assertion, '.')+1:])
	}
}

// finds tells what is secret in a line, "" where nothing is.
func (w *watch) finds(line string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for value, what := range w.odd {
		if strings.Contains(line, value) {
			return what
		}
	}
	for run := range strings.FieldsFuncSeq(line, outside) {
		for n := range w.lengths {
			for i := 0; i+n <= len(run); i++ {
				if what, is := w.words[run[i:i+n]]; is {
					return what
				}
			}
		}
	}
	return ""
}

// outside tells what is none of the characters of base64url.
func outside(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_':
		return false
	}
	return true
}
