// Package oauth makes one token request on the wire and reads its answer,
// whatever shape a server gives it (RFC 6749 §4 and §5). It knows no schedule
// and keeps no state: every answer becomes a Response or a Failure of one of
// three kinds, and nothing of what was sent stands in either.
package oauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxBody is how much of an answer is read. A token of 16 KiB is the largest
// seen; an answer of 1 MiB or more is no answer.
const maxBody = 1 << 20

// Encoding says where the parameters of a token request travel.
type Encoding string

const (
	// Form is application/x-www-form-urlencoded in the body (RFC 6749 §4.4.2).
	Form Encoding = "form"
	// JSON is one JSON object in the body, for servers with their own words.
	JSON Encoding = "json"
	// Query is the query string. It puts secrets into URLs, so it is for
	// servers that take nothing else.
	Query Encoding = "query"
)

// Request is one token request. The zero value of each optional field is the
// standard's own form.
type Request struct {
	// URL is the token endpoint.
	URL string
	// Method is POST unless set.
	Method string
	// Encoding is Form unless set, and Query with GET.
	Encoding Encoding
	// Params are the parameters, under their standard names.
	Params url.Values
	// Rename gives a parameter the name that this server uses.
	Rename map[string]string
	// Header is added to the request.
	Header http.Header
	// Fields say where in the answer the values are.
	Fields Fields
	// TokenType is the type that is asked for: Bearer unless set. With another
	// one (DPoP) no other is taken, but for N_A (RFC 8693 §2.2.1), which stands
	// beside Bearer.
	TokenType string
	// Secrets are masked in whatever is kept of the server's words.
	Secrets []string
	// Guard, if set, is asked just before the request is written; an error of it
	// ends the request, and stands in the Failure.
	Guard func(context.Context) error
}

// Do sends the request and reads its answer. No redirect is followed: it would
// take the secret to a server that nobody configured. The error is always a
// *Failure. Beside one a Response may stand that holds a refresh token alone: a
// server that rotated it and gave no usable access token.
func (r *Request) Do(ctx context.Context, rt http.RoundTripper) (*Response, error) {
	mask := newMask(r.Secrets)
	a, failure := r.send(ctx, rt, mask)
	if failure != nil {
		return nil, failure
	}
	return r.read(a, mask)
}

// send sends the request and reads the whole answer.
func (r *Request) send(ctx context.Context, rt http.RoundTripper, mask mask) (*answer, *Failure) {
	req, err := r.build(ctx)
	if err != nil {
		return nil, &Failure{Kind: Refused, Err: mask.error(err)}
	}
	g := &guard{may: r.Guard, ctx: ctx}
	if err := g.before(req); err != nil {
		return nil, &Failure{Kind: Unreachable, Err: err}
	}
	var sent written
	res, err := rt.RoundTrip(req.WithContext(sent.trace(ctx)))
	if forbidden := g.end(); forbidden != nil {
		if err == nil {
			res.Body.Close()
		}
		return nil, &Failure{Kind: Unreachable, Err: forbidden}
	}
	if err != nil {
		return nil, &Failure{Kind: Unreachable, Lost: sent.maybe() && !g.kept(), Err: mask.error(transportError(ctx, err))}
	}
	defer res.Body.Close()

	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err != nil && isSuccess(res.StatusCode) {
		return nil, &Failure{Kind: Unreachable, Status: res.StatusCode, Lost: true, Err: mask.error(fmt.Errorf("reading the answer: %w", transportError(ctx, err)))}
	}
	return &answer{
		status:      res.StatusCode,
		contentType: res.Header.Get("Content-Type"),
		retryAfter:  parseRetryAfter(res.Header.Get("Retry-After"), date(res.Header)),
		date:        date(res.Header),
		body:        body,
	}, nil
}

// written knows whether a request may have reached the server.
type written struct{ connected, failed atomic.Bool }

func (w *written) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// a request is sent anew only if nothing of it was written before
		GotConn:      func(httptrace.GotConnInfo) { w.connected.Store(true); w.failed.Store(false) },
		WroteRequest: func(info httptrace.WroteRequestInfo) { w.failed.Store(info.Err != nil) },
	})
}

// maybe is true unless it is certain that the server has not got all of it.
func (w *written) maybe() bool { return w.connected.Load() && !w.failed.Load() }

func (r *Request) build(ctx context.Context) (*http.Request, error) {
	u, err := url.Parse(r.URL)
	if err != nil {
		return nil, fmt.Errorf("token URL: %w", withoutURL(err))
	}
	method, encoding := r.Method, r.Encoding
	if method == "" {
		method = http.MethodPost
	}
	if method == http.MethodGet {
		encoding = Query
	}
	params := renamed(r.Params, r.Rename)

	var body io.Reader
	var contentType string
	switch encoding {
	case Query:
		query := u.Query()
		maps.Copy(query, params)
		u.RawQuery = query.Encode()
	case JSON:
		object, err := json.Marshal(flattened(params))
		if err != nil {
			return nil, fmt.Errorf("encoding the request: %w", err)
		}
		body, contentType = bytes.NewReader(object), "application/json"
	default:
		body, contentType = strings.NewReader(params.Encode()), "application/x-www-form-urlencoded"
	}

	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("token request: %w", withoutURL(err))
	}
	req.Header.Set("Accept", "application/json")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	maps.Copy(req.Header, r.Header)
	return req, nil
}

func renamed(params url.Values, names map[string]string) url.Values {
	out := make(url.Values, len(params))
	for name, values := range params {
		if to, ok := names[name]; ok {
			name = to
		}
		out[name] = append(out[name], values...)
	}
	return out
}

// flattened is what a JSON body holds: a string for each parameter, a list
// where one repeats.
func flattened(params url.Values) map[string]any {
	out := make(map[string]any, len(params))
	for name, values := range params {
		if len(values) == 1 {
			out[name] = values[0]
			continue
		}
		out[name] = values
	}
	return out
}

// transportError says what happened without the URL, which may hold a secret.
func transportError(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no complete answer within the timeout: %w", context.DeadlineExceeded)
	}
	err = withoutURL(err)
	// of what is no HTTP the client repeats the server's own bytes, quoted
	if text := err.Error(); quoted().MatchString(text) {
		return maskedError{quoted().ReplaceAllString(text, `"…"`), err}
	}
	return err
}

var quoted = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`"(?:[^"\\]|\\.)*"?`)
})

// ProxyError is an HTTP proxy that does not connect to the server.
type ProxyError struct{ Status int }

func (e *ProxyError) Error() string {
	return fmt.Sprintf("the proxy refuses to connect to the server: HTTP %d", e.Status)
}

// ProxyAnswer is a http.Transport's OnProxyConnectResponse. Without it the error
// would be the proxy's own words.
func ProxyAnswer(_ context.Context, _ *url.URL, _ *http.Request, res *http.Response) error {
	if res.StatusCode != http.StatusOK {
		return &ProxyError{res.StatusCode}
	}
	return nil
}

func withoutURL(err error) error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		return ue.Err
	}
	return err
}

func isSuccess(status int) bool { return status >= 200 && status < 300 }

func date(h http.Header) time.Time {
	t, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	return t
}
