package interop

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// entry is one line of Caddy's log, as far as the tests read it.
type entry struct {
	Level      string
	Logger     string
	Msg        string
	Credential string
	Kind       string
	Code       string
	Status     int
	Cause      string
	Outcome    string `json:"upstream_auth_outcome"` // in the access log
	Request    struct{ Host string }
}

// entryOf reads a line of the log; what is not JSON is an empty entry.
func entryOf(line string) entry {
	var e entry
	if json.Unmarshal([]byte(line), &e) != nil {
		return entry{}
	}
	return e
}

// failures are the lines that name the credential and a kind of failure.
func (s *site) failures() []entry {
	var found []entry
	lines, _ := s.output.lines()
	for _, line := range lines {
		// most lines are of the access log, and this is asked often
		if !strings.Contains(line, `"kind"`) {
			continue
		}
		if e := entryOf(line); e.Credential == s.name && e.Kind != "" {
			found = append(found, e)
		}
	}
	return found
}

// outcomes counts what became of the requests, as the access log has it.
func (s *site) outcomes() map[string]int {
	counts := make(map[string]int)
	lines, _ := s.output.lines()
	for _, line := range lines {
		e := entryOf(line)
		if strings.HasPrefix(e.Logger, "http.log.access") && strings.HasSuffix(e.Request.Host, "."+s.name) {
			counts[e.Outcome]++
		}
	}
	return counts
}

// withoutAccessLog is the log without a line for each request.
func (c *caddy) withoutAccessLog() string {
	lines, _ := c.output.lines()
	return strings.Join(slices.DeleteFunc(lines, func(line string) bool {
		logger := entryOf(line).Logger
		return strings.HasPrefix(logger, "http.log.access") || strings.HasPrefix(logger, "http.handlers.reverse_proxy")
	}), "\n")
}

// secrets are texts that no log may show, by what they are.
type secrets struct {
	mu    sync.Mutex
	known map[string]string
}

func (s *secrets) add(what, text string) {
	if text == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = make(map[string]string)
	}
	s.known[text] = what
}

func (s *secrets) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, has := s.known[text]
	return has
}

// list copies what is known.
func (s *secrets) list(to map[string]string, whose string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for text, what := range s.known {
		to[text] = what + whose
	}
}

// shown are those texts that stand in what a program printed. There may be
// thousands of them, and megabytes of the other, so it is read once.
func shown(printed string, texts map[string]string) []string {
	const head = 8
	index := make(map[string][]string)
	found := make(map[string]bool)
	for text := range texts {
		if len(text) < head {
			found[text] = strings.Contains(printed, text)
			continue
		}
		index[text[:head]] = append(index[text[:head]], text)
	}
	for i := 0; i+head <= len(printed); i++ {
		for _, text := range index[printed[i:i+head]] {
			if strings.HasPrefix(printed[i:], text) {
				found[text] = true
			}
		}
	}
	maps.DeleteFunc(found, func(_ string, is bool) bool { return !is })
	return slices.Collect(maps.Keys(found))
}

// gather adds what has come up: the secrets of the Caddyfile, the tokens that
// the upstream got, and the refresh token that is stored.
func (s *site) gather(t *testing.T) {
	t.Helper()
	for name, value := range s.variables() {
		for _, form := range (credential{clientID: s.clientID, secret: value}).spellings() {
			s.secrets.add(name, form)
		}
	}
	_, tokens := s.upstream.seen()
	for token := range tokens {
		s.secrets.add("an access token", token)
	}
	s.refreshToken(t)
}

// checkPrinted looks for the site's secrets in what a command printed.
func (s *site) checkPrinted(t *testing.T, p *process) {
	t.Helper()
	s.gather(t)
	texts := make(map[string]string)
	s.secrets.list(texts, "")
	for _, text := range shown(p.output.String(), texts) {
		t.Errorf("%s stands in what %s printed", texts[text], p.name)
	}
}

// aJWT is how each of them begins: assertions, proofs, ID tokens.
var aJWT = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.`)

// checkLog looks for the secrets of all sites.
func (c *caddy) checkLog(t *testing.T) {
	t.Helper()
	log := c.output.String()
	for _, word := range []string{"DATA RACE", "panic: ", "fatal error: "} {
		if strings.Contains(log, word) {
			t.Errorf("caddy's log says %q", word)
		}
	}
	if aJWT.MatchString(log) {
		t.Error("a JWT stands in caddy's log")
	}
	texts := make(map[string]string)
	for _, s := range c.sites {
		s.gather(t)
		s.secrets.list(texts, " of "+s.name)
	}
	for _, text := range shown(log, texts) {
		t.Errorf("%s stands in caddy's log", texts[text])
		for _, s := range c.sites {
			s.leaked = s.leaked || s.secrets.has(text)
		}
	}
}

// spellings are the forms in which the secret travels, or may show up.
func (cr credential) spellings() []string {
	if cr.secret == "" {
		return nil
	}
	encoded := url.QueryEscape(cr.secret)
	forms := []string{
		cr.secret,
		encoded,
		url.PathEscape(cr.secret),
		strings.Trim(strconv.Quote(cr.secret), `"`),
		base64.StdEncoding.EncodeToString([]byte(cr.clientID + ":" + cr.secret)),
		base64.StdEncoding.EncodeToString([]byte(cr.clientID + ":" + encoded)),
	}
	if quoted, err := json.Marshal(cr.secret); err == nil {
		forms = append(forms, strings.Trim(string(quoted), `"`))
	}
	return forms
}

// refreshToken is the one that is stored for the credential, "" for none.
func (s *site) refreshToken(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "storage", "upstream_auth", s.name, "*.json"))
	if err != nil || len(files) > 1 {
		t.Fatalf("%s: files %v, %v", s.name, files, err)
	}
	if len(files) == 0 {
		return ""
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var record struct {
		Plain struct {
			RefreshToken string `json:"refresh_token"`
		}
	}
	if err := json.Unmarshal(text, &record); err != nil {
		t.Fatalf("%s: %v", files[0], err)
	}
	s.secrets.add("a refresh token", record.Plain.RefreshToken)
	return record.Plain.RefreshToken
}
