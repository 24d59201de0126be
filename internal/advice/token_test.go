package advice

import (
	"strings"
	"testing"
	"time"
)

func TestWarnings(t *testing.T) {
	now := time.Now()
	good := Token{Length: 1200, Lifetime: time.Hour, Type: "Bearer", ServerTime: now, Received: now, Took: 100 * time.Millisecond, Margin: 10 * time.Second, Bearer: true}
	but := func(change func(*Token)) Token {
		c := good
		change(&c)
		return c
	}
	for name, tc := range map[string]struct {
		token  Token
		facts  Facts
		wrong  []string // of each warning, in their order
		do     []string
		topics []string
	}{
		"good":            {token: good, facts: crm},
		"an hour's JWT":   {token: but(func(t *Token) { t.JWTExpires = now.Add(time.Hour - 30*time.Second) }), facts: crm},
		"JWT lives on":    {token: but(func(t *Token) { t.JWTExpires = now.Add(2 * time.Hour) }), facts: crm},
		"just not large":  {token: but(func(t *Token) { t.Length = 7<<10 - 1 }), facts: crm},
		"nearly large":    {but(func(t *Token) { t.Length = 7 << 10 }), crm, []string{"7.0 KiB, which is near"}, []string{"large_client_header_buffers 4 16k"}, []string{tokenRefused}},
		"large":           {but(func(t *Token) { t.Length = 9000 }), crm, []string{"8.8 KiB, which is more than many servers take"}, []string{"LimitRequestFieldSize 16384"}, []string{tokenRefused}},
		"large with name": {but(func(t *Token) { t.Length = 8185 }), crm, []string{"more than many servers take"}, []string{""}, []string{tokenRefused}},
		"very large":      {but(func(t *Token) { t.Length = 15 << 10 }), crm, []string{"15.0 KiB"}, []string{"--max-http-header-size=32768"}, []string{tokenRefused}},
		"short":           {but(func(t *Token) { t.Lifetime = 20 * time.Second }), crm, []string{"the token lives 20s alone"}, []string{"a longer life"}, []string{shortLifetime}},
		"half a minute":   {token: but(func(t *Token) { t.Lifetime = 30 * time.Second }), facts: crm},
		"slower than its life": {
			but(func(t *Token) { t.Lifetime, t.Took = 50*time.Second, 30*time.Second }), crm,
			[]string{"lives 50s, and the request for it took 30s"}, []string{"why the token request is slow"}, []string{shortLifetime},
		},
		"margin too wide": {
			but(func(t *Token) { t.Lifetime, t.Margin = 5*time.Minute, 3*time.Minute }), crm,
			[]string{"too short for expiry_margin 3m: 30s of it, a tenth"}, []string{"in the credential crm write: expiry_margin 30s"}, []string{shortLifetime},
		},
		"assumed": {
			but(func(t *Token) { t.Assumed, t.Lifetime = true, 5*time.Minute }), crm,
			[]string{"5m is assumed"}, []string{"in the block response of the credential crm write: expires_in"}, []string{shortLifetime},
		},
		"assumed short": {
			but(func(t *Token) { t.Assumed, t.Lifetime, t.JWTExpires = true, 10*time.Second, now.Add(-time.Hour) }), crm,
			[]string{"10s is assumed"}, []string{"default_lifetime"}, []string{shortLifetime},
		},
		"JWT ends early": {
			but(func(t *Token) { t.JWTExpires = now.Add(20 * time.Minute) }), crm,
			[]string{"ends 40m earlier by its own word"}, []string{"in the credential crm write: refresh_at 25"}, []string{tokenRefused},
		},
		"JWT ends at once": {
			but(func(t *Token) { t.JWTExpires = now.Add(time.Minute) }), crm,
			[]string{"ends 59m earlier"}, []string{"refresh_at 10"}, []string{tokenRefused},
		},
		"JWT is over":     {but(func(t *Token) { t.JWTExpires = now.Add(-time.Hour) }), crm, []string{"1h before it came"}, []string{"its clock"}, []string{clock}},
		"JWT, our clock":  {but(func(t *Token) { t.JWTExpires, t.ServerTime = now.Add(20*time.Minute), time.Time{} }), crm, []string{"ends 40m earlier"}, []string{""}, []string{tokenRefused}},
		"scopes missing":  {but(func(t *Token) { t.Missing = []string{"write"} }), with(func(k *Facts) { k.Scopes = []string{"read", "write"} }), []string{"missing: write"}, []string{"in the credential crm write: scopes read"}, []string{scopeRefused}},
		"no scope":        {but(func(t *Token) { t.Missing = []string{"write"} }), with(func(k *Facts) { k.Scopes = []string{"write"} }), []string{"missing: write"}, []string{"at the server"}, []string{scopeRefused}},
		"odd letters":     {but(func(t *Token) { t.Bearer = false }), crm, []string{"b64token"}, []string{"400 or 401"}, []string{tokenRefused}},
		"clock ahead":     {but(func(t *Token) { t.ServerTime = now.Add(-time.Hour) }), crm, []string{"1h ahead"}, []string{"tokens do not suffer"}, []string{clock}},
		"clock behind":    {but(func(t *Token) { t.ServerTime = now.Add(time.Hour) }), with(func(k *Facts) { k.Method = "private_key_jwt" }), []string{"1h behind the server's: what is signed here"}, []string{"timedatectl"}, []string{clock}},
		"a slow answer":   {token: but(func(t *Token) { t.ServerTime, t.Took = now.Add(-50*time.Second), 45*time.Second }), facts: crm},
		"no Date":         {token: but(func(t *Token) { t.ServerTime = time.Time{} }), facts: crm},
		"large and short": {but(func(t *Token) { t.Length, t.Lifetime = 9000, 10*time.Second }), crm, []string{"KiB", "10s alone"}, []string{"", ""}, []string{tokenRefused, shortLifetime}},
	} {
		t.Run(name, func(t *testing.T) {
			got := Warnings(tc.token, tc.facts)
			if len(got) != len(tc.wrong) {
				t.Fatalf("got %+v, want %d warnings", got, len(tc.wrong))
			}
			for i, a := range got {
				t.Logf("\n  wrong: %s\n  do:    %s", a.Wrong, a.Do)
				contains(t, "wrong", a.Wrong, tc.wrong[i])
				contains(t, "do", a.Do, tc.do[i])
				if a.Topic != tc.topics[i] {
					t.Errorf("topic: got %q, want %q", a.Topic, tc.topics[i])
				}
			}
			if len(tc.wrong) == 0 && got != nil {
				t.Errorf("got %+v, want nil", got)
			}
		})
	}
	if a := Warnings(but(func(t *Token) { t.Missing = []string{"a\nb\x1b[31m"} }), crm); strings.ContainsAny(a[0].Wrong, "\n\x1b") {
		t.Errorf("got %q, want one printable line", a[0].Wrong)
	}
}
