package caddymodule

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// FuzzCaddyfile writes anything into the block of a credential, of a handler
// and of a transport. Nothing may panic; what is refused names its line; and
// what adapts has to come through its JSON as it is.
func FuzzCaddyfile(f *testing.F) {
	for _, path := range goldenPaths(f) {
		input, _ := readGolden(f, path)
		for _, block := range innerBlocks(input) {
			f.Add(block, block)
		}
	}
	for _, option := range sorted(sampleOptions) {
		f.Add(good+sampleOptions[option], sampleOptions[option])
	}
	for _, odd := range []string{
		"", "{", "}", "{\n}", "{ }", `"`, "`", "\\", "#", "<<EOF\nx\nEOF", "\x00", "\xff", "a\\\nb",
		"param", "param a", `param "" ""`, "param \xff 1\nparam \xfe 2", "refresh_at NaN", "refresh_at 1e1", "refresh_at 0x1p4",
		"timeout 1d", "timeout -0s", "timeout 9999999999h", "wait 1e9999s",
		"client_id {", "client_id {}", `client_id \{a\}`, "client_id {a{b}c}", "client_id " + strings.Repeat("{", 200), "client_id {$HOME}",
		"request", "request {", "request { method GET }", "request {\nheader \xff x\n}", "tls", "grant", "grant .", "client_auth .", "client_auth ..",
		"http", "http {\ntls\n}", "http {\nversions 4\n}", "upstreams", "upstreams [", "header", "header a b c", `header "" ""`,
		good + "resource %zz", good + "scopes \u00e9", good + "scopes a\nscopes b", good + good,
	} {
		f.Add(odd, odd)
	}
	f.Fuzz(func(t *testing.T, credential, options string) {
		if !stays(credential) || !stays(options) {
			return // it would leave its block, or read files
		}
		for _, config := range []string{
			"{\n\tupstream_auth {\n\t\tcredential crm {\n" + credential + "\n\t\t}\n\t}\n}\n",
			"http://127.0.0.1:8080 {\n\tupstream_auth {\n" + credential + "\n\t}\n}\n",
			"http://127.0.0.1:8080 {\n\tupstream_auth crm {\n" + options + "\n\t}\n}\n",
			"http://127.0.0.1:8080 {\n\treverse_proxy 127.0.0.1:9000 {\n\t\ttransport upstream_auth crm {\n" + options + "\n\t\t}\n\t}\n}\n",
			definesCRM + "http://127.0.0.1:8080 {\n\tupstream_auth {\n" + options + "\n" + credential + "\n\t}\n}\n",
		} {
			adapted, _, err := adaptText(config)
			if err != nil {
				ours := strings.Contains(err.Error(), "tokens for 'upstream_auth'")
				if ours && !reportedLine.MatchString(err.Error()) {
					t.Errorf("the message names no line: %v\n%s", err, numbered(config))
				}
				if strings.Contains(err.Error(), "%!") && !strings.Contains(config, "%!") {
					t.Errorf("a slip in the message: %v\n%s", err, numbered(config))
				}
				continue
			}
			if _, err := roundTrip(adapted); err != nil {
				t.Errorf("%v\n%s", err, numbered(config))
			}
			again, _, err := adaptText(config)
			if err != nil || !bytes.Equal(again, adapted) {
				t.Errorf("adapting once more gives %v\n%s\nin place of\n%s", err, again, adapted)
			}
		}
	})
}

// stays tells whether text ends in the block that it begins in, as far as its
// braces tell, and imports nothing: the rest is a matter of Caddy's own parser.
func stays(text string) bool {
	if strings.Contains(text, "import") || !utf8.ValidString(text) {
		return false // JSON has no other text
	}
	tokens, err := caddyfile.Tokenize([]byte("{\n"+text+"\n}\n"), configName)
	if err != nil {
		return false
	}
	depth := 0
	for i, token := range tokens {
		switch {
		case token.Text == "{" || strings.HasSuffix(token.Text, "{"):
			depth++
		case token.Text == "}":
			depth--
		}
		if depth == 0 && i < len(tokens)-1 {
			return false
		}
	}
	return depth == 0
}

// innerBlocks are the contents of the blocks in a Caddyfile.
func innerBlocks(text string) []string {
	var blocks []string
	var starts []int
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		switch line = strings.TrimSpace(line); {
		case line == "}" && len(starts) > 0:
			start := starts[len(starts)-1]
			starts = starts[:len(starts)-1]
			blocks = append(blocks, strings.Join(lines[start+1:i], "\n"))
		case strings.HasSuffix(line, "{"):
			starts = append(starts, i)
		}
	}
	return blocks
}
