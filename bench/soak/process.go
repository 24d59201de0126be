package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// process is a program that the soak started.
type process struct {
	name  string
	cmd   *exec.Cmd
	stdin io.Closer // the soak's own programs end with it
	ended chan struct{}
}

// start runs cmd and hands each line that it prints to line.
func start(name string, cmd *exec.Cmd, line func(string)) (*process, error) {
	p := &process{name: name, cmd: cmd, ended: make(chan struct{})}
	out := &lines{each: line}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = time.Second
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	p.stdin = stdin
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() {
		_ = cmd.Wait() // how it ended is in ProcessState
		close(p.ended)
	}()
	return p, nil
}

// stop sends the signal and waits for the end; past the limit it kills, which
// is an error.
func (p *process) stop(signal os.Signal, limit time.Duration) error {
	defer p.stdin.Close()
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(limit):
	}
	_ = p.cmd.Process.Kill()
	<-p.ended
	return fmt.Errorf("%s did not end within %s of %s", p.name, limit, signal)
}

// lines is a writer that hands on whole lines.
type lines struct {
	each func(string)

	mu   sync.Mutex
	rest []byte
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, b...)
	rest := l.rest
	for {
		line, behind, whole := bytes.Cut(rest, []byte("\n"))
		if !whole {
			break
		}
		l.each(string(line))
		rest = behind
	}
	l.rest = append(l.rest[:0], rest...)
	return len(b), nil
}
