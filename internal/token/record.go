package token

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// record is what is stored of a refresh token.
type record struct {
	// RefreshToken is the one to be spent next, "" after a logout.
	RefreshToken string    `json:"refresh_token,omitempty"`
	Obtained     time.Time `json:"obtained,omitzero"`
	// Seen are hashes of the configured ones that were taken: a rollback must
	// not bring a spent one back.
	Seen []string `json:"seen,omitempty"`
	// Line names the chain that a login began, and Serial counts its refresh
	// tokens: of two records of one line the higher is the newer.
	Line   string `json:"line,omitempty"`
	Serial int    `json:"serial,omitempty"`
	// Static tells that the last refresh brought no other one: this server does
	// not rotate, so nothing is spent.
	Static bool `json:"static,omitempty"`
	// Mark is set while a request is under way. One that is found later is of
	// a request whose answer nobody read.
	Mark *mark `json:"mark,omitempty"`
	// Ended is set when the server refused the refresh token for good.
	Ended *ending `json:"ended,omitempty"`
}

type mark struct {
	Hash     string    `json:"hash"` // of the refresh token
	Instance string    `json:"instance"`
	By       string    `json:"by,omitempty"` // one attempt to spend it
	At       time.Time `json:"at"`           // of the first request that was not answered
}

type ending struct {
	At   time.Time `json:"at"`
	Code string    `json:"code"`
	// Lost tells that an answer had been lost before.
	Lost bool `json:"lost,omitempty"`
}

// maxSeen bounds what is remembered of configured refresh tokens; a hash is 64
// bytes, and one that is taken once a day fills it in three years.
const maxSeen = 1000

func fingerprint(refreshToken string) string {
	sum := sha256.Sum256([]byte(refreshToken))
	return hex.EncodeToString(sum[:])
}

func parseRecord(raw []byte) (*record, error) {
	var r *record
	if err := json.Unmarshal(raw, &r); err != nil || r == nil {
		return nil, fmt.Errorf("%w: it is no record of a refresh token", ErrUnreadable)
	}
	return r, nil
}

func (r *record) bytes() []byte {
	raw, err := json.Marshal(r) //nolint:gosec // G117: to keep the refresh token is what it is for
	if err != nil {
		panic(err) // strings, bools and times of this century
	}
	return raw
}

// take begins with a configured refresh token, unless that was done before.
func (r *record) take(initial string) {
	if initial == "" || slices.Contains(r.Seen, fingerprint(initial)) {
		return
	}
	r.Seen = append(slices.Clip(r.Seen), fingerprint(initial)) // copies share it
	if len(r.Seen) > maxSeen {
		r.Seen = slices.Delete(r.Seen, 0, len(r.Seen)-maxSeen)
	}
	r.begin(initial)
	r.Line = fingerprint(initial) // whoever begins with it
}

// begin starts a new chain.
func (r *record) begin(refreshToken string) {
	r.RefreshToken, r.Obtained = refreshToken, time.Now().UTC()
	r.Line, r.Serial = rand.Text(), 0
	r.Static, r.Mark, r.Ended = false, nil, nil
}

// blank tells that nothing was ever stored here.
func (r *record) blank() bool { return r.Obtained.IsZero() }

// wrong is what the record itself tells to be wrong, nil if nothing is.
func (r *record) wrong() error {
	switch {
	case r.RefreshToken == "":
		return ErrLoginRequired
	case r.Ended != nil:
		return ErrEnded
	case r.lost():
		return ErrAnswerLost
	}
	return nil
}

// lost tells whether an answer about this refresh token may have been lost.
func (r *record) lost() bool {
	return r.Mark != nil && r.Mark.Hash == fingerprint(r.RefreshToken)
}

// marked is a copy that says that a request is under way.
func (r *record) marked(instance string) *record {
	m := *r
	at := time.Now().UTC()
	if r.lost() {
		at = r.Mark.At
	}
	m.Mark = &mark{Hash: fingerprint(r.RefreshToken), Instance: instance, By: rand.Text(), At: at}
	return &m
}

// markedBy tells whether the mark is that of another record.
func (r *record) markedBy(other *record) bool {
	return r.Mark != nil && other.Mark != nil && r.Mark.By == other.Mark.By
}

// olderThan tells whether both are of one line and the other is further on.
func (r *record) olderThan(other *record) bool {
	return other != nil && r.Line != "" && r.Line == other.Line && r.Serial < other.Serial
}

// answered is a copy with what a server gave, "" for nothing new.
func (r *record) answered(refreshToken string) *record {
	a := *r
	a.Mark, a.Ended = nil, nil
	a.Static = refreshToken == "" || refreshToken == r.RefreshToken
	if !a.Static {
		a.RefreshToken, a.Obtained = refreshToken, time.Now().UTC()
		a.Serial++
	}
	return &a
}

// ended is a copy that says that the server refuses the refresh token.
func (r *record) ended(code string, lost bool) *record {
	e := *r
	e.Mark = nil
	if e.Ended == nil {
		e.Ended = &ending{At: time.Now().UTC(), Code: code, Lost: lost}
	}
	return &e
}
