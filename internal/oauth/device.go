package oauth

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// DeviceAuthorization is what a device authorization endpoint answers (RFC 8628
// §3.2).
type DeviceAuthorization struct {
	DeviceCode, UserCode string
	// VerificationURI is where a person enters the UserCode;
	// VerificationURIComplete holds it already, "" where the server has none.
	VerificationURI, VerificationURIComplete string
	// ExpiresIn is how long the codes live, 0 where the server does not say.
	ExpiresIn time.Duration
	// Interval is the least time between two token requests: 5s unless the
	// server says otherwise.
	Interval time.Duration
}

const defaultInterval = 5 * time.Second

// Device sends the request to a device authorization endpoint. The error is
// always a *Failure.
func (r *Request) Device(ctx context.Context, rt http.RoundTripper) (*DeviceAuthorization, error) {
	mask := newMask(r.Secrets)
	a, failure := r.send(ctx, rt, mask)
	if failure != nil {
		return nil, failure
	}
	doc, parseErr := parse(a)
	if f := r.failed(a, doc, parseErr, mask); f != nil {
		return nil, f
	}
	if parseErr != nil {
		return nil, a.failure(mask, Malformed, "", "", parseErr)
	}
	d := &DeviceAuthorization{
		DeviceCode: word(doc["device_code"]), UserCode: word(doc["user_code"]),
		VerificationURI:         firstWord(doc, "verification_uri", "verification_url"), // Google's older name
		VerificationURIComplete: word(doc["verification_uri_complete"]),
		ExpiresIn:               span(doc["expires_in"], time.Second),
		Interval:                span(doc["interval"], time.Second),
	}
	if d.Interval == 0 {
		d.Interval = defaultInterval
	}
	if d.DeviceCode == "" || !printable(d.UserCode) || !isPage(d.VerificationURI) {
		return nil, a.failure(mask, Malformed, "", "", errors.New("the answer lacks a usable device_code, user_code or verification_uri (RFC 8628 §3.2)"))
	}
	if !isPage(d.VerificationURIComplete) {
		d.VerificationURIComplete = ""
	}
	return d, nil
}

// printable tells whether a word may be shown on a terminal.
func printable(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e }) < 0
}

func isPage(s string) bool {
	u, err := url.Parse(s)
	return err == nil && printable(s) && (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != ""
}

// Revoke sends the request to a revocation endpoint (RFC 7009): any 200 is a
// success, also for a token that was not known. The error is always a *Failure.
func (r *Request) Revoke(ctx context.Context, rt http.RoundTripper) error {
	mask := newMask(r.Secrets)
	a, failure := r.send(ctx, rt, mask)
	if failure != nil {
		return failure
	}
	doc, parseErr := parse(a)
	if f := r.failed(a, doc, parseErr, mask); f != nil {
		return f
	}
	return nil
}
