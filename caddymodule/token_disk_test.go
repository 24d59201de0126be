package caddymodule

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// TestTokenFileStale: what an earlier process has left is removed at the start,
// and what a link points to is another's.
func TestTokenFileStale(t *testing.T) {
	for name, leave := range map[string]func(path, elsewhere string) error{
		"a file":    func(path, _ string) error { return os.WriteFile(path, []byte("stale"), 0o400) },
		"a link":    func(path, elsewhere string) error { return os.Symlink(elsewhere, path) },
		"unwritten": func(path, _ string) error { return os.WriteFile(unfinished(path), []byte("sta"), 0o600) },
		"dangling":  func(path, _ string) error { return os.Symlink("/nonexistent/token", path) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newParts(t, authserver.Config{Issue: canaries})
			dir := t.TempDir()
			path, elsewhere := filepath.Join(dir, "token"), filepath.Join(t.TempDir(), "precious")
			if err := os.WriteFile(elsewhere, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := leave(path, elsewhere); err != nil {
				t.Fatal(err)
			}
			p.auth.SetFault(authserver.Down())
			p.run(p.credential("token_file "+path), fileSite)
			eventually(t, "an empty directory", func() bool { entries, err := os.ReadDir(dir); return err == nil && len(entries) == 0 })
			p.auth.SetFault(nil)
			eventually(t, "a file", func() bool { return tokenAt(t, path) == "c4n4ry-token-1" })
			if !modeOf(t, path).IsRegular() || tokenAt(t, elsewhere) != "precious" {
				t.Errorf("the mode is %s, and elsewhere stands %q", modeOf(t, path), tokenAt(t, elsewhere))
			}
		})
	}
}

// TestTokenFileUnwritable: it is told once, in the log and in the status, harms
// no request, and mends itself.
func TestTokenFileUnwritable(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil, mend func(path string) error
		option      string
		says, do    string
	}{
		"no directory": {
			spoil: func(path string) error { return os.Remove(filepath.Dir(path)) },
			mend:  func(path string) error { return os.Mkdir(filepath.Dir(path), 0o700) },
			says:  "there is no directory ", do: "emptyDir",
		},
		"a file for a directory": {
			spoil: func(path string) error {
				return onlyFirst(os.Remove(filepath.Dir(path)), os.WriteFile(filepath.Dir(path), nil, 0o600))
			},
			mend: func(path string) error {
				return onlyFirst(os.Remove(filepath.Dir(path)), os.Mkdir(filepath.Dir(path), 0o700))
			},
			says: "there is no directory ", do: "make it",
		},
		"a directory": {
			spoil: func(path string) error { return os.Mkdir(path, 0o700) },
			mend:  os.Remove,
			says:  " is a directory", do: "name a file in it",
		},
		"a directory with a file in it": {
			spoil: func(path string) error {
				return onlyFirst(os.Mkdir(path, 0o700), os.WriteFile(filepath.Join(path, "x"), nil, 0o600))
			},
			mend: os.RemoveAll,
			says: " is a directory", do: "name a file in it",
		},
		"in the way of the new one": {
			spoil: func(path string) error { return os.Mkdir(unfinished(path), 0o700) },
			mend:  func(path string) error { return os.Remove(unfinished(path)) },
			says:  " is a directory",
		},
		"an unknown owner": {
			spoil: func(string) error { return nil }, option: " {\nowner no-such-user-here\n}",
			says: "knows no user or group no-such-user-here", do: "number",
		},
		"an unknown group": {
			spoil: func(string) error { return nil }, option: " {\nowner :no-such-group-here\n}",
			says: "knows no user or group no-such-group-here", do: "number",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParts(t, authserver.Config{Issue: canaries})
			path := filepath.Join(t.TempDir(), "run", "token")
			if err := onlyFirst(os.Mkdir(filepath.Dir(path), 0o700), tc.spoil(path)); err != nil {
				t.Fatal(err)
			}
			p.run(p.credential("token_file "+path+tc.option), fileSite)
			var r *report
			eventually(t, "an error in the status", func() bool {
				_, o := p.status()
				r = o.of(t, "crm")
				return r.Ready && r.TokenFile.Problem != ""
			})
			if r.TokenFile.Written || r.TokenFile.Path != path || r.State != stateOK || r.Advice == nil {
				t.Fatalf("got %+v, file %+v", r, r.TokenFile)
			}
			says(t, r.TokenFile.Problem, tc.says)
			says(t, r.Advice.Wrong, tc.says, "token file")
			says(t, r.Advice.Do, tc.do)
			says(t, r.Summary, "the token is valid", "token file", tc.says)
			p.asSchema(name, p.get("/status").body)
			says(t, p.get("/status", "Accept", browsers).body, "needs attention", "Token file", path)
			p.want(p.get("/"), 200)

			e := credentials.newest()["crm"]
			byItself := name == "no directory" // the others need not wait for it
			for range 3 {                      // each attempt is one more, and not told
				if !byItself {
					e.files.changed()
					settled(e)
				}
			}
			if n := p.lines("the token file is not as it should be"); n != 1 {
				t.Errorf("told %d times:\n%s", n, p.logged())
			}
			if tc.mend == nil {
				p.untold()
				return
			}
			if err := tc.mend(path); err != nil {
				t.Fatal(err)
			}
			if !byItself {
				e.files.changed()
			}
			eventually(t, "the token in the file, with no token request", func() bool {
				_, o := p.status()
				r = o.of(t, "crm")
				return tokenAt(t, path) == "c4n4ry-token-1" && r.TokenFile.Written && r.TokenFile.Problem == "" && r.Advice == nil
			})
			p.asSchema(name, p.get("/status").body)
			if p.lines("the token file is as it should be again") != 1 || p.auth.Requests() != 1 {
				t.Errorf("%d token requests, and the log\n%s", p.auth.Requests(), p.logged())
			}
			p.untold()
			p.stop()
			alone(t, filepath.Dir(path))
		})
	}
}

// onlyFirst is the first error of several.
func onlyFirst(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// TestDiskFile: what is done on disk where the outside meddles.
func TestDiskFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	place := &filePlace{path: path, mode: 0o600}
	one, two := &token.Token{Value: "one"}, &token.Token{Value: "two"} // both have ended
	of := new(entry)
	put := func(d *diskFile, t *token.Token) error { return d.put(place, of, t, false) }
	fail := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Run("another process's is not removed", func(t *testing.T) {
		var d diskFile
		fail(put(&d, one))
		fail(os.WriteFile(path+".new", []byte("theirs"), 0o600))
		fail(os.Rename(path+".new", path))
		fail(put(&d, nil))
		if got := tokenAt(t, path); got != "theirs" {
			t.Errorf("the file holds %q", got)
		}
		fail(put(&d, one)) // but replaced by a token
		if got := tokenAt(t, path); got != "one" {
			t.Errorf("the file holds %q", got)
		}
		fail(put(&d, nil))
		alone(t, filepath.Dir(path))
		fail(put(&d, nil))
	})
	t.Run("one that has ended does not stay", func(t *testing.T) {
		var d diskFile
		fail(put(&d, one))
		fail(os.Mkdir(unfinished(path), 0o700))
		if err := put(&d, two); err == nil {
			t.Error("it was written")
		}
		if got := tokenAt(t, path); got != "" {
			t.Errorf("the file holds %q", got)
		}
		fail(os.Remove(unfinished(path)))
		fail(put(&d, two))
		fail(put(&d, nil))
	})
	t.Run("what links point to is not swept", func(t *testing.T) {
		precious := filepath.Join(t.TempDir(), "precious")
		fail(os.WriteFile(precious, []byte("precious"), 0o600))
		fail(os.Symlink(precious, path))
		fail(os.Symlink(precious, unfinished(path)))
		var d diskFile
		fail(put(&d, nil))
		alone(t, filepath.Dir(path))
		if got := tokenAt(t, precious); got != "precious" {
			t.Errorf("it holds %q", got)
		}
	})
	t.Run("another process's is not moved", func(t *testing.T) {
		beside := unfinished(path)
		info, err := writeNew(beside, place, "one")
		fail(err)
		fail(still(beside, info))
		fail(os.WriteFile(path, []byte("theirs"), 0o600))
		fail(os.Rename(path, beside))
		if err := still(beside, info); !errors.Is(err, errTaken) {
			t.Errorf("in place of its own stands another one: %v", err)
		}
		fail(os.Remove(beside))
		err = still(beside, info)
		if wrong, _ := fileAdvice(place, err); !errors.Is(err, errTaken) || !strings.Contains(wrong, "another process writes "+path) {
			t.Errorf("its own is gone: %v, %s", err, wrong)
		}
		if err := still(filepath.Join(path, "gone"), info); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, errTaken) {
			t.Errorf("its directory is gone: %v", err)
		}
	})
	t.Run("a directory is left alone", func(t *testing.T) {
		var d diskFile
		fail(os.Mkdir(path, 0o700))
		if err := put(&d, one); err == nil {
			t.Error("it was written")
		}
		if !modeOf(t, path).IsDir() {
			t.Error("it is gone")
		}
		fail(os.Remove(path))
	})
}
