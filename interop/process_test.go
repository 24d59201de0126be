package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// Past these something hangs, however slow the machine is.
const (
	startDeadline = time.Minute
	stopDeadline  = time.Minute
)

// process is a program that a test started, and all that it printed.
type process struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.Closer
	output transcript
	ended  chan struct{} // closed when it has been waited for
}

// start runs cmd; stop, or the end of the test, ends it.
func start(t *testing.T, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{name: name, cmd: cmd, ended: make(chan struct{})}
	p.output.grown = make(chan struct{})
	cmd.Stdout, cmd.Stderr = &p.output, &p.output
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	p.stdin = stdin
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	go func() {
		// how it ended is in ProcessState
		_ = cmd.Wait()
		close(p.ended)
	}()
	return p
}

// stop sends the signal and waits for the end; past the deadline it kills.
func (p *process) stop(t *testing.T, signal os.Signal) {
	t.Helper()
	defer p.stdin.Close()
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("%s: %v", p.name, err)
	}
	select {
	case <-p.ended:
		return
	case <-time.After(stopDeadline):
	}
	t.Errorf("%s: did not end within %s of %s", p.name, stopDeadline, signal)
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// await returns the first line of the output that match accepts.
func (p *process) await(ctx context.Context, match func(string) bool) (string, error) {
	for {
		lines, grown := p.output.lines()
		for _, line := range lines {
			if match(line) {
				return line, nil
			}
		}
		select {
		case <-grown:
		case <-p.ended:
			return "", fmt.Errorf("%s ended: %s", p.name, p.cmd.ProcessState)
		case <-ctx.Done():
			return "", fmt.Errorf("%s: no such line: %w", p.name, ctx.Err())
		}
	}
}

// transcript is what a program printed.
type transcript struct {
	mu    sync.Mutex
	text  strings.Builder
	grown chan struct{} // closed, and replaced, by each Write
}

func (tr *transcript) Write(b []byte) (int, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	close(tr.grown)
	tr.grown = make(chan struct{})
	return tr.text.Write(b)
}

func (tr *transcript) String() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.text.String()
}

// lines are the whole lines so far, with a channel that is closed when there
// may be more.
func (tr *transcript) lines() ([]string, <-chan struct{}) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	lines := strings.Split(tr.text.String(), "\n")
	return lines[:len(lines)-1], tr.grown
}
