package dpop

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

func give(nonces ...string) http.Header { return http.Header{"Dpop-Nonce": nonces} }

func TestNonce(t *testing.T) {
	for _, nonce := range []string{"n", "eyJ7S_zG.eyJH0-Z.HX4w-7v", "!#[]~{}", strings.Repeat("n", 1024)} {
		if got := Nonce(give(nonce)); got != nonce {
			t.Errorf("%q: got %q", nonce, got)
		}
	}
	for _, h := range []http.Header{
		nil, give(), give(""), give("a b"), give("a\tb"), give("a\r\nX: y"), give(`a"b`), give(`a\b`), give("ü"), give("a\x7f"), give("\x00"),
		give(strings.Repeat("n", 1025)), give("a", "b"), give("a", "a"),
	} {
		if got := Nonce(h); got != "" {
			t.Errorf("%q: got %q", h, got)
		}
	}
}

func TestNonceDemanded(t *testing.T) {
	const demand = `DPoP error="use_dpop_nonce", error_description="Resource server requires nonce in DPoP proof"`
	for name, test := range map[string]struct {
		status    int
		challenge []string
		nonce     []string
		want      bool
	}{
		"RFC 9449 §9":          {401, []string{demand}, []string{"n"}, true},
		"beside another":       {401, []string{`Bearer realm="a"`, "Basic realm=x, " + demand}, []string{"n"}, true},
		"in small letters":     {401, []string{"dpop ERROR=use_dpop_nonce"}, []string{"n"}, true},
		"without a nonce":      {401, []string{demand}, nil, false},
		"with a bad nonce":     {401, []string{demand}, []string{"a b"}, false},
		"another status":       {400, []string{demand}, []string{"n"}, false},
		"success":              {200, []string{demand}, []string{"n"}, false},
		"another error":        {401, []string{`DPoP error="invalid_token"`}, []string{"n"}, false},
		"another scheme":       {401, []string{`Bearer error="use_dpop_nonce"`}, []string{"n"}, false},
		"a scheme after it":    {401, []string{`DPoP algs="ES256", Bearer error="use_dpop_nonce"`}, []string{"n"}, false},
		"in a description":     {401, []string{`DPoP error="invalid_token", error_description="not DPoP error=use_dpop_nonce"`}, []string{"n"}, false},
		"no challenge":         {401, nil, []string{"n"}, false},
		"the error as a scope": {401, []string{`DPoP scope="use_dpop_nonce"`}, []string{"n"}, false},
	} {
		h := give(test.nonce...)
		h["Www-Authenticate"] = test.challenge
		if got := NonceDemanded(test.status, h); got != test.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
}

func TestNonces(t *testing.T) {
	n := NewNonces()
	api, other := parseURL(t, "https://api.example.com/a?b=c"), parseURL(t, "https://api.example.com:8443/a")
	if got := n.Get(api); got != "" {
		t.Errorf("an empty store has %q", got)
	}
	for _, step := range []struct {
		nonce string
		news  bool
		want  string
	}{
		{"n1", true, "n1"}, {"n1", false, "n1"}, {"n2", true, "n2"}, {"", false, "n2"}, {"a b", false, "n2"}, {"n1", true, "n1"},
	} {
		if news := n.Learn(api, give(step.nonce)); news != step.news {
			t.Errorf("%q is news: %t", step.nonce, news)
		}
		if got := n.Get(parseURL(t, "HTTPS://API.example.com:443/other")); got != step.want {
			t.Errorf("after %q it is %q", step.nonce, got)
		}
	}
	if got := n.Get(other); got != "" {
		t.Errorf("another origin has %q", got)
	}
	if n.Learn(api, nil) || n.Get(api) != "n1" {
		t.Error("an answer without a nonce changes something")
	}
	nowhere := parseURL(t, "/path")
	if n.Learn(nowhere, give("n")) || n.Get(nowhere) != "" {
		t.Error("a URL without a host has a nonce")
	}
}

// TestNoncesAreBounded: the one that was given the longest ago makes room.
func TestNoncesAreBounded(t *testing.T) {
	n := NewNonces()
	origin := func(i int) string { return fmt.Sprintf("https://h%d.example.com/", i) }
	for i := range maxOrigins {
		n.Learn(parseURL(t, origin(i)), give("n"))
	}
	n.Learn(parseURL(t, origin(0)), give("n")) // the oldest is now the next
	n.Learn(parseURL(t, origin(maxOrigins)), give("n"))
	if len(n.origins) != maxOrigins {
		t.Errorf("it has %d, expected %d", len(n.origins), maxOrigins)
	}
	for i, want := range map[int]string{0: "n", 1: "", 2: "n", maxOrigins: "n"} {
		if got := n.Get(parseURL(t, origin(i))); got != want {
			t.Errorf("%s has %q, expected %q", origin(i), got, want)
		}
	}
	n.Learn(parseURL(t, origin(5)), give("m"))
	if len(n.origins) != maxOrigins || n.Get(parseURL(t, origin(2))) != "n" {
		t.Error("a known origin takes the place of another")
	}
}

// TestNoncesAtOnce is for the race detector.
func TestNoncesAtOnce(t *testing.T) {
	n := NewNonces()
	var wg sync.WaitGroup
	for i := range 8 {
		u := parseURL(t, fmt.Sprintf("https://h%d.example.com/", i%3))
		wg.Go(func() {
			for j := range 100 {
				n.Learn(u, give(fmt.Sprint("n", j)))
				if n.Get(u) == "" {
					t.Error("a nonce is lost")
				}
			}
		})
	}
	wg.Wait()
}
