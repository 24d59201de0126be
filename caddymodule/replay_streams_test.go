package caddymodule

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// feed is a body that is sent part by part, as the test allows.
type feed struct {
	*io.PipeReader
	w *io.PipeWriter
}

func newFeed() *feed {
	r, w := io.Pipe()
	return &feed{r, w}
}

// TestReplayEarlyRefusal: an API that refuses before the body has come gets it
// whole with the other token; the client does not notice.
func TestReplayEarlyRefusal(t *testing.T) {
	apis := make([]*strict, len(httpVersions))
	own := several(t, len(apis), authserver.Config{}, func(n int, p *parts) (options, route string) {
		apis[n] = newStrict(t, invalidChallenge)
		apis[n].early, apis[n].reads = true, len("one,")
		return "", p.over(httpVersions[n], apis[n])
	})
	for n, version := range httpVersions {
		t.Run(version, func(t *testing.T) {
			p, api := own[n].of(t), apis[n]
			p.aged()
			body := newFeed()
			var wg sync.WaitGroup
			wg.Go(func() {
				defer body.w.Close()
				for i, part := range []string{"one,", "two,", "three,", "four"} {
					if i == 1 {
						eventually(t, "the refusal, and another token", func() bool { return len(api.arrivals()) > 0 && p.auth.Issued() == 2 })
					}
					if _, err := body.w.Write([]byte(part)); err != nil {
						t.Errorf("part %d: %v", i, err)
						return
					}
				}
			})
			res := p.send(p.request(http.MethodPost, body))
			got, err := io.ReadAll(res.Body)
			wg.Wait()
			if res.StatusCode != http.StatusOK || string(got) != hashOf([]byte("one,two,three,four")) || err != nil {
				t.Errorf("got %d %q %v", res.StatusCode, got, err)
			}
			p.wantRefusals(1, 0, 0)
		})
	}
}

// TestReplayEarlyRefusalStands: the client has the refusal while it is sending
// still, and may then go on or leave.
func TestReplayEarlyRefusalStands(t *testing.T) {
	for _, version := range httpVersions {
		t.Run(version, func(t *testing.T) {
			p := newParts(t, authserver.Config{})
			api := newStrict(t, plainChallenge) // a POST is not made again
			api.early, api.reads = true, len("one")
			protocols := new(http.Protocols)
			protocols.SetUnencryptedHTTP2(true) // by HTTP/1.1 a server reads the body first
			p.client = &http.Client{Transport: &http.Transport{Protocols: protocols}, Timeout: 30 * time.Second}
			t.Cleanup(p.client.CloseIdleConnections)
			file := p.caddyfile(p.credential(), p.over(version, api))
			if err := p.load(strings.Replace(file, "admin off", "admin off\nservers {\nprotocols h1 h2 h2c\n}", 1)); err != nil {
				t.Fatal(err)
			}
			p.aged()
			body := newFeed()
			defer body.w.Close()
			go func() { _, _ = body.w.Write([]byte("one")) }()
			api.whole(p.send(p.request(http.MethodPost, body)))
			p.wantRefusals(0, 1, 0)
		})
	}
}

// TestReplayOverflow: what streams past the limit while another token is awaited
// cannot be sent again, and nobody waits for it.
func TestReplayOverflow(t *testing.T) {
	p := newParts(t, authserver.Config{})
	gate := make(chan struct{})
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("WWW-Authenticate", invalidChallenge)
		w.WriteHeader(http.StatusUnauthorized)
		_ = http.NewResponseController(w).Flush()
		close(gate)
		_, _ = io.Copy(io.Discard, r.Body)
	})
	p.run(p.credential(), p.over("1.1", api))
	p.aged()
	fault, letGo := hangingToken()
	defer letGo()
	p.auth.SetFault(fault)
	body := newFeed()
	go func() {
		defer body.w.Close()
		_, _ = body.w.Write([]byte("x"))
		<-gate
		_, _ = body.w.Write(make([]byte, defaultReplayBody))
	}()
	began := time.Now()
	res := p.send(p.request(http.MethodPost, body))
	if res.StatusCode != http.StatusUnauthorized {
		t.Errorf("got %d", res.StatusCode)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
}

// TestReplayExpect: a client that waits for a 100 gets it, and the refusal does
// not come between.
func TestReplayExpect(t *testing.T) {
	cases := []struct {
		early  bool
		option string
	}{{false, ""}, {false, "expect_continue_timeout 10s"}, {true, ""}, {true, "expect_continue_timeout 10s"}}
	apis := make([]*strict, len(cases))
	own := several(t, len(cases), authserver.Config{}, func(n int, p *parts) (options, route string) {
		apis[n] = newStrict(t, invalidChallenge)
		apis[n].early = cases[n].early
		return "", strings.Replace(p.over("1.1", apis[n]), "versions", cases[n].option+"\nversions", 1)
	})
	for n, tc := range cases {
		t.Run(fmt.Sprintf("early %v, %s", tc.early, tc.option), func(t *testing.T) {
			p := own[n].of(t)
			p.aged()
			conn, err := net.Dial("tcp", p.proxy)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			fmt.Fprintf(conn, "POST %s/ HTTP/1.1\r\nHost: %s\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n", p.below, p.proxy)
			br := bufio.NewReader(conn)
			res, err := http.ReadResponse(br, nil)
			if err != nil || res.StatusCode != http.StatusContinue {
				t.Fatalf("got %v %v", res, err)
			}
			fmt.Fprint(conn, "body")
			for res.StatusCode == http.StatusContinue {
				if res, err = http.ReadResponse(br, nil); err != nil {
					t.Fatal(err)
				}
			}
			if res.StatusCode != http.StatusOK {
				t.Errorf("got %d", res.StatusCode)
			}
			seen := apis[n].arrivals()
			if len(seen) != 2 || seen[1].hash != hashOf([]byte("body")) || seen[1].expect == "" {
				t.Errorf("%d attempts: %+v", len(seen), seen)
			}
		})
	}
}

// TestReplayNotOfUpgrades: a refused upgrade is the client's, and one that is
// taken goes on as ever.
func TestReplayNotOfUpgrades(t *testing.T) {
	p := newParts(t, authserver.Config{})
	api := newStrict(t, invalidChallenge)
	api.accept = func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(conn, rw)
	}
	p.run(p.credential(), p.over("1.1", api))
	p.aged()
	upgrade := func() (net.Conn, *bufio.Reader, *http.Response) {
		conn, err := net.Dial("tcp", p.proxy)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", p.proxy)
		br := bufio.NewReader(conn)
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		return conn, br, res
	}
	_, _, res := upgrade()
	api.whole(res)
	p.wantRefusals(0, 1, 0)
	eventually(t, "another token", func() bool { return p.auth.Issued() == 2 })
	conn, br, res := upgrade()
	if res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %d", res.StatusCode)
	}
	fmt.Fprintln(conn, "hello")
	if line, err := br.ReadString('\n'); line != "hello\n" {
		t.Errorf("got %q %v", line, err)
	}
}

// TestReplayNotOfGRPC: a call by gRPC may be a stream without an end.
func TestReplayNotOfGRPC(t *testing.T) {
	kinds := []string{"application/grpc", "application/grpc-web+proto"}
	apis := make([]*strict, len(kinds))
	own := several(t, len(kinds), authserver.Config{}, func(n int, p *parts) (options, route string) {
		apis[n] = newStrict(t, invalidChallenge)
		return "", p.over("h2c", apis[n])
	})
	for n, p := range own {
		p.aged()
		apis[n].whole(p.send(p.request(http.MethodPost, strings.NewReader("\x00\x00\x00\x00\x00"), "Content-Type", kinds[n], "Te", "trailers")))
		p.wantRefusals(0, 1, 0)
	}
}

// TestReplayDrip: the refusal's body may never end; it is neither awaited by the
// client for which there is no other token, nor by the second attempt.
func TestReplayDrip(t *testing.T) {
	type drip struct {
		version string
		fault   authserver.Fault
		want    int
	}
	var drips []drip
	for _, version := range httpVersions {
		drips = append(drips, drip{version, nil, http.StatusOK}, drip{version, authserver.Down(), http.StatusUnauthorized})
	}
	ended := make([]chan struct{}, len(drips))
	own := several(t, len(drips), authserver.Config{}, func(n int, p *parts) (options, route string) {
		ended[n] = make(chan struct{})
		strict := newStrict(t, invalidChallenge)
		return "", p.over(drips[n].version, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			strict.ServeHTTP(rec, r)
			if rec.Code == http.StatusOK {
				return
			}
			w.Header().Set("WWW-Authenticate", invalidChallenge)
			w.WriteHeader(http.StatusUnauthorized)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done() // until nobody wants it any more
			close(ended[n])
		}))
	})
	for n, p := range own {
		p.aged()
		p.auth.SetFault(drips[n].fault)
		began := time.Now()
		res := p.send(p.request(http.MethodGet, nil))
		if res.StatusCode != drips[n].want || time.Since(began) > 3*time.Second {
			t.Errorf("%s, %d: got %d after %s", drips[n].version, drips[n].want, res.StatusCode, time.Since(began))
		}
		res.Body.Close()
		<-ended[n]
	}
}

// TestRetriesOfCaddy: another attempt of reverse_proxy's own begins from what
// the client sent: with the token of the moment, and never with a part of the
// body.
func TestRetriesOfCaddy(t *testing.T) {
	for _, dpop := range []bool{false, true} {
		t.Run(fmt.Sprint("dpop ", dpop), func(t *testing.T) {
			p := newParts(t, authserver.Config{DPoP: authserver.DPoPAllowed})
			option := ""
			if dpop {
				key := filepath.Join(t.TempDir(), "key")
				newKeyFile(t, key)
				option = "dpop {\nkey_file " + key + "\n}"
			}
			// the first upstream refuses, and breaks off when it is asked again
			first := newStrict(t, invalidChallenge)
			first.accept = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
			second := newStrict(t, "")
			second.first = "nothing"
			a, b := listen(t, "127.0.0.1:0", first), listen(t, "127.0.0.1:0", second)
			p.run(p.credential(option), "reverse_proxy "+a.Addr()+" "+b.Addr()+" {\nlb_policy first\nlb_retries 1\nfail_duration 1m\nlb_retry_match {\nmethod POST GET\n}\ntransport upstream_auth crm\n}")
			p.aged()
			res := p.send(p.request(http.MethodGet, nil))
			seen, tried := second.arrivals(), first.arrivals()
			if res.StatusCode != http.StatusOK || len(seen) != 1 || len(tried) < 2 { // net/http may try a connection that breaks once more itself
				t.Fatalf("got %d; %d attempts at the first, %d at the second", res.StatusCode, len(tried), len(seen))
			}
			h := seen[0].header
			if len(h["Authorization"]) != 1 || seen[0].token != tried[1].token || seen[0].token == tried[0].token {
				t.Error("the second upstream did not get the new token alone")
			}
			if dpop && (len(h["Dpop"]) != 1 || h.Get("Dpop") == tried[1].header.Get("Dpop")) {
				t.Errorf("it got %d proofs, or the first upstream's", len(h["Dpop"]))
			}
		})
	}
}
