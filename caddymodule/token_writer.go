package caddymodule

import (
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// tokenFiles are the files that this process writes tokens to. They outlive
// configs: one that a reload keeps is left alone.
var tokenFiles = &fileRegistry{byPath: make(map[string]*tokenFile)}

type fileRegistry struct {
	mu     sync.Mutex // before a file's
	byPath map[string]*tokenFile
}

// fileClaim is what one config wants to stand in a file. It begins to count when
// that config has taken over: until then the reload may still fail.
type fileClaim struct {
	place  *filePlace
	entry  *entry
	logger *zap.Logger
	file   *tokenFile
	counts bool // with the file's lock
}

// tokenFile is one path. What is to stand there is looked up anew each time, so
// that it does not matter how many changes one look finds. What is done on disk
// is done by one goroutine, which does not exist while the file rests: neither a
// request nor the schedule of the tokens ever waits for a disk.
type tokenFile struct {
	path string

	mu      sync.Mutex // never held while something is done on disk
	claims  []*fileClaim
	working bool
	again   bool
	verify  bool // that the file is still there
	settled chan struct{}
	retry   *time.Timer
	shown   fileState

	// of the goroutine
	disk     diskFile
	failures int // in a row
}

// fileState is what is told of a file.
type fileState struct {
	written   bool
	wrong, do string // "" while all is as it should be
}

// The spaces between attempts to write a file: each twice the last.
const (
	firstFileRetry = time.Second
	mostFileRetry  = 5 * time.Second
	// what no config wants any more is given up after so many attempts to
	// remove it
	mostRemovals = 8
	// fileWait is how long a stop waits for files to be removed.
	fileWait = 5 * time.Second
)

// announce makes it known that a config may want a file.
func (r *fileRegistry) announce(c *fileClaim) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.byPath[c.place.path]
	if f == nil {
		f = &tokenFile{path: c.place.path}
		r.byPath[f.path] = f
	}
	f.mu.Lock()
	f.claims = append(f.claims, c)
	f.mu.Unlock()
	c.file = f
	c.entry.files.add(c)
}

// takeOver has a claim count from now on.
func (c *fileClaim) takeOver() {
	c.file.mu.Lock()
	defer c.file.mu.Unlock()
	c.counts, c.file.verify = true, true
	c.file.wake()
}

// release gives a claim back. The channel is closed once the disk is as it
// should be without it, or that could not be brought about for now.
func (c *fileClaim) release() (settled <-chan struct{}) {
	c.entry.files.remove(c)
	f := c.file
	f.mu.Lock()
	defer f.mu.Unlock()
	f.claims = slices.DeleteFunc(f.claims, func(x *fileClaim) bool { return x == c })
	f.wake()
	return f.settled
}

// changed has a file hold what its credential holds now.
func (f *tokenFile) changed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wake()
}

// wake has the file looked at. Called with the lock.
func (f *tokenFile) wake() {
	f.again = true
	if !f.working {
		f.working, f.settled = true, make(chan struct{})
		go f.work()
	}
}

func (f *tokenFile) work() {
	for tokenFiles.more(f) {
		f.settle()
	}
}

// more tells whether a file has to be looked at, and ends the goroutine of one
// that has not; one that nobody wants any more is forgotten.
func (r *fileRegistry) more(f *tokenFile) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.again {
		f.again = false
		return true
	}
	f.working = false
	if len(f.claims) == 0 && f.retry == nil {
		delete(r.byPath, f.path)
	}
	close(f.settled)
	return false
}

// settle brings the disk to what is wanted.
func (f *tokenFile) settle() {
	c, wanted, verify := f.look()
	var t *token.Token
	var of *entry
	place := &f.disk.place
	switch {
	case c != nil:
		// its lock is taken while no lock of the file is held: it is what calls
		t, of, place = c.entry.source.Newest(), c.entry, c.place
	case wanted:
		return // by a config that has not taken over yet
	case f.disk.there == nil:
		f.tell(nil, fileState{}, nil)
		return
	}
	before := f.disk.there
	err := f.disk.put(place, of, t, verify)
	state := fileState{written: t != nil && f.disk.there == t}
	if err != nil {
		state.wrong, state.do = fileAdvice(place, err)
	}
	f.tell(c, state, err)
	if err == nil && before != f.disk.there && c != nil {
		c.log().Debug("the token file has changed", zap.Bool("holds_token", t != nil))
	}
}

// look finds the claim that counts, nil if there is none, and tells whether
// there is any at all.
func (f *tokenFile) look() (c *fileClaim, wanted, verify bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.retry != nil {
		f.retry.Stop()
		f.retry = nil
	}
	verify, f.verify = f.verify, false
	for _, one := range f.claims {
		if one.counts {
			c = one
		}
	}
	return c, len(f.claims) > 0, verify
}

// tell notes how a file stands, logs what has changed in that, and plans the
// next attempt after one that failed.
func (f *tokenFile) tell(c *fileClaim, state fileState, err error) {
	f.mu.Lock()
	before := f.shown
	f.shown = state
	f.plan(c != nil, err)
	f.mu.Unlock()

	switch {
	case state.wrong != "" && state.wrong != before.wrong:
		f.log(c).Error("the token file is not as it should be", zap.Bool("holds_token", state.written), zap.NamedError("cause", err), zap.String("advice", state.wrong+": "+state.do))
	case state.wrong == "" && before.wrong != "":
		f.log(c).Info("the token file is as it should be again", zap.Bool("holds_token", state.written))
	}
}

// plan plans the next attempt. Called with the lock.
func (f *tokenFile) plan(wanted bool, err error) {
	if err == nil {
		f.failures = 0
		return
	}
	f.failures++
	if !wanted && f.failures >= mostRemovals {
		return
	}
	wait := min(firstFileRetry<<min(f.failures-1, 10), mostFileRetry)
	if t := f.disk.there; t != nil && t.Left() > 0 {
		wait = min(wait, t.Left()) // the one that could not be replaced ends
	}
	f.retry = time.AfterFunc(wait, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.wake()
	})
}

// log is a claim's log, or Caddy's where the config that wanted the file is
// gone.
func (f *tokenFile) log(c *fileClaim) *zap.Logger {
	if c == nil {
		return caddy.Log().Named(appName).With(zap.String("token_file", f.path))
	}
	return c.log()
}

func (c *fileClaim) log() *zap.Logger {
	return c.logger.With(zap.String("credential", c.entry.name), zap.String("token_file", c.place.path))
}

// claims are those of one credential, of the configs that use it.
type claims struct {
	mu  sync.Mutex
	all []*fileClaim
}

func (s *claims) add(c *fileClaim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, c)
}

func (s *claims) remove(c *fileClaim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(s.all, func(x *fileClaim) bool { return x == c })
}

// changed is told that the credential's token is another one, or none any more.
func (s *claims) changed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.all {
		c.file.changed()
	}
}

// tokenFileReport is what is told of a token file.
type tokenFileReport struct {
	Path string `json:"path"`
	// Written tells whether the token that is held stands in it.
	Written bool `json:"written"`
	// Problem is what is wrong with it, and Advice of the report what to do.
	Problem string `json:"problem,omitempty"`
}

// wrong says what is wrong with a file in a sentence.
func (r *tokenFileReport) wrong() string {
	if r.Written {
		return "the token file is not as it should be: " + r.Problem
	}
	return "the token file cannot be written: " + r.Problem
}

// report tells of the credential's file, the newest config's; nil for none.
func (s *claims) report() (r *tokenFileReport, do string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 0 {
		return nil, ""
	}
	c := s.all[len(s.all)-1]
	c.file.mu.Lock()
	defer c.file.mu.Unlock()
	shown := c.file.shown
	return &tokenFileReport{Path: c.place.path, Written: shown.written, Problem: shown.wrong}, shown.do
}
