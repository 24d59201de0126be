package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"net/http"
	"sync"
	"time"
)

// stats is what happened at the token endpoint since the start.
type stats struct {
	Granted       int            `json:"granted"`        // token requests that got a token
	Refused       map[string]int `json:"refused"`        // those that did not, by error code
	Aborted       int            `json:"aborted"`        // those in which the library panicked: cut off, as net/http does
	Methods       map[string]int `json:"methods"`        // granted, by client authentication method
	Grants        map[string]int `json:"grants"`         // granted, by grant_type
	MaxInFlight   int            `json:"max_in_flight"`  // token requests at one time
	Rotations     int            `json:"rotations"`      // refresh tokens that were exchanged for another
	Chains        int            `json:"chains"`         // started by /initial
	ChainsRevoked int            `json:"chains_revoked"` // ended because a spent refresh token came again
	Lost          []cut          `json:"lost"`           // answers that /fault took away
	Gone          []cut          `json:"gone"`           // answers for clients that were gone when they were due
}

// cut is a token request that was processed and whose answer nobody got.
type cut struct {
	GrantType string `json:"grant_type"`
	ClientID  string `json:"client_id"`
	Spent     string `json:"spent"` // SHA-256 of the refresh token that was sent, in hex
	Next      string `json:"next"`  // likewise of the one that nobody got; "" where none was issued
	Error     string `json:"error"` // "" where a token was granted
}

// meter stands before the token endpoint: it counts, delays and loses.
type meter struct {
	next  http.Handler
	delay time.Duration

	mu       sync.Mutex
	stats    stats
	inFlight int
	lose     int // answers to come
}

func (m *meter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	lost := m.begin()
	defer m.end()
	// read now, net/http notices when the client goes away
	formErr := r.ParseForm()
	time.Sleep(m.delay)

	// what has arrived is processed, whether or not the client waits for it
	var a answer
	if panicked := a.record(m.next, r.WithContext(context.WithoutCancel(r.Context()))); panicked != nil {
		log.Printf("%s panicked: %v", r.PostForm.Get("grant_type"), panicked)
		m.count(func(s *stats) { s.Aborted++ })
		panic(http.ErrAbortHandler)
	}
	outcome := a.outcome()
	m.add(r, outcome)
	switch {
	case lost:
		m.count(func(s *stats) { s.Lost = append(s.Lost, outcome.cut(r)) })
		hangUp(w)
		return
	case formErr == nil && r.Context().Err() != nil:
		m.count(func(s *stats) { s.Gone = append(s.Gone, outcome.cut(r)) })
	}
	a.writeTo(w)
}

func (m *meter) begin() (lost bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inFlight++
	m.stats.MaxInFlight = max(m.stats.MaxInFlight, m.inFlight)
	if m.lose > 0 {
		m.lose--
		lost = true
	}
	return lost
}

func (m *meter) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inFlight--
}

func (m *meter) count(add func(*stats)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	add(&m.stats)
}

func (m *meter) add(r *http.Request, o outcome) {
	m.count(func(s *stats) {
		if o.Error != "" {
			s.Refused[o.Error]++
			return
		}
		s.Granted++
		s.Methods[method(r)]++
		s.Grants[r.PostForm.Get("grant_type")]++
		if sent := r.PostForm.Get("refresh_token"); sent != "" && o.RefreshToken != "" && o.RefreshToken != sent {
			s.Rotations++
		}
	})
}

// method is that by which the client proved itself.
func method(r *http.Request) string {
	_, _, basic := r.BasicAuth()
	switch {
	case basic:
		return secretBasic
	case r.PostForm.Has("client_assertion"):
		return privateKeyJWT
	case r.PostForm.Has("client_secret"):
		return secretPost
	}
	return none
}

// hangUp closes the connection without a word.
func hangUp(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // which ends in the same
	}
	if err := conn.Close(); err != nil {
		log.Print(err)
	}
}

// answer is what a library wants to answer.
type answer struct {
	status int
	header http.Header
	body   bytes.Buffer
}

// record has the handler serve the request, and returns what it panicked with.
func (a *answer) record(h http.Handler, r *http.Request) (panicked any) {
	defer func() { panicked = recover() }()
	a.header = make(http.Header)
	h.ServeHTTP(a, r)
	return nil
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}

func (a *answer) writeTo(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.header)
	a.WriteHeader(http.StatusOK)
	w.WriteHeader(a.status)
	_, _ = a.body.WriteTo(w) // a client that is gone has been counted
}

// outcome is what an answer of the token endpoint means.
type outcome struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	Error        string `json:"error"` // "" where there is a token
}

func (a *answer) outcome() outcome {
	var o outcome
	err := json.Unmarshal(a.body.Bytes(), &o)
	if o.Error == "" && (err != nil || o.AccessToken == "") {
		o.Error = fmt.Sprintf("status %d", a.status)
	}
	return o
}

func (o outcome) cut(r *http.Request) cut {
	id, _, basic := r.BasicAuth()
	if !basic {
		id = r.PostForm.Get("client_id")
	}
	return cut{
		GrantType: r.PostForm.Get("grant_type"),
		ClientID:  id,
		Spent:     hash(r.PostForm.Get("refresh_token")),
		Next:      hash(o.RefreshToken),
		Error:     o.Error,
	}
}

// hash tells tokens apart without showing them.
func hash(token string) string {
	if token == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}
