package main

import (
	"testing"
	"time"
)

const ttl = 10 * time.Second

// at is a moment of a made-up run.
func (b *book) on(seconds float64) time.Time {
	return b.began.Add(time.Duration(seconds * float64(time.Second)))
}

// given has a process get a token at a moment: it may be used from then on for 9
// seconds.
func (b *book) given(process, token string, seconds float64) *ask {
	a := &ask{credential: "post", process: process, arrived: b.on(seconds), ended: b.on(seconds), delivered: b.on(seconds), forwarded: true, status: 200, token: token, life: ttl}
	b.asks = append(b.asks, a)
	return a
}

// asked has a process ask in vain.
func (b *book) asked(process string, from, to float64) {
	b.asks = append(b.asks, &ask{credential: "post", process: process, arrived: b.on(from), ended: b.on(to)})
}

func (b *book) sent(way string, o outcome, token string, from, to float64) sample {
	s := sample{number: len(b.samples) + 1, process: "0-0", credential: "post", way: way, began: b.on(from), due: b.on(from), ended: b.on(to), from: b.on(from), at: b.on(to), outcome: o, token: token}
	b.samples = append(b.samples, s)
	return s
}

func (b *book) saw(number int, verdict, token string, seconds, end float64) {
	r := refusal{Verdict: verdict, Token: token, Process: "0-0", Number: number, At: b.on(seconds).UnixNano()}
	if end > 0 {
		r.Exp = b.on(end).Unix()
	}
	b.refusals = append(b.refusals, r)
}

func (b *book) window(kind, credential string, lane int, from, to float64) {
	b.windows = append(b.windows, &window{event: event{kind: kind, credential: credential, lane: lane}, from: b.on(from), to: b.on(to)})
}

// aRun began at a whole second.
func aRun() *book {
	b := newBook()
	b.began = time.Unix(1_700_000_000, 0)
	b.lives = []*life{{process: "0-0", from: b.began, to: b.on(1000)}, {process: "0-1", from: b.on(1000), to: b.on(2000)}}
	return b
}

func TestWithoutToken(t *testing.T) {
	for name, test := range map[string]struct {
		from, to float64
		do       func(*book)
		want     verdict
	}{
		"in the middle of its life":         {14, 14.1, nil, unjustified},
		"just after it came":                {10.5, 10.6, nil, unclear},
		"just before its end":               {18.5, 18.6, nil, unclear},
		"within expiry_margin":              {19.2, 19.3, nil, justified},
		"before it came":                    {9, 9.9, nil, justified},
		"waiting before it, answered after": {8, 13.6, nil, unjustified},
		"waiting beyond its end":            {14, 19.5, nil, unjustified},
		"waiting all its life":              {9, 19.5, nil, justified},
		"on a busy machine":                 {14, 14.1, func(b *book) { b.noise = []span{{b.on(5), b.on(6)}} }, unclear},
		"long after it was busy":            {14, 14.1, func(b *book) { b.noise = []span{{b.on(1), b.on(2)}} }, unjustified},
		"it was revoked":                    {14, 14.1, func(b *book) { b.revoked["a"] = b.on(12) }, justified},
		"it was revoked later":              {14, 14.1, func(b *book) { b.revoked["a"] = b.on(18) }, unjustified},
		"its process has ended":             {14, 14.1, func(b *book) { b.lives[0].to = b.on(13) }, justified},
		"its answer was lost":               {14, 14.1, func(b *book) { b.asks[0].delivered = time.Time{} }, justified},
		"another process's":                 {14, 14.1, func(b *book) { b.asks[0].process = "1-0" }, justified},
		"another process's, but adopted": {14, 14.1, func(b *book) {
			b.asks[0].process = "1-0"
			b.sent("handler", good, "a", 12, 12.1)
		}, unjustified},
		"the next came in time": {18, 18.1, func(b *book) { b.given("0-0", "b", 16) }, unjustified},
		"from one to the next":  {17.5, 17.8, func(b *book) { b.given("0-0", "b", 15) }, unjustified},
	} {
		b := aRun()
		b.given("0-0", "a", 10)
		if test.do != nil {
			test.do(b)
		}
		b.sent("handler", ours, "", test.from, test.to)
		if f := b.judge(ttl, false); len(f.failures) != 1 || f.failures[0].verdict != test.want {
			t.Errorf("%s: %+v", name, f.failures)
		}
	}
}

func TestUnauthorized(t *testing.T) {
	for name, test := range map[string]struct {
		way      string
		from, to float64
		do       func(*book)
		want     verdict
	}{
		"not revoked":                        {"handler", 12, 12.1, func(b *book) { clear(b.revoked) }, unjustified},
		"revoked later":                      {"handler", 12, 12.1, func(b *book) { b.revoked["a"] = b.on(13) }, unjustified},
		"in flight":                          {"handler", 12.2, 12.3, nil, justified},
		"not in flight":                      {"handler", 15, 15.1, nil, unjustified},
		"hardly in flight":                   {"handler", 12.3, 12.4, nil, unclear},
		"in flight, and not sent again":      {"transport", 12.2, 12.3, nil, unjustified},
		"the token request fails":            {"handler", 15, 15.1, func(b *book) { b.asked("0-0", 12.2, 12.3) }, justified},
		"it fails, so nothing to send again": {"transport", 12.2, 12.3, func(b *book) { b.asked("0-0", 12.2, 12.25) }, justified},
		"it fails at another":                {"handler", 15, 15.1, func(b *book) { b.asked("1-0", 12.2, 12.3) }, unjustified},
		"it failed long before":              {"handler", 35, 35.1, func(b *book) { b.asked("0-0", -10, -9) }, unjustified},
		"it takes long":                      {"transport", 12.2, 17.3, func(b *book) { b.given("0-0", "b", 12.2).ended = b.on(18) }, justified},
		"the one before was revoked, too":    {"handler", 15, 15.1, func(b *book) { b.given("0-0", "z", 0); b.revoked["z"] = b.on(4) }, justified},
		"the server was down":                {"handler", 15, 15.1, func(b *book) { b.window(serverKilled, everyCredential, 0, 11, 14) }, justified},
		"it was refused as soon as it came":  {"handler", 15, 15.1, func(b *book) { b.asks[0].delivered = b.on(11.5) }, justified},
		"it ended on the way, as is told apart": {"handler", 19.9, 20.1, func(b *book) {
			clear(b.revoked)
			b.saw(2, verdictExpired, "a", 20.05, 20)
		}, unclear},
	} {
		b := aRun()
		b.given("0-0", "a", 5).life = time.Minute
		b.revoked["a"] = b.on(11)
		b.saw(1, verdictInactive, "a", 12, 65)
		b.sent("handler", unauthorized, "a", 11.9, 12.25)
		if test.do != nil {
			test.do(b)
		}
		b.sent(test.way, unauthorized, "a", test.from, test.to)
		if f := b.judge(ttl, false); len(f.failures) != 2 || f.failures[1].verdict != test.want {
			t.Errorf("%s: %+v", name, f.failures)
		}
	}
}

func TestEnds(t *testing.T) {
	for name, test := range map[string]struct {
		began, seen                 float64
		verdict, token              string
		end                         float64
		expired, strange, overtaken int
	}{
		"sent after its end":              {20.5, 20.6, verdictExpired, "a", 20, 1, 0, 0},
		"overtaken by its end":            {19.9, 20.1, verdictExpired, "a", 20, 0, 0, 1},
		"nobody's":                        {12, 12.1, verdictInactive, "x", 0, 0, 1, 0},
		"none":                            {12, 12.1, verdictMissing, "", 0, 0, 1, 0},
		"another body":                    {12, 12.1, verdictBody, "r", 20, 0, 1, 0},
		"good, and refused":               {12, 12.1, verdictInactive, "a", 20, 0, 1, 0},
		"revoked":                         {12, 12.1, verdictInactive, "r", 20, 0, 0, 0},
		"not asked about":                 {12, 12.1, verdictUnchecked, "a", 0, 0, 0, 0},
		"not asked about, after its end":  {20.5, 20.6, verdictUnchecked, "a", 0, 1, 0, 0},
		"asked about first after its end": {20.5, 20.6, verdictInactive, "a", 0, 1, 0, 0},
	} {
		b := aRun()
		b.given("0-0", "a", 10)
		b.given("0-0", "r", 10)
		b.revoked["r"] = b.on(11)
		b.sent("handler", good, "", test.began, test.seen+0.1)
		b.saw(1, test.verdict, test.token, test.seen, test.end)
		f := b.judge(ttl, false)
		if len(f.expired) != test.expired || len(f.strange) != test.strange || f.overtaken != test.overtaken {
			t.Errorf("%s: %d expired, %d strange, %d overtaken", name, len(f.expired), len(f.strange), f.overtaken)
		}
	}
}

func TestOutages(t *testing.T) {
	b := aRun()
	b.window(answer503, "post", 2, 10, 30)
	b.window(answerReset, "key", 3, 10, 33) // another credential's
	b.sent("handler", good, "", 9, 9.1)
	b.sent("handler", ours, "", 20, 20.1)
	b.sent("handler", good, "", 20, 20.2) // sent before the first failure came back
	b.sent("handler", ours, "", 31, 31.1)
	b.sent("handler", good, "", 33.9, 34)
	b.sent("handler", ours, "", 50, 50.1)
	f := b.judge(ttl, false)
	if len(f.outages) != 2 || !f.outages[0].ended || f.outages[0].after != 4*time.Second || f.outages[1].ended {
		t.Errorf("%+v", f.outages)
	}
	if kind := f.outages[0].kind; kind != answer503 {
		t.Errorf("put down to %q", kind)
	}
}

func TestOthers(t *testing.T) {
	for name, test := range map[string]struct {
		outcome outcome
		kind    string
		at      float64
		want    verdict
	}{
		"nobody listens, at a restart":      {refused, caddyRestarted, 11, justified},
		"nobody listens":                    {refused, caddyReloaded, 11, unjustified},
		"the upstream is down":              {theirs, upstreamKilled, 11, justified},
		"the upstream was down long before": {theirs, upstreamKilled, 30, unjustified},
		"broken off at a reload":            {broken, caddyReloaded, 11, justified},
		"broken off":                        {broken, answer503, 11, unclear},
		"no answer":                         {late, answer503, 11, unclear},
		"anything else":                     {odd, caddyRestarted, 11, unjustified},
	} {
		b := aRun()
		b.window(test.kind, everyCredential, 0, 10, 12)
		b.sent("handler", test.outcome, "", test.at, test.at+0.1)
		if f := b.judge(ttl, false); len(f.failures) != 1 || f.failures[0].verdict != test.want {
			t.Errorf("%s: %+v", name, f.failures)
		}
	}
}

func TestGrowth(t *testing.T) {
	for name, test := range map[string]struct {
		more   gauge // at the end
		length time.Duration
		race   bool
		want   string
	}{
		"nothing":            {gauge{}, 20 * time.Minute, false, ""},
		"memory":             {gauge{memory: 200 << 20}, 20 * time.Minute, false, "memory"},
		"memory, with -race": {gauge{memory: 200 << 20}, 20 * time.Minute, true, ""},
		"goroutines, files":  {gauge{goroutines: 500, files: 500}, 20 * time.Minute, false, "goroutines, files"},
		"a short life":       {gauge{goroutines: 500}, 2 * time.Minute, false, ""},
	} {
		l := new(life)
		start := time.Now()
		for at := time.Duration(0); at <= test.length; at += 2 * time.Second {
			share := float64(at) / float64(test.length)
			noise := float64(at / time.Second % 7 * 100) // load that comes and goes
			l.gauges = append(l.gauges, gauge{
				start.Add(at), 60<<20 + share*test.more.memory, 80 + noise + share*test.more.goroutines, 40 + noise + share*test.more.files,
			})
		}
		g, ok := l.grows()
		if got := g.leaks(test.race); !ok || got != test.want {
			t.Errorf("%s: %q, %v", name, got, g)
		}
	}
}
