package main

import (
	"io"
	"net/http"
	"strconv"
	"time"
)

// fault is what the proxy does to the token requests of a credential.
type fault struct {
	kind string
	over chan struct{} // closed when it is
}

// retryAfter is what a 429 asks for, in seconds.
const retryAfter = 2

// drop is how long a body that drips takes.
const drip = 2 * time.Second

func (f *fault) answer(p *proxy, w http.ResponseWriter, r *http.Request, a *ask, body []byte) {
	header := w.Header()
	switch f.kind {
	case answer503:
		p.reply(w, r, a, http.StatusServiceUnavailable, []byte("back soon\n"))
	case answer429:
		header.Set("Retry-After", strconv.Itoa(retryAfter))
		p.reply(w, r, a, http.StatusTooManyRequests, []byte(`{"error":"slow_down"}`))
	case answerHTML:
		p.reply(w, r, a, http.StatusOK, []byte("<!doctype html><title>Maintenance</title>\n"))
	case answerEmpty:
		p.reply(w, r, a, http.StatusOK, nil)
	case answerHangs:
		select { // then it is as one that was restarted
		case <-f.over:
		case <-r.Context().Done():
		}
		hangUp(w)
	case answerReset:
		hangUp(w)
	case answerCut:
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 120\r\n\r\n{\"access_token\":\"cut")
		_ = conn.Close()
	case answerDrips:
		f.drip(p, w, r, a, body)
	case answerLost:
		_, _, _ = p.forward(r, a, body) // what comes of it is lost
		hangUp(w)
	}
}

// drip passes a request on, and the answer byte by byte.
func (f *fault) drip(p *proxy, w http.ResponseWriter, r *http.Request, a *ask, body []byte) {
	status, answer, err := p.forward(r, a, body)
	if err != nil {
		hangUp(w)
		return
	}
	p.book.with(func() { a.status = status })
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	w.WriteHeader(status)
	flush := http.NewResponseController(w)
	for n := range answer {
		if _, err := w.Write(answer[n : n+1]); err != nil || flush.Flush() != nil { //nolint:gosec // to no browser
			return
		}
		rest(r.Context(), drip/time.Duration(len(answer)))
	}
	p.deliver(w, r, a)
}
