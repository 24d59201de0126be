package caddymodule

import (
	"bytes"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/advice"
)

// noon is when the samples are looked at.
var noon = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

// sampleHour is an hour with requests, of which some fail in the end.
func sampleHour(failing bool) *hour {
	h := &hour{
		Until: noon, Requests: make([]uint64, minutes), Failures: make([]uint64, minutes), Rejected: make([]uint64, minutes),
		TokenRequests: make([]uint64, minutes), TokenFailures: make([]uint64, minutes),
	}
	for i := range minutes {
		h.Requests[i] = uint64(14 + 9*math.Sin(float64(i)/6) + float64(i*7%5))
	}
	h.TokenRequests[15] = 1
	if failing {
		h.TokenRequests[54], h.TokenFailures[54] = 3, 3
		for i := 55; i < minutes; i++ {
			h.TokenRequests[i], h.TokenFailures[i], h.Failures[i] = 1, 1, h.Requests[i]/2
		}
	}
	return h
}

// sample is a credential in a state.
func sample(name string, st state) *report {
	r := &report{
		Name: name, Grant: "client_credentials", ClientAuth: "client_secret_basic", Endpoint: "https://idp.example.com/oauth2/token",
		Used: true, Counts: true, State: st, Since: noon.Add(-44 * time.Minute), Ready: true, LastHour: sampleHour(false),
		Token: &tokenReport{
			Valid: true, Sent: noon.Add(-44 * time.Minute), RefreshAt: noon.Add(time.Minute), Expires: noon.Add(15*time.Minute + 50*time.Second),
			Ends: noon.Add(16 * time.Minute), Lifetime: 3600, Scopes: []string{"read", "write"},
		},
		NextRequest: noon.Add(time.Minute), LastSuccess: noon.Add(-44 * time.Minute),
	}
	fail := func(failures int, f failureReport, a advice.Advice) {
		r.Since, r.FailingSince = noon.Add(-6*time.Minute), noon.Add(-6*time.Minute)
		r.Failures, r.Failure, r.Advice, r.LastHour = failures, &f, &a, sampleHour(!r.Ready)
		r.NextRequest = noon.Add(42 * time.Second)
	}
	switch st {
	case stateStarting:
		r.Ready, r.Token, r.Requesting, r.LastSuccess, r.Since = false, nil, true, time.Time{}, noon.Add(-2*time.Second)
		r.NextRequest, r.LastHour = time.Time{}, newHistory(name).hour()
	case stateFailing:
		r.Token.RefreshAt = noon.Add(-7 * time.Minute)
		fail(5, failureReport{Kind: "unreachable", Message: "unreachable: dial tcp: connection refused"}, advice.Advice{
			Wrong: "nothing listens at idp.example.com: the connection was refused",
			Do:    "see that the server runs, and that host and port in token_url are right; to try: curl -sv -o /dev/null https://idp.example.com/oauth2/token",
			Topic: "unreachable",
		})
	case stateRejected:
		r.Token.Rejected = true
		for i := 50; i < minutes; i++ {
			r.LastHour.Rejected[i] = r.LastHour.Requests[i]
		}
	case stateExpired:
		r.Ready, r.Token.Valid, r.Requesting = false, false, true
		r.Token.Expires, r.Token.Ends = noon.Add(-12*time.Second), noon.Add(-2*time.Second)
	case stateUnavailable:
		r.Ready, r.Token.Valid = false, false
		r.Token.Sent, r.Token.RefreshAt = noon.Add(-62*time.Minute), noon.Add(-17*time.Minute)
		r.Token.Expires, r.Token.Ends = noon.Add(-130*time.Second), noon.Add(-2*time.Minute)
		fail(12, failureReport{Kind: "refused", Status: 401, Code: "invalid_client", Message: "refused: HTTP 401, invalid_client"}, advice.Advice{
			Wrong: "the server does not take the client's proof of who it is: invalid_client",
			Do: "the secret looks in order, so that most likely it has expired or was replaced at the server: have a new one issued; most likely this server wants the other encoding: in the credential crm write: client_auth client_secret_basic {file./run/secrets/crm}" +
				"; to look at the secret's form, and to try other ways of sending it, run: caddy upstream-auth check",
			Topic: "client-refused",
		})
	case stateLogin:
		r.Grant, r.RefreshToken = "authorization_code", &refreshTokenReport{false}
		fail(1, failureReport{Kind: "refused", Status: 400, Code: "invalid_grant", Message: "refused: HTTP 400, invalid_grant"}, advice.Advice{
			Wrong: "the refresh token has ended, or was revoked", Do: "run: caddy upstream-auth login " + name, Topic: "login-required",
		})
		r.NextRequest = noon.Add(100 * 365 * 24 * time.Hour)
	case stateStorage:
		r.Grant, r.RefreshToken = "refresh_token", &refreshTokenReport{true}
		fail(3, failureReport{Kind: "unreachable", Message: "unreachable: Caddy's storage: permission denied"}, advice.Advice{
			Wrong: "Caddy's storage cannot be written", Do: "give the user that Caddy runs as the right to write there: ls -ld /var/lib/caddy shows who may", Topic: "storage",
		})
	}
	r.Summary = summary(r, noon)
	return r
}

// sampleTemplate is one with a token for each value.
func sampleTemplate(name string) *report {
	r := sample(name, stateOK)
	r.Token, r.Template, r.Counts = nil, &templateReport{Tokens: 1204, MaxTokens: 5000, InFlight: 2}, false
	r.Summary = summary(r, noon)
	return r
}

// sampleOverview is an overview as newOverview makes it.
func sampleOverview(reports ...*report) *overview {
	o := &overview{Ready: true, Time: noon, Version: "v1.2.3", Credentials: reports}
	for _, r := range reports {
		o.Ready = o.Ready && (r.Ready || !r.Counts)
	}
	return o
}

// render is the page of an overview, as text and as a tree.
func render(t *testing.T, o *overview) (string, *html.Node) {
	t.Helper()
	var b bytes.Buffer
	if err := writePage(&b, o); err != nil {
		t.Fatal(err)
	}
	tree, err := html.Parse(&b)
	if err != nil {
		t.Fatal(err)
	}
	b.Reset()
	if err := writePage(&b, o); err != nil {
		t.Fatal(err)
	}
	return b.String(), tree
}

func attrOf(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// wordsOf is the text of a tree without what nobody reads.
func wordsOf(tree *html.Node) string {
	var words []string
	var walk func(*html.Node)
	walk = func(n *html.Node) {
		if n.Type == html.ElementNode && (n.Data == "style" || n.Data == "script") {
			return
		}
		switch {
		case n.Type == html.TextNode:
			words = append(words, n.Data)
		case n.Data == "dd", n.Data == "li":
			words = append(words, " ")
		}
		for c := range n.ChildNodes() {
			walk(c)
		}
	}
	walk(tree)
	return strings.Join(strings.Fields(strings.Join(words, "")), " ")
}

// TestPageStates: each state by word and sign, with what there is to say of it.
func TestPageStates(t *testing.T) {
	for st, want := range map[state]struct {
		level    level
		headline string
		says     []string
	}{
		stateOK:          {levelGood, "All is well", []string{"OK since 11:16:00", "The token is valid for 15 minutes", "renewed at 12:01:00", "used until 12:15:50", "The credential holds a valid token"}},
		stateStarting:    {levelWait, "Starting", []string{"Starting since 11:59:58", "under way", "Token none yet", "Last result none yet", "never", "no requests"}},
		stateFailing:     {levelWarn, "Ready, and crm needs attention", []string{"Failing since 11:54:00", "was due at 11:53:00", "Nothing listens at idp.example.com", "See that the server runs", "Failures in a row 5"}},
		stateRejected:    {levelWarn, "Ready, and crm needs attention", []string{"Refused upstream", "refusals of the token by an upstream"}},
		stateExpired:     {levelBad, "Not ready: crm has no valid token", []string{"Expired", "ended at 11:59:48"}},
		stateUnavailable: {levelBad, "Not ready: crm has no valid token", []string{"No token since", "12 token requests have failed in a row", "36 turned away", "8 failed", "refused: HTTP 401, invalid_client"}},
		stateLogin:       {levelWarn, "Ready, and crm needs attention", []string{"Login required", "caddy upstream-auth login crm", "none is planned"}},
		stateStorage:     {levelWarn, "Ready, and crm needs attention", []string{"Storage unavailable", "ls -ld /var/lib/caddy"}},
	} {
		t.Run(string(st), func(t *testing.T) {
			text, tree := render(t, sampleOverview(sample("crm", st)))
			words := wordsOf(tree)
			for _, says := range append(want.says, want.headline, "Version v1.2.3", "12:00:00") {
				if !strings.Contains(words, says) {
					t.Errorf("it does not say %q:\n%s", says, words)
				}
			}
			if !strings.Contains(text, `class="card `+string(want.level)+`"`) || !strings.Contains(text, `data-state="`+string(st)+`"`) {
				t.Errorf("the level is not %s", want.level)
			}
			checkPage(t, tree)
		})
	}
	if len(stateWords) != 8 {
		t.Errorf("%d states have words", len(stateWords))
	}
}

// checkPage is what holds for every page: it can be read without script and
// style, nothing of it comes from elsewhere, and what refers to something finds
// it.
func checkPage(t *testing.T, tree *html.Node) {
	t.Helper()
	ids := make(map[string]int)
	refersTo := map[string]string{"a": runbook + "#", "link": "data:image/svg+xml,"}
	var refers []string
	for n := range tree.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		if id := attrOf(n, "id"); id != "" {
			ids[id]++
		}
		for _, a := range n.Attr {
			switch {
			case a.Key == "style" || strings.HasPrefix(a.Key, "on"):
				t.Errorf("<%s> has %s, which the page's policy forbids", n.Data, a.Key)
			case a.Key == "src" || a.Key == "srcset" || a.Key == "action":
				t.Errorf("<%s> has %s", n.Data, a.Key)
			case a.Key == "href" && (refersTo[n.Data] == "" || !strings.HasPrefix(a.Val, refersTo[n.Data])):
				t.Errorf("<%s> refers to %s", n.Data, a.Val)
			case a.Key == "aria-labelledby":
				refers = append(refers, strings.Fields(a.Val)...)
			case strings.Contains(a.Val, "ZgotmplZ"):
				t.Errorf("<%s %s> was taken for unsafe", n.Data, a.Key)
			}
		}
		switch n.Data {
		case "svg", "path", "rect", "circle":
			if n.Data == "svg" && n.Parent.Namespace == "" && attrOf(n, "aria-hidden") == "" && (attrOf(n, "role") != "img" || attrOf(n, "aria-label") == "") {
				t.Error("an <svg> says nothing to who does not see it")
			}
			for _, a := range n.Attr {
				if strings.Contains(a.Val, "NaN") || strings.Contains(a.Val, "Inf") || strings.HasPrefix(a.Val, "-") && a.Key != "viewbox" && a.Key != "viewBox" {
					t.Errorf("<%s %s=%q>", n.Data, a.Key, a.Val)
				}
			}
		case "iframe", "object", "embed", "img", "form", "base":
			t.Errorf("there is a <%s>", n.Data)
		}
	}
	for id, n := range ids {
		if n != 1 {
			t.Errorf("%d elements are called %s", n, id)
		}
	}
	for _, id := range refers {
		if ids[id] == 0 {
			t.Errorf("nothing is called %s", id)
		}
	}
}

// TestPageHeadline: how it stands as a whole.
func TestPageHeadline(t *testing.T) {
	unused := func(r *report) *report { r.Used, r.Counts = false, false; return r }
	for _, tc := range []struct {
		name, headline, lead, order string
		level                       level
		of                          []*report
	}{
		{"none", "No credential is configured", "There is nothing to wait for, so this counts as ready.", "", levelWait, nil},
		{"one", "All is well", "The credential holds a valid token.", "a", levelGood, []*report{sample("a", stateOK)}},
		{"two", "All is well", "2 of 2 credentials hold a valid token.", "a b", levelGood, []*report{sample("a", stateOK), sample("b", stateOK)}},
		{"a template alone", "All is well", "No credential has to hold a token; 1 more does not count.", "a", levelGood, []*report{sampleTemplate("a")}},
		{"starting", "Starting", "1 of 2 credentials hold a valid token.", "b a", levelWait, []*report{sample("a", stateOK), sample("b", stateStarting)}},
		{"the worst first", "Not ready: d has no valid token", "3 of 4 credentials hold a valid token.", "d b c a", levelBad, []*report{sample("a", stateOK), sample("b", stateFailing), sample("c", stateRejected), sample("d", stateUnavailable)}},
		{"several", "Not ready: 2 credentials have no valid token", "0 of 2 credentials hold a valid token.", "b a", levelBad, []*report{sample("a", stateStarting), sample("b", stateUnavailable)}},
		{"one alone", "Not ready: a has no valid token", "The credential holds no valid token.", "a", levelBad, []*report{sample("a", stateExpired)}},
		{"attention", "Ready, and 2 credentials need attention", "2 of 2 credentials hold a valid token.", "a b", levelWarn, []*report{sample("a", stateFailing), sample("b", stateLogin)}},
		{"what does not count", "Ready, and b needs attention", "The credential holds a valid token; 1 more does not count.", "b a", levelWarn, []*report{sample("a", stateOK), unused(sample("b", stateUnavailable))}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPage(sampleOverview(tc.of...))
			var order []string
			for _, c := range p.Cards {
				order = append(order, c.Name)
			}
			if p.Headline != tc.headline || p.Lead != tc.lead || p.Level != tc.level || strings.Join(order, " ") != tc.order {
				t.Errorf("got %s %q %q %v", p.Level, p.Headline, p.Lead, order)
			}
			_, tree := render(t, sampleOverview(tc.of...))
			checkPage(t, tree)
		})
	}
}

// TestPageEscapes: a server's words, and all others, are words.
func TestPageEscapes(t *testing.T) {
	const evil = `"'><script>alert(1)</script><b onclick=x {{env "HOME"}}`
	r := sample("crm", stateUnavailable)
	r.Failure.Code, r.Failure.Message = evil, "refused: "+evil
	r.Advice = &advice.Advice{Wrong: evil, Do: "write: " + evil + "; curl " + evil, Topic: evil}
	r.Summary, r.Endpoint, r.Grant, r.ClientAuth = evil, evil, evil, evil
	r.Token.Scopes, r.Token.Missing = []string{evil}, []string{evil}
	o := sampleOverview(r)
	o.Version = evil
	text, tree := render(t, o)
	scripts := 0
	for n := range tree.Descendants() {
		switch n.Data {
		case "script":
			scripts++
		case "b":
			t.Error("there is a <b>")
		}
	}
	if scripts != 1 || strings.Contains(text, "{{") {
		t.Errorf("%d scripts in\n%s", scripts, text)
	}
	if n := strings.Count(wordsOf(tree), `<script>alert(1)</script>`); n < 9 {
		t.Errorf("it is shown %d times", n)
	}
}

// TestPagePolicy: the browser runs what is embedded, and nothing else.
func TestPagePolicy(t *testing.T) {
	text, tree := render(t, sampleOverview(sample("crm", stateOK)))
	for n := range tree.Descendants() {
		if n.Type == html.ElementNode && (n.Data == "style" || n.Data == "script") {
			if want := n.Data + "-src " + sourceOf(n.FirstChild.Data) + ";"; !strings.Contains(pagePolicy(), want) {
				t.Errorf("the policy lacks %s: %s", want, pagePolicy())
			}
		}
	}
	for _, forbidden := range []string{"unsafe", "http:", "https:", "*"} {
		if strings.Contains(pagePolicy(), forbidden) {
			t.Errorf("the policy allows %s", forbidden)
		}
	}
	for name, file := range map[string]string{"status.css": pageStyle, "status.js": pageScript} {
		for _, forbidden := range []string{"{{", "@import", "://", "</", "eval", "innerHTML"} {
			if strings.Contains(file, forbidden) {
				t.Errorf("%s holds %s", name, forbidden)
			}
		}
	}
	// for who has no script
	if !strings.Contains(text, `<noscript><meta http-equiv="refresh" content="10"></noscript>`) {
		t.Error("without script it would stand still")
	}
}

// TestPageContrast: WCAG 2.2, 1.4.3 for text and 1.4.11 for signs, in each
// scheme of colours.
func TestPageContrast(t *testing.T) {
	schemes := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(pageStyle, -1)
	if len(schemes) != 3 {
		t.Fatalf("%d schemes", len(schemes))
	}
	for i, scheme := range schemes {
		colors := make(map[string]float64)
		for _, c := range regexp.MustCompile(`--([\w-]+): #([0-9a-f]{6})`).FindAllStringSubmatch(scheme[1], -1) {
			colors[c[1]] = luminance(t, c[2])
		}
		for _, pair := range []struct {
			of, on string
			least  float64
		}{
			{"ink", "ground", 7}, {"quiet", "ground", 4.5}, {"accent", "ground", 4.5}, {"good", "ground", 4.5}, {"warn", "ground", 4.5}, {"bad", "ground", 4.5}, {"wait", "ground", 4.5},
			{"ink", "box", 7}, {"quiet", "box", 4.5}, {"accent", "box", 4.5},
			{"sign", "good", 3}, {"sign", "warn", 3}, {"sign", "bad", 3}, {"ink", "accent-pale", 3}, {"accent", "accent-pale", 3},
		} {
			of, ok := colors[pair.of]
			on, known := colors[pair.on]
			if got := (max(of, on) + 0.05) / (min(of, on) + 0.05); !ok || !known || got < pair.least {
				t.Errorf("scheme %d: %s on %s has a contrast of %.2f, want %.1f", i, pair.of, pair.on, got, pair.least)
			}
		}
	}
}

// luminance is a colour's, as WCAG defines it.
func luminance(t *testing.T, color string) float64 {
	t.Helper()
	var sum float64
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(color[2*i:2*i+2], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		c := float64(n) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}

// TestLife: the bar of a token's life.
func TestLife(t *testing.T) {
	for _, tc := range []struct {
		name                    string
		sent, refresh, stops, e time.Duration // from now
		valid, failing          bool
		now, at, reserve        string
		over, late              bool
	}{
		{"new", 0, 75 * time.Second, 90 * time.Second, 100 * time.Second, true, false, "0.00%", "83.33%", "16.67%", false, false},
		{"half", -50 * time.Second, 25 * time.Second, 50 * time.Second, 50 * time.Second, true, false, "50.00%", "75.00%", "25.00%", false, false},
		{"not renewed", -80 * time.Second, -5 * time.Second, 20 * time.Second, 20 * time.Second, true, true, "80.00%", "75.00%", "25.00%", false, true},
		{"over", -200 * time.Second, -125 * time.Second, -100 * time.Second, -100 * time.Second, false, true, "100.00%", "75.00%", "25.00%", true, true},
		{"assumed, serving on", -400 * time.Second, -100 * time.Second, 400 * time.Second, -100 * time.Second, true, true, "50.00%", "37.50%", "62.50%", false, true},
		{"assumed, new", -100 * time.Second, 100 * time.Second, 24 * time.Hour, 200 * time.Second, true, false, "33.33%", "66.67%", "33.33%", false, false},
		{"no life at all", 0, 0, 0, 0, false, false, "0.00%", "0.00%", "100.00%", true, false},
		{"from the future", time.Second, 2 * time.Second, 3 * time.Second, 3 * time.Second, true, false, "0.00%", "50.00%", "50.00%", false, false},
	} {
		l := newLife(&tokenReport{
			Valid: tc.valid, Sent: noon.Add(tc.sent), RefreshAt: noon.Add(tc.refresh), Expires: noon.Add(tc.stops), Ends: noon.Add(tc.e),
		}, tc.failing, noon)
		if l.Now != tc.now || l.RefreshAt != tc.at || l.Reserve != tc.reserve || l.Over != tc.over || l.Late != tc.late {
			t.Errorf("%s: %+v", tc.name, l)
		}
	}
}

// TestPlot: the last hour, in bars and in words.
func TestPlot(t *testing.T) {
	h := newHistory("nobody").hour()
	if p := newPlot(h); p.Text != "no requests" || p.Asked != "no token requests" || len(p.Bars)+len(p.Dots) != 0 {
		t.Errorf("of nothing: %+v", p)
	}
	h.Requests[0], h.Requests[58], h.Requests[59] = 1200, 1, 3
	h.Failures[0], h.Failures[59] = 1, 3
	h.Rejected[59] = 1
	h.TokenRequests[58], h.TokenFailures[58], h.TokenRequests[59] = 2, 1, 1
	p := newPlot(h)
	if p.Text != "1\u202f204 requests, 4 turned away, 1 refusal of the token by an upstream" || p.Asked != "3 token requests, 1 failed" || p.Most != "2\u202f000" || !p.Failed {
		t.Errorf("in words: %q, %q, up to %q", p.Text, p.Asked, p.Most)
	}
	if want := []bar{
		{X: "0.17%", Y: "25.4", Height: "30.6", FailedY: "22.4", FailedHeight: "3.0", Title: "59 minutes ago: 1\u202f200 requests, 1 turned away"},
		{X: "96.83%", Y: "54.5", Height: "1.5", Title: "the minute before: 1 request"},
		{X: "98.50%", Y: "56.0", Height: "0.0", FailedY: "54.5", FailedHeight: "1.5", Title: "this minute: 3 requests, 3 turned away"},
	}; !slices.Equal(p.Bars, want) {
		t.Errorf("bars: %+v", p.Bars)
	}
	if want := []dot{{"97.50%", true, "the minute before: 2 token requests, 1 failed"}, {"99.17%", false, "this minute: 1 token request"}}; !slices.Equal(p.Dots, want) {
		t.Errorf("dots: %+v", p.Dots)
	}
	for n, want := range map[uint64]uint64{0: 1, 1: 1, 2: 2, 7: 8, 9: 10, 11: 20, 26: 30, 61: 80, 81: 100, 1001: 2000, math.MaxUint64: math.MaxUint64} {
		if got := ceiling(n); got != want {
			t.Errorf("above %d is %d, want %d", n, got, want)
		}
	}
}

func TestPageWords(t *testing.T) {
	for of, want := range map[time.Duration]string{
		0: "now", 999 * time.Millisecond: "now", -999 * time.Millisecond: "now", time.Second: "in 1 second", -time.Second: "1 second ago",
		119 * time.Second: "in 119 seconds", 2 * time.Minute: "in 2 minutes", -90 * time.Minute: "90 minutes ago", 5 * time.Hour: "in 5 hours", -72 * time.Hour: "3 days ago",
	} {
		if got := spanFrom(noon.Add(of), noon); got != want {
			t.Errorf("%s: %q, want %q", of, got, want)
		}
	}
	for of, want := range map[string]string{
		"": "", "the token": "The token.", "the end.": "The end.", "run: this": "Run: this.", "idp.example.com is down": "idp.example.com is down.",
		"token_url is wrong": "token_url is wrong.", "5 failed": "5 failed.", "nothing": "nothing.",
	} {
		if got := sentence(of); got != want {
			t.Errorf("%q: %q, want %q", of, got, want)
		}
	}
	if got := steps("a (b; c); d;e"); !slices.Equal(got, []string{"a (b; c)", "d", "e"}) {
		t.Errorf("steps: %q", got)
	}
	for of, want := range map[string]string{
		"See that it runs.": "See that it runs.",
		"To try: curl -sv -o /dev/null https://idp.example.com/token.":                        "To try: [curl -sv -o /dev/null https://idp.example.com/token]",
		"Run: caddy upstream-auth login crm.":                                                 "Run: [caddy upstream-auth login crm]",
		"in the credential crm write: timeout 30s.":                                           "in the credential crm write: [timeout 30s]",
		"the name: getent hosts idp.example.com shows it, and /etc/resolv.conf names the one": "the name: [getent hosts idp.example.com] shows it, and /etc/resolv.conf names the one",
		"look at its firewall (nft list ruleset), and at the unit's":                          "look at its firewall ([nft list ruleset]), and at the unit's",
		"to see it: date -u (or ask)":                                                         "to see it: [date -u] (or ask)",
		"write: ":                                                                             "write: ",
		"the result of that":                                                                  "the result of that",
	} {
		var got strings.Builder
		for _, p := range setOff(of) {
			if p.Code {
				fmt.Fprintf(&got, "[%s]", p.Text)
			} else {
				got.WriteString(p.Text)
			}
		}
		if got.String() != want {
			t.Errorf("%q: %q, want %q", of, got.String(), want)
		}
	}
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1\u202f000", 1234567: "1\u202f234\u202f567"} {
		if got := thousands(n); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
}

// FuzzAdviceOnPage: whatever is set off, all of it is there.
func FuzzAdviceOnPage(f *testing.F) {
	for _, s := range []string{"", ".", "write: ", "run: a; b", "curl x shows y; date -u)", "((;", "run: run: "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var got strings.Builder
		for _, p := range setOff(s) {
			got.WriteString(p.Text)
		}
		if got.String() != s && got.String()+"." != s {
			t.Errorf("%q has become %q", s, got.String())
		}
		if n := len(strings.Join(steps(s), "")); n > len(s) {
			t.Errorf("%q has grown", s)
		}
	})
}
