package caddymodule

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
)

// maxFile is the largest file that is read for a placeholder, as in Caddy.
const maxFile = 1 << 20

// placeholders lists the placeholders in a configured value.
func placeholders(value string) []string {
	var names []string
	repl := caddy.NewEmptyReplacer()
	repl.Map(func(name string) (any, bool) {
		names = append(names, name)
		return "", true
	})
	repl.ReplaceAll(value, "")
	return names
}

func hasPlaceholder(value string) bool { return len(placeholders(value)) > 0 }

// checkPlaceholders refuses what could never be resolved, and request
// placeholders: a client must not choose where a secret goes, or which file is
// read.
func checkPlaceholders(value string) error {
	for _, name := range placeholders(value) {
		namespace, _, _ := strings.Cut(name, ".")
		switch namespace {
		case "env", "file", "system", "time":
		case "http":
			if base, ok := strings.CutPrefix(name, "http.request.uri.path.file."); ok {
				return fmt.Errorf("{file.%s} is short for a placeholder of the request's path, which is not allowed here; for a file, write its path with a slash: {file./path/to/%s}", base, base)
			}
			return fmt.Errorf("the request placeholder {%s} is not allowed here", name)
		default:
			return unknownPlaceholder(name)
		}
	}
	return nil
}

// errUnknownPlaceholder stands for one that is not named: it may be a part of a
// secret.
var errUnknownPlaceholder = errors.New("unknown placeholder; " + knownPlaceholders)

// checkSecretPlaceholders is checkPlaceholders for what may be a secret.
func checkSecretPlaceholders(value string) error {
	err := checkPlaceholders(value)
	if _, ok := errors.AsType[unknownPlaceholder](err); ok {
		return errUnknownPlaceholder
	}
	return err
}

// checkLiteral refuses a placeholder in what has to be known at load.
func checkLiteral(name string) error {
	if hasPlaceholder(name) {
		return errors.New("is a name, which takes no placeholder")
	}
	return nil
}

const knownPlaceholders = `known are {env.*}, {file.*}, {system.*} and {time.*} (write \{ for a brace)`

// unknownPlaceholder is the error of one that nothing could resolve.
type unknownPlaceholder string

func (e unknownPlaceholder) Error() string {
	return fmt.Sprintf("unknown placeholder {%s}; %s", string(e), knownPlaceholders)
}

// resolver replaces the placeholders of one token request. It remembers the
// secrets that it handed out, to mask them, and the files that it read, to
// notice when they change.
type resolver struct {
	client  map[string]string // what a template's placeholders of a request stand for
	secrets []string
	files   fileStates
	exposed []string // files that hold a secret and that everybody can read
}

func newResolver(client map[string]string) *resolver {
	return &resolver{client: client, files: make(fileStates)}
}

// resolve replaces the placeholders in value. One that is unknown, unreadable
// or empty is an error that names it: an empty secret never reaches the wire.
func (r *resolver) resolve(value string) (string, error) {
	if !strings.ContainsAny(value, "{}") {
		return value, nil
	}
	var unreadable error
	repl := caddy.NewReplacer().WithoutFile()
	repl.Map(func(name string) (any, bool) {
		if strings.HasPrefix(name, "http.") {
			v, ok := r.client[name]
			return v, ok
		}
		path, ok := strings.CutPrefix(name, "file.")
		if !ok {
			return nil, false
		}
		content, err := r.readFile(path)
		if err != nil && unreadable == nil {
			unreadable = fmt.Errorf("{%s}: %w", name, err)
		}
		return trimNewline(content), true
	})
	out, err := repl.ReplaceOrErr(value, true, true)
	if unreadable != nil {
		return "", unreadable
	}
	return out, err
}

// secret is resolve for a value that is masked from then on.
func (r *resolver) secret(value string) (string, error) {
	out, err := r.resolve(value)
	if err == nil {
		r.secrets = append(r.secrets, out)
	}
	return out, err
}

// secretFile reads a file whose path may hold placeholders, and notes if others
// can read it as well. What is a certificate is for all to see.
func (r *resolver) secretFile(path string) ([]byte, error) {
	path, err := r.resolve(path)
	if err != nil {
		return nil, err
	}
	content, err := r.readFile(path)
	if err != nil {
		return nil, err
	}
	public := bytes.Contains(content, []byte("CERTIFICATE-----")) && !bytes.Contains(content, []byte("PRIVATE KEY-----"))
	if info := r.files[path]; info != nil && info.Mode()&0o004 != 0 && !public && runtime.GOOS != "windows" {
		r.exposed = append(r.exposed, path)
	}
	return content, nil
}

// readFile reads a file and notes its state.
func (r *resolver) readFile(path string) ([]byte, error) {
	r.files.note(path)
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular(): // a pipe would be waited for
		return nil, fmt.Errorf("%s is a directory, a pipe or a device: expected a file", path)
	case info.Size() > maxFile:
		return nil, fmt.Errorf("%s is larger than 1 MiB", path)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(content) == 0 {
		return nil, fmt.Errorf("%s is empty", path)
	}
	return content, nil
}

// trimNewline removes the newline that an editor puts at a file's end.
func trimNewline(content []byte) string {
	return strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
}

// fileStates is what was seen of files when they were read; nil for one that
// was not there.
type fileStates map[string]os.FileInfo

func (s fileStates) note(path string) {
	info, err := os.Stat(path)
	if err != nil {
		info = nil
	}
	s[path] = info
}

// changed tells whether a file is another than it was: a mounted secret is
// swapped by a link, an edited one has another time or size.
func (s fileStates) changed() bool {
	for path, was := range s {
		is, err := os.Stat(path)
		switch {
		case err != nil && was == nil:
		case err != nil || was == nil:
			return true
		case !os.SameFile(is, was) || is.Size() != was.Size() || !is.ModTime().Equal(was.ModTime()):
			return true
		}
	}
	return false
}

// lastFiles are the files of the last token request.
type lastFiles struct {
	mu     sync.Mutex
	states fileStates
}

func (l *lastFiles) set(s fileStates) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.states = s
}

func (l *lastFiles) get() fileStates {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.states
}
