package faults

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// checked runs the commands of an operator's while the faults are there, and
// searches what they print: check asks every server once more.
func (col *column) checked(environ []string) {
	for _, c := range col.order {
		if c.server.release(); c.name != slug(tokenEchoed) { // another process's token, of which check knows nothing
			c.set(true)
		}
	}
	config := []string{"--config", filepath.Join(col.dir, "Caddyfile"), "--adapter", "caddyfile"}
	for place, args := range map[string][]string{
		"what check prints":         append([]string{"check", "--probe", "--spend"}, config...),
		"what check prints as JSON": append([]string{"check", "--json"}, config...),
	} {
		text, err := col.command(environ, args...)
		if err != nil {
			col.fail("%s: %v", place, err)
		}
		for _, c := range col.order {
			if !strings.Contains(text, c.name) {
				col.fail("%s: nothing of %s: %.2000s", place, c.name, text)
				break
			}
		}
		col.clean(place, text)
	}
	for _, c := range col.order {
		c.set(false)
	}
}

// command runs one of ours to its end, which may be a failure.
func (col *column) command(environ []string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, must(os.Executable()), append([]string{"upstream-auth"}, args...)...)
	cmd.Env = append(own(os.Environ()), "HOME="+col.dir, "XDG_CONFIG_HOME="+col.dir, "XDG_DATA_HOME="+col.dir, asCaddy+"=1")
	cmd.Env = append(cmd.Env, environ...)
	if _, err := cmd.StdinPipe(); err != nil { // with whose end the command would end
		return "", err
	}
	text, err := cmd.CombinedOutput()
	if _, ended := errors.AsType[*exec.ExitError](err); ended && ctx.Err() == nil {
		err = nil
	}
	return string(text), err
}
