package authserver

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// call sends a request upstream with values of a header.
func call(u *Upstream, header string, values ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPut, "http://api.example/orders?q=1", strings.NewReader("12345"))
	for _, value := range values {
		r.Header.Add(header, value)
	}
	w := httptest.NewRecorder()
	u.ServeHTTP(w, r)
	return w
}

func TestUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{ClientID: client, ClientSecret: secret, Lifetime: 10 * time.Second})
		u := NewUpstream(s)
		if u.Smallest() != 0 {
			t.Errorf("before the first, the smallest is %v", u.Smallest())
		}
		old, _ := issueOne(t, s)
		wait(8 * time.Second)
		good, _ := issueOne(t, s)
		ended, _ := issueOne(t, s)
		s.Revoke(ended)
		if w := call(u, "Authorization", "Bearer "+old); w.Code != 200 {
			t.Errorf("a token with two seconds left is answered %d", w.Code)
		}
		wait(2 * time.Second)

		const invalid = `error="invalid_token"`
		for _, test := range []struct {
			name      string
			values    []string
			status    int
			challenge string
			count     func() int
		}{
			{"good", []string{"Bearer " + good}, 200, "", func() int { return u.OK() - 1 }},
			{"good, another case", []string{"bearer " + good}, 200, "", func() int { return u.OK() - 2 }},
			{"none", nil, 401, `Bearer realm="demo"`, u.Missing},
			{"another scheme", []string{"Basic " + good}, 401, `Bearer realm="demo"`, func() int { return u.Missing() - 1 }},
			{"no scheme", []string{good}, 401, `Bearer realm="demo"`, func() int { return u.Missing() - 2 }},
			{"two", []string{"Bearer " + good, "Bearer " + good}, 400, `error="invalid_request"`, u.Malformed},
			{"expired", []string{"Bearer " + old}, 401, invalid, u.Expired},
			{"revoked", []string{"Bearer " + ended}, 401, invalid, u.Revoked},
			{"unknown", []string{"Bearer at-other"}, 401, invalid, u.Unknown},
			{"the ID token", []string{"Bearer " + OneAccessIDToken}, 401, invalid, func() int { return u.Unknown() - 1 }},
		} {
			w := call(u, "Authorization", test.values...)
			challenge := w.Header().Get("WWW-Authenticate")
			exact := test.challenge == "" || strings.HasPrefix(test.challenge, "Bearer")
			if w.Code != test.status || !strings.Contains(challenge, test.challenge) || exact && challenge != test.challenge {
				t.Errorf("%s: %d %s", test.name, w.Code, challenge)
			}
			if n := test.count(); n != 1 {
				t.Errorf("%s: counted %d times", test.name, n)
			}
			if strings.Contains(w.Body.String()+challenge, good) {
				t.Errorf("%s: the token is in the answer", test.name)
			}
		}
		if u.Smallest() != 2*time.Second {
			t.Errorf("the smallest is %v", u.Smallest())
		}
	})
}

func TestUpstreamReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{ClientID: client, ClientSecret: secret, Lifetime: 10 * time.Second})
		u := NewUpstream(s)
		issueOne(t, s)
		token, _ := issueOne(t, s)
		wait(7900 * time.Millisecond)
		r := httptest.NewRequest(http.MethodPut, "http://api.example/orders/"+token, strings.NewReader("12345"))
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Proxy-Authorization", "Basic abc")
		r.Header.Set("X-Copy", "<"+token+">")
		w := httptest.NewRecorder()
		u.ServeHTTP(w, r)
		want := `{"body_bytes":5,"headers":{"Authorization":["[redacted]"],"Proxy-Authorization":["[redacted]"],"X-Copy":["\u003c[redacted]\u003e"]},` +
			`"host":"api.example","method":"PUT","path":"/orders/[redacted]","token":"#2","token_left_seconds":2.1}`
		if w.Code != 200 || w.Body.String() != want {
			t.Errorf("it answers %d %s", w.Code, w.Body)
		}
	})
}

func TestUpstreamHeaders(t *testing.T) {
	s := New(Config{ClientID: client, ClientSecret: secret})
	token, _ := issueOne(t, s)
	for _, test := range []struct {
		header, scheme, value string
		status                int
	}{
		{"X-Token", "", token, 200},
		{"X-Token", "", "Bearer " + token, 401},
		{"x-token", "Token", "Token " + token, 200},
		{"X-Token", "Token", "Bearer " + token, 401},
	} {
		u := NewUpstream(s)
		u.Header, u.Scheme = test.header, test.scheme
		w := call(u, "X-Token", test.value)
		if w.Code != test.status || strings.Contains(w.Body.String(), token) {
			t.Errorf("%v: %d %s", test, w.Code, w.Body)
		}
		if w := call(u, "Authorization", "Bearer "+token); w.Code != 401 {
			t.Errorf("%v: Authorization is taken too", test)
		}
	}
}

func TestUpstreamFaults(t *testing.T) {
	s := New(Config{ClientID: client, ClientSecret: secret})
	u := NewUpstream(s)
	u.FailNext(1, Down())
	token, _ := issueOne(t, s) // not a fault of this one
	for _, status := range []int{503, 200} {
		if w := call(u, "Authorization", "Bearer "+token); w.Code != status {
			t.Errorf("it answers %d, want %d", w.Code, status)
		}
	}
	r := httptest.NewRequest(http.MethodPut, "/", failing{})
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	if u.ServeHTTP(w, r); w.Code != 400 || u.OK() != 1 {
		t.Errorf("a body that breaks off is answered %d, with %d counted", w.Code, u.OK())
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("broken off") }

func TestUpstreamAtOnce(t *testing.T) {
	s := New(Config{ClientID: client, ClientSecret: secret})
	u := NewUpstream(s)
	token, _ := issueOne(t, s)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				call(u, "Authorization", "Bearer "+token)
				ask(s, TokenPath, form())
			}
		})
	}
	all.Wait()
	if u.OK() != 400 || s.Issued() != 401 {
		t.Errorf("%d requests and %d tokens are counted", u.OK(), s.Issued())
	}
	if left, err := s.Verify(token); err != nil || u.Smallest() < left {
		t.Errorf("the smallest is %v, with %v left: %v", u.Smallest(), left, err)
	}
}

func BenchmarkUpstream(b *testing.B) {
	s := New(Config{ClientID: client, ClientSecret: secret})
	tok, _, _ := s.tokens.issue(rights{}, terms{})
	u := NewUpstream(s)
	for b.Loop() {
		call(u, "Authorization", "Bearer "+tok.text)
	}
}
