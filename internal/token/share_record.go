package token

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// sharedRecord is what instances that share an access token keep of it.
type sharedRecord struct {
	AccessToken string        `json:"access_token,omitempty"`
	Obtained    time.Time     `json:"obtained,omitzero"` // when its request was sent
	Took        time.Duration `json:"took,omitempty"`
	ExpiresIn   time.Duration `json:"expires_in,omitempty"` // 0 where the server gave none of use
	RefreshIn   time.Duration `json:"refresh_in,omitempty"`
	Scopes      []string      `json:"scopes,omitempty"`
	Missing     []string      `json:"missing,omitempty"`
	Bearer      bool          `json:"bearer,omitempty"`
	// Bound is the thumbprint of the key or certificate that it is bound to.
	Bound string `json:"bound,omitempty"`

	// Refused are hashes of tokens that an upstream has refused.
	Refused []string `json:"refused,omitempty"`
	// Forced is the last request that such a refusal caused.
	Forced *forced `json:"forced,omitempty"`
	// Asking is set while the lock is held and the server is being asked.
	Asking *asking `json:"asking,omitempty"`
}

type forced struct {
	At      time.Time     `json:"at"`
	Spacing time.Duration `json:"spacing"` // none before At and this
}

type asking struct {
	By string    `json:"by"`
	At time.Time `json:"at"`
}

const (
	maxRefused = 8
	// clockSkew is by how much the clocks of two instances may differ. A record
	// from further in the future is not trusted.
	clockSkew = 5 * time.Second
)

// Bounds of what is believed. Nothing that is beyond them was written here.
const (
	mostRecord = 1 << 20 // bytes
	mostLife   = 10 * 365 * 24 * time.Hour
	mostTook   = 30 * time.Minute
)

// parseShared reads a record. What cannot be read or is not to be believed is
// none: it holds nothing that could not be asked for anew.
func parseShared(raw []byte) *sharedRecord {
	r := new(sharedRecord)
	if len(raw) > mostRecord || json.Unmarshal(raw, r) != nil || !r.believable() {
		return new(sharedRecord)
	}
	return r
}

// believable checks what came over the wire once more, for a storage has other
// writers: a token of visible ASCII (RFC 6749 A.12) splits no header.
func (r *sharedRecord) believable() bool {
	visible := func(c rune) bool { return c >= 0x21 && c <= 0x7e }
	return strings.IndexFunc(r.AccessToken, func(c rune) bool { return !visible(c) }) < 0 &&
		inRange(r.ExpiresIn, mostLife) && inRange(r.RefreshIn, mostLife) && inRange(r.Took, mostTook) &&
		(r.Forced == nil || inRange(r.Forced.Spacing, mostSpacing)) && len(r.Refused) <= maxRefused
}

func inRange(d, most time.Duration) bool { return d >= 0 && d <= most }

func (r *sharedRecord) bytes() []byte {
	raw, err := json.Marshal(r) //nolint:gosec // G117: to keep the access token is what it is for
	if err != nil {
		panic(err) // strings, bools and times of this century
	}
	return raw
}

// age is how long ago the token's request was sent; false for none, and for a
// clock that is not to be trusted.
func (r *sharedRecord) age() (time.Duration, bool) {
	if r.AccessToken == "" {
		return 0, false
	}
	age := time.Now().Round(0).Sub(r.Obtained)
	return max(age, 0), age >= -clockSkew
}

// left is how long the token may be used still.
func (r *sharedRecord) left(p *Policy) time.Duration {
	age, ok := r.age()
	switch {
	case !ok:
		return 0
	case r.ExpiresIn <= 0:
		return assumedUse - age
	}
	return r.ExpiresIn - p.margin(r.ExpiresIn) - age
}

func (r *sharedRecord) refused(value string) bool {
	return slices.Contains(r.Refused, fingerprint(value))
}

// refuse notes a token that is not to be taken over any more.
func (r *sharedRecord) refuse(value string) {
	if r.refused(value) {
		return
	}
	r.Refused = append(slices.Clip(r.Refused), fingerprint(value))
	if len(r.Refused) > maxRefused {
		r.Refused = slices.Delete(r.Refused, 0, len(r.Refused)-maxRefused)
	}
}

// put takes in what the server gave.
func (r *sharedRecord) put(res *oauth.Response, obtained time.Time, took time.Duration) {
	r.AccessToken, r.Obtained, r.Took = res.AccessToken, obtained.UTC().Round(0), took
	r.ExpiresIn, r.RefreshIn = res.ExpiresIn, res.RefreshIn
	r.Scopes, r.Missing, r.Bearer = res.Scopes, res.Missing, res.Bearer
	r.Bound = ""
	if b, ok := res.Binding.(Bound); ok {
		r.Bound = b.Thumbprint()
	}
}

// keepEnd keeps what was known of a token's end, where a server has handed it
// out again and says nothing of use about that.
func (r *sharedRecord) keepEnd(before *sharedRecord) {
	if r.AccessToken != before.AccessToken || r.ExpiresIn > 0 || before.ExpiresIn <= 0 {
		return
	}
	if left := before.ExpiresIn - r.Obtained.Sub(before.Obtained); left > 0 {
		r.ExpiresIn = left
		return
	}
	r.Obtained, r.ExpiresIn = before.Obtained, before.ExpiresIn
}

// response is what another process was given.
func (r *sharedRecord) response(binding Bound) *oauth.Response {
	age, _ := r.age()
	res := &oauth.Response{
		AccessToken: r.AccessToken, ExpiresIn: r.ExpiresIn, RefreshIn: r.RefreshIn,
		Scopes: r.Scopes, Missing: r.Missing, Bearer: r.Bearer,
		Adopted: true, Took: r.Took, Age: age,
	}
	if binding != nil {
		res.Binding = binding
	}
	return res
}
