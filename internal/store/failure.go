package store

import "errors"

var (
	// ErrNotFound: nothing is stored at the path.
	ErrNotFound = errors.New("nothing is stored")
	// ErrHangs: the storage has not returned from a call in time. It may still
	// do what it was asked to.
	ErrHangs = errors.New("the storage hangs")
	// ErrPlain is why a plain value is refused where keys are configured: it is
	// not known who wrote it.
	ErrPlain = errors.New("is not sealed, although encryption_key is set: delete it, and have what it held obtained anew")
	// ErrSealed is why a sealed value is refused without keys.
	ErrSealed = errors.New("is sealed, and no encryption_key is configured")
)

// Unreadable is a stored value that is there and cannot be read. What it holds
// is not lost: see KeepAside.
type Unreadable struct {
	Path string
	// Why says what is wrong and what to do, and no byte of the value.
	Why error
}

func (u *Unreadable) Error() string { return "the stored " + u.Path + " " + u.Why.Error() }
func (u *Unreadable) Unwrap() error { return u.Why }

// Failed is a storage call that failed, or one that was not begun because an
// earlier one hangs.
type Failed struct {
	// Op is load, save or delete.
	Op   string
	Path string
	Err  error
}

func (f *Failed) Error() string { return f.Op + " of the stored " + f.Path + ": " + f.Err.Error() }
func (f *Failed) Unwrap() error { return f.Err }
