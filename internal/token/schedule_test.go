package token

import (
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

func TestFreshPlan(t *testing.T) {
	const day = 24 * time.Hour
	for name, tc := range map[string]struct {
		life      time.Duration
		took      time.Duration
		refreshAt float64
		margin    time.Duration
		refreshIn time.Duration
		rnd       float64
		assumed   bool
		until     time.Duration // from the sending
		due       time.Duration
	}{
		"an hour":                        {life: time.Hour, until: time.Hour - 10*time.Second, due: 45 * time.Minute},
		"jitter is a tenth of its life":  {life: time.Hour, rnd: 1, until: time.Hour - 10*time.Second, due: 39 * time.Minute},
		"five minutes":                   {life: 300 * time.Second, until: 290 * time.Second, due: 225 * time.Second},
		"3s: the margin is a tenth":      {life: 3 * time.Second, until: 2700 * time.Millisecond, due: 2250 * time.Millisecond},
		"late refresh leaves room":       {life: time.Hour, refreshAt: 95, margin: time.Hour, until: 54 * time.Minute, due: 54*time.Minute - 30*time.Second},
		"5% of its life, up to 30s":      {life: 200 * time.Second, refreshAt: 95, until: 190 * time.Second, due: 180 * time.Second},
		"a slow server is asked sooner":  {life: 300 * time.Second, took: 60 * time.Second, until: 290 * time.Second, due: 170 * time.Second},
		"never before a tenth of it":     {life: 100 * time.Second, took: 45 * time.Second, rnd: 1, refreshAt: 10, until: 90 * time.Second, due: 45*time.Second + successGap},
		"refresh_at 10%, full jitter":    {life: time.Hour, refreshAt: 10, rnd: 1, until: time.Hour - 10*time.Second, due: 6 * time.Minute},
		"refresh_in":                     {life: time.Hour, refreshIn: 30 * time.Minute, until: time.Hour - 10*time.Second, due: 30 * time.Minute},
		"refresh_in too early":           {life: time.Hour, refreshIn: time.Second, until: time.Hour - 10*time.Second, due: 6 * time.Minute},
		"refresh_in too late":            {life: time.Hour, refreshIn: 2 * time.Hour, until: time.Hour - 10*time.Second, due: 57 * time.Minute},
		"a year: renewed within a day":   {life: 365 * day, until: 365*day - 10*time.Second, due: 18 * time.Hour},
		"a year and refresh_in":          {life: 365 * day, refreshIn: 180 * day, until: 365*day - 10*time.Second, due: 24 * time.Hour * 95 / 100},
		"assumed: used for a day":        {life: 5 * time.Minute, assumed: true, until: day, due: 225 * time.Second},
		"two successes half a second on": {life: 400 * time.Millisecond, until: 360 * time.Millisecond, due: 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			p := defaults
			if tc.refreshAt != 0 {
				p.RefreshAt = tc.refreshAt
			}
			if tc.margin != 0 {
				p.ExpiryMargin = tc.margin
			}
			tok := &Token{sent: 1000, end: instant(1000).add(tc.life), took: tc.took, assumed: tc.assumed}
			got := p.fresh(tok, tc.refreshIn, tok.sent.add(tc.took), func() float64 { return tc.rnd })
			if until, due := got.until.sub(tok.sent), got.due.sub(tok.sent); until != tc.until || due != tc.due {
				t.Errorf("used until %v, due at %v; want %v and %v", until, due, tc.until, tc.due)
			}
		})
	}
}

func TestRunningPlan(t *testing.T) {
	const first = 1800 * time.Second
	for name, tc := range map[string]struct {
		left       time.Duration
		rnd        float64
		until, due time.Duration // from the answer
	}{
		"half of what is left":       {left: 450 * time.Second, until: 440 * time.Second, due: 225 * time.Second},
		"jittered":                   {left: 450 * time.Second, rnd: 1, until: 440 * time.Second, due: 202500 * time.Millisecond},
		"not closer than 5% of life": {left: 120 * time.Second, until: 110 * time.Second, due: 90 * time.Second},
		"once before its margin":     {left: 60 * time.Second, until: 50 * time.Second, due: 50*time.Second - successGap/2},
		"confirmed at its margin":    {left: 10 * time.Second, until: 9 * time.Second, due: 11 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			at := instant(time.Hour)
			tok := &Token{sent: at, end: at.add(tc.left), first: first}
			got := defaults.running(tok, at, func() float64 { return tc.rnd })
			if until, due := got.until.sub(at), got.due.sub(at); until != tc.until || due != tc.due {
				t.Errorf("used for %v, due in %v; want %v and %v", until, due, tc.until, tc.due)
			}
		})
	}
}

func TestBackoff(t *testing.T) {
	for _, tc := range []struct {
		kind oauth.Kind
		n    int
		held bool
		most time.Duration
	}{
		{oauth.Unreachable, 1, true, time.Second},
		{oauth.Unreachable, 2, true, 2 * time.Second},
		{oauth.Unreachable, 6, false, 32 * time.Second},
		{oauth.Unreachable, 7, false, time.Minute},
		{oauth.Unreachable, 1 << 30, true, time.Minute},
		{oauth.Malformed, 3, true, 4 * time.Second},
		{oauth.Refused, 1, true, 5 * time.Second},
		{oauth.Refused, 6, true, 160 * time.Second},
		{oauth.Refused, 7, true, 5 * time.Minute},
		{oauth.Refused, 7, false, time.Minute},
		{oauth.Refused, 100, true, 5 * time.Minute},
	} {
		for _, rnd := range []float64{0, 0.5, 1} {
			want := max(time.Duration(rnd*float64(tc.most)), leastBackoff)
			if got := backoff(tc.kind, tc.n, tc.held, func() float64 { return rnd }); got != want {
				t.Errorf("%v, failure %d, token held %v: %v, want %v of %v", tc.kind, tc.n, tc.held, got, rnd, tc.most)
			}
		}
	}
}
