package caddymodule

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// TestRejectionStorm: a hundred refusals of one token at once cost one token
// request, and no client sees any of them.
func TestRejectionStorm(t *testing.T) {
	const clients = 100
	p := newParts(t, authserver.Config{})
	var arrived sync.WaitGroup
	arrived.Add(clients)
	var old string
	p.upstream = listen(t, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == old {
			arrived.Done()
			arrived.Wait() // all of them are refused
		}
		p.api.ServeHTTP(w, r)
	}))
	p.run(p.credential(), replaying)
	p.aged()
	p.auth.RevokeAll()
	old = "Bearer " + credentials.newest()["crm"].source.Token().Value
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			a, err := p.try(http.MethodGet, "/", nil)
			if err != nil || a.status != http.StatusOK {
				t.Errorf("got %d %v", a.status, err)
			}
		})
	}
	wg.Wait()
	if p.auth.Requests() != 2 || p.api.Revoked() != clients || p.api.OK() != clients {
		t.Errorf("%d token requests, %d refusals, %d requests taken", p.auth.Requests(), p.api.Revoked(), p.api.OK())
	}
	p.wantRefusals(clients, 0, 0)
	if n := p.lines("an upstream refuses the access token"); n != 1 {
		t.Errorf("the log tells of it %d times", n)
	}
}

// TestRejectionOfEverything: an API that refuses whatever it is given does not
// churn tokens, and each client gets the API's own answer, whole.
func TestRejectionOfEverything(t *testing.T) {
	given := []string{plainChallenge, invalidChallenge}
	apis := make([]*strict, len(given))
	own := several(t, len(given), authserver.Config{}, func(n int, p *parts) (options, route string) {
		apis[n] = newStrict(t, given[n])
		apis[n].everything = true
		return "", p.over("1.1", apis[n])
	})
	for _, p := range own {
		p.aged()
	}
	began := time.Now()
	n := 0
	for ; time.Since(began) < 3500*time.Millisecond; n++ {
		for i, p := range own {
			method, body := http.MethodGet, io.Reader(nil)
			if n%2 == 1 {
				method, body = http.MethodPost, strings.NewReader("body")
			}
			apis[i].whole(p.send(p.request(method, body)))
		}
	}
	for i, p := range own {
		if asked := p.auth.Requests(); asked < 3 || asked > 4 { // at first, then at 0, 1 and 3 s
			t.Errorf("%s: %d token requests for %d refusals", given[i], asked, n)
		}
		if p.told("refuses every new access token") != 1 {
			t.Errorf("%s: the log does not say so", given[i])
		}
		if got := p.refusals(); got["ignored"] == 0 || got["replayed"] > 4 {
			t.Errorf("%s: counted %v", given[i], got)
		}
	}
}

// TestRejectionThatFails: the token in use stays where none can be had in its
// place, or the same.
func TestRejectionThatFails(t *testing.T) {
	for name, fault := range map[string]authserver.Fault{"down": authserver.Down(), "same": nil} {
		t.Run(name, func(t *testing.T) {
			p := newParts(t, authserver.Config{RunningToken: name == "same"})
			api := newStrict(t, invalidChallenge)
			p.run(p.credential(), p.over("1.1", api))
			p.aged()
			p.auth.SetFault(fault)
			for range 3 {
				api.whole(p.send(p.request(http.MethodGet, nil)))
			}
			seen := api.arrivals()
			if len(seen) != 3 || seen[0].token != seen[2].token || p.auth.Requests() != 2 {
				t.Errorf("%d requests upstream, %d token requests", len(seen), p.auth.Requests())
			}
			p.wantRefusals(0, 1, 2)
		})
	}
}

// TestRejectionWait: a request waits no longer than the route allows, and not at
// all where nothing is to come of it.
func TestRejectionWait(t *testing.T) {
	p := newParts(t, authserver.Config{})
	api := newStrict(t, plainChallenge)
	p.run(p.credential(), p.over("1.1", api, "wait 300ms"))
	p.aged()
	fault, letGo := hangingToken()
	defer letGo()
	p.auth.SetFault(fault)
	began := time.Now()
	api.whole(p.send(p.request(http.MethodPost, strings.NewReader("x"))))
	if took := time.Since(began); took > 250*time.Millisecond {
		t.Errorf("a request that is not made again waited %s", took)
	}
	began = time.Now()
	api.whole(p.send(p.request(http.MethodGet, nil)))
	if took := time.Since(began); took < 300*time.Millisecond || took > 5*time.Second {
		t.Errorf("it waited %s", took)
	}
	p.wantRefusals(0, 2, 0)

	// a client that leaves meanwhile
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if res, err := p.client.Do(p.request(http.MethodGet, nil).WithContext(ctx)); err == nil {
			res.Body.Close()
		}
	}()
	eventually(t, "its request", func() bool { return len(api.arrivals()) == 3 })
	leave()
	<-gone
	letGo()
	eventually(t, "another token", func() bool { return p.get("/").status == http.StatusOK })
}

// TestRejectedOn: other statuses mean a refusal where the credential says so.
func TestRejectedOn(t *testing.T) {
	cases := []struct {
		option           string
		status, attempts int
	}{
		{"", 401, 2}, {"", 403, 1}, {"rejected_on 403", 403, 2}, {"rejected_on 403", 401, 1}, {"rejected_on 401 403 500", 500, 2},
	}
	apis := make([]*strict, len(cases))
	own := several(t, len(cases), authserver.Config{}, func(n int, p *parts) (options, route string) {
		apis[n] = newStrict(t, "")
		apis[n].status = cases[n].status
		return cases[n].option, p.over("1.1", apis[n])
	})
	for n, tc := range cases {
		t.Run(fmt.Sprint(tc.option, " ", tc.status), func(t *testing.T) {
			p, api := own[n].of(t), apis[n]
			p.aged()
			res := p.send(p.request(http.MethodGet, nil))
			if n := len(api.arrivals()); n != tc.attempts || p.auth.Requests() != tc.attempts || (res.StatusCode == 200) != (tc.attempts == 2) {
				t.Errorf("%d attempts, %d token requests, %d", n, p.auth.Requests(), res.StatusCode)
			}
		})
	}
}

// TestRejectionNotOurs: what was not sent with our token says nothing of it.
func TestRejectionNotOurs(t *testing.T) {
	cases := []struct {
		name, route string
		fields      []string
		first       string
	}{
		{"the client's own", "reverse_proxy $STRICT {\ntransport upstream_auth crm {\nclient_authorization keep\n}\n}", []string{"Authorization", "Bearer mine"}, ""},
		{"the client's own, by the handler", "upstream_auth crm {\nclient_authorization keep\n}\nreverse_proxy $STRICT", []string{"Authorization", "Bearer mine"}, ""},
		{"another handler's", "upstream_auth crm\nheader WWW-Authenticate `Basic realm=\"x\"`\nrespond 401", nil, ""},
		{"another handler's, without a challenge", "upstream_auth crm\nrespond 401", nil, ""},
		{"basic_auth", "route {\nupstream_auth crm\nbasic_auth {\na $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}\nreverse_proxy $API\n}", nil, ""},
		{"forward_auth", "route {\nupstream_auth crm\nforward_auth $SSO {\nuri /\n}\nreverse_proxy $API\n}", nil, ""},
		{"an error", "upstream_auth crm\nheader WWW-Authenticate `Bearer error=\"invalid_token\"`\nerror 401", nil, ""},
		{"a health check", "reverse_proxy $STRICT {\nhealth_uri /\nhealth_interval 20ms\nhealth_status 401\ntransport upstream_auth crm\n}", nil, "checks"},
	}
	sso := listen(t, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", "Negotiate")
		w.WriteHeader(http.StatusUnauthorized)
	}))
	apis := make([]*strict, len(cases))
	own := several(t, len(cases), authserver.Config{}, func(n int, p *parts) (options, route string) {
		apis[n] = newStrict(t, invalidChallenge)
		apis[n].everything = true
		up := listen(t, "127.0.0.1:0", apis[n])
		return "", strings.NewReplacer("$STRICT", up.Addr(), "$SSO", sso.Addr(), "upstream_auth crm", "upstream_auth "+p.name).Replace(cases[n].route)
	})
	for n, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			p, api := own[n].of(t), apis[n]
			p.aged()
			if tc.first == "checks" {
				eventually(t, "health checks", func() bool { return len(api.arrivals()) > 40 })
			} else {
				for range 3 {
					p.want(p.get(p.below+"/", tc.fields...), http.StatusUnauthorized)
				}
			}
			if n := p.auth.Requests(); n != 1 {
				t.Errorf("%d token requests", n)
			}
			p.wantRefusals(0, 0, 0)
		})
	}
}

// TestRejectionWithoutToken: what passed without a token says nothing either.
func TestRejectionWithoutToken(t *testing.T) {
	for _, site := range []string{
		"reverse_proxy $API {\ntransport upstream_auth crm {\nunavailable pass\nwait 0\n}\n}",
		"upstream_auth crm {\nunavailable pass\nwait 0\n}\nreverse_proxy $API",
	} {
		p := newParts(t, authserver.Config{})
		p.auth.SetFault(authserver.Invalid("invalid_client", "no"))
		p.run(p.credential(), site)
		eventually(t, "a refusal of the client", func() bool { return p.auth.Requests() == 1 })
		p.want(p.get("/"), http.StatusUnauthorized)
		if p.api.Missing() != 1 {
			t.Errorf("%d requests without a token", p.api.Missing())
		}
		p.wantRefusals(0, 0, 0)
		p.stop()
	}
}

// TestRejectionByHandler: one refresh, and no replay; with the token that comes
// of it the next request is taken.
func TestRejectionByHandler(t *testing.T) {
	given := []string{plainChallenge, invalidChallenge}
	apis := make([]*strict, len(given))
	own := several(t, len(given), authserver.Config{}, func(n int, p *parts) (options, route string) {
		apis[n] = newStrict(t, given[n])
		return "", "upstream_auth " + p.name + "\nreverse_proxy " + listen(t, "127.0.0.1:0", apis[n]).Addr()
	})
	for n, p := range own {
		p.aged()
		apis[n].whole(p.send(p.request(http.MethodGet, nil)))
		eventually(t, "another token", func() bool { return p.auth.Issued() == 2 })
		eventually(t, "a request that is taken", func() bool { return p.get(p.below+"/").status == http.StatusOK })
		if got := p.refusals(); got["refreshed"] != 1 || got["replayed"] != 0 {
			t.Errorf("%s: counted %v", given[n], got)
		}
	}
}

// TestRejectionByBoth: where a transport replaces the handler's token the
// refusal is of that one.
func TestRejectionByBoth(t *testing.T) {
	p := newParts(t, authserver.Config{})
	api := newStrict(t, invalidChallenge)
	api.everything = true
	up := listen(t, "127.0.0.1:0", api)
	inner := "token_url " + p.server.URL() + authserver.TokenPath + "\nclient_id " + appClient + "\nclient_auth client_secret_post {env." + secretEnv + "}\n"
	p.run(p.credential(), "upstream_auth crm\nreverse_proxy "+up.Addr()+" {\ntransport upstream_auth {\n"+inner+"\n}\n}")
	p.aged()
	issued := p.auth.Issued()
	api.whole(p.send(p.request(http.MethodPost, strings.NewReader("x"))))
	eventually(t, "a refresh by the transport", func() bool { return p.auth.Issued() == issued+1 })
	p.wantRefusals(0, 0, 0)
}
