package caddymodule

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/advice"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// What a check has come to. Only the last one counts against the exit code.
const (
	checkedOK        = "ok"
	checkedWarning   = "warning"   // a token came, and something may yet go wrong
	checkedInspected = "inspected" // no token was asked for
	checkedFailed    = "failed"
)

// checked is what came of checking one credential. Its JSON is described in the
// command's help. It holds no token and no secret.
type checked struct {
	Credential string   `json:"credential"`
	Places     []string `json:"places,omitempty"`
	Grant      string   `json:"grant,omitempty"`
	ClientAuth string   `json:"client_auth,omitempty"`
	Result     string   `json:"result"`
	// Reason is why no token was asked for.
	Reason       string               `json:"reason,omitempty"`
	Token        *checkedToken        `json:"token,omitempty"`
	RefreshToken *checkedRefreshToken `json:"refresh_token,omitempty"`
	Took         float64              `json:"took_seconds,omitempty"`
	Failure      *checkedFailure      `json:"failure,omitempty"`
	Findings     []finding            `json:"findings"`

	mu sync.Mutex // of Findings
}

type checkedToken struct {
	Type     string   `json:"type"`
	Lifetime float64  `json:"lifetime_seconds"`
	Assumed  bool     `json:"lifetime_assumed"`
	Scopes   []string `json:"scopes,omitempty"`
	Missing  []string `json:"missing_scopes,omitempty"`
	Length   int      `json:"length"`
}

type checkedRefreshToken struct {
	// Stored tells that there is one, and Configured that the one in the
	// configuration was never taken, and comes first.
	Stored     bool      `json:"stored"`
	Configured bool      `json:"configured"`
	Obtained   time.Time `json:"obtained,omitzero"`
	Usable     bool      `json:"usable"`
	Ended      time.Time `json:"ended,omitzero"`
	// Asked is when a request was made with it whose answer is not stored.
	Asked  time.Time `json:"unanswered_since,omitzero"`
	Sealed bool      `json:"sealed"`
	Place  string    `json:"place"`
}

// checkedFailure is a failure in the server's words, which are printable, and in
// which every secret is masked.
type checkedFailure struct {
	failureReport
	Description string `json:"description,omitempty"`
}

// finding is what is wrong and what to do.
type finding struct {
	advice.Advice
	Severity string `json:"severity"` // error or warning
	Runbook  string `json:"runbook,omitempty"`
	answered bool   // it is of the failure
}

func newChecked(c *candidate) *checked {
	out := &checked{Credential: c.name, Places: c.places, Result: checkedOK, Findings: []finding{}}
	if q := c.requester; q != nil {
		k := q.credential.facts(c.name)
		out.Grant, out.ClientAuth = k.Grant, k.Method
	}
	return out
}

func (r *checked) find(a advice.Advice, severity string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := finding{Advice: a, Severity: severity}
	if a.Topic != "" {
		f.Runbook = runbookURL + a.Topic
	}
	r.Findings = append(r.Findings, f)
	switch {
	case severity == "error":
		r.Result = checkedFailed
	case r.Result == checkedOK:
		r.Result = checkedWarning
	}
}

func (r *checked) fail(a advice.Advice) { r.find(a, "error") }
func (r *checked) warn(a advice.Advice) { r.find(a, "warning") }

// note takes what would be a warning in the log of a running Caddy.
func (r *checked) note(_ string, holds bool, message string, fields ...zap.Field) {
	if !holds {
		return
	}
	values := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(values)
	}
	wrong, do, _ := strings.Cut(message, ": ")
	for _, name := range sorted(values.Fields) {
		wrong += fmt.Sprintf(" (%s: %v)", name, values.Fields[name])
	}
	r.warn(advice.Advice{Wrong: clipped(wrong, 500), Do: do})
}

// inspected tells that no token was asked for, and why.
func (r *checked) inspected(why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Reason = why
	if r.Result != checkedFailed {
		r.Result = checkedInspected
	}
}

func (r *checked) obtained(t *advice.Token) {
	r.Token = &checkedToken{Type: t.Type, Lifetime: t.Lifetime.Seconds(), Assumed: t.Assumed, Missing: t.Missing, Length: t.Length}
	for _, s := range t.Scopes {
		r.Token.Scopes = append(r.Token.Scopes, clipped(s, 200))
	}
}

func (r *checked) keeps(i *token.Inspection, place string, sealed bool) {
	r.RefreshToken = &checkedRefreshToken{
		Stored: i.Stored, Configured: i.Configured, Obtained: moment(i.Obtained), Usable: i.Err() == nil,
		Ended: moment(i.Ended), Asked: moment(i.Asked), Sealed: sealed, Place: place,
	}
}

// refused takes a token request that failed, and what is said of it.
func (r *checked) refused(f *oauth.Failure, a advice.Advice) {
	r.Failure = &checkedFailure{failureReport{Kind: f.Kind.String(), Status: f.Status, Code: f.Code, Message: clipped(f.Error(), 500)}, f.Description}
	r.fail(a)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Findings[len(r.Findings)-1].answered = true
}

// printJSON writes all of it for a program.
func printJSON(out io.Writer, all []*checked) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(all)
}

// checkTable prints what a check has come to for people.
type checkTable struct{ statusTable }

// all prints the table, and below it what is to be said of each credential with
// which not all is well. No line is broken, so that a command can be copied.
func (t *checkTable) all(all []*checked) error {
	rows := [][]string{{"CREDENTIAL", "RESULT", "LIFETIME", "TYPE", "SCOPES", "TOOK"}}
	states := []state{""}
	var failed []string
	for _, r := range all {
		rows, states = append(rows, r.row()), append(states, r.colour())
		if r.Result == checkedFailed {
			failed = append(failed, r.Credential)
		}
	}
	t.rows(rows, states)
	for _, r := range all {
		if len(r.Findings) > 0 || r.Reason != "" {
			t.line("")
			t.details(r)
		}
	}
	t.line("")
	if len(failed) > 0 {
		t.line("Failed: " + strings.Join(failed, ", ") + ".")
	} else {
		t.line("No credential failed.")
	}
	return t.flush()
}

func (r *checked) row() []string {
	lifetime, kind, scopes, took := "-", "-", "-", "-"
	if t := r.Token; t != nil {
		if lifetime = lifeText(time.Duration(t.Lifetime * float64(time.Second))); t.Assumed {
			lifetime += " (assumed)"
		}
		kind = cmp.Or(t.Type, kind)
		if t.Scopes != nil {
			scopes = clipped(strings.Join(t.Scopes, " "), 60)
		}
	}
	if r.Took > 0 {
		took = tookText(time.Duration(r.Took * float64(time.Second)))
	}
	return []string{r.Credential, r.Result, lifetime, kind, scopes, took}
}

// colour is the state that the status prints in the colour of a result.
func (r *checked) colour() state {
	switch r.Result {
	case checkedOK:
		return stateOK
	case checkedFailed:
		return stateUnavailable
	}
	return stateFailing
}

func (t *checkTable) details(r *checked) {
	title := r.Credential
	if len(r.Places) > 0 {
		title += ", written in place at " + strings.Join(r.Places, ", ")
	}
	t.line(title + ": " + r.Result)
	t.fact("not asked", r.Reason)
	if r.RefreshToken != nil {
		t.fact("stored", r.RefreshToken.text())
	}
	for _, f := range r.Findings {
		if f.Severity == "warning" {
			t.fact("warning", f.Wrong)
		} else {
			t.fact("what is wrong", f.Wrong)
		}
		t.fact("what to do", f.Do)
		if f.answered {
			t.fact("server said", r.Failure.words())
			t.fact("cause", r.Failure.cause(f.Wrong))
		}
		t.fact("more", f.Runbook)
	}
}

// words are the server's own, "" where it gave none.
func (f *checkedFailure) words() string {
	if f.Status == 0 {
		return ""
	}
	text := fmt.Sprintf("HTTP %d", f.Status)
	if f.Code != "" {
		text += " " + clipped(f.Code, 64)
	}
	if f.Description != "" {
		text += fmt.Sprintf(" “%s”", clipped(f.Description, 200))
	}
	return text
}

// cause is this program's own word for the failure, unless it was said already.
func (f *checkedFailure) cause(said string) string {
	if f.Status != 0 && f.Code != "" || strings.Contains(said, f.Message) {
		return ""
	}
	return f.Message
}

func (k *checkedRefreshToken) text() string {
	form := "unsealed"
	if k.Sealed {
		form = "sealed"
	}
	switch {
	case k.Configured:
		return "nothing that counts: the refresh token in the configuration was never taken, and is spent first"
	case !k.Stored && k.Obtained.IsZero():
		return "no refresh token, in " + k.Place
	case !k.Stored:
		return fmt.Sprintf("no refresh token since %s (a logout), in %s", clockText(k.Obtained), k.Place)
	case !k.Ended.IsZero():
		return fmt.Sprintf("a refresh token of %s that the server has refused since %s, %s in %s", clockText(k.Obtained), clockText(k.Ended), form, k.Place)
	}
	return fmt.Sprintf("a refresh token of %s, %s in %s", clockText(k.Obtained), form, k.Place)
}

func clockText(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// lifeText writes a lifetime as people say it: 1h, 59m59s, 2d.
func lifeText(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	text := d.Round(time.Second).String()
	if d < time.Second {
		text = d.Round(time.Millisecond).String()
	}
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

func tookText(d time.Duration) string {
	if d >= time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return max(d.Round(time.Millisecond), time.Millisecond).String()
}
