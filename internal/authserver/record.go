package authserver

import (
	"bytes"
	"crypto/tls"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"time"
)

const (
	// logSize is how many requests are remembered.
	logSize = 1000
	// maxBody bounds what is read of a request.
	maxBody = 1 << 20
)

// Request is one request as it arrived. It holds secrets: it is kept in memory
// for tests to look at, and prints as little more than its address.
type Request struct {
	Time     time.Time
	Method   string
	Host     string
	Path     string
	RawQuery string
	Header   http.Header
	// TLS is what is known of the connection, nil without TLS.
	TLS *tls.ConnectionState
	// Body is the body as it was sent, and Form its parameters if it was a form.
	Body string
	Form url.Values
	// Basic tells whether there was a well-formed Basic header. BasicUser and
	// BasicPassword are what it held, with no form encoding undone.
	Basic         bool
	BasicUser     string
	BasicPassword string
}

// String is the request without anything secret.
func (r Request) String() string {
	return r.Time.Format(time.TimeOnly) + " " + r.Method + " " + r.Path
}

// GoString keeps %#v from printing what String leaves out.
func (r Request) GoString() string { return r.String() }

// readRequest reads all of a request. The body is put back, for a fault may
// want to read it too. The error is that of a body that is no form; the rest
// of the record holds all the same.
func readRequest(w http.ResponseWriter, r *http.Request) (Request, error) {
	request := Request{
		Time:     time.Now(),
		Method:   r.Method,
		Host:     r.Host,
		Path:     r.URL.Path,
		RawQuery: r.URL.RawQuery,
		Header:   r.Header.Clone(),
		TLS:      r.TLS,
	}
	request.BasicUser, request.BasicPassword, request.Basic = r.BasicAuth()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	request.Body = string(body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		return request, err
	}
	// RFC 6749 §4.4.2 and appendix B: a form, and nothing else
	if mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); mediaType == "application/x-www-form-urlencoded" {
		request.Form, err = url.ParseQuery(request.Body)
	}
	return request, err
}

func (s *Server) record(r Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, r)
	if len(s.log) > logSize {
		s.log[0] = Request{} // let it go before append moves the rest
		s.log = s.log[1:]
	}
}

// Log is the last thousand requests, oldest first: those at another path too,
// so that a secret that strayed is seen.
func (s *Server) Log() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}
