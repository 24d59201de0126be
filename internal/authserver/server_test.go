package authserver

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

func TestElsewhere(t *testing.T) {
	s := New(Config{ClientID: client, ClientSecret: secret})
	s.SetFault(Down())
	for _, test := range [][2]string{{"GET", "/token"}, {"POST", "/"}, {"POST", "/token/"}, {"POST", OneAccessPath}} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(test[0], test[1], strings.NewReader("stray")))
		if w.Code != 404 {
			t.Errorf("%s is answered %d", test, w.Code)
		}
	}
	if s.Requests() != 0 || s.Peak() != 0 {
		t.Errorf("%d token requests are counted, %d at once", s.Requests(), s.Peak())
	}
	if log := s.Log(); len(log) != 4 || log[1].Body != "stray" || log[1].Path != "/" {
		t.Errorf("the log is %v", log)
	}
}

func TestLog(t *testing.T) {
	s := New(Config{ClientID: client, ClientSecret: secret})
	ask(s, TokenPath+"?q=1", form("scope", "read write"))
	ask(s, TokenPath, "grant_type=client_credentials", "a%2Bb", "raw")
	log := s.Log()
	if len(log) != 2 {
		t.Fatalf("the log is %v", log)
	}
	post, basic := log[0], log[1]
	if post.Form.Get("client_secret") != secret || post.Form.Get("scope") != "read write" || post.Basic ||
		post.RawQuery != "q=1" || post.Method != "POST" || post.Time.IsZero() {
		t.Error("the request with the client in the body is not as it was sent")
	}
	if !basic.Basic || basic.BasicUser != "a%2Bb" || basic.BasicPassword != "raw" || basic.Header.Get("Authorization") == "" {
		t.Error("the request with Basic is not as it was sent")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, log); strings.Contains(got, "client_secret") || strings.Contains(got, "raw") {
			t.Errorf("%s prints secrets", verb)
		}
	}
}

func TestLogIsBounded(t *testing.T) {
	s := New(Config{})
	for i := range logSize + 5 {
		ask(s, TokenPath, fmt.Sprint("n=", i))
	}
	log := s.Log()
	if len(log) != logSize || log[0].Form.Get("n") != "5" || log[logSize-1].Form.Get("n") != fmt.Sprint(logSize+4) {
		t.Errorf("%d requests are remembered, from %v to %v", len(log), log[0].Form, log[len(log)-1].Form)
	}
	if s.Requests() != logSize+5 {
		t.Errorf("%d requests are counted", s.Requests())
	}
}

func TestPeak(t *testing.T) {
	const n = 8
	s := New(Config{ClientID: client, ClientSecret: secret})
	var all, done sync.WaitGroup
	all.Add(n)
	s.SetFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		all.Done()
		all.Wait() // until the others are in flight too
		next.ServeHTTP(w, r)
	})
	for range n {
		done.Go(func() { ask(s, TokenPath, form()) })
	}
	done.Wait()
	s.SetFault(nil)
	ask(s, TokenPath, form())
	if s.Peak() != n || s.Requests() != n+1 || s.Issued() != n+1 {
		t.Errorf("peak %d, requests %d, issued %d", s.Peak(), s.Requests(), s.Issued())
	}
	if s.inFlight != 0 {
		t.Errorf("%d are still in flight", s.inFlight)
	}
}
