package interop

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

// compare has the server say the same as Caddy's metrics: how many tokens there
// were, by which method and by which grant, and that each refresh brought a new
// refresh token.
func (b *behind) compare(t *testing.T, running *caddy, cells []*cell, began serverStats) {
	t.Helper()
	// the renewals go on meanwhile
	poll(t, 20*time.Second, b.name+" and caddy count the same", func(context.Context) error {
		before := b.stats(t)
		ours := books(cells, running.counts(t))
		after := b.stats(t)
		// what was no refresh may have been under way when an earlier Caddy ended
		leftAlone := func(c cut) bool { return c.GrantType == "refresh_token" }
		if after.ChainsRevoked != 0 || after.Aborted != 0 || slices.ContainsFunc(after.Gone, leftAlone) {
			t.Fatalf("%s counts %+v; want no spent refresh token to come again, and each answer read", b.name, after)
		}
		for code, n := range after.Refused {
			if most := b.mayRefuse(code); n > most {
				t.Fatalf("%s refused with %s %d times; want %d at most", b.name, code, n, most)
			}
		}
		least, most := before.booksSince(began), after.booksSince(began)
		for entry := range most {
			if n := ours[entry]; n < least[entry] || n > most[entry] {
				return fmt.Errorf("%s: caddy has %d, the server from %d to %d", entry, n, least[entry], most[entry])
			}
		}
		for entry, n := range ours {
			if _, known := most[entry]; !known && n != 0 {
				return fmt.Errorf("%s: caddy has %d, the server none", entry, n)
			}
		}
		return nil
	})
}

// settled are the server's counts when it has done with what is left of an
// earlier Caddy.
func (b *behind) settled(t *testing.T) serverStats {
	t.Helper()
	var last serverStats
	if b.stats == nil {
		return last
	}
	const quiet = 10
	same := 0
	poll(t, 30*time.Second, b.name+" at rest", func(context.Context) error {
		now := b.stats(t)
		if same++; now.Granted != last.Granted || now.refused() != last.refused() {
			same = 0
		}
		last = now
		if same < quiet {
			return errors.New("it still answers")
		}
		return nil
	})
	return last
}

// booksSince are the tokens of a server by all that it counts them by.
func (s serverStats) booksSince(began serverStats) map[string]int {
	books := map[string]int{"tokens": s.Granted - began.Granted, "rotations": s.Rotations - began.Rotations}
	for method, n := range s.Methods {
		books["by "+method] = n - began.Methods[method]
	}
	for grant, n := range s.Grants {
		books["for "+grant] = n - began.Grants[grant]
	}
	return books
}

// books are the same for what Caddy and the logins obtained.
func books(cells []*cell, counts map[string]ends) map[string]int {
	books := make(map[string]int)
	for _, c := range cells {
		n := counts[c.name].granted
		books["tokens"] += n + c.logins
		books["by "+cmp.Or(c.as, c.method)] += n + c.logins
		books["for "+grantTypes[c.grant]] += c.logins
		switch c.grant {
		case "refresh_token", "authorization_code", "device_code":
			books["for refresh_token"] += n
			if !c.static {
				books["rotations"] += n
			}
		default:
			books["for "+grantTypes[c.grant]] += n
		}
	}
	return books
}

// mayRefuse is how often a code may have come from the server.
func (b *behind) mayRefuse(code string) int {
	most := 0
	for _, c := range b.cells {
		n, known := c.refusals[code]
		if c.code == code || known && n == 0 || c.status != 0 && code == fmt.Sprint("status ", c.status) {
			return math.MaxInt
		}
		most += n
	}
	return most
}

// grantTypes are the parameters of the grants.
var grantTypes = map[string]string{
	"client_credentials": "client_credentials",
	"refresh_token":      "refresh_token",
	"authorization_code": "authorization_code",
	"device_code":        grantDevice,
	"jwt_bearer":         grantJWTBearer,
	"token_exchange":     grantExchange,
}
