// Package challenge reads the field WWW-Authenticate (RFC 9110 §11.6.1): why a
// server has refused a request, and what it wants instead.
package challenge

import "strings"

// Challenge is what a server wants to see by one scheme.
type Challenge struct {
	// Scheme is the authentication scheme as it was written; it is compared
	// without case.
	Scheme string
	// Token68 is what some schemes have in place of parameters; "" without.
	Token68 string
	// Params are the parameters by their names in small letters. Of a name that
	// repeats, which is an error, the first value counts.
	Params map[string]string
}

// Is tells whether the challenge is of a scheme.
func (c *Challenge) Is(scheme string) bool { return strings.EqualFold(c.Scheme, scheme) }

// Challenges reads the values of all the fields of an answer, each of which may
// hold several challenges. What cannot be read is passed over.
func Challenges(values []string) []Challenge {
	var out []Challenge
	for _, value := range values {
		out = append(out, read(value)...)
	}
	return out
}

// read reads one field. Commas part both challenges and their parameters, so
// that only what follows a word tells which of the two it is: "=" makes it a
// parameter.
func read(value string) []Challenge {
	var out []Challenge
	s := scanner(value)
	for s.skip(" \t,"); s != ""; s.skip(" \t,") {
		word := s.run(isToken)
		if word == "" {
			s.garbage()
			continue
		}
		before := s
		if s.skip(" \t"); s.take('=') {
			s.skip(" \t")
			param := s.value()
			if len(out) > 0 {
				out[len(out)-1].set(word, param)
			}
			continue
		}
		s = before
		c := Challenge{Scheme: word}
		if s.skip(" "); s != before {
			c.Token68 = s.token68()
		}
		out = append(out, c)
	}
	return out
}

func (c *Challenge) set(name, value string) {
	name = strings.ToLower(name)
	if _, repeated := c.Params[name]; repeated {
		return
	}
	if c.Params == nil {
		c.Params = make(map[string]string)
	}
	c.Params[name] = value
}

// scanner is what is left to be read.
type scanner string

// run reads the characters of a class, as many as there are.
func (s *scanner) run(class func(byte) bool) string {
	n := 0
	for n < len(*s) && class((*s)[n]) {
		n++
	}
	text := string((*s)[:n])
	*s = (*s)[n:]
	return text
}

func (s *scanner) skip(characters string) {
	*s = scanner(strings.TrimLeft(string(*s), characters))
}

func (s *scanner) take(c byte) bool {
	if *s == "" || (*s)[0] != c {
		return false
	}
	*s = (*s)[1:]
	return true
}

// value reads a parameter's value: a quoted string or, with more than a token
// may hold, whatever stands up to a blank or a comma: servers leave out quotes
// around URLs.
func (s *scanner) value() string {
	if s.take('"') {
		return s.quoted()
	}
	return s.run(func(c byte) bool { return c != ' ' && c != '\t' && c != ',' && c != '"' })
}

// quoted reads a string (RFC 9110 §5.6.4) after its first quote. One without a
// last quote ends with the field.
func (s *scanner) quoted() string {
	var b strings.Builder
	for i := 0; i < len(*s); i++ {
		switch c := (*s)[i]; {
		case c == '"':
			*s = (*s)[i+1:]
			return b.String()
		case c == '\\' && i+1 < len(*s):
			i++
			b.WriteByte((*s)[i])
		default:
			b.WriteByte(c)
		}
	}
	*s = ""
	return b.String()
}

// token68 reads one after a scheme. It is one only if nothing else follows in
// its challenge; a parameter begins like it.
func (s *scanner) token68() string {
	rest := *s
	text := rest.run(isToken68)
	text += rest.run(func(c byte) bool { return c == '=' })
	end := rest
	end.skip(" \t")
	if text == "" || end != "" && end[0] != ',' {
		return ""
	}
	*s = end
	return text
}

// garbage passes over what begins no word: up to the next comma, and past a
// string in quotes as a whole.
func (s *scanner) garbage() {
	if s.take('"') {
		s.quoted()
		return
	}
	s.run(func(c byte) bool { return c != ',' && c != '"' })
}

// isToken is tchar of RFC 9110 §5.6.2.
func isToken(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// isToken68 is a character of RFC 9110 §11.2, but for the "=" at its end.
func isToken68(c byte) bool { return isAlphanumeric(c) || strings.IndexByte("-._~+/", c) >= 0 }

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
