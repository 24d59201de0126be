package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// TokenFile is a file that holds a credential's access token, for programs that
// do not speak HTTP and for libraries that read a token from a file. It holds
// the token and nothing else, no newline either, and exists exactly while this
// process holds a valid token: it is written when one comes, replaced as a whole
// when another one does, and removed when a token ends and there is no other,
// when the config no longer has it, and when Caddy stops. What an earlier
// process left at its path is removed at the start.
//
// Whoever can read it holds the token until that ends.
type TokenFile struct {
	// Path is absolute, and its directory has to exist. A file or a symbolic
	// link that is there is replaced. The placeholders {env.*} and {system.*}
	// are read when the config is loaded. Required.
	Path string `json:"path,omitempty"`

	// Mode is who may read it, in octal: nobody but its owner may write there.
	// The umask does not matter. Default: 0600.
	Mode string `json:"mode,omitempty"`

	// Owner is <user>, <user>:<group> or :<group>, each a number or a name that
	// the system knows. To give a file to another user takes root or CAP_CHOWN,
	// and to another group than one of the process's own, too. Default: as the
	// system gives files that the process makes.
	Owner string `json:"owner,omitempty"`
}

// defaultFileMode is that of a file with a token.
const defaultFileMode fs.FileMode = 0o600

// filePlace is where a token is to be written, and for whom.
type filePlace struct {
	path        string
	mode        fs.FileMode
	user, group string // "" for what the system gives
}

// checkTokenFile tells what is wrong as far as it can be told without
// resolving a placeholder.
func (c *Credential) checkTokenFile() error {
	f := c.TokenFile
	switch {
	case f == nil:
		return nil
	case c.template.is():
		return optionErrorf("token_file", "is for a credential with a single token; this one has a token for each value that requests bring")
	case c.DPoP != nil:
		return optionErrorf("token_file", "a token that dpop binds to a key is of no use to a program without that key, which signs a proof for each request")
	}
	if err := f.checkPath(); err != nil {
		return &optionError{"token_file", err}
	}
	if slices.ContainsFunc(c.filesRead(), func(path string) bool { return sameFile(path, f.Path) }) {
		return optionErrorf("token_file", "%s is read for this credential, and would be overwritten: expected a file of its own", f.Path)
	}
	if _, err := f.mode(); err != nil {
		return &optionError{"token_file mode", err}
	}
	if _, _, err := f.owner(); err != nil {
		return &optionError{"token_file owner", err}
	}
	return nil
}

var errNoTokenFile = errors.New("expected the absolute path of a file, such as /run/app/token")

// checkPath refuses what is no absolute path. One that begins with a
// placeholder is looked at again when that is known.
func (f *TokenFile) checkPath() error {
	for _, name := range placeholders(f.Path) {
		if namespace, _, _ := strings.Cut(name, "."); namespace != "env" && namespace != "system" {
			return fmt.Errorf("the placeholder {%s} is not allowed here: the path is needed when the config is loaded; expected {env.*} or {system.*}", name)
		}
	}
	if f.Path == "" {
		return errNoTokenFile
	}
	if strings.HasPrefix(f.Path, "{") && hasPlaceholder(f.Path) {
		return nil
	}
	return checkFilePath(f.Path)
}

func checkFilePath(path string) error {
	switch {
	case strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return errors.New("the path holds a control character: " + errNoTokenFile.Error())
	case !filepath.IsAbs(path):
		return fmt.Errorf("'%s' is not absolute: %w", path, errNoTokenFile)
	case strings.HasSuffix(path, "/") || slices.Contains([]string{".", ".."}, filepath.Base(path)) || filepath.Dir(path) == path:
		return fmt.Errorf("'%s' names a directory: %w", path, errNoTokenFile)
	}
	return nil
}

// mode is the configured mode.
func (f *TokenFile) mode() (fs.FileMode, error) {
	if f.Mode == "" {
		return defaultFileMode, nil
	}
	bits, err := strconv.ParseUint(f.Mode, 8, 32)
	mode := fs.FileMode(bits)
	switch {
	case err != nil || mode > fs.ModePerm:
		return 0, fmt.Errorf("'%s' is not a file mode such as 0600 or 0640", f.Mode)
	case mode&0o444 == 0:
		return 0, fmt.Errorf("with %s nobody may read the file: expected a mode such as 0600 or 0640", f.Mode)
	case mode&0o133 != 0:
		return 0, fmt.Errorf("%s lets others than the owner write the file, or run it: expected a mode such as 0600 or 0640", f.Mode)
	}
	return mode, nil
}

// validOwner is a name, or the number of one.
var validOwner = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@-]*\$?$`)
})

// owner is the configured owner. Whether the system knows it is seen when the
// file is written.
func (f *TokenFile) owner() (user, group string, err error) {
	if f.Owner == "" {
		return "", "", nil
	}
	user, group, both := strings.Cut(f.Owner, ":")
	for _, name := range []string{user, group} {
		if name == "" {
			continue
		}
		_, numErr := strconv.ParseUint(name, 10, 32)
		number := strings.Trim(name, "0123456789") == ""
		if !validOwner().MatchString(name) || number && numErr != nil {
			return "", "", fmt.Errorf("'%s' is not an owner: expected <user>, <user>:<group> or :<group>, as numbers or names", f.Owner)
		}
	}
	if user == "" && group == "" || both && group == "" {
		return "", "", fmt.Errorf("'%s' is not an owner: expected <user>, <user>:<group> or :<group>, as numbers or names", f.Owner)
	}
	return user, group, nil
}

// place is what the options come to in this process. It touches no file.
func (f *TokenFile) place() (*filePlace, error) {
	path, err := caddy.NewReplacer().WithoutFile().ReplaceOrErr(f.Path, true, true)
	if err == nil {
		err = checkFilePath(path)
	}
	if err != nil {
		return nil, &optionError{"token_file", err}
	}
	p := &filePlace{path: filepath.Clean(path)}
	if p.mode, err = f.mode(); err != nil {
		return nil, &optionError{"token_file mode", err}
	}
	if p.user, p.group, err = f.owner(); err != nil {
		return nil, &optionError{"token_file owner", err}
	}
	return p, nil
}

// filesRead are the files that a credential is made from, as far as they are
// written out: one of them must not be overwritten by the token. The guests'
// options are known until they are loaded.
func (c *Credential) filesRead() []string {
	own := *c
	own.TokenFile = nil
	raw, err := json.Marshal(own)
	if err != nil {
		return nil
	}
	var options any
	if err := json.Unmarshal(raw, &options); err != nil {
		return nil
	}
	paths := slices.Clone(c.guestFiles)
	for _, s := range stringsIn(options) {
		paths = append(paths, filesIn(s)...)
	}
	return paths
}

// filesIn are the files that a configured value names: itself, or those in its
// placeholders.
func filesIn(value string) []string {
	if filepath.IsAbs(value) {
		return []string{value}
	}
	var paths []string
	for _, name := range placeholders(value) {
		if path, ok := strings.CutPrefix(name, "file."); ok {
			paths = append(paths, path)
		}
	}
	return paths
}

func sameFile(a, b string) bool { return filepath.Clean(a) == filepath.Clean(b) }

// checkOwnFile refuses a path that another credential has.
func checkOwnFile(name string, f *TokenFile, others map[string]*Credential) error {
	if f == nil {
		return nil
	}
	for _, other := range sorted(others) {
		if o := others[other]; other != name && o != nil && o.TokenFile != nil && sameFile(o.TokenFile.Path, f.Path) {
			return optionErrorf("token_file", "%s is that of the credential '%s', too: each needs a file of its own", f.Path, other)
		}
	}
	return nil
}

// tokenFile reads:
//
//	token_file <path> {
//		mode  <octal>
//		owner <user>[:<group>]
//	}
func (p *credentialParser) tokenFile(d *caddyfile.Dispenser) error {
	f := new(TokenFile)
	p.credential.TokenFile = f
	option := d.Val()
	if !d.NextArg() || d.Val() == "" {
		return d.Errf("'%s' needs an argument, the absolute path of the file", option)
	}
	f.Path = d.Val()
	if d.NextArg() {
		return d.Errf("'%s' has an argument too many (quote one that holds blanks)", option)
	}
	_, err := p.within(d, option, map[string]func(*caddyfile.Dispenser) error{
		"mode":  text(&f.Mode),
		"owner": text(&f.Owner),
	})
	return err
}
