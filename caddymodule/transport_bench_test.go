package caddymodule

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// newTestTransport is a transport that holds a token, before something that
// answers at once.
func newTestTransport(tb testing.TB, replay *Replay) *Transport {
	tb.Helper()
	t := &Transport{HTTPTransport: &reverseproxy.HTTPTransport{Transport: new(http.Transport)}, inject: newTestInjector(tb), Replay: replay}
	t.inject.rejectedOn = defaultRejectedOn
	t.inject.entry = new(entry)
	t.HTTPTransport.Transport.RegisterProtocol("test", answering{&http.Response{StatusCode: http.StatusOK, Body: http.NoBody}})
	t.InsecureUpstream = true
	return t
}

type answering struct{ res *http.Response }

func (a answering) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		_, _ = io.Copy(io.Discard, req.Body)
		_ = req.Body.Close()
	}
	return a.res, nil
}

func testRequest(body io.Reader) *http.Request {
	req := httptest.NewRequest(http.MethodPost, "test://api.example.com:443/", body)
	req.Header = clientHeader()
	return req.WithContext(context.WithValue(req.Context(), caddyhttp.VarsCtxKey, map[string]any{}))
}

// TestTransportAllocates: over Caddy's own transport it is a request, with the
// field's value, and its header; and for a body that may have to be sent again
// what keeps it.
func TestTransportAllocates(t *testing.T) {
	for name, tc := range map[string]struct {
		replay *Replay
		body   string
		most   float64
	}{
		"no body":           {nil, "", 3},
		"no body, off":      {&Replay{Off: true}, "", 3},
		"a body, off":       {&Replay{Off: true}, "body", 3},
		"a body":            {nil, "body", 5},
		"a body, too large": {&Replay{MaxBody: new(int64)}, "body", 3},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTestTransport(t, tc.replay)
			req := testRequest(nil)
			content := strings.NewReader(tc.body)
			closing := io.NopCloser(content)
			fill := func() {
				if tc.body != "" {
					_, _ = content.Seek(0, io.SeekStart)
					req.Body, req.ContentLength = closing, int64(len(tc.body))
				}
			}
			run := func(rt http.RoundTripper) float64 {
				return testing.AllocsPerRun(1000, func() {
					fill()
					res, err := rt.RoundTrip(req)
					if err != nil || res.StatusCode != http.StatusOK {
						t.Error(res, err)
					}
				})
			}
			plain, ours := run(tr.HTTPTransport), run(tr)
			if ours-plain > tc.most {
				t.Errorf("%v allocations, %v of Caddy's own transport; want %v more at most", ours, plain, tc.most)
			}
			t.Logf("%v allocations, of which %v Caddy's own", ours, plain)
		})
	}
}

// TestHandlerAllocates: the field's value is in what looks at the answer.
func TestHandlerAllocates(t *testing.T) {
	i := newTestInjector(t)
	for name, tc := range map[string]struct {
		watches bool
		most    float64
	}{"watching": {true, 1}, "not watching": {false, 1}} {
		t.Run(name, func(t *testing.T) {
			h := &Handler{inject: i, watches: tc.watches}
			r, w := &http.Request{Header: clientHeader()}, discarded{http.Header{}}
			next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
				w.WriteHeader(http.StatusOK)
				return nil
			})
			if got := testing.AllocsPerRun(1000, func() { _ = h.ServeHTTP(w, r, next) }); got > tc.most {
				t.Errorf("%v allocations for each request, want %v", got, tc.most)
			}
		})
	}
}

type discarded struct{ h http.Header }

func (d discarded) Header() http.Header         { return d.h }
func (d discarded) Write(b []byte) (int, error) { return len(b), nil }
func (d discarded) WriteHeader(int)             {}
