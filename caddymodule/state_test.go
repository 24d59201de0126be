package caddymodule

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// TestState: one word for how a credential stands, and one sentence.
func TestState(t *testing.T) {
	failure := func(err error) *oauth.Failure { return &oauth.Failure{Kind: oauth.Unreachable, Err: err} }
	down := failure(nil)
	held := func(change func(*token.Snapshot)) token.Snapshot {
		now := time.Now()
		s := token.Snapshot{
			Held: true, Obtained: now, Sent: now, Ends: now.Add(time.Hour), Stops: now.Add(50*time.Minute + 30*time.Second), Next: now.Add(40*time.Minute + 30*time.Second),
		}
		change(&s)
		return s
	}
	gone := func(change func(*token.Snapshot)) token.Snapshot {
		s := held(change)
		s.Held = false
		return s
	}
	for name, tc := range map[string]struct {
		s     token.Snapshot
		chain *token.ChainState
		want  state
		says  string
	}{
		"at the start":          {token.Snapshot{}, nil, stateStarting, "no token has been asked for yet"},
		"well":                  {held(func(*token.Snapshot) {}), nil, stateOK, "valid for 50 minutes; the next request is due in 40 minutes"},
		"with fewer scopes":     {held(func(s *token.Snapshot) { s.Missing = []string{"write"} }), nil, stateOK, "fewer scopes than were asked for"},
		"asking":                {held(func(s *token.Snapshot) { s.Requesting = true }), nil, stateOK, "a token request is under way"},
		"refused upstream":      {held(func(s *token.Snapshot) { s.Suspect = true }), nil, stateRejected, "an upstream refuses the token"},
		"an outage":             {held(func(s *token.Snapshot) { s.Failure, s.Failures = down, 3 }), nil, stateFailing, "3 token requests have failed in a row; the token held serves for another 50 minutes"},
		"one failure":           {held(func(s *token.Snapshot) { s.Failure, s.Failures = down, 1 }), nil, stateFailing, "the token request failed; "},
		"refused, and failing":  {held(func(s *token.Snapshot) { s.Failure, s.Failures, s.Suspect = down, 1, true }), nil, stateFailing, "the token request failed"},
		"over, in an outage":    {gone(func(s *token.Snapshot) { s.Failure, s.Failures = down, 9 }), nil, stateUnavailable, "requests are turned away"},
		"over":                  {gone(func(*token.Snapshot) {}), nil, stateExpired, "the token has expired"},
		"down at the start":     {token.Snapshot{Failure: down, Failures: 1}, nil, stateUnavailable, "no valid token is held"},
		"never logged in":       {token.Snapshot{Failure: failure(token.ErrLoginRequired), Failures: 1}, nil, stateLogin, "no valid token is held"},
		"logged out":            {held(func(s *token.Snapshot) { s.Failure, s.Failures = failure(token.ErrEnded), 1 }), nil, stateLogin, "the token held serves"},
		"a chain that ended":    {held(func(*token.Snapshot) {}), &token.ChainState{}, stateLogin, "the token held serves"},
		"a good chain":          {held(func(*token.Snapshot) {}), &token.ChainState{Usable: true}, stateOK, "valid for"},
		"storage down":          {held(func(s *token.Snapshot) { s.Failure, s.Failures = failure(token.ErrStorage), 1 }), nil, stateStorage, "the token held serves"},
		"storage of no use":     {token.Snapshot{Failure: failure(token.ErrUnreadable), Failures: 1}, nil, stateStorage, "no valid token is held"},
		"the answer was lost":   {held(func(s *token.Snapshot) { s.Failure, s.Failures = failure(token.ErrAnswerLost), 1 }), nil, stateFailing, "the token held serves"},
		"no request is planned": {gone(func(s *token.Snapshot) { s.Failure, s.Failures, s.Next = down, 2, time.Time{} }), nil, stateUnavailable, "no further request is planned"},
	} {
		t.Run(name, func(t *testing.T) {
			e := &entry{name: "crm"}
			r := new(report)
			e.reportSource(r, tc.s)
			if tc.chain != nil {
				r.State = stateOf(tc.s, tc.chain)
				r.Summary = summary(r, time.Now())
			}
			if r.State != tc.want || !strings.Contains(r.Summary, tc.says) || r.Ready != tc.s.Held {
				t.Errorf("got %s, %q", r.State, r.Summary)
			}
			if (r.Failure != nil || r.State == stateRejected) != (r.Advice != nil) || r.Advice != nil && (r.Advice.Wrong == "" || r.Advice.Do == "") {
				t.Errorf("the advice is %+v", r.Advice)
			}
		})
	}
}

// TestStateOfTable: what is wrong with one value is not the template's matter.
func TestStateOfTable(t *testing.T) {
	down := &oauth.Failure{Kind: oauth.Unreachable}
	for name, tc := range map[string]struct {
		s     token.TableSnapshot
		want  state
		ready bool
		says  string
	}{
		"no value yet":      {token.TableSnapshot{}, stateOK, false, "no token is held: each is asked for when"},
		"one":               {token.TableSnapshot{Tokens: 1}, stateOK, true, "1 token is held"},
		"many":              {token.TableSnapshot{Tokens: 12}, stateOK, true, "12 tokens are held"},
		"an outage":         {token.TableSnapshot{Tokens: 12, Failures: 2, Failure: down}, stateFailing, false, "new values are turned away; 12 tokens are held"},
		"an outage at once": {token.TableSnapshot{Failures: 2, Failure: down}, stateUnavailable, false, "new values are turned away"},
	} {
		t.Run(name, func(t *testing.T) {
			e := &entry{name: "crm", maxTokens: 1000}
			r := new(report)
			e.reportTable(r, tc.s)
			if r.State != tc.want || r.Ready != tc.ready || !strings.Contains(r.Summary, tc.says) || r.Template.MaxTokens != 1000 {
				t.Errorf("got %+v", r)
			}
		})
	}
}

// TestStanding: what a look found before something happened does not undo it.
func TestStanding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, began := new(standing), time.Now()
		s.now(stateOK)
		look := s.look()
		time.Sleep(time.Minute)
		s.now(stateFailing) // between the snapshot of a report and its end
		s.seen(stateOK, look)
		time.Sleep(time.Hour)
		if got := s.seen(stateFailing, s.look()); got.Sub(began) != time.Minute {
			t.Errorf("failing since %s, want %s", got.Sub(began), time.Minute)
		}
		if got := s.seen(stateLogin, s.look()); !got.Equal(time.Now()) { // nobody tells of that
			t.Errorf("since %s", got)
		}
	})
}

// TestAdoptedChain: what another instance was given shows that its refresh token
// is taken, whatever this one's last try has shown.
func TestAdoptedChain(t *testing.T) {
	c := &Credential{grantName: "refresh_token"}
	const name = "adopted-chain-test"
	e := &entry{name: name, journal: newJournal(name, c), chain: &chain{token.NewChain()}, history: newHistory(name)}
	e.source = token.NewSource(token.Policy{}, new(token.Scheduler), e)
	credentials.add(e)
	t.Cleanup(func() { credentials.remove(e) })
	_, err := e.chain.Refresh(t.Context(), token.Occasion{}, func(context.Context) (*token.Session, error) {
		return &token.Session{Store: nothingStored{}}, nil
	})
	if !errors.Is(err, token.ErrLoginRequired) || e.chain.State().Usable {
		t.Fatalf("got %v", err)
	}
	e.Attempted(token.Attempt{Snapshot: token.Snapshot{Held: true, Obtained: time.Now()}, Adopted: true})
	if state := e.chain.State(); !state.Usable || state.Err != nil || e.standing.state != stateOK {
		t.Errorf("got %+v, %s", state, e.standing.state)
	}
}

type nothingStored struct{ token.Store }

func (nothingStored) Load(context.Context) ([]byte, error) { return nil, fs.ErrNotExist }

func TestSpanText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0 seconds", time.Second: "1 second", 119 * time.Second: "119 seconds", 2 * time.Minute: "2 minutes",
		119 * time.Minute: "119 minutes", 2 * time.Hour: "2 hours", 47 * time.Hour: "47 hours", 48 * time.Hour: "2 days",
	} {
		if got := spanText(d); got != want {
			t.Errorf("%s: got %q, want %q", d, got, want)
		}
	}
}
