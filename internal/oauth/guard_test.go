package oauth

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
)

// TestGuard: a request that may not be written any more reaches no server, by
// whatever protocol and in whatever shape; and it is known that it did not.
func TestGuard(t *testing.T) {
	var arrived atomic.Int64
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil && (len(body) > 0 || r.Method == http.MethodGet) {
			arrived.Add(1)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"t","token_type":"Bearer","expires_in":60}`)
	})
	plain := httptest.NewServer(answer)
	t.Cleanup(plain.Close)
	h2 := httptest.NewUnstartedServer(answer)
	h2.EnableHTTP2 = true
	h2.StartTLS()
	t.Cleanup(h2.Close)

	overtaken := errors.New("overtaken")
	for name, test := range map[string]struct {
		server *httptest.Server
		shape  Request
	}{
		"HTTP/1.1": {plain, Request{}},
		"HTTP/2":   {h2, Request{}},
		"JSON":     {plain, Request{Encoding: JSON}},
		"GET":      {plain, Request{Method: http.MethodGet}},
	} {
		t.Run(name, func(t *testing.T) {
			r := test.shape
			r.URL = test.server.URL
			r.Params = url.Values{"refresh_token": {"r"}}
			arrived.Store(0)
			asked := 0
			r.Guard = func(context.Context) error { asked++; return overtaken }
			_, err := r.Do(t.Context(), test.server.Client().Transport)
			f, ok := errors.AsType[*Failure](err)
			if !ok || !errors.Is(err, overtaken) || f.Lost || f.Kind != Unreachable {
				t.Errorf("got %#v", err)
			}
			if asked != 1 || arrived.Load() != 0 {
				t.Errorf("asked %d times, %d requests arrived", asked, arrived.Load())
			}
			r.Guard = func(context.Context) error { return nil }
			if _, err := r.Do(t.Context(), test.server.Client().Transport); err != nil || arrived.Load() != 1 {
				t.Errorf("allowed: %v, %d requests arrived", err, arrived.Load())
			}
		})
	}
}

// TestGuardUnasked: a server that is not reached has not been asked for, and
// nothing is lost.
func TestGuardUnasked(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	block := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-block }))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(block) })
	r := Request{URL: server.URL, Params: url.Values{"refresh_token": {"r"}}}
	r.Guard = func(ctx context.Context) error {
		cancel() // while it is asked the request ends
		<-ctx.Done()
		return nil
	}
	_, err := r.Do(ctx, http.DefaultTransport)
	if f, ok := errors.AsType[*Failure](err); !ok || !f.Lost {
		t.Errorf("it may have been written: %#v", err)
	}
	r.Guard = func(context.Context) error { t.Error("asked"); return nil }
	r.URL = "http://127.0.0.1:1"
	_, err = r.Do(t.Context(), http.DefaultTransport)
	if f, ok := errors.AsType[*Failure](err); !ok || f.Lost {
		t.Errorf("nothing was written: %#v", err)
	}
}
