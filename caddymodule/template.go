package caddymodule

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// template is what of a request a credential depends on: it has a token for
// each distinct value.
type template struct {
	// names are the request placeholders, in order and each once.
	names []string
	// scoped are those among them that stand in a scope.
	scoped []string
	// exchanges tells that the client's own bearer token is exchanged.
	exchanges bool
	// audience is what that token has to be meant for, "" for anything.
	audience string
}

// is tells whether there is anything to distinguish.
func (t *template) is() bool { return t.exchanges || len(t.names) > 0 }

// take checks a value that may hold placeholders of a request, and notes them.
func (t *template) take(value string) error {
	for _, name := range placeholders(value) {
		if !ofRequest(name) {
			if err := checkPlaceholders("{" + name + "}"); err != nil {
				return err
			}
			continue
		}
		if !slices.Contains(t.names, name) {
			t.names = append(t.names, name)
			slices.Sort(t.names)
		}
	}
	return nil
}

// ofRequest tells whether a placeholder is one that a request fills. {file.x}
// in a Caddyfile is short for a part of the path, which nobody means here.
func ofRequest(name string) bool {
	if strings.HasPrefix(name, "http.request.uri.path.file.") {
		return false
	}
	return slices.ContainsFunc([]string{"http.request.", "http.vars.", "http.auth.", "http.regexp."}, func(namespace string) bool {
		return strings.HasPrefix(name, namespace)
	})
}

// takeScope is take for a scope, whose value may hold no blank.
func (t *template) takeScope(value string) error {
	if err := t.take(value); err != nil {
		return err
	}
	for _, name := range placeholders(value) {
		if ofRequest(name) {
			t.scoped = append(t.scoped, name)
		}
	}
	return nil
}

// maxValue is how long a value from a request may be, in bytes.
const maxValue = 256

// errValue is a value that a request must not bring. It does not hold it.
var errValue = errors.New("the request brings no value for it that a token can be asked for with: expected 1 to 256 visible ASCII characters")

// values reads what a request brings, in the order of the names. They are
// expanded once: what stands in them stays as it is.
func (t *template) values(r *http.Request) ([]string, error) {
	if len(t.names) == 0 {
		return nil, nil
	}
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return nil, fmt.Errorf("{%s}: %w", t.names[0], errValue)
	}
	out := make([]string, len(t.names))
	for i, name := range t.names {
		v, known := repl.GetString(name)
		outside := func(c rune) bool { return c < 0x21 || c > 0x7e }
		if !known || v == "" || len(v) > maxValue || strings.ContainsFunc(v, outside) ||
			slices.Contains(t.scoped, name) && checkScope(v) != nil {
			return nil, fmt.Errorf("{%s}: %w", name, errValue)
		}
		out[i] = strings.Clone(v) // which is kept, and must not keep the request
	}
	return out, nil
}

// client says what a template's placeholders stand for.
func (t *template) client(values []string) map[string]string {
	if len(values) == 0 {
		return nil
	}
	out := make(map[string]string, len(values))
	for i, name := range t.names {
		out[name] = values[i]
	}
	return out
}

// key is the hash of a template's values and of the token that is exchanged.
func (t *template) key(values []string, subjectToken string) token.Key {
	h := sha256.New()
	for _, v := range values {
		fmt.Fprintf(h, "%d:%s", len(v), v)
	}
	fmt.Fprintf(h, "%d:%s", len(subjectToken), subjectToken)
	return token.Key(h.Sum(nil))
}
