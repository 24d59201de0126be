package caddymodule

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/caddyserver/certmagic"
	"github.com/spf13/cobra"
)

// configFlags are those of a command that reads a config.
func configFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringP("config", "c", "", "The configuration file (default: the Caddyfile of this folder)")
	f.StringP("adapter", "a", "", "The adapter of the configuration, where it is not JSON")
	f.StringSlice("envfile", nil, "A file of environment variables to load (may repeat)")
}

// configured is one credential of a config, provisioned and not started.
type configured struct {
	name      string
	requester *requester
	place     string // where refresh tokens are stored, for a person to read
	close     func()
}

// loadCredential provisions one credential of the config that the flags name,
// with the config's storage, and nothing else of it: a Caddy that runs with the
// config has its ports.
func loadCredential(fl caddycmd.Flags, name string) (*configured, error) {
	raw, err := readConfig(fl)
	if err != nil {
		return nil, err
	}
	return provisionCredential(raw, name)
}

// readConfig is the config that the flags name, in JSON, with its environment
// loaded.
func readConfig(fl caddycmd.Flags) ([]byte, error) {
	files, err := fl.GetStringSlice("envfile")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if err := loadEnvFile(file); err != nil {
			return nil, fmt.Errorf("--envfile: %w", err)
		}
	}
	raw, _, _, err := caddycmd.LoadConfig(fl.String("config"), fl.String("adapter"))
	if err != nil {
		return nil, err
	}
	if len(raw) == 0 {
		return nil, errors.New("there is no Caddyfile in this folder: name the configuration with --config")
	}
	return raw, nil
}

func provisionCredential(raw []byte, name string) (*configured, error) {
	var config caddy.Config
	if err := json.Unmarshal(caddy.RemoveMetaFields(raw), &config); err != nil {
		return nil, fmt.Errorf("decoding the configuration: %w", err)
	}
	app := new(App)
	if raw, ok := config.AppsRaw[appName]; ok {
		if err := caddy.StrictUnmarshalJSON(raw, app); err != nil {
			return nil, fmt.Errorf("decoding the configuration: %w", err)
		}
	}
	c, ok := app.Credentials[name]
	if !ok {
		return nil, unknownCredential(name, sorted(app.Credentials))
	}
	app.Credentials = map[string]*Credential{name: c}
	only, err := json.Marshal(app)
	if err != nil {
		return nil, err
	}
	ctx, err := caddy.ProvisionContext(&caddy.Config{
		Admin:      &caddy.AdminConfig{Disabled: true},
		StorageRaw: config.StorageRaw,
		AppsRaw:    caddy.ModuleMap{appName: only},
	})
	if err != nil {
		return nil, err
	}
	loaded, err := ctx.App(appName)
	if err != nil {
		return nil, err
	}
	app = loaded.(*App)
	for key, at := range app.keys {
		if key.name == name {
			at.requester.note = at.entry.journal.note
			if !at.entry.running() { // as in a test, where both are one process
				at.entry.journal.logger.Store(app.logger)
			}
			return &configured{name: name, requester: at.requester, place: placeOf(app.storage), close: func() { _ = app.Cleanup() }}, nil
		}
	}
	return nil, fmt.Errorf("credential '%s' could not be loaded", name)
}

// placeOf tells of a storage where it is. Other kinds than a folder may have a
// password among their options.
func placeOf(storage certmagic.Storage) string {
	if files, ok := storage.(*certmagic.FileStorage); ok {
		return "the folder " + files.Path
	}
	return fmt.Sprintf("the storage %T", storage)
}

// loadEnvFile sets the environment variables of a file.
func loadEnvFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	values, err := parseEnvFile(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for name, value := range values {
		if _, set := os.LookupEnv(name); set {
			continue // the environment has the last word, as in Caddy
		}
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("%s: %s: %w", path, name, err)
		}
	}
	// which XDG_DATA_HOME or HOME may have moved
	caddy.DefaultStorage = &certmagic.FileStorage{Path: caddy.AppDataDir()}
	return nil
}

// parseEnvFile reads lines NAME=value, in all as caddy run --envfile does: with
// other values than the running Caddy has, a login would be with another client,
// or be stored where nobody looks. So a "#" ends a value even in quotes, a quoted
// value ends with the line that ends with its quote, and of two values of a name
// the last one counts. No error repeats a value.
func parseEnvFile(r io.Reader) (map[string]string, error) {
	values := make(map[string]string)
	lines := &envLines{Scanner: bufio.NewScanner(r)}
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		name = strings.TrimPrefix(name, "export ")
		switch {
		case !ok, name == "", strings.Contains(name, " "):
			return nil, fmt.Errorf("line %d is not NAME=value", lines.n)
		case value != "" && (value[0] == ' ' || value[0] == '\t'):
			return nil, fmt.Errorf("line %d has a blank after the =", lines.n)
		}
		if before, _, comment := strings.Cut(value, "#"); comment {
			value = strings.TrimRight(before, " \t")
		}
		if value != "" && (value[0] == '"' || value[0] == '\'') {
			value = lines.quoted(value, line)
		}
		values[name] = value
	}
	return values, lines.Err()
}

// envLines are the lines of a file, numbered from 1.
type envLines struct {
	*bufio.Scanner
	n int
}

func (l *envLines) Scan() bool {
	l.n++
	return l.Scanner.Scan()
}

// quoted is a value that begins with a quote in a line, and may go on in those
// that follow.
func (l *envLines) quoted(value, line string) string {
	quote, escaped := value[:1], `\`+value[:1]
	for !strings.HasSuffix(line, quote) || strings.HasSuffix(line, escaped) {
		value = strings.ReplaceAll(value, escaped, quote)
		if !l.Scan() {
			break
		}
		line = strings.ReplaceAll(l.Text(), escaped, quote)
		value += "\n" + line
	}
	return strings.TrimSuffix(strings.TrimPrefix(value, quote), quote)
}
