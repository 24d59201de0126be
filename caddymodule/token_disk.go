package caddymodule

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// diskFile is what stands at one path, as far as this process has put it there.
// It is for one goroutine at a time: a file system may hang.
type diskFile struct {
	swept bool         // what an earlier process left is gone
	there *token.Token // in the file, nil while there is none
	of    *entry       // whose it is
	place filePlace    // how that was written
	info  fs.FileInfo  // of that
}

// put has a credential's token stand at a place; nil for none. verify looks
// whether the file of before is still there, which is else taken for granted.
func (d *diskFile) put(place *filePlace, of *entry, t *token.Token, verify bool) error {
	if !d.swept {
		if err := d.sweep(place.path); err != nil {
			return err
		}
		d.swept = true
	}
	if t == nil {
		return d.clear(place.path)
	}
	if d.there != nil && d.there.Value == t.Value && d.place == *place && (!verify || d.stands(place.path)) {
		d.there, d.of = t, of // it may end later than it was said to
		return nil
	}
	err := d.write(place, t)
	switch {
	case err == nil:
		d.of = of
	case d.there != nil && (d.there.Left() == 0 || d.of != of):
		// what cannot be replaced must not outlive its token, nor stand for
		// another credential's
		return errors.Join(err, d.clear(place.path))
	}
	return err
}

// sweep removes what an earlier process has left, a file that it had not
// finished, too.
func (d *diskFile) sweep(path string) error {
	return errors.Join(unlink(unfinished(path)), unlink(path))
}

// clear removes the file, unless it is another's by now.
func (d *diskFile) clear(path string) error {
	if d.there == nil {
		return nil
	}
	if d.stands(path) {
		if err := unlink(path); err != nil {
			return err
		}
	}
	d.there, d.of, d.info = nil, nil, nil
	return nil
}

// stands tells whether the file at a path is the one that was written last.
func (d *diskFile) stands(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && d.info != nil && os.SameFile(info, d.info) && info.ModTime().Equal(d.info.ModTime())
}

// unfinished is where a file is written before it is moved to its path: beside
// it, for a move within a directory is of one moment.
func unfinished(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".upstream-auth")
}

// write has the file hold a token: those who read it see the one before, or this
// one. It needs no fsync: after a crash of the machine another one is asked for.
func (d *diskFile) write(place *filePlace, t *token.Token) error {
	if err := replaceable(place.path); err != nil {
		return err
	}
	beside := unfinished(place.path)
	if err := unlink(beside); err != nil {
		return err
	}
	info, err := writeNew(beside, place, t.Value)
	if err != nil {
		return errors.Join(err, unlink(beside))
	}
	if err := still(beside, info); err != nil {
		return err
	}
	if err := os.Rename(beside, place.path); err != nil {
		return errors.Join(err, unlink(beside))
	}
	d.there, d.place, d.info = t, *place, info
	return nil
}

// still tells whether the file at a path is the one that was just written there.
// Another process that writes to the same path uses the same name beside it: what
// it has not finished must not be moved.
func still(path string, written fs.FileInfo) error {
	info, err := os.Lstat(path)
	if err == nil && os.SameFile(info, written) {
		return nil
	}
	if _, missing := os.Lstat(filepath.Dir(path)); missing != nil {
		return missing
	}
	return &fs.PathError{Op: "replace", Path: path, Err: errTaken}
}

// writeNew makes a file that at no moment can be read by more than the mode
// says: the umask only takes away, and its group is settled before that may read
// it. It holds nothing until then. It is given to its user last, for CAP_CHOWN
// alone does not let a process change the mode of another's file.
func writeNew(path string, place *filePlace, content string) (info fs.FileInfo, err error) {
	uid, err := number(place.user, func(name string) (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
	if err != nil {
		return nil, err
	}
	gid, err := number(place.group, func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, place.mode&0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if gid >= 0 {
		if err := f.Chown(-1, gid); err != nil {
			return nil, &ownerError{place.owner(), err}
		}
	}
	if err := f.Chmod(place.mode); err != nil {
		return nil, err
	}
	if uid >= 0 {
		if err := f.Chown(uid, -1); err != nil {
			return nil, &ownerError{place.owner(), err}
		}
	}
	if _, err := f.WriteString(content); err != nil {
		return nil, err
	}
	return f.Stat()
}

// owner is as it is configured.
func (p *filePlace) owner() string {
	if p.group == "" {
		return p.user
	}
	return p.user + ":" + p.group
}

// number is that of a user or a group, -1 for none.
func number(name string, lookup func(string) (string, error)) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.Atoi(name); err == nil {
		return n, nil
	}
	found, err := lookup(name)
	if err != nil {
		return 0, &ownerError{name, errUnknownOwner}
	}
	return strconv.Atoi(found)
}

// ownerError is why a file cannot be given to its owner.
type ownerError struct {
	name string
	err  error
}

func (e *ownerError) Error() string { return "owner " + e.name + ": " + e.err.Error() }
func (e *ownerError) Unwrap() error { return e.err }

var (
	errUnknownOwner = errors.New("the system knows no such user or group")
	errDirectory    = errors.New("is a directory")
	errSpecial      = errors.New("is no regular file")
	errTaken        = errors.New("another process has written there meanwhile")
)

// replaceable refuses to replace what is neither a file nor a symbolic link,
// which is replaced itself: what it points to is another's.
func replaceable(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return &fs.PathError{Op: "replace", Path: path, Err: errDirectory}
	case !info.Mode().IsRegular() && info.Mode().Type() != fs.ModeSymlink:
		return &fs.PathError{Op: "replace", Path: path, Err: errSpecial}
	}
	return nil
}

// unlink removes a file or a symbolic link, if there is one.
func unlink(path string) error {
	if err := replaceable(path); err != nil {
		return err
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// fileAdvice says what is wrong with a token file, and what to do.
func fileAdvice(place *filePlace, err error) (wrong, do string) {
	dir := filepath.Dir(place.path)
	const byItself = "; it is tried again by itself"
	oe, ofOwner := errors.AsType[*ownerError](err)
	switch {
	case errors.Is(err, errUnknownOwner):
		return "this system knows no user or group " + oe.name, "write its number in owner"
	case ofOwner && errors.Is(err, fs.ErrPermission):
		return "this process may not give the file to " + oe.name,
			"run it with the capability CAP_CHOWN; or leave owner out, and have the reader run as the same user, or in the group of the directory with mode 0640"
	case ofOwner:
		return "the file cannot be given to " + oe.name, "look at the file system of " + dir + byItself
	case errors.Is(err, errDirectory):
		return place.path + " is a directory", "name a file in it, or remove it" + byItself
	case errors.Is(err, errSpecial):
		return place.path + " is no regular file", "name another path, or remove it" + byItself
	case errors.Is(err, errTaken):
		return "another process writes " + place.path + ", too", "give each a file of its own" + byItself
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return "there is no directory " + dir, "make it, writable for this process's user; in a pod mount an emptyDir there" + byItself
	case errors.Is(err, syscall.EROFS):
		return dir + " is on a read-only file system", "name a path that can be written to; in a pod mount an emptyDir there" + byItself
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "there is no room left in " + dir, "make room there" + byItself
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("this process's user (%d) may not write in %s", os.Getuid(), dir), "make the directory writable for it" + byItself
	}
	return err.Error(), "look at the file system of " + dir + byItself
}
