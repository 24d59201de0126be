package caddymodule

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	html "html/template"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// The page is written here, whole: it can be read without script. Its script
// fetches it again and puts in what has changed.
var (
	//go:embed status.html
	pageText string
	//go:embed status.css
	pageStyle string
	//go:embed status.js
	pageScript string

	// both are made for who asks for the page, not at each start
	pageTemplate = sync.OnceValue(func() *html.Template { return html.Must(html.New("page").Parse(pageText)) })

	// pagePolicy lets the page run what is embedded here, load nothing, and ask
	// nobody but where it came from.
	pagePolicy = sync.OnceValue(func() string {
		return "default-src 'none'; style-src " + sourceOf(pageStyle) + "; script-src " + sourceOf(pageScript) +
			"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	})
)

const runbook = "https://github.com/caddy-upstream-auth/caddy-upstream-auth/blob/main/docs/runbook.md"

// sourceOf names inline text in a Content-Security-Policy.
func sourceOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// writePage writes the page.
func writePage(to *bytes.Buffer, o *overview) error {
	var body bytes.Buffer
	if err := pageTemplate().Execute(&body, newPage(o)); err != nil {
		return err
	}
	// Caddy's templates come before this handler, and would run what is in such
	// braces: a server may have sent them
	to.Write(bytes.ReplaceAll(body.Bytes(), []byte("{{"), []byte("{&#123;")))
	return nil
}

// level is how a state is to be taken: by words, a sign and a colour.
type level string

const (
	levelBad  level = "bad"  // requests are turned away
	levelWarn level = "warn" // they will be, if nothing is done
	levelWait level = "wait"
	levelGood level = "good"
)

// levels are in the order in which a person wants to see them.
var levels = []level{levelBad, levelWarn, levelWait, levelGood}

// statusPage is what the template shows.
type statusPage struct {
	Style, Script html.HTML
	Icon          html.URL

	Level          level
	Headline, Lead string
	Since          *when
	SinceWord      string
	Now            when
	Version        string
	Cards          []*card
	// Every is how many seconds a browser without script waits before it reads
	// the page again.
	Every int
}

// card is a credential.
type card struct {
	*report
	Level       level
	Word        string // the state
	StateSince  when
	Sentence    string
	Wrong       []part
	Do          [][]part
	Runbook     string
	Life        *life
	Plot        *plot
	Result      string // of the last token request
	Next        *when
	Last        *when
	Failing     *when
	NotCounting string // why it does not count
}

func newPage(o *overview) *statusPage {
	p := &statusPage{
		Style:  html.HTML("<style>" + pageStyle + "</style>"),    //nolint:gosec // it is embedded
		Script: html.HTML("<script>" + pageScript + "</script>"), //nolint:gosec // it is embedded
		Level:  levelGood, Version: o.Version, Every: 10,
		Now: newWhen(o.Time, o.Time),
	}
	for _, r := range o.Credentials {
		p.Cards = append(p.Cards, newCard(r, o))
	}
	slices.SortStableFunc(p.Cards, func(a, b *card) int {
		return cmp.Compare(slices.Index(levels, a.Level), slices.Index(levels, b.Level))
	})
	p.tell(o)
	p.Icon = iconOf(p.Level)
	return p
}

// tell says how it stands as a whole.
func (p *statusPage) tell(o *overview) {
	var counting, ready, attention int
	var unready []*card
	var since time.Time
	for _, c := range p.Cards {
		if c.Level == levelBad || c.Level == levelWarn {
			attention++
		}
		if !c.Counts {
			continue
		}
		counting++
		if c.Ready {
			ready++
		} else {
			unready = append(unready, c)
		}
	}
	switch {
	case len(p.Cards) == 0:
		p.Level, p.Headline, p.Lead = levelWait, "No credential is configured", "There is nothing to wait for, so this counts as ready."
		return
	case len(unready) > 0:
		p.Level, p.Headline = levelBad, "Not ready: "+unready[0].Name+" has no valid token"
		if len(unready) > 1 {
			p.Headline = fmt.Sprintf("Not ready: %d credentials have no valid token", len(unready))
		}
		if !slices.ContainsFunc(unready, func(c *card) bool { return c.Level != levelWait }) {
			p.Level, p.Headline = levelWait, "Starting"
		}
		since = earliest(unready)
	case attention == 1:
		p.Level, p.Headline = levelWarn, "Ready, and "+p.Cards[0].Name+" needs attention"
		since = earliest(p.Cards[:1])
	case attention > 1:
		p.Level, p.Headline = levelWarn, fmt.Sprintf("Ready, and %d credentials need attention", attention)
		since = earliest(p.Cards[:attention]) // they come first
	default:
		p.Headline = "All is well"
		for _, c := range p.Cards {
			if c.Since.After(since) {
				since = c.Since
			}
		}
	}
	p.Since, p.SinceWord = someWhen(since, o.Time), sinceWords[p.Level]
	p.Lead = fmt.Sprintf("%d of %d credentials hold a valid token", ready, counting)
	switch {
	case counting == 0:
		p.Lead = "No credential has to hold a token"
	case counting == 1 && ready == 1:
		p.Lead = "The credential holds a valid token"
	case counting == 1:
		p.Lead = "The credential holds no valid token"
	}
	switch more := len(p.Cards) - counting; {
	case more == 1:
		p.Lead += "; 1 more does not count"
	case more > 1:
		p.Lead += fmt.Sprintf("; %d more do not count", more)
	}
	p.Lead += "."
}

var sinceWords = map[level]string{levelBad: "Not ready since", levelWarn: "Needs attention since", levelWait: "Starting since", levelGood: "Since"}

func earliest(cards []*card) time.Time {
	return slices.MinFunc(cards, func(a, b *card) int { return a.Since.Compare(b.Since) }).Since
}

func newCard(r *report, o *overview) *card {
	now := o.Time
	c := &card{
		report: r, Level: levelOf(r), Word: stateWords[r.State], StateSince: newWhen(r.Since, now),
		Sentence: sentence(r.Summary), Plot: newPlot(r.LastHour),
		Last: someWhen(r.LastSuccess, now), Failing: someWhen(r.FailingSince, now),
	}
	if !never(r.NextRequest, now) {
		c.Next = someWhen(r.NextRequest, now)
	}
	if r.Token != nil {
		c.Life = newLife(r.Token, r.Failures > 0, now)
	}
	switch {
	case r.Failure != nil:
		c.Result = r.Failure.Message
	case r.LastSuccess.IsZero():
		c.Result = "none yet"
	default:
		c.Result = "token obtained"
	}
	if a := r.Advice; a != nil {
		c.Wrong = setOff(sentence(a.Wrong))
		for _, step := range steps(a.Do) {
			c.Do = append(c.Do, setOff(sentence(step)))
		}
		if a.Topic != "" {
			c.Runbook = runbook + "#" + url.PathEscape(a.Topic)
		}
	}
	switch {
	case r.Counts:
	case !r.Used:
		c.NotCounting = "no route uses it"
	case r.Template != nil:
		c.NotCounting = "it has no token before a request comes"
	default:
		c.NotCounting = "this status names others"
	}
	return c
}

// levelOf is how a credential's state is to be taken.
func levelOf(r *report) level {
	switch r.State {
	case stateOK:
		if r.TokenFile != nil && r.TokenFile.Problem != "" {
			return levelWarn
		}
		return levelGood
	case stateStarting:
		return levelWait
	case stateFailing, stateRejected:
		return levelWarn
	case stateLogin, stateStorage:
		if r.Ready {
			return levelWarn
		}
	}
	return levelBad
}

// Count writes a number for people.
func (*statusPage) Count(n int) string { return thousands(uint64(max(n, 0))) }

// Share is a part of the whole in percent.
func (*statusPage) Share(n, of int) string {
	return percentText(100 * float64(n) / float64(max(of, n, 1)))
}

// iconOf is the sign of a level in a browser's tab.
func iconOf(l level) html.URL {
	color, shape := "#1f7a4d", "m4.5 8.5 2.5 2.5 4.5-5.5"
	switch l {
	case levelBad:
		color, shape = "#b3261e", "m5 5 6 6m0-6-6 6"
	case levelWarn:
		color, shape = "#9a5b00", "M8 4v5m0 2.5v.5"
	case levelWait:
		color, shape = "#605c57", "M4.5 8h.1m3.4 0h.1m3.4 0h.1"
	}
	svg := `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="8" fill="` + color +
		`"/><path d="` + shape + `" fill="none" stroke="#fff" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"/></svg>`
	return html.URL("data:image/svg+xml," + strings.ReplaceAll(url.QueryEscape(svg), "+", "%20")) //nolint:gosec // it is made here
}
