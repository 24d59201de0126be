package authserver

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Fault answers a token request in place of the healthy server, which is next.
// A fault that ends the connection without an answer panics with
// http.ErrAbortHandler, as net/http wants it.
type Fault func(w http.ResponseWriter, r *http.Request, next http.Handler)

// Switch sets the faults of a server. The zero value is healthy.
type Switch struct {
	mu     sync.Mutex
	always Fault
	queue  []Fault
}

// SetFault sets the fault of all further requests; nil is healthy. It drops
// what FailNext left.
func (s *Switch) SetFault(fault Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.always, s.queue = fault, nil
}

// FailNext gives the next n requests a fault, or health if it is nil, and
// then goes on with that of SetFault. A second call adds to the first.
func (s *Switch) FailNext(n int, fault Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		s.queue = append(s.queue, fault)
	}
}

// serve answers a request with the fault whose turn it is, or with next.
func (s *Switch) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if fault := s.take(); fault != nil {
		fault(w, r, next)
		return
	}
	next.ServeHTTP(w, r)
}

func (s *Switch) take() Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return s.always
	}
	fault := s.queue[0]
	s.queue = s.queue[1:]
	return fault
}

// Chain puts faults around one another, the first outermost: Chain(Slow(d),
// Down()) fails slowly, Chain(Drip(d), Answer(edit)) drips an edited answer.
func Chain(faults ...Fault) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		for _, fault := range slices.Backward(faults) {
			if inner := next; fault != nil {
				next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fault(w, r, inner) })
			}
		}
		next.ServeHTTP(w, r)
	}
}

// Status answers with a status and an empty body. header is names and values
// in turn.
func Status(code int, header ...string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Add(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

// Down answers 503 with an empty body.
func Down() Fault { return Status(http.StatusServiceUnavailable) }

// TooMany answers 429 with Retry-After, which may be seconds or a date.
func TooMany(retryAfter string) Fault {
	return Status(http.StatusTooManyRequests, "Retry-After", retryAfter)
}

// Redirect answers with a redirect. A client that follows it takes the secret
// along, with 307 and 308.
func Redirect(code int, location string) Fault {
	return Status(code, "Location", location)
}

// Invalid answers 400 with an error of RFC 6749 §5.2.
func Invalid(code, description string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		refuseStandard(w, refuse(code, description))
	}
}

// Raw answers with a body of any kind. An empty content type sends none.
func Raw(status int, contentType, body string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header()["Content-Type"] = nil // or net/http guesses one
		if contentType != "" {
			w.Header().Set("Content-Type", contentType)
		}
		w.WriteHeader(status)
		w.Write([]byte(body))
	}
}

// Slow answers properly after d. A token that it brings is issued at the end.
func Slow(d time.Duration) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		pause(r, d)
		next.ServeHTTP(w, r)
	}
}

// pause waits, and ends the request if the client leaves or the server closes.
func pause(r *http.Request, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
		panic(http.ErrAbortHandler)
	}
}

// Answer lets edit change the members of the good answer before it is sent:
// a json.RawMessage is written as it stands ("3.6e3"). An error answer stays as
// it is.
func Answer(edit func(map[string]any)) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		good := capture(r, next)
		if members := good.members(); members != nil {
			edit(members)
			good.body.Reset()
			writeJSON(good, good.status, members)
		}
		good.send(w)
	}
}

// AnswerHeader sets a header of the answer, whatever that is; an empty value
// takes it away.
func AnswerHeader(name, value string) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		good := capture(r, next)
		good.header.Set(name, value)
		if value == "" {
			good.header[http.CanonicalHeaderKey(name)] = nil // Date and Content-Type are added otherwise
		}
		good.send(w)
	}
}

// answer is an answer that was captured before it is sent.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// capture has next answer into memory.
func capture(r *http.Request, next http.Handler) *answer {
	a := &answer{header: http.Header{}}
	next.ServeHTTP(a, r)
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }
func (a *answer) WriteHeader(status int)      { a.status = status }

// members is what a good answer says, and nil if it is not one.
func (a *answer) members() (members map[string]any) {
	if a.status != http.StatusOK || json.Unmarshal(a.body.Bytes(), &members) != nil {
		return nil
	}
	return members
}

// sendHeader sends all but the body.
func (a *answer) sendHeader(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
}

func (a *answer) send(w http.ResponseWriter) {
	a.sendHeader(w)
	w.Write(a.body.Bytes())
}
