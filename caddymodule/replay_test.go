package caddymodule

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// TestReplayRules: which requests are made again, after which refusals.
func TestReplayRules(t *testing.T) {
	type rule struct {
		option, method, challenge string
		replayed                  bool
	}
	rules := []rule{
		{"", "GET", plainChallenge, true},
		{"", "GET", "", true},
		{"", "HEAD", plainChallenge, true},
		{"", "OPTIONS", plainChallenge, true},
		{"", "PUT", plainChallenge, true},
		{"", "DELETE", plainChallenge, true},
		{"", "POST", plainChallenge, false},
		{"", "PATCH", "", false},
		{"", "PROPFIND", plainChallenge, false},
		{"", "POST", invalidChallenge, true},
		{"", "PATCH", `DPoP error="invalid_token"`, true},
		{"", "POST", `Basic realm="x", bearer realm=y, error=invalid_token`, true},
		{"", "POST", `Basic error="invalid_token"`, false},
		{"", "POST", `Bearer error="insufficient_scope", error_description="invalid_token"`, false},
		{"", "GET", `Bearer error="insufficient_scope"`, true},
		{"replay {\nmethods GET PROPFIND\n}", "PROPFIND", plainChallenge, true},
		{"replay {\nmethods GET PROPFIND\n}", "PUT", plainChallenge, false},
		{"replay {\nmethods GET PROPFIND\n}", "PUT", invalidChallenge, true},
		{"replay off", "GET", invalidChallenge, false},
		{"replay {\nmax_body 0\n}", "GET", plainChallenge, true},
	}
	apis := make([]*strict, len(rules))
	own := several(t, len(rules), authserver.Config{}, func(n int, p *parts) (options, route string) {
		apis[n] = newStrict(t, rules[n].challenge)
		return "", p.over("1.1", apis[n], rules[n].option)
	})
	for n, tc := range rules {
		t.Run(strings.NewReplacer("/", "|", "\n", " ", "{", "", "}", "").Replace(tc.option+" "+tc.method+" "+tc.challenge), func(t *testing.T) {
			p, api := own[n].of(t), apis[n]
			p.aged()
			res := p.send(p.request(tc.method, nil))
			if n := len(api.arrivals()); (n == 2) != tc.replayed || (res.StatusCode == http.StatusOK) != tc.replayed {
				t.Errorf("%d attempts, %d", n, res.StatusCode)
			}
			// it is replaced in any case
			eventually(t, "another token", func() bool { return p.auth.Issued() == 2 })
			if tc.replayed {
				p.wantRefusals(1, 0, 0)
			} else {
				p.wantRefusals(0, 1, 0)
			}
		})
	}
}

// TestReplayOfOlder: the refusal of a token that was replaced meanwhile costs
// nothing, and the request is made again with the new one.
func TestReplayOfOlder(t *testing.T) {
	p := newParts(t, authserver.Config{})
	var held atomic.Bool
	gate := make(chan struct{})
	api := newStrict(t, invalidChallenge)
	p.run(p.credential(), p.over("1.1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" && held.CompareAndSwap(false, true) {
			<-gate
		}
		api.ServeHTTP(w, r)
	})))
	p.aged()
	slow := make(chan answer, 1)
	go func() {
		a, _ := p.try(http.MethodPost, "/slow", strings.NewReader("x"))
		slow <- a
	}()
	eventually(t, "the slow one", held.Load)
	p.want(p.get("/"), http.StatusOK)
	close(gate)
	p.want(<-slow, http.StatusOK)
	if p.auth.Requests() != 2 {
		t.Errorf("%d token requests", p.auth.Requests())
	}
	p.wantRefusals(2, 0, 0)
}

// TestReplayBodies: a body up to the limit arrives whole, byte for byte, twice;
// a larger one once, and the client gets the API's own answer.
func TestReplayBodies(t *testing.T) {
	const limit = 10_000
	content := make([]byte, 3*limit)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	type sending struct {
		version string
		chunked bool
		size    int
	}
	var sendings []sending
	for _, version := range httpVersions {
		for _, chunked := range []bool{false, true} {
			sendings = append(sendings, sending{version, chunked, limit}, sending{version, chunked, limit + 1})
		}
	}
	apis := make([]*strict, len(sendings))
	own := several(t, len(sendings), authserver.Config{}, func(n int, p *parts) (options, route string) {
		apis[n] = newStrict(t, invalidChallenge)
		return "", p.over(sendings[n].version, apis[n], "replay {\nmax_body 10KB\n}")
	})
	for n, tc := range sendings {
		t.Run(fmt.Sprintf("%s, %d bytes, chunked %v", tc.version, tc.size, tc.chunked), func(t *testing.T) {
			p, api := own[n].of(t), apis[n]
			p.aged()
			var body io.Reader = bytes.NewReader(content[:tc.size])
			if tc.chunked {
				body = io.MultiReader(body) // whose length nobody knows
			}
			res := p.send(p.request(http.MethodPost, body))
			seen := api.arrivals()
			for _, a := range seen {
				if a.hash != hashOf(content[:tc.size]) || a.err != nil {
					t.Errorf("%d of them arrived: %v", a.size, a.err)
				}
			}
			switch {
			case tc.size <= limit && (len(seen) != 2 || res.StatusCode != http.StatusOK || seen[0].token == seen[1].token):
				t.Errorf("%d attempts, %d", len(seen), res.StatusCode)
			case tc.size > limit:
				api.whole(res)
				p.wantRefusals(0, 1, 0)
			}
		})
	}
}

// TestReplayWithoutBody: with a limit of 0 none is kept.
func TestReplayWithoutBody(t *testing.T) {
	options := []string{"replay {\nmax_body 0\n}", "replay off"}
	apis := make([]*strict, len(options))
	own := several(t, len(options), authserver.Config{}, func(n int, p *parts) (_, route string) {
		apis[n] = newStrict(t, invalidChallenge)
		return "", p.over("1.1", apis[n], options[n])
	})
	for n, p := range own {
		p.aged()
		apis[n].whole(p.send(p.request(http.MethodPut, strings.NewReader("x"))))
	}
}

// TestReplayTrailers: those of the request come with both attempts.
func TestReplayTrailers(t *testing.T) {
	apis := make([]*strict, len(httpVersions))
	own := several(t, len(apis), authserver.Config{}, func(n int, p *parts) (options, route string) {
		apis[n] = newStrict(t, invalidChallenge)
		return "", p.over(httpVersions[n], apis[n])
	})
	for n, p := range own {
		p.aged()
		req := p.request(http.MethodPost, io.MultiReader(strings.NewReader("body")))
		req.Trailer = http.Header{"X-Sum": {"42"}, "Authorization": {"Bearer mine"}}
		if res := p.send(req); res.StatusCode != http.StatusOK {
			t.Errorf("%s: got %d", httpVersions[n], res.StatusCode)
		}
		for _, a := range apis[n].arrivals() {
			if fmt.Sprint(a.trailer) != "map[X-Sum:[42]]" {
				t.Errorf("%s: the API got the trailers %v", httpVersions[n], a.trailer)
			}
		}
	}
}

// TestReplayIsRefused: the second answer is the client's, and there is no third
// attempt.
func TestReplayIsRefused(t *testing.T) {
	p := newParts(t, authserver.Config{})
	api := newStrict(t, invalidChallenge)
	api.everything = true
	p.run(p.credential(), p.over("1.1", api))
	p.aged()
	api.whole(p.send(p.request(http.MethodGet, nil)))
	seen := api.arrivals()
	if len(seen) != 2 || seen[0].token == seen[1].token {
		t.Errorf("%d attempts", len(seen))
	}
	p.wantRefusals(1, 0, 1)
	eventually(t, "a third token, for the second was refused, too", func() bool { return p.auth.Issued() == 3 })
}

// TestReplayLosesNothing: a server that ends the older token with each new one,
// before the answer is out, costs no request.
func TestReplayLosesNothing(t *testing.T) {
	var p *parts
	config := authserver.Config{Lifetime: 10 * time.Second, OneAtATime: true}
	config.OnIssue = func(n int, _ time.Duration) {
		if n == 1 {
			return
		}
		before, deadline := p.api.Revoked(), time.After(500*time.Millisecond)
		for p.api.Revoked() < before+4 {
			select {
			case <-deadline:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}
	p = newParts(t, config)
	p.run(p.credential("refresh_at 10%"), replaying) // early, so that none ends by itself
	eventually(t, "a token", func() bool { return p.get("/").status == http.StatusOK })
	var n atomic.Int64
	stop := p.underLoad(func(a answer, err error) {
		n.Add(1)
		if err != nil || a.status != http.StatusOK {
			t.Errorf("a request was lost: %d %s %v", a.status, a.body, err)
		}
	})
	eventually(t, "five tokens", func() bool { return p.auth.Issued() >= 5 })
	stop()
	if p.api.Revoked() == 0 {
		t.Errorf("%d refusals in %d requests, so this test shows little", p.api.Revoked(), n.Load())
	}
	if p.auth.Requests() > p.auth.Issued() {
		t.Errorf("%d token requests for %d tokens", p.auth.Requests(), p.auth.Issued())
	}
}

// TestReplayDPoP: a refused token is replaced with a proof of its own; a nonce
// that is asked for is no refusal.
func TestReplayDPoP(t *testing.T) {
	p := newParts(t, authserver.Config{DPoP: authserver.DPoPRequired})
	p.api.Nonces, p.api.NonceUses, p.api.NonceQuiet = true, 1, true
	key := filepath.Join(t.TempDir(), "key")
	newKeyFile(t, key)
	p.run(p.credential("dpop {\nkey_file "+key+"\n}"), replaying)
	p.aged()
	for range 5 {
		a, err := p.try(http.MethodPost, "/", strings.NewReader("body"))
		if err != nil || a.status != http.StatusOK || !strings.Contains(a.body, `"body_bytes":4`) {
			t.Fatalf("got %d %s %v", a.status, a.body, err)
		}
	}
	a, err := p.try(http.MethodPost, "/", bytes.NewReader(make([]byte, 1<<20)))
	if err != nil || !strings.Contains(a.header.Get("WWW-Authenticate"), "use_dpop_nonce") {
		t.Fatalf("got %d %v, so this test shows little", a.status, err)
	}
	p.wantRefusals(0, 0, 0)
	p.auth.RevokeAll()
	a, err = p.try(http.MethodPost, "/", strings.NewReader("body"))
	if err != nil || a.status != http.StatusOK || !strings.Contains(a.body, `"body_bytes":4`) {
		t.Fatalf("got %d %s %v", a.status, a.body, err)
	}
	p.wantRefusals(1, 0, 0)
	if p.auth.Requests() != 2 || p.api.Revoked() != 1 || p.api.Challenged() < 5 || p.api.BadProof() > 0 {
		t.Errorf("%d token requests, %d refusals, %d nonces asked for, %d bad proofs", p.auth.Requests(), p.api.Revoked(), p.api.Challenged(), p.api.BadProof())
	}
}

// TestReplayIsNoOutcome: placeholders, access log and the metric of requests
// know one request.
func TestReplayIsNoOutcome(t *testing.T) {
	p := newParts(t, authserver.Config{})
	api := newStrict(t, invalidChallenge)
	p.run(p.credential(), "log\nheader X-Outcome {http.upstream_auth.outcome}{http.upstream_auth.error}\nhandle /metrics {\nmetrics\n}\nhandle {\n"+p.over("1.1", api)+"\n}")
	p.aged()
	if s := p.series(); s[`upstream_unauthorized_total{action="replayed",credential="crm"}`] != 0 || len(s) == 0 {
		t.Errorf("counted before: %v", s)
	}
	for _, action := range actions {
		if _, ok := p.series()[`upstream_unauthorized_total{action="`+action+`",credential="crm"}`]; !ok {
			t.Errorf("there is no series for %s before anything happens", action)
		}
	}
	res := p.send(p.request(http.MethodGet, nil))
	if got := res.Header.Get("X-Outcome"); res.StatusCode != http.StatusOK || got != "injected" && got != "{http.upstream_auth.outcome}{http.upstream_auth.error}" {
		t.Errorf("got %d, outcome %q", res.StatusCode, got)
	}
	s := p.series()
	if s[`upstream_unauthorized_total{action="replayed",credential="crm"}`] != 1 || s[`requests_total{credential="crm",outcome="injected"}`] != 1 {
		t.Errorf("counted %v", s)
	}
	eventually(t, "the access log", func() bool { return p.lines(`"upstream_auth_outcome":"injected"`) == 1 })
	if err := p.load(strings.ReplaceAll(p.caddyfile(p.credential(), "handle /metrics {\nmetrics\n}\nupstream_auth crm"), " crm", " erp")); err != nil {
		t.Fatal(err)
	}
	for name := range p.series() {
		if strings.Contains(name, `"crm"`) {
			t.Errorf("%s is left of a removed credential", name)
		}
	}
}
