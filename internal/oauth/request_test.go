package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// recorder keeps the request that it was sent.
type recorder struct {
	req  *http.Request
	body string
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	r.req = req
	if req.Body != nil {
		b, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		r.body = string(b)
	}
	return canned{status: 200, body: `{"access_token":"tok"}`}.RoundTrip(req)
}

func TestShapes(t *testing.T) {
	params := url.Values{"grant_type": {"client_credentials"}, "client_id": {"a b"}, "resource": {"urn:1", "urn:2"}}
	for name, tc := range map[string]struct {
		req                 Request
		method, url, body   string
		contentType, accept string
	}{
		"standard": {
			req: Request{}, method: "POST", url: "https://as.example.com/token?v=2",
			body:        "client_id=a+b&grant_type=client_credentials&resource=urn%3A1&resource=urn%3A2",
			contentType: "application/x-www-form-urlencoded", accept: "application/json",
		},
		"json": {
			req: Request{Encoding: JSON}, method: "POST", url: "https://as.example.com/token?v=2",
			body:        `{"client_id":"a b","grant_type":"client_credentials","resource":["urn:1","urn:2"]}`,
			contentType: "application/json", accept: "application/json",
		},
		"query (Zoom)": {
			req: Request{Encoding: Query}, method: "POST",
			url:    "https://as.example.com/token?client_id=a+b&grant_type=client_credentials&resource=urn%3A1&resource=urn%3A2&v=2",
			accept: "application/json",
		},
		"GET, renamed (WeChat)": {
			req: Request{Method: "GET", Rename: map[string]string{"client_id": "appid"}}, method: "GET",
			url:    "https://as.example.com/token?appid=a+b&grant_type=client_credentials&resource=urn%3A1&resource=urn%3A2&v=2",
			accept: "application/json",
		},
		"own header": {
			req: Request{Header: http.Header{"Accept": {"*/*"}}}, method: "POST", url: "https://as.example.com/token?v=2",
			body:        "client_id=a+b&grant_type=client_credentials&resource=urn%3A1&resource=urn%3A2",
			contentType: "application/x-www-form-urlencoded", accept: "*/*",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var rec recorder
			tc.req.URL, tc.req.Params = "https://as.example.com/token?v=2", params
			if _, err := tc.req.Do(t.Context(), &rec); err != nil {
				t.Fatal(err)
			}
			got := []string{rec.req.Method, rec.req.URL.String(), rec.body, rec.req.Header.Get("Content-Type"), rec.req.Header.Get("Accept")}
			want := []string{tc.method, tc.url, tc.body, tc.contentType, tc.accept}
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("got %q, want %q", got[i], want[i])
				}
			}
			if strings.HasPrefix(tc.body, "{") && !json.Valid([]byte(rec.body)) {
				t.Error("the body is no JSON")
			}
		})
	}
}

// failing fails every request as the network does.
type failing struct{ err error }

func (f failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, f.err }

// TestNetwork: what the network does is unreachable, and no URL with a secret
// in it gets into the error.
func TestNetwork(t *testing.T) {
	const secret = "s3cret"
	timeout, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-timeout.Done()
	for name, tc := range map[string]struct {
		ctx  context.Context
		err  error
		says string
	}{
		"refused":       {t.Context(), &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}, "connection refused"},
		"with its URL":  {t.Context(), &url.Error{Op: "Get", URL: "https://as.example.com/?client_secret=" + secret, Err: io.ErrUnexpectedEOF}, "unexpected EOF"},
		"echoes it":     {t.Context(), errors.New("proxy said " + secret), "proxy said ***"},
		"timeout":       {timeout, timeout.Err(), "within the timeout"},
		"nested timout": {t.Context(), &url.Error{Op: "Get", URL: secret, Err: context.DeadlineExceeded}, "within the timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			req := Request{URL: "https://as.example.com/token", Method: "GET", Params: url.Values{"client_secret": {secret}}, Secrets: []string{secret}}
			_, err := req.Do(tc.ctx, failing{tc.err})
			f, ok := errors.AsType[*Failure](err)
			if !ok || f.Kind != Unreachable {
				t.Fatalf("got %v", err)
			}
			if !strings.Contains(f.Error(), tc.says) || strings.Contains(f.Error(), secret) {
				t.Errorf("it says %q", f)
			}
		})
	}
}

// TestNoHTTP: of what is no HTTP nothing is repeated, for it may be anything.
func TestNoHTTP(t *testing.T) {
	for _, answer := range []string{"its \"own\" bytes\r\n\r\n", "HTTP/1.1 its-own-bytes\r\n\r\n", "HTTP/1.1 200 OK\r\nits-own-bytes\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: its-own\r\n\r\n"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = conn.Read(make([]byte, 4096))
			_, _ = io.WriteString(conn, answer)
		}()
		way := &http.Transport{DisableKeepAlives: true}
		_, err = (&Request{URL: "http://" + l.Addr().String() + "/token", Params: url.Values{}}).Do(t.Context(), way)
		_ = l.Close()
		if f, ok := errors.AsType[*Failure](err); !ok || f.Kind != Unreachable || f.Err == nil || strings.Contains(f.Error(), "own") {
			t.Errorf("%q: got %v", answer, err)
		}
	}
}

func TestRequestThatCannotBeMade(t *testing.T) {
	for name, req := range map[string]*Request{
		"URL":    {URL: "https://as.example.com/%zz?s3cret"},
		"method": {URL: "https://as.example.com", Method: "GE T"},
	} {
		_, err := req.Do(t.Context(), &recorder{})
		if f, ok := errors.AsType[*Failure](err); !ok || f.Kind != Refused || strings.Contains(f.Error(), "s3cret") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestCutAnswer: an answer that stops in the middle did not come.
func TestCutAnswer(t *testing.T) {
	rt := roundTripper(func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(io.MultiReader(strings.NewReader(`{"access_token":"tok"`), errReader{})), Request: req}, nil
	})
	_, err := (&Request{URL: "https://as.example.com"}).Do(t.Context(), rt)
	if f, ok := errors.AsType[*Failure](err); !ok || f.Kind != Unreachable {
		t.Errorf("got %v", err)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
