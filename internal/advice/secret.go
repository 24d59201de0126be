package advice

import (
	"encoding/base64"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Secret is the shape of a client secret, without the secret.
type Secret struct {
	Length      int  // in bytes
	Blank       bool // begins or ends with white space or a line end
	Control     bool // holds a control character or a byte order mark
	Escaped     bool // its form encoding differs from its raw text, so that the two encodings of Basic do
	Quoted      bool // stands in quotation marks
	Base64      bool // is base64 of printable text, as a Kubernetes Secret that was encoded twice
	Placeholder bool // looks like a placeholder that nothing has replaced
}

// SecretShape looks at a secret, from which a file's last line end has been
// taken.
func SecretShape(secret string) *Secret {
	return &Secret{
		Length:      len(secret),
		Blank:       strings.TrimSpace(strings.Trim(secret, bom)) != strings.Trim(secret, bom),
		Control:     strings.ContainsFunc(secret, unprintable) || strings.Contains(secret, bom) || !utf8.ValidString(secret),
		Escaped:     url.QueryEscape(secret) != secret,
		Quoted:      quotedWhole(secret),
		Base64:      doubleEncoded(secret),
		Placeholder: placeholder().MatchString(strings.TrimSpace(secret)),
	}
}

const bom = "\ufeff"

// unprintable tells of what no secret holds by intent. Line ends and tabs at the
// edges count as blanks, too.
func unprintable(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }

func quotedWhole(s string) bool {
	s = strings.TrimSpace(s)
	if len(s) < 2 {
		return false
	}
	first, last := s[0], s[len(s)-1]
	return first == last && (first == '"' || first == '\'' || first == '`')
}

// doubleEncoded tells whether a secret is most likely the base64 of one: it is
// padded or long, and decodes to printable ASCII, which a random one hardly does.
func doubleEncoded(s string) bool {
	s = strings.TrimSpace(s)
	if len(s) < 12 || len(s)%4 != 0 {
		return false
	}
	decoded, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return false
	}
	text := strings.TrimSuffix(string(decoded), "\n")
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r > 0x7e })
}

// placeholder matches what templates leave behind: ${X}, $X, {env.X}, {{ .X }},
// %X%, <secret>, and words that stand for a secret. It is made when it is needed,
// not at each start of the process.
var placeholder = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?i)^(\$\{?[a-z_][a-z0-9_.:-]*\}?|\$\([a-z_][a-z0-9_]*\)|\{[^{}\s]+\}|\{\{.*\}\}|%[a-z_][a-z0-9_]*%|<[^<>]+>|\[[a-z _-]+\]|change[-_]?me!?|todo|xxx+|\*{3,}|secret|password|dummy|placeholder|redacted|null|none|undefined|your[-_ ]?(client[-_ ]?)?secret([-_ ]?here)?)$`)
})

// flaw is what is wrong with a secret by its looks, the surest first.
func (s *Secret) flaw() (wrong, do string, ok bool) {
	if s == nil {
		return "", "", false
	}
	const mend = "put the bare secret into the file or the variable that client_auth names"
	const look = " (a file's bytes are shown by: od -c <file> | head)"
	switch {
	case s.Placeholder:
		return "looks like a placeholder that nothing has replaced",
			"see to what should fill it in (the template, the Helm value, the secret store): client_auth takes {env.NAME} and {file./path/to/secret}, and no other form", true
	case s.Quoted:
		return "stands in quotation marks, which are sent with it",
			mend + ", without the marks (an env file of systemd or docker --env-file differ in what they take off)", true
	case s.Control && !s.Blank:
		return "holds a control character or a byte order mark, as editors and copying add",
			mend + ", written by: printf %s '<secret>' > <file>" + look, true
	case s.Blank:
		return "begins or ends with a blank or a line end",
			mend + ", written by: printf %s '<secret>' > <file>" + look + "; one line end at a file's end is taken off, no more", true
	case s.Base64:
		return "is base64 of readable text: most likely it was encoded twice, as with data in place of stringData in a Kubernetes Secret",
			"write the decoded one, once: kubectl create secret generic <name> --from-literal=<key>=<secret>, or stringData in place of data", true
	}
	return "", "", false
}
