package caddymodule

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// Replay says which requests are made once more after the upstream has refused
// the token, with another one. A body is kept for that as it streams past. No
// protocol upgrade and no gRPC call is made again.
type Replay struct {
	// Off has the client get the upstream's refusal, always. The token is
	// replaced all the same. Default: false.
	Off bool `json:"off,omitempty"`

	// MaxBody is how many bytes of a request's body are kept. One with a larger
	// body is made once. From 0 (those with a body are not made again) to
	// 16777216. It holds for the repetition that a DPoP nonce takes, too, for
	// which Off has no meaning. Default: 65536.
	MaxBody *int64 `json:"max_body,omitempty"`

	// Methods are those of the requests that are made again after any refusal.
	// After one that names the token as its reason (error="invalid_token", RFC
	// 6750 §3.1) those of any other method are, too. Default: the idempotent
	// ones of RFC 9110 §9.2.2: GET, HEAD, OPTIONS, TRACE, PUT and DELETE.
	Methods []string `json:"methods,omitempty"`
}

const (
	defaultReplayBody = 64 << 10
	mostReplayBody    = 16 << 20
)

var idempotent = []string{http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete}

// check tells what is wrong with the options, as an *optionError.
func (r *Replay) check() error {
	if r == nil {
		return nil
	}
	if r.Off && (r.MaxBody != nil || len(r.Methods) > 0) {
		return optionErrorf("replay off", "stands beside max_body or methods: expected one of the two")
	}
	if r.MaxBody != nil && (*r.MaxBody < 0 || *r.MaxBody > mostReplayBody) {
		return optionErrorf("replay max_body", "%d bytes are out of range: expected 0 to 16MiB", *r.MaxBody)
	}
	for n, method := range r.Methods {
		if err := checkMethod(method); err != nil {
			return &optionError{"replay methods", err}
		}
		if slices.Contains(r.Methods[:n], method) {
			return optionErrorf("replay methods", "%s is given twice", method)
		}
	}
	return nil
}

func checkMethod(method string) error {
	switch {
	case !httpguts.ValidHeaderFieldName(method): // both are tokens of RFC 9110 §5.6.2
		return fmt.Errorf("'%s' is not a method: expected some such as GET or PUT", method)
	case method != strings.ToUpper(method):
		return fmt.Errorf("'%s' is written in small letters, and methods are told apart by case (RFC 9110 §9.1): expected %s", method, strings.ToUpper(method))
	case method == http.MethodConnect:
		return errors.New("CONNECT is never made again: expected some such as GET or PUT")
	}
	return nil
}

// most is how much of a body is kept.
func (r *Replay) most() int64 {
	if r == nil || r.MaxBody == nil {
		return defaultReplayBody
	}
	return *r.MaxBody
}

func (r *Replay) off() bool { return r != nil && r.Off }

// allows tells whether an attempt is to be made again. invalid: its token is
// what the upstream names as the reason.
func (r *Replay) allows(attempt *http.Request, invalid bool) bool {
	if r.off() || isGRPC(attempt) {
		return false
	}
	methods := idempotent
	if r != nil && len(r.Methods) > 0 {
		methods = r.Methods
	}
	return invalid || slices.Contains(methods, attempt.Method)
}

// isGRPC tells a gRPC call, which may be a stream without an end.
func isGRPC(req *http.Request) bool {
	values := req.Header["Content-Type"]
	return len(values) > 0 && strings.HasPrefix(values[0], "application/grpc")
}

// keep takes hold of an attempt's body where the attempt may have to be made
// again. It is nil for one that is not.
func (t *Transport) keep(attempt *http.Request, tok *token.Token) *keptBody {
	if tok == nil || len(attempt.Header["Upgrade"]) > 0 || attempt.Method == http.MethodConnect {
		return nil
	}
	most := t.Replay.most()
	if t.Replay.off() || isGRPC(attempt) {
		if !t.inject.entry.proven { // else a nonce may be asked for
			return nil
		}
	}
	return keepBody(attempt, most)
}

// afterRefusal is what becomes of an attempt whose token the upstream has
// refused: it is made once more, or the client gets the answer as it is.
func (t *Transport) afterRefusal(attempt *http.Request, c carried, kept *keptBody, res *http.Response) (*http.Response, error) {
	claimRefusal(attempt.Context())
	invalid := namesToken(res.Header)
	refreshing := t.inject.rejected(attempt.Context(), c, invalid)
	if kept != nil && t.Replay.allows(attempt, invalid) {
		ctx, stop := kept.watch(attempt.Context())
		defer stop()
		if other := t.inject.instead(ctx, c); other != nil {
			if next, ok := kept.again(attempt); ok {
				t.inject.countRefusal(replayed)
				discard(res)
				return t.replay(next, carried{other, c.claim}, kept)
			}
		}
	}
	t.inject.countUnreplayed(refreshing)
	return res, nil
}

// replay makes an attempt with another token. Its answer is the client's,
// whatever it is.
func (t *Transport) replay(attempt *http.Request, c carried, kept *keptBody) (*http.Response, error) {
	attempt.Header[t.inject.header] = []string{t.inject.text(c.token)}
	res, err := t.send(attempt, c.token, kept)
	if err == nil && t.inject.refuses(res) {
		t.inject.countUnreplayed(t.inject.rejected(attempt.Context(), c, namesToken(res.Header)))
	}
	return res, err
}

// send makes one attempt.
func (t *Transport) send(attempt *http.Request, tok *token.Token, kept *keptBody) (*http.Response, error) {
	if t.inject.entry.bound {
		return t.bound.RoundTrip(attempt, tok, t.HTTPTransport, kept)
	}
	return t.HTTPTransport.RoundTrip(attempt)
}

// What is read of an answer that nobody gets, so that its connection can be
// used again, and for how long.
const (
	mostDiscarded = 64 << 10
	discarding    = 50 * time.Millisecond
)

// discard ends an answer. The end of one over HTTP/2 may wait for a read of the
// request's body.
func discard(res *http.Response) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.CopyN(io.Discard, res.Body, mostDiscarded)
		_ = res.Body.Close()
	}()
	patience := time.NewTimer(discarding)
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
		go res.Body.Close()
	}
}
