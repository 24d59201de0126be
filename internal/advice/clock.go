package advice

import (
	"slices"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// skewed is by how much two clocks may differ: a Date has whole seconds, and an
// answer takes its time.
const skewed = 30 * time.Second

const setClock = "look at the time here (date -u), and set it by the network: timedatectl set-ntp true (chronyc tracking shows how far it is off); in a container it is the host's"

// offset tells by how much this machine's clock differs from the server's, and
// in words which way; "" where it does not, or is not known.
func offset(server, here time.Time) string {
	if server.IsZero() || here.IsZero() {
		return ""
	}
	switch d := here.Sub(server); {
	case d > skewed:
		return "this machine's clock is " + span(d) + " ahead of the server's"
	case d < -skewed:
		return "this machine's clock is " + span(-d) + " behind the server's"
	}
	return ""
}

// ofClock is a refusal of what was signed here with a time in it (RFC 7519
// §4.1.4, RFC 9449 §4.3), where the clocks are known to differ.
func ofClock(f *oauth.Failure, k Facts) (Advice, bool) {
	wrong := offset(f.ServerTime, k.Received)
	if wrong == "" || f.Kind != oauth.Refused {
		return Advice{}, false
	}
	var what string
	switch {
	case f.Code == "invalid_dpop_proof":
		what = "the DPoP proof"
	case refusesClient(f) && signsAssertion(k.Method):
		what = "the client's assertion"
	case f.Code == "invalid_grant" && (k.Grant == "jwt_bearer" || k.Grant == "token_exchange"):
		what = "the assertion"
	default:
		return Advice{}, false
	}
	return Advice{
		Wrong: wrong + ", and it refuses " + what + ", which holds the time",
		Do:    setClock + "; if this clock is right, tell the server's operator",
		Topic: clock,
	}, true
}

// signsAssertion tells whether a method signs a JWT here. A jwt_file's is signed
// elsewhere, by another clock.
func signsAssertion(method string) bool {
	return slices.Contains([]string{"private_key_jwt", "client_secret_jwt"}, method)
}
