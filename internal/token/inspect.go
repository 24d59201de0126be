package token

import (
	"context"
	"slices"
	"time"
)

// Inspection is what is stored of a refresh token. It does not hold it.
type Inspection struct {
	// Stored tells that there is one, and Obtained when it came: zero if nothing
	// ever was.
	Stored   bool
	Obtained time.Time
	// Configured tells that the one that stands in the configuration was never
	// taken: it takes the place of what is stored.
	Configured bool
	// Static tells that the last refresh brought no other one, so that a refresh
	// spends nothing.
	Static bool
	// Ended is when the server refused it for good, zero if it did not, and Code
	// its error code.
	Ended time.Time
	Code  string
	// Asked is when a request was made with it whose answer is not stored: it is
	// under way, or was lost. Zero for none.
	Asked time.Time
}

// Err is what is wrong with it, nil if nothing is: ErrLoginRequired, ErrEnded or
// ErrAnswerLost.
func (i *Inspection) Err() error {
	switch {
	case i.Configured:
		return nil
	case !i.Stored:
		return ErrLoginRequired
	case !i.Ended.IsZero():
		return ErrEnded
	case !i.Asked.IsZero():
		return ErrAnswerLost
	}
	return nil
}

// Inspect tells what a store holds, and changes nothing there. initial is the
// configured refresh token, "" for none. The error is the store's own, or wraps
// ErrUnreadable.
func Inspect(ctx context.Context, store Store, initial string) (*Inspection, error) {
	r, err := read(ctx, store)
	if err != nil {
		return nil, err
	}
	i := &Inspection{Stored: r.RefreshToken != "", Obtained: r.Obtained, Static: r.Static}
	i.Configured = initial != "" && !slices.Contains(r.Seen, fingerprint(initial))
	if r.Ended != nil {
		i.Ended, i.Code = r.Ended.At, r.Ended.Code
	}
	if r.lost() {
		i.Asked = r.Mark.At
	}
	return i, nil
}
