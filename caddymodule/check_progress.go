package caddymodule

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// progress tells what is waited for: on a terminal in one line that changes,
// elsewhere in a line for each credential that takes its time.
type progress struct {
	out      io.Writer
	terminal bool
	total    int

	mu     sync.Mutex
	done   int
	under  []*waiting // in the order in which they began
	ticker *time.Ticker
	ended  chan struct{}
}

// waiting is one credential whose check is under way.
type waiting struct {
	name  string
	since time.Time
	what  string
	slow  *time.Timer
}

// slowCheck is when it is worth a line that an answer has not come.
const slowCheck = 2 * time.Second

func newProgress(out io.Writer, terminal bool, total int) *progress {
	p := &progress{out: out, terminal: terminal, total: total, ended: make(chan struct{})}
	if terminal {
		p.ticker = time.NewTicker(time.Second)
		go func() {
			for {
				select {
				case <-p.ticker.C:
					p.mu.Lock()
					p.draw()
					p.mu.Unlock()
				case <-p.ended:
					return
				}
			}
		}()
	}
	return p
}

// begin tells that a credential's check has begun; limit is that of its token
// request.
func (p *progress) begin(name string, limit time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &waiting{name: name, since: time.Now(), what: "asking"}
	p.under = append(p.under, w)
	if p.terminal {
		p.draw()
		return
	}
	w.slow = time.AfterFunc(slowCheck, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if slices.Contains(p.under, w) {
			fmt.Fprintf(p.out, "%s: no answer after %s; a token request may take %s\n", name, slowCheck, limit)
		}
	})
}

// tell says what is done now for a credential.
func (p *progress) tell(name, what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.under {
		if w.name == name {
			w.what = what
		}
	}
	if p.terminal {
		p.draw()
	}
}

func (p *progress) end(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	p.under = slices.DeleteFunc(p.under, func(w *waiting) bool {
		if w.name != name {
			return false
		}
		if w.slow != nil {
			w.slow.Stop()
		}
		return true
	})
	if p.terminal {
		p.draw()
	}
}

// widest is what fits into a line of nearly every terminal.
const widest = 78

// draw writes the line anew. Called with the lock.
func (p *progress) draw() {
	parts := make([]string, 0, len(p.under))
	for _, w := range p.under {
		parts = append(parts, fmt.Sprintf("%s: %s (%s)", w.name, w.what, time.Since(w.since).Truncate(time.Second)))
	}
	line := []rune(fmt.Sprintf("%d of %d checked; %s", p.done, p.total, strings.Join(parts, ", ")))
	if len(line) > widest {
		line = append(line[:widest-1], '…')
	}
	fmt.Fprintf(p.out, "\r\x1b[K%s", string(line))
}

// stop takes the line away.
func (p *progress) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.terminal {
		return
	}
	p.ticker.Stop()
	close(p.ended)
	fmt.Fprint(p.out, "\r\x1b[K")
}

// isTerminal tells whether a person looks at a file.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
