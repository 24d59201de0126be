package caddymodule

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// issuer gives one token, of the size that a JWT has.
type issuer struct{ text string }

func (i issuer) Request(context.Context, token.Occasion) (*oauth.Response, error) {
	return &oauth.Response{AccessToken: i.text, ExpiresIn: time.Hour, Bearer: true}, nil
}
func (issuer) Stale() bool { return false }

type deaf struct{}

func (deaf) Attempted(token.Attempt)       {}
func (deaf) Expired(token.Snapshot)        {}
func (deaf) Rejected(token.Snapshot, bool) {}

const jwtSize = 909

// newTestInjector is an injector that holds a token.
func newTestInjector(tb testing.TB) *injector {
	tb.Helper()
	s := token.NewSource((&Credential{}).policy(), new(token.Scheduler), deaf{})
	tb.Cleanup(s.Close)
	s.Use(issuer{strings.Repeat("a", jwtSize)})
	s.Start()
	if _, err := s.Wait(tb.Context(), time.Minute); err != nil {
		tb.Fatal(err)
	}
	i := &injector{name: "bench", boxed: "bench", source: s, header: defaultHeader, prefix: defaultScheme + " ", wait: defaultWait}
	for o := range outcomes {
		i.counts[o] = requests.WithLabelValues(i.name, outcome(o).String())
	}
	tb.Cleanup(func() { requests.DeletePartialMatch(map[string]string{"credential": i.name}) })
	return i
}

func clientHeader() http.Header {
	return http.Header{"Accept": {"*/*"}, "User-Agent": {"bench"}}
}

// BenchmarkInjection is what is done to each request while a token is held.
// Its peer is what a program with golang.org/x/oauth2 does.
func BenchmarkInjection(b *testing.B) {
	i := newTestInjector(b)
	source := oauth2.ReuseTokenSource(nil, oauth2.StaticTokenSource(&oauth2.Token{AccessToken: strings.Repeat("a", jwtSize), Expiry: time.Now().Add(time.Hour)}))
	for _, way := range []struct {
		name   string
		inject func(*http.Request)
	}{
		{"upstream_auth", func(r *http.Request) {
			if _, refusal := i.apply(r, new([1]string)); refusal != nil {
				b.Error(refusal.err)
			}
		}},
		{"x_oauth2", func(r *http.Request) {
			t, err := source.Token()
			if err != nil {
				b.Error(err)
				return
			}
			t.SetAuthHeader(r)
		}},
		{"nothing", func(*http.Request) {}},
	} {
		b.Run(way.name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				r := &http.Request{Header: clientHeader()}
				for pb.Next() {
					way.inject(r)
				}
			})
		})
	}
}

// TestInjectionAllocates: one slice of one string, and no more, whatever else
// changes.
func TestInjectionAllocates(t *testing.T) {
	i := newTestInjector(t)
	r := &http.Request{Header: clientHeader()}
	got := testing.AllocsPerRun(1000, func() {
		if _, refusal := i.apply(r, new([1]string)); refusal != nil {
			t.Error(refusal.err)
		}
	})
	if got > 1 {
		t.Errorf("%v allocations for each request, want 1", got)
	}
}
