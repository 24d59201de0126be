package authserver

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestFaults(t *testing.T) {
	edit := Answer(func(m map[string]any) {
		delete(m, "token_type")
		m["expires_in"] = json.RawMessage("3.6e3")
		m["access_token"] = "x"
	})
	tests := []struct {
		name   string
		fault  Fault
		status int
		header string // name and value
		body   string
		issued int
	}{
		{name: "status", fault: Status(418, "A", "b", "C", "d"), status: 418, header: "C: d"},
		{name: "down", fault: Down(), status: 503},
		{name: "too many", fault: TooMany("86400"), status: 429, header: "Retry-After: 86400"},
		{name: "redirect", fault: Redirect(307, "https://b.example/"), status: 307, header: "Location: https://b.example/"},
		{name: "raw", fault: Raw(200, "text/html", "<p>"), status: 200, header: "Content-Type: text/html", body: "<p>"},
		{name: "raw without a type", fault: Raw(200, "", "<p>"), status: 200, header: "Content-Type: ", body: "<p>"},
		{name: "invalid", fault: Invalid("invalid_grant", "no"), status: 400, header: "Cache-Control: no-store", body: `{"error":"invalid_grant","error_description":"no"}`},
		{name: "huge", fault: Huge(71), status: 200, body: `{"token_type":"Bearer","expires_in":3600,"access_token":"aaaaaaaaaaaa"}`},
		{name: "answer", fault: edit, status: 200, header: "Content-Type: application/json", body: `{"access_token":"x","expires_in":3.6e3}`, issued: 1},
		{name: "an error is not edited", fault: Chain(edit, Invalid("invalid_grant", "no")), status: 400, body: `{"error":"invalid_grant","error_description":"no"}`},
		{name: "what is no JSON is not edited", fault: Chain(edit, Raw(200, "", "<p>")), status: 200, body: "<p>"},
		{name: "chain", fault: Chain(nil, AnswerHeader("Date", "then"), edit), status: 200, header: "Date: then", body: `{"access_token":"x","expires_in":3.6e3}`, issued: 1},
		{name: "a header taken away", fault: Chain(AnswerHeader("content-type", ""), edit), status: 200, header: "Content-Type: ", body: `{"access_token":"x","expires_in":3.6e3}`, issued: 1},
		{name: "a header replaced", fault: Chain(AnswerHeader("Content-Type", "text/plain"), edit), status: 200, header: "Content-Type: text/plain", body: `{"access_token":"x","expires_in":3.6e3}`, issued: 1},
		{name: "the header of any answer", fault: Chain(AnswerHeader("Retry-After", "1"), Down()), status: 503, header: "Retry-After: 1"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := New(Config{ClientID: client, ClientSecret: secret})
			s.SetFault(test.fault)
			w := ask(s, TokenPath, form())
			if w.Code != test.status || w.Body.String() != test.body {
				t.Errorf("got %d %q, want %d %q", w.Code, w.Body, test.status, test.body)
			}
			name, value, _ := strings.Cut(test.header, ": ")
			if got := w.Header().Values(name); strings.Join(got, ", ") != value || value == "" && len(got) > 0 {
				t.Errorf("%s is %q, want %q", name, got, value)
			}
			if s.Requests() != 1 || s.Issued() != test.issued {
				t.Errorf("%d requests, %d tokens", s.Requests(), s.Issued())
			}
		})
	}
}

func TestEmptyChainIsHealthy(t *testing.T) {
	s := New(Config{ClientID: client, ClientSecret: secret})
	s.SetFault(Chain())
	if w := ask(s, TokenPath, form()); w.Code != 200 {
		t.Errorf("it answers %d", w.Code)
	}
}

func TestSwitch(t *testing.T) {
	s := New(Config{ClientID: client, ClientSecret: secret})
	want := func(statuses ...int) {
		t.Helper()
		for i, status := range statuses {
			if w := ask(s, TokenPath, form()); w.Code != status {
				t.Errorf("request %d is answered %d, want %d", i, w.Code, status)
			}
		}
	}
	want(200)
	s.FailNext(2, Down())
	s.FailNext(1, TooMany("1"))
	want(503, 503, 429, 200)
	s.SetFault(Down())
	s.FailNext(1, nil)
	want(200, 503, 503)
	s.FailNext(5, TooMany("1"))
	s.SetFault(nil)
	want(200)
}

func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{ClientID: client, ClientSecret: secret})
		s.SetFault(Chain(Slow(3*time.Second), Slow(time.Second)))
		start := time.Now()
		w := ask(s, TokenPath, form())
		if took := time.Since(start); w.Code != 200 || took != 4*time.Second {
			t.Errorf("it answers %d after %v", w.Code, took)
		}
	})
}

// TestLeaving looks at faults that take time when the client has no more of it.
func TestLeaving(t *testing.T) {
	for name, fault := range map[string]Fault{"hang": Hang(), "slow": Slow(time.Hour), "drip": Drip(time.Minute)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Config{ClientID: client, ClientSecret: secret})
				s.SetFault(fault)
				ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
				defer cancel()
				start := time.Now()
				defer func() {
					if got, _ := recover().(error); !errors.Is(got, http.ErrAbortHandler) {
						t.Errorf("it ends with %v", got)
					}
					if took := time.Since(start); took != 90*time.Second || s.inFlight != 0 {
						t.Errorf("it ends after %v, with %d in flight", took, s.inFlight)
					}
				}()
				r := httptest.NewRequestWithContext(ctx, http.MethodPost, TokenPath, strings.NewReader(form()))
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				s.ServeHTTP(httptest.NewRecorder(), r)
			})
		})
	}
}
