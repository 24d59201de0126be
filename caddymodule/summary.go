package caddymodule

import (
	"fmt"
	"time"
)

// summary says a credential's state in a sentence. What to do about it is said
// by the advice.
func summary(r *report, now time.Time) string {
	if r.Template != nil {
		return summaryOfTable(r, now)
	}
	text := summaryOfToken(r, now)
	if f := r.TokenFile; f != nil && f.Problem != "" {
		text += "; " + f.wrong()
	}
	return text
}

func summaryOfToken(r *report, now time.Time) string {
	next := nextText(r, now)
	switch r.State {
	case stateStarting:
		return "no token has been asked for yet, or its answer is still awaited"
	case stateExpired:
		return "the token has expired, and another one is being asked for"
	case stateRejected:
		return fmt.Sprintf("an upstream refuses the token, which is valid for %s by itself; %s", spanText(r.Token.Expires.Sub(now)), next)
	case stateOK:
		text := fmt.Sprintf("the token is valid for %s; %s", spanText(r.Token.Expires.Sub(now)), next)
		if len(r.Token.Missing) > 0 {
			text += "; the server granted fewer scopes than were asked for"
		}
		return text
	}
	failed := "the token request failed"
	if r.Failures > 1 {
		failed = fmt.Sprintf("%d token requests have failed in a row", r.Failures)
	}
	if r.Ready {
		return fmt.Sprintf("%s; the token held serves for another %s; %s", failed, spanText(r.Token.Expires.Sub(now)), next)
	}
	return fmt.Sprintf("%s and no valid token is held: requests are turned away; %s", failed, next)
}

func summaryOfTable(r *report, now time.Time) string {
	held := fmt.Sprintf("%d tokens are held, one for each value that requests bring", r.Template.Tokens)
	switch r.Template.Tokens {
	case 0:
		held = "no token is held: each is asked for when a request brings its value"
	case 1:
		held = "1 token is held, for the one value that requests have brought"
	}
	if r.Failure == nil {
		return held
	}
	return fmt.Sprintf("token requests fail, and new values are turned away; %s; %s", held, nextText(r, now))
}

func nextText(r *report, now time.Time) string {
	wait := r.NextRequest.Sub(now)
	switch {
	case r.Requesting:
		return "a token request is under way"
	case r.NextRequest.IsZero() || wait > 365*24*time.Hour:
		return "no further request is planned"
	case wait < time.Second:
		return "the next request is due"
	}
	return "the next request is due in " + spanText(wait)
}

// spanText is a span for people: its two largest units are more than enough.
func spanText(d time.Duration) string {
	const day = 24 * time.Hour
	count := func(n time.Duration, unit string) string {
		if n == 1 {
			return "1 " + unit
		}
		return fmt.Sprintf("%d %ss", n, unit)
	}
	switch d = max(d, 0); {
	case d < 2*time.Minute:
		return count(d/time.Second, "second")
	case d < 2*time.Hour:
		return count(d/time.Minute, "minute")
	case d < 2*day:
		return count(d/time.Hour, "hour")
	}
	return count(d/day, "day")
}
