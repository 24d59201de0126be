package token

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// one is a table with one value, before a server.
type one struct {
	*Table
	srv *server
	obs *observer
	key Key
	on  []Occasion // of the requests so far
}

func (o *one) requester() Requester { return o }

func (o *one) Request(ctx context.Context, on Occasion) (*oauth.Response, error) {
	o.srv.set(func() { o.on = append(o.on, on) })
	return o.srv.Request(ctx, on)
}

func (o *one) Stale() bool { return false }

func (o *one) lastOccasion() (on Occasion) {
	o.srv.set(func() { on = o.on[len(o.on)-1] })
	return on
}

// wait is what a request does.
func (o *one) wait(t *testing.T, most time.Duration) *Token {
	t.Helper()
	tok, err := o.Wait(t.Context(), o.key, most, o.requester)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func (o *one) refuse(tok *Token, invalid bool) bool {
	return o.Reject(context.Background(), o.key, tok, invalid, o.requester)
}

func (o *one) value() string {
	if tok := o.Token(o.key); tok != nil {
		return tok.Value
	}
	return ""
}

// oneValue makes a table, and has a minute pass once it holds the value's token.
func oneValue(t *testing.T, srv *server, change func(*Limits)) (*one, *Token) {
	t.Helper()
	b := tableOf(t, nil, change)
	o := &one{Table: b.Table, srv: srv, obs: b.obs, key: keyOf("a")}
	tok := o.wait(t, time.Second)
	for range 60 {
		pass(time.Second)
		o.value()
	}
	return o, tok
}

func onDemand(l *Limits) { l.OnDemand = true }

// both runs a test for tokens that are renewed, and for those that are not.
func both(t *testing.T, test func(t *testing.T, change func(*Limits))) {
	t.Helper()
	for name, change := range map[string]func(*Limits){"renewed": nil, "on demand": onDemand} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, change) })
		})
	}
}

// TestTableReject: see TestReject.
func TestTableReject(t *testing.T) {
	both(t, func(t *testing.T, change func(*Limits)) {
		t.Helper()
		srv := &server{answer: lives(time.Hour)}
		o, old := oneValue(t, srv, change)
		srv.set(func() { srv.delay = time.Second })
		for range 100 {
			if !o.refuse(old, false) {
				t.Fatal("no request is under way")
			}
			if o.value() != "tok-1" {
				t.Fatal("the token is not in use while it is asked for another")
			}
		}
		if other := o.Other(t.Context(), o.key, old, time.Minute); other == nil || other.Value != "tok-2" {
			t.Fatalf("got %+v", other)
		}
		if on := o.lastOccasion(); on.Reason != Rejected || on.Held != old || !on.Suspect || on.Limit != defaults.Timeout {
			t.Errorf("asked with %+v", on)
		}
		pass(time.Minute)
		if o.refuse(old, true) || srv.count() != 2 || o.value() != "tok-2" {
			t.Errorf("an older token: %d requests, held %q", srv.count(), o.value())
		}
		if a := o.obs.last(); a.Reason != Rejected || a.Suspect || a.Same {
			t.Errorf("told %+v", a)
		}
		if told, again := o.obs.rejections(); told != 1 || again != 0 {
			t.Errorf("told %d times, %d of them again", told, again)
		}
		if other := o.Other(t.Context(), o.key, old, 0); other == nil || other.Value != "tok-2" {
			t.Errorf("what is held is not given at once: %+v", other)
		}
		if o.Other(t.Context(), o.key, o.Token(o.key), time.Minute) != nil || o.Other(t.Context(), keyOf("b"), old, time.Minute) != nil {
			t.Error("there is no other")
		}
		if o.Reject(t.Context(), keyOf("b"), old, true, o.requester) || srv.count() != 2 {
			t.Error("asked for a value that is not known")
		}
	})
}

// TestTableRejectInvalid: see TestRejectInvalid.
func TestTableRejectInvalid(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(int) (*oauth.Response, error)
		most   time.Duration
		want   string
		took   time.Duration
	}{
		"another":                {lives(time.Hour), 5 * time.Second, "tok-2", 2 * time.Second},
		"too slow":               {lives(time.Hour), time.Second, "tok-1", time.Second},
		"no patience":            {lives(time.Hour), 0, "tok-1", 0},
		"failed":                 {fails(down), 5 * time.Second, "tok-1", 2 * time.Second},
		"the client refused":     {fails(refused), 5 * time.Second, "tok-1", 2 * time.Second},
		"the value refused":      {fails(oauth.Failure{Kind: oauth.Refused, Status: 400, Code: "invalid_grant"}), 5 * time.Second, "tok-1", 2 * time.Second},
		"the same":               {func(int) (*oauth.Response, error) { return lives(time.Hour)(1) }, 5 * time.Second, "tok-1", 2 * time.Second},
		"expired on its arrival": {lives(time.Second), 5 * time.Second, "tok-1", 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, change func(*Limits)) {
				t.Helper()
				srv := &server{answer: lives(time.Hour)}
				o, old := oneValue(t, srv, change)
				srv.set(func() { srv.delay, srv.answer = 2*time.Second, test.answer })
				o.refuse(old, true)
				if o.value() != "" || o.Snapshot().Tokens != 1 {
					t.Fatalf("%q is in use, %d are held", o.value(), o.Snapshot().Tokens)
				}
				began := time.Now()
				if tok := o.wait(t, test.most); tok.Value != test.want || time.Since(began) != test.took {
					t.Fatalf("got %+v after %s", tok, time.Since(began))
				}
				if o.value() != test.want {
					t.Errorf("after that %q is held", o.value())
				}
				pass(time.Second)
				other := o.Other(t.Context(), o.key, old, time.Minute)
				if (other != nil) != (o.value() != "tok-1") {
					t.Errorf("another token: %+v", other)
				}
				if o.Snapshot().Tokens != 1 {
					t.Errorf("%d tokens", o.Snapshot().Tokens)
				}
			})
		})
	}
}

// TestTableRejectPatience: once one has lost it, nobody waits for that request
// any more, whatever the upstream says.
func TestTableRejectPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour)}
		o, old := oneValue(t, srv, nil)
		srv.set(func() { srv.delay = 5 * time.Second })
		o.refuse(old, true)
		ctx, leave := context.WithCancel(t.Context())
		leave()
		if _, err := o.Wait(ctx, o.key, time.Second, o.requester); err == nil || o.value() != "" {
			t.Errorf("one that left: %v, and %q is held", err, o.value())
		}
		o.wait(t, time.Second)
		if !o.refuse(old, true) || o.value() != "tok-1" {
			t.Errorf("%q is held", o.value())
		}
		pass(5 * time.Second)
		if o.value() != "tok-2" {
			t.Fatalf("%q is held", o.value())
		}
		if !o.refuse(o.Token(o.key), true) || o.value() != "" {
			t.Errorf("the next request: %q is held", o.value())
		}
	})
}

// gaps are the times between the requests since one, that one's at the front.
func gaps(srv *server, since int) []time.Duration {
	var all []time.Duration
	srv.set(func() {
		for i := since; i < len(srv.requests); i++ {
			all = append(all, srv.requests[i].Sub(srv.requests[i-1]).Round(time.Second))
		}
	})
	return all
}

// TestTableRejectSpaced: see TestRejectSpaced. The spacing outlasts tokens that
// end meanwhile, and with them, on demand, the value's place.
func TestTableRejectSpaced(t *testing.T) {
	for _, life := range []time.Duration{time.Hour, 20 * time.Second} {
		both(t, func(t *testing.T, change func(*Limits)) {
			t.Helper()
			srv := &server{answer: lives(time.Hour)}
			o, _ := oneValue(t, srv, change)
			srv.set(func() { srv.answer = lives(life) })
			refuse := func(d time.Duration) { // whatever is held, for a time
				for range d / (100 * time.Millisecond) {
					o.refuse(o.wait(t, time.Second), true)
					pass(100 * time.Millisecond)
				}
			}
			count := func(reason Reason) (n int) {
				srv.set(func() {
					for _, on := range o.on {
						if on.Reason == reason {
							n++
						}
					}
				})
				return n
			}
			refuse(30 * time.Minute)
			if n := count(Rejected); n != 14 { // at 0, 1, 3, 7 … 255 s, then every 5 min
				t.Errorf("a life of %s: %d requests", life, n)
			}
			if life == time.Hour {
				var want []time.Duration
				for _, seconds := range []int{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300} {
					want = append(want, time.Duration(seconds)*time.Second)
				}
				if got := gaps(srv, 2); !slices.Equal(got, want) {
					t.Errorf("gaps %v", got)
				}
			}
			if told, again := o.obs.rejections(); again != told-1 || told > srv.count() {
				t.Errorf("told %d times, %d of them again", told, again)
			}

			srv.set(func() { srv.answer = lives(time.Hour) })
			for range 7200 { // a token lives to its due point
				o.wait(t, time.Second)
				pass(time.Second)
			}
			before := count(Rejected)
			refuse(10 * time.Second)
			if n := count(Rejected) - before; n != 4 { // at 0, 1, 3, 7 s
				t.Errorf("after a token that was accepted: %d requests", n)
			}
		})
	}
}

// TestTableRejectHeeds: see TestRejectHeeds. On demand nothing is asked for
// without another refusal.
func TestTableRejectHeeds(t *testing.T) {
	no := oauth.Failure{Kind: oauth.Refused, Status: 400, Code: "invalid_grant", RetryAfter: time.Minute}
	busy := oauth.Failure{Kind: oauth.Unreachable, Status: 503, RetryAfter: time.Minute}
	for _, failure := range []oauth.Failure{no, busy} {
		both(t, func(t *testing.T, change func(*Limits)) {
			t.Helper()
			srv := &server{answer: lives(time.Hour)}
			b := tableOf(t, nil, change)
			o := &one{Table: b.Table, srv: srv, obs: b.obs, key: keyOf("a")}
			tok := o.wait(t, time.Second)
			if o.refuse(tok, true) || srv.count() != 1 || o.value() != "tok-1" {
				t.Errorf("at once behind a success: %d requests", srv.count())
			}
			pass(successGap)
			if change != nil {
				if srv.count() != 1 {
					t.Error("asked for without a client's own")
				}
				if !o.refuse(tok, false) {
					t.Error("no request is under way")
				}
			}
			synctest.Wait()
			if srv.count() != 2 || o.obs.last().Reason != Rejected {
				t.Errorf("%d requests, %s", srv.count(), o.obs.last().Reason)
			}

			pass(time.Minute)
			tok = o.Token(o.key)
			srv.set(func() { srv.answer = fails(failure) })
			o.refuse(tok, true)
			synctest.Wait()
			srv.set(func() { srv.answer = lives(time.Hour) })
			for range 75 { // with random numbers of 0.5
				if o.value() != "tok-2" {
					t.Fatal("what is refused is not in use")
				}
				pass(time.Second)
				o.refuse(tok, true)
			}
			synctest.Wait()
			srv.set(func() {
				if n := len(srv.requests); n != 4 || srv.requests[3].Sub(srv.requests[2]) != 75*time.Second {
					t.Errorf("%d requests, at %v", n, srv.requests)
				}
			})
		})
	}
}

// TestTableRejectEnds: see TestRejectEnds.
func TestTableRejectEnds(t *testing.T) {
	both(t, func(t *testing.T, change func(*Limits)) {
		t.Helper()
		srv := &server{answer: lives(80 * time.Second)} // ends after 72s, due at 52s
		b := tableOf(t, nil, change)
		o := &one{Table: b.Table, srv: srv, obs: b.obs, key: keyOf("a")}
		old := o.wait(t, time.Second)
		pass(50 * time.Second)
		srv.set(func() { srv.delay, srv.answer = 9*time.Second, lives(time.Hour) })
		o.refuse(old, true)
		e := b.entry("a")
		e.clockMoved(21 * time.Second) // withheld as before
		if o.value() != "" {
			t.Errorf("%q is held", o.value())
		}
		pass(2 * time.Second) // past its end
		if o.Snapshot().Tokens != 0 || b.places() != 1 {
			t.Errorf("%d tokens, %d places", o.Snapshot().Tokens, b.places())
		}
		if tok, err := o.Wait(t.Context(), o.key, time.Second, o.requester); err == nil {
			t.Errorf("got %+v", tok)
		}
		ctx, leave := context.WithCancel(t.Context())
		leave()
		if other := o.Other(ctx, o.key, old, time.Minute); other != nil {
			t.Errorf("got %+v", other)
		}
		if other := o.Other(t.Context(), o.key, old, time.Second); other != nil {
			t.Errorf("got %+v", other)
		}
		if tok := o.wait(t, 6*time.Second); tok.Value != "tok-2" || srv.count() != 2 {
			t.Errorf("got %+v, %d requests", tok, srv.count())
		}

		pass(time.Minute)
		last := o.Token(o.key)
		o.refuse(last, true)
		go o.Close()
		if other := o.Other(t.Context(), o.key, last, time.Minute); other == nil || other.Value != "tok-3" {
			t.Errorf("who is being drained got %+v", other)
		}
		if o.refuse(last, true) || o.Snapshot().Tokens != 0 {
			t.Errorf("a closed table asks, or holds %d tokens", o.Snapshot().Tokens)
		}
	})
}

// TestTableRejectRequester: on demand each request is made with what the client
// brought whose token was refused, and none of that is kept.
func TestTableRejectRequester(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &realm{life: time.Hour}
		b := tableOf(t, r, onDemand)
		if _, err := b.get("a"); err != nil {
			t.Fatal(err)
		}
		kept := func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.entry("a").requester != nil
		}
		refuse := func() {
			t.Helper()
			pass(time.Minute)
			called := 0
			for range 10 {
				b.Reject(t.Context(), keyOf("a"), b.Token(keyOf("a")), false, func() Requester { called++; return &seeker{r, "the client's"} })
			}
			synctest.Wait()
			if called != 1 || kept() {
				t.Errorf("called %d times, kept: %v", called, kept())
			}
		}
		refuse()
		if got := b.held("a"); got != "the client's-2" {
			t.Errorf("held %q", got)
		}
		r.set(func() {
			r.bad = map[string]*oauth.Failure{"the client's": {Kind: oauth.Refused, Status: 400, Code: "invalid_grant"}}
		})
		refuse()
		r.set(func() { r.fail = &down })
		refuse()
		if n := r.count(); n != 4 || b.held("a") != "the client's-2" {
			t.Errorf("%d requests, held %q", n, b.held("a"))
		}
		for range 3 { // no more, until it is asked for anew on demand
			pass(20 * time.Minute)
		}
		if n := r.count(); n != 4 || b.places() != 0 {
			t.Errorf("%d requests, %d places", n, b.places())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		o, tok := oneValue(t, &server{answer: lives(time.Hour)}, nil)
		if !o.Reject(t.Context(), o.key, tok, false, nil) {
			t.Error("what makes the renewals makes no request")
		}
	})
}

// fill has tokens for many values.
func (b *bench) fill(t *testing.T, name string, n int) {
	t.Helper()
	for i := range n {
		if _, err := b.get(fmt.Sprint(name, i)); err != nil {
			t.Fatal(err)
		}
		if (i+1)%int(b.limits.MaxNew) == 0 {
			pass(time.Second)
		}
	}
}

// refuse has an upstream refuse what is held for a value.
func (b *bench) refuse(value string) bool {
	tok := b.Token(keyOf(value))
	return tok != nil && b.Reject(context.Background(), keyOf(value), tok, true, func() Requester { return &seeker{b.realm, value} })
}

// TestTableRejectFair: who has each token of many values refused keeps neither
// new values nor renewals waiting, and causes no more requests than max_new.
func TestTableRejectFair(t *testing.T) {
	both(t, func(t *testing.T, change func(*Limits)) {
		t.Helper()
		b := tableOf(t, &realm{life: 24 * time.Hour}, func(l *Limits) {
			l.InFlight = 4
			if change != nil {
				change(l)
			}
		})
		b.fill(t, "bad", 400)
		pass(time.Minute)
		b.realm.set(func() { b.realm.life = 4 * time.Minute }) // due at 168s
		b.fill(t, "good", 10)
		b.realm.set(func() { b.realm.life = 24 * time.Hour })
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		before := b.realm.count()
		wg.Go(func() {
			for ctx.Err() == nil {
				for i := range 400 {
					b.refuse(fmt.Sprint("bad", i))
				}
				time.Sleep(time.Second / 4)
			}
		})
		for i := range 200 {
			if i == 20 {
				b.realm.set(func() { b.realm.delay = time.Second / 2 }) // 8 a second
			}
			pass(time.Second)
			began := time.Now()
			if got, err := b.getFor(fmt.Sprint("new", i), 5*time.Second); err != nil || time.Since(began) > time.Second {
				t.Fatalf("got %q, %v after %s", got, err, time.Since(began))
			}
			if change == nil && i > 140 {
				for j := range 10 {
					if b.held(fmt.Sprint("good", j)) == "" || b.realm.of(fmt.Sprint("good", j)) != 2 {
						t.Fatalf("good%d was not renewed", j)
					}
				}
			}
			for j := range 10 {
				b.held(fmt.Sprint("good", j))
			}
		}
		stop()
		wg.Wait()
		most, second := 0, make(map[int64]int)
		b.realm.set(func() {
			for i := before; i < len(b.realm.asked); i++ {
				if b.realm.asked[i][:3] == "bad" {
					at := b.realm.times[i].Unix()
					second[at]++
					most = max(most, second[at])
				}
			}
		})
		if most != 10 || len(second) < 100 {
			t.Errorf("up to %d a second, in %d seconds", most, len(second))
		}
	})
}

// TestTableRejectOutage: what waits in line when an outage begins is asked for
// when that is over, and nobody waits for it.
func TestTableRejectOutage(t *testing.T) {
	both(t, func(t *testing.T, change func(*Limits)) {
		t.Helper()
		b := tableOf(t, &realm{life: time.Hour}, func(l *Limits) {
			l.InFlight = 1
			if change != nil {
				change(l)
			}
		})
		b.fill(t, "v", 3)
		pass(time.Minute)
		b.realm.set(func() { b.realm.delay, b.realm.fail = time.Second, &down })
		old := b.Token(keyOf("v1"))
		if !b.refuse("v0") || !b.refuse("v1") || b.held("v1") == "" {
			t.Errorf("in line; held %q", b.held("v1"))
		}
		began := time.Now()
		if other := b.Other(t.Context(), keyOf("v1"), old, time.Minute); other != nil || time.Since(began) != time.Second {
			t.Errorf("got %+v after %s", other, time.Since(began))
		}
		if b.refuse("v2") || b.realm.count() != 4 || b.held("v0") == "" {
			t.Errorf("asked in an outage; %d requests", b.realm.count())
		}
		b.realm.set(func() { b.realm.delay, b.realm.fail = 0, nil })
		pass(time.Minute)
		want := 4 + 3
		if change != nil {
			want = 4
			if b.entry("v1").requester != nil {
				t.Error("what the client brought is kept")
			}
		}
		if b.realm.count() != want {
			t.Errorf("%d requests after it, want %d", b.realm.count(), want)
		}
	})
}

// TestTableRejectRenewals: a renewal that an outage holds up is none that is
// worth waiting for, and one that comes first makes the request that was put
// off needless.
func TestTableRejectRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tableOf(t, &realm{life: time.Minute}, nil) // due at 42s
		b.fill(t, "v", 1)
		pass(40 * time.Second)
		b.realm.set(func() { b.realm.fail = &oauth.Failure{Kind: oauth.Unreachable, RetryAfter: 8 * time.Second} })
		_, _ = b.get("other")
		pass(3 * time.Second)
		old := b.Token(keyOf("v0"))
		if b.refuse("v0") || b.Other(t.Context(), keyOf("v0"), old, time.Minute) != nil {
			t.Error("it is not under way")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(10 * time.Second)} // due at 7s
		o, _ := oneValue(t, srv, nil)
		for range 60 { // the next request so caused is 4s behind that at 3s, or more
			if !o.refuse(o.Token(o.key), false) && srv.count() > 5 {
				break
			}
			pass(time.Second / 2)
		}
		e := o.find(&o.key)
		o.mu.Lock()
		wish, next := e.suspicion.wish, e.next
		e.suspicion.wish = next.add(time.Second) // as it is where a clock was set
		o.mu.Unlock()
		if wish == 0 {
			t.Fatal("nothing was put off")
		}
		before := srv.count()
		pass(next.sub(now()) + 3*time.Second)
		if n := srv.count() - before; n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

// TestTableRejectInLine: a token that ends before its refresh is made has its
// callers wait for that, and one of a closed table tells them.
func TestTableRejectInLine(t *testing.T) {
	both(t, func(t *testing.T, change func(*Limits)) {
		t.Helper()
		b := tableOf(t, &realm{life: time.Hour}, func(l *Limits) {
			l.InFlight = 1
			if change != nil {
				change(l)
			}
		})
		b.fill(t, "v", 2)
		pass(time.Minute)
		b.realm.set(func() { b.realm.delay = 4 * time.Second })
		b.refuse("v0")
		old := b.Token(keyOf("v1"))
		b.refuse("v1")
		b.entry("v1").clockMoved(time.Hour)
		pass(time.Second)
		if b.held("v1") != "" || b.places() != 2 || b.Snapshot().Tokens != 1 {
			t.Errorf("held %q, %d places", b.held("v1"), b.places())
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if got, err := b.getFor("v1", 10*time.Second); got != "v1-4" {
				t.Errorf("got %q, %v", got, err)
			}
		})
		wg.Go(func() {
			if other := b.Other(t.Context(), keyOf("v1"), old, 10*time.Second); other == nil || other.Value != "v1-4" {
				t.Errorf("got %+v", other)
			}
		})
		wg.Wait()

		pass(time.Minute)
		b.refuse("v0")
		old = b.Token(keyOf("v1"))
		b.refuse("v1")
		go b.Close()
		if other := b.Other(t.Context(), keyOf("v1"), old, 10*time.Second); other != nil {
			t.Errorf("got %+v", other)
		}
	})
}

// TestTableRejectGone: nobody waits for a value whose token ends while another
// cannot come.
func TestTableRejectGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tableOf(t, &realm{life: time.Hour}, func(l *Limits) { l.InFlight, l.Idle = 1, time.Hour })
		b.fill(t, "v", 2)
		b.realm.set(func() {
			b.realm.bad = map[string]*oauth.Failure{"v1": {Kind: oauth.Refused, Status: 400, RetryAfter: 2 * time.Second}}
		})
		pass(42 * time.Minute) // due, and refused
		b.realm.set(func() { b.realm.delay = 9 * time.Second })
		b.refuse("v0")
		pass(4 * time.Second) // due again
		old := b.Token(keyOf("v1"))
		if !b.refuse("v1") {
			t.Fatal("it is not in line")
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			began := time.Now()
			if other := b.Other(t.Context(), keyOf("v1"), old, time.Minute); other != nil || time.Since(began) != 0 {
				t.Errorf("got %+v after %s", other, time.Since(began))
			}
		})
		synctest.Wait()
		b.entry("v1").clockMoved(time.Hour)
		wg.Wait()
		if b.places() != 1 {
			t.Errorf("%d places", b.places())
		}
	})
}

// TestTableRejectIdle: for a value that nobody uses nothing is asked because of
// an earlier refusal, and it is given up in its time.
func TestTableRejectIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{answer: lives(time.Hour)}
		o, tok := oneValue(t, srv, func(l *Limits) { l.Idle = 2 * time.Second })
		for range 3 { // at 0, 1, 3s
			o.refuse(tok, false)
			pass(time.Second)
			if o.refuse(tok, false) {
				t.Fatal("an older one")
			}
			if tok = o.Token(o.key); tok == nil {
				t.Fatal("nothing is held")
			}
		}
		before := srv.count()
		o.refuse(tok, false)
		pass(30 * time.Minute)
		if srv.count() != before || o.value() == "" {
			t.Errorf("%d requests, held %q", srv.count()-before, o.value())
		}
	})
}

// TestTableRejectForgets: what is remembered of values without a place ends, and
// is bounded as they are.
func TestTableRejectForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := tableOf(t, &realm{life: 30 * time.Second}, func(l *Limits) { l.OnDemand, l.MaxTokens = true, 20 })
		refused := func(value string) time.Duration { // and how much later it is so again
			t.Helper()
			if _, err := b.get(value); err != nil {
				t.Fatal(err)
			}
			pass(time.Second)
			for !b.refuse(value) {
				pass(time.Second)
			}
			began := time.Now()
			pass(time.Second / 2)
			for !b.refuse(value) {
				pass(time.Second / 2)
			}
			took := time.Since(began)
			pass(time.Second / 2)
			b.refuse(value) // too early, but refused to its end
			return took
		}
		for _, want := range []time.Duration{time.Second, 4 * time.Second} {
			if got := refused("a"); got != want {
				t.Errorf("spaced by %s, want %s", got, want)
			}
			pass(time.Minute) // gone
			if b.places() != 0 {
				t.Fatal("it has its place")
			}
		}
		pass(b.limits.Idle)
		if got := refused("a"); got != time.Second {
			t.Errorf("spaced by %s after a long time", got)
		}
		pass(time.Minute)
		for i := range 50 {
			refused(fmt.Sprint("v", i))
			pass(40 * time.Second)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if n := len(b.spacings.order); n == 0 || n > 20 || len(b.spacings.by) > n {
			t.Errorf("%d remembered", n)
		}
	})
}
