package faults

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

// TestCanary: what the fault matrix finds nothing with finds a mark wherever it
// stands, however it is written, and nothing where there is none.
func TestCanary(t *testing.T) {
	k := newCanary()
	const learned = "Zk3-q9_XtB7vLw0aSignature"
	k.learn(ofProof, learned)
	secret := mark(ofSecret, "crm") + `/p+a%s w=d&!~:x"é`
	in := func(text string) string { return "a line before\n{\"msg\":\"" + text + "\"}\na line after" }
	bytesOf := func(format, between string) func(string) string { return bytewise(format, between) }
	written := map[string]func(string) string{
		"as it is":               func(s string) string { return s },
		"in a URL's query":       url.QueryEscape,
		"in a URL's path":        url.PathEscape,
		"all of it URL-escaped":  bytesOf("%%%02X", ""),
		"likewise, lower case":   bytesOf("%%%02x", ""),
		"in JSON":                func(s string) string { return string(must(json.Marshal(s))) },
		"all of it JSON-escaped": bytesOf(`\u%04x`, ""),
		"likewise, in capitals":  bytesOf(`\u%04X`, ""),
		"quoted by Go":           strconv.Quote,
		"in JSON in JSON":        func(s string) string { return strconv.Quote(strconv.Quote(s)) },
		"in HTML":                html.EscapeString,
		"in lower case":          strings.ToLower,
		"in upper case":          strings.ToUpper,
		"hex":                    func(s string) string { return hex.EncodeToString([]byte(s)) },
		"hex in capitals":        func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) },
		"hex that Go prints":     func(s string) string { return fmt.Sprintf("%#x", s) },
		"bytes that Go prints":   func(s string) string { return fmt.Sprintf("%d", []byte(s)) },
		"bytes in Go's syntax":   func(s string) string { return fmt.Sprintf("%#v", []byte(s)) },
		"bytes with escapes":     bytesOf(`\x%02x`, ""),
		"bytes in JSON":          bytesOf("%d", ","),
		"cut after its window":   func(s string) string { return s[:window] },
		"cut, in base64": func(s string) string {
			return base64.StdEncoding.EncodeToString([]byte("x"))[:0] + base64.StdEncoding.EncodeToString([]byte(s[:window]))
		},
		"cut, in hex": func(s string) string { return hex.EncodeToString([]byte(s[:window])) },
		"as Basic": func(s string) string {
			return base64.StdEncoding.EncodeToString([]byte("app:" + url.QueryEscape(s)))
		},
		"in a JWT's claims": func(s string) string {
			return "eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString([]byte(`{"jti":"`+s+`"}`)) + "."
		},
	}
	for before := range 3 {
		for name, e := range map[string]*base64.Encoding{"std": base64.StdEncoding, "url": base64.URLEncoding, "raw": base64.RawStdEncoding} {
			written[fmt.Sprintf("base64 %s, %d bytes on", name, before)] = func(s string) string {
				return e.EncodeToString([]byte("\xff\xfe\xfd"[:before] + s + "\xff\xff"))
			}
		}
	}
	for name, write := range written {
		for what, text := range map[string]string{"a mark": secret, "what was learned": learned} {
			if got := k.search(in(write(text))); len(got) == 0 {
				t.Errorf("%s %s is not found: %s", what, name, write(text))
			}
		}
	}
	t.Run("the end of a mark", func(t *testing.T) {
		if s := mark(ofAccess, "crm"); len(k.search(s[len(s)-window:])) == 0 {
			t.Error("it is not found")
		}
	})
	t.Run("what is no secret", func(t *testing.T) {
		for _, text := range []string{"", "a", marker[:window-1], marker[1:], learned[1:], strings.Repeat("a", 1000), in("client-secret.crm"), strings.ToLower(marker[:window-1]) + "é"} {
			if got := k.search(text); len(got) != 0 {
				t.Errorf("%q is taken for %+v", text, got)
			}
		}
	})
	t.Run("the kind", func(t *testing.T) {
		for _, s := range spellings {
			got := k.pass("- " + s.of(mark(ofBody, "crm")) + " " + s.of(learned))
			if s.name != "in upper case" && !got[ofBody] || !got[ofProof] {
				t.Errorf("%s: %v", s.name, got)
			}
		}
	})
	t.Run("a place", func(t *testing.T) {
		k := newCanary()
		if p := k.clean("the log", in("nothing")); len(p) != 0 {
			t.Errorf("it says %q", p)
		}
		p := k.clean("the log", in("token="+url.QueryEscape(mark(ofAccess, "crm"))))
		if len(p) != 1 || !strings.Contains(p[0], "the log shows a secret (plain)") || !strings.Contains(p[0], "token=") || strings.Contains(p[0], "a line") {
			t.Errorf("it says %q", p)
		}
		if got := *k.places["the log"]; got.times != 2 || got.found == 0 || got.bytes == 0 {
			t.Errorf("it counts %+v", got)
		}
	})
}

// BenchmarkCanary is what a search costs, for it runs over everything.
func BenchmarkCanary(b *testing.B) {
	k := newCanary()
	for n := range 2000 {
		k.learn(ofProof, fmt.Sprintf("%016x%016x", n*7919, n*104729))
	}
	text := strings.Repeat(`{"level":"debug","ts":1763739012.12,"logger":"http.handlers.reverse_proxy","msg":"upstream roundtrip"}`+"\n", 10000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		k.search(text)
	}
}
