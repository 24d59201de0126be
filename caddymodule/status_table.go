package caddymodule

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// runbookURL is where the sections are that advice names.
const runbookURL = "https://" + modulePath + "/blob/main/docs/runbook.md#"

// statusTable prints for people how credentials stand.
type statusTable struct {
	out    io.Writer
	colour bool
	now    time.Time // the process's clock
	text   strings.Builder
}

// all prints a line for each credential, and then what is not well.
func (t *statusTable) all(o *overview) error {
	t.now = o.Time
	if len(o.Credentials) == 0 {
		t.line("This process has no credentials.")
		return t.flush()
	}
	rows := [][]string{{"CREDENTIAL", "STATE", "TOKEN", "NEXT REQUEST", "LAST HOUR"}}
	states := []state{""}
	var waiting []string
	for _, r := range o.Credentials {
		rows = append(rows, []string{r.Name, stateWord(r.State), t.token(r), t.next(r), lastHour(r.LastHour)})
		states = append(states, r.State)
		if r.Counts && !r.Ready {
			waiting = append(waiting, r.Name)
		}
	}
	t.rows(rows, states)
	for _, r := range o.Credentials {
		if troubled(r) {
			t.line("")
			t.line(r.Name + ": " + r.Summary)
			t.trouble(r)
		}
	}
	t.line("")
	switch {
	case len(waiting) > 0:
		t.line("Not ready: no valid token is held for " + strings.Join(waiting, ", ") + ".")
	default:
		t.line("Ready: a valid token is held for every credential that counts.")
	}
	return t.flush()
}

// one prints all that is known of a credential.
func (t *statusTable) one(r *report) error {
	t.rows([][]string{{r.Name, stateWord(r.State)}}, []state{r.State})
	t.line("  " + r.Summary)
	t.fact("since", t.moment(r.Since))
	t.fact("grant", r.Grant)
	t.fact("client auth", r.ClientAuth)
	t.fact("server", r.Endpoint)
	t.fact("token", t.token(r))
	if k := r.Token; k != nil {
		lifetime := shortSpan(time.Duration(k.Lifetime * float64(time.Second)))
		if k.Assumed {
			lifetime += " (assumed: the server does not say)"
		}
		t.fact("lifetime", lifetime)
		t.fact("asked for", t.moment(k.Sent))
		t.fact("ends", t.moment(k.Ends))
		t.fact("scopes", strings.Join(k.Scopes, " "))
	}
	if k := r.RefreshToken; k != nil {
		word := "none that the server takes"
		if k.Usable {
			word = "usable"
		}
		t.fact("refresh token", word)
	}
	if f := r.TokenFile; f != nil {
		word := f.Path
		if !f.Written {
			word += " (not written)"
		}
		t.fact("token file", word)
	}
	if r.Shared {
		t.fact("shared", "with the other instances on the same storage")
	}
	t.fact("next request", t.next(r))
	t.fact("last success", t.moment(r.LastSuccess))
	if r.Failures > 0 {
		t.fact("failing", fmt.Sprintf("%d in a row, since %s", r.Failures, cmp.Or(t.moment(r.FailingSince), "the last success")))
	}
	if h := r.LastHour; h != nil {
		t.fact("last hour", fmt.Sprintf("%s, %d tokens refused by upstreams; %d token requests, %d failed", lastHour(h), sum(h.Rejected), sum(h.TokenRequests), sum(h.TokenFailures)))
	}
	if !r.Used {
		t.fact("used", "by no route of the configuration")
	}
	t.trouble(r)
	return t.flush()
}

// failed prints what came of a token request that failed.
func (t *statusTable) failed(r *report) error {
	t.line(r.Name + ": no new token; " + r.Summary)
	t.trouble(r)
	return t.flush()
}

// troubled tells whether there is something to say of a credential.
func troubled(r *report) bool {
	return r.State != stateOK || r.Advice != nil || missing(r) != ""
}

func missing(r *report) string {
	if r.Token == nil {
		return ""
	}
	return strings.Join(r.Token.Missing, " ")
}

// trouble prints what is wrong and what to do.
func (t *statusTable) trouble(r *report) {
	if f := r.Failure; f != nil {
		t.fact("failure", f.Message)
	}
	if a := r.Advice; a != nil {
		t.fact("what is wrong", a.Wrong)
		t.fact("what to do", a.Do)
		if a.Topic != "" {
			t.fact("more", runbookURL+a.Topic)
		}
	}
	t.fact("not granted", missing(r))
}

// factWidth is that of the longest word for a fact.
const factWidth = len("what is wrong")

func (t *statusTable) fact(word, value string) {
	if value != "" {
		t.line(fmt.Sprintf("  %-*s  %s", factWidth, word, value))
	}
}

// rows prints a table, the second column of which is the state.
func (t *statusTable) rows(rows [][]string, states []state) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			row[i] = onlyPrintable(cell)
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	for n, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			padding := ""
			if i < len(row)-1 {
				padding = strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2)
			}
			if i == 1 {
				cell = t.painted(cell, states[n]) //nolint:gosec // each row has its state
			}
			b.WriteString(cell + padding)
		}
		t.text.WriteString(b.String() + "\n")
	}
}

// painted colours a state: green is well, yellow serves on, red does not.
func (t *statusTable) painted(word string, s state) string {
	colour := "31"
	switch s {
	case stateOK:
		colour = "32"
	case stateStarting, stateFailing, stateRejected, stateExpired:
		colour = "33"
	case "":
		colour = ""
	}
	if !t.colour || colour == "" {
		return word
	}
	return "\x1b[" + colour + "m" + word + "\x1b[0m"
}

// line prints one line, whatever stands in it.
func (t *statusTable) line(text string) {
	t.text.WriteString(strings.TrimRight(onlyPrintable(text), " ") + "\n")
}

func (t *statusTable) flush() error {
	_, err := io.WriteString(t.out, t.text.String())
	return err
}

func stateWord(s state) string { return strings.ReplaceAll(string(s), "_", " ") }

func (t *statusTable) token(r *report) string {
	switch {
	case r.Template != nil:
		return fmt.Sprintf("%d of %d at most", r.Template.Tokens, r.Template.MaxTokens)
	case r.Token == nil:
		return "none"
	case r.Token.Valid:
		return "valid for " + shortSpan(r.Token.Expires.Sub(t.now))
	}
	return "expired " + shortSpan(t.now.Sub(r.Token.Expires)) + " ago"
}

func (t *statusTable) next(r *report) string {
	wait := r.NextRequest.Sub(t.now)
	switch {
	case r.Requesting:
		return "under way"
	case r.NextRequest.IsZero() && r.Template != nil:
		return "on demand"
	case r.NextRequest.IsZero() || wait > 365*24*time.Hour:
		return "none planned"
	case wait < time.Second:
		return "due"
	}
	return "in " + shortSpan(wait)
}

// moment is a time with how far it is from now, "" for none.
func (t *statusTable) moment(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	text := at.UTC().Format("2006-01-02 15:04:05 UTC")
	if ago := t.now.Sub(at); ago >= 0 {
		return text + " (" + shortSpan(ago) + " ago)"
	}
	return text + " (in " + shortSpan(at.Sub(t.now)) + ")"
}

func lastHour(h *hour) string {
	if h == nil {
		return ""
	}
	return fmt.Sprintf("%d requests, %d failed", sum(h.Requests), sum(h.Failures))
}

func sum(series []uint64) (total uint64) {
	for _, n := range series {
		total += n
	}
	return total
}

// shortSpan is a span in a table, rounded down: 42s, 1m30s, 42m, 1h5m, 3d4h.
func shortSpan(d time.Duration) string {
	const day = 24 * time.Hour
	d = max(d, 0).Truncate(time.Second)
	if d >= 10*time.Minute {
		d = d.Truncate(time.Minute)
	}
	if d >= day {
		d = d.Truncate(time.Hour)
	}
	two := func(large time.Duration, name string, small time.Duration, smallName string) string {
		text := fmt.Sprintf("%d%s", d/large, name)
		if rest := d % large / small; rest > 0 {
			text += fmt.Sprintf("%d%s", rest, smallName)
		}
		return text
	}
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return two(time.Minute, "m", time.Second, "s")
	case d < day:
		return two(time.Hour, "h", time.Minute, "m")
	}
	return two(day, "d", time.Hour, "h")
}
