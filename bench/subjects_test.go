package main

import (
	"testing"
	"time"
)

// TestSubjects runs a peer that needs nothing but Go, and looks at what the API
// is sent: a token that was issued, as it demands.
func TestSubjects(t *testing.T) {
	t.Chdir("..")
	path, err := program(t.Context(), t.TempDir(), "bench/peers/httputil")
	if err != nil {
		t.Fatal(err)
	}
	turn, err := newTurn(t.TempDir(), time.Hour, true)
	if err != nil {
		t.Fatal(err)
	}
	defer turn.close()
	if err := turn.run(t.Context(), subject{command: peer(path)}); err != nil {
		t.Fatal(err)
	}
	if n := len(turn.tokens()); n != 1 {
		t.Errorf("%d tokens were issued", n)
	}
	// the API itself: what comes without a good token is refused
	for value, want := range map[string]int{"": 401, "Bearer x": 401, "Bearer " + newToken(1): 401, "Bearer " + fixedToken: 200} {
		direct := &crowd{callers: []*caller{{addr: turn.target.Addr(), request: []byte("GET /hello HTTP/1.1\r\nHost: api\r\nAuthorization: " + value + "\r\n\r\n")}}}
		if got := direct.callers[0].call(time.Now()); got.status != want {
			t.Errorf("with %q: %d, want %d", value, got.status, want)
		}
		direct.close()
	}
}

func TestTokens(t *testing.T) {
	if a, b := newToken(1), newToken(2); a == b || len(a) != tokenBytes || len(fixedToken) != tokenBytes {
		t.Errorf("tokens of %d, %d and %d bytes", len(a), len(b), len(fixedToken))
	}
}
