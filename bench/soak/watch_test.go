package main

import "testing"

func TestWatch(t *testing.T) {
	w := newWatch()
	w.secret("a token", "abcdefghijklmnopqrstuvwxyz-_0123456789ABCDE")
	w.secret("a secret", "p+a%s/w=d &!~:x")
	w.secret("nothing", "")
	w.form([]byte("grant_type=x&refresh_token=refresh-0123456789&client_assertion=aaaa.bbbb.signature-0123"))
	w.form([]byte("%zz"))
	for line, want := range map[string]string{
		`{"token":"abcdefghijklmnopqrstuvwxyz-_0123456789ABCDE"}`:              "a token",
		`{"body":"{\nabcdefghijklmnopqrstuvwxyz-_0123456789ABCDE\n}"}`:         "a token",
		`Bearer%20abcdefghijklmnopqrstuvwxyz-_0123456789ABCDE`:                 "a token",
		`{"token":"abcdefghijklmnopqrstuvwxyz-_0123456789ABCD"}`:               "",
		`client_secret=p+a%s/w=d &!~:x&`:                                       "a secret",
		`refresh-0123456789`:                                                   "a refresh token",
		`assertion aaaa.bbbb.signature-0123`:                                   "an assertion",
		`assertion aaaa.bbbb.`:                                                 "",
		`{"level":"debug","logger":"http.log.access","msg":"handled request"}`: "",
	} {
		if got := w.finds(line); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}
