package authserver

import (
	"io"
	"strings"
	"testing"
)

// TestLostAnswers looks over the wire at what a client has when the server has
// done its work and the answer is gone.
func TestLostAnswers(t *testing.T) {
	want := map[string]int{"reset": 0, "500": 500, "502": 502, "504": 504, "cut body": 200, "unreadable": 200}
	faults := LostAnswers()
	if len(faults) != len(want) {
		t.Errorf("there are %d", len(faults))
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			s := refresher(Config{Rotate: RotateAlways})
			l, c := listen(t, s)
			token := s.IssueRefreshToken()
			s.FailNext(1, fault)
			response, err := c.Post(l.URL()+TokenPath, "application/x-www-form-urlencoded", strings.NewReader(refreshForm(token)))
			status := 0
			if err == nil {
				status = response.StatusCode
				var body []byte
				body, err = io.ReadAll(response.Body)
				response.Body.Close()
				if strings.Contains(string(body), `"refresh_token"`) {
					t.Errorf("the client has it: %s", body)
				}
			}
			if broken := name == "reset" || name == "cut body"; status != want[name] || (err != nil) != broken {
				t.Errorf("the client sees %d, %v", status, err)
			}
			if s.Rotations() != 1 || s.Issued() != 1 || s.Requests() != 1 {
				t.Errorf("%d rotations, %d tokens, %d requests", s.Rotations(), s.Issued(), s.Requests())
			}
			wantRefused(t, s, "invalid_grant", token)
		})
	}
}

func TestAfterProcessing(t *testing.T) {
	s := refresher(Config{})
	for _, test := range []struct {
		fault  Fault
		status int
		body   string
	}{
		{AfterProcessing(Down()), 503, ""},
		{AfterProcessing(Chain()), 200, `"token_type":"Bearer"`},
		{AfterProcessing(Answer(func(m map[string]any) { m["token_type"] = "mac" })), 200, `"token_type":"mac"`},
	} {
		before := s.Issued()
		s.SetFault(test.fault)
		if w := ask(s, TokenPath, form()); w.Code != test.status || !strings.Contains(w.Body.String(), test.body) || s.Issued() != before+1 {
			t.Errorf("it answers %d %s, %d issued", w.Code, w.Body, s.Issued())
		}
	}
	s.SetFault(Down())
	if ask(s, TokenPath, form()); s.Issued() != 3 {
		t.Error("a fault by itself processes the request")
	}
}
