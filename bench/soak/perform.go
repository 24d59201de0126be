package main

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// perform does what is planned, each at its time, those of one lane one after
// the other. It returns when the last is over.
func (s *stage) perform(ctx context.Context, events []event) {
	lanes := make(map[int][]event)
	for _, e := range events {
		lanes[e.lane] = append(lanes[e.lane], e)
	}
	var all sync.WaitGroup
	for _, lane := range lanes {
		all.Go(func() {
			for _, e := range lane {
				if rest(ctx, time.Until(s.book.began.Add(e.at))); ctx.Err() != nil {
					return
				}
				s.one(ctx, e)
			}
		})
	}
	all.Wait()
}

// one lets one thing happen, and notes from when to when.
func (s *stage) one(ctx context.Context, e event) {
	w := &window{event: e, from: time.Now()}
	s.book.with(func() { s.book.windows = append(s.book.windows, w) })
	err := s.befall(ctx, w)
	s.book.with(func() {
		w.to = time.Now()
		if err != nil {
			w.skipped = err.Error()
		}
	})
	if err != nil && ctx.Err() == nil {
		s.book.note("%s: %v", e.kind, err)
	}
}

// befall does one thing and takes its time for it.
func (s *stage) befall(ctx context.Context, w *window) error {
	switch w.kind {
	case serverKilled:
		s.proxy.deny()
		if err := s.provider.stop(syscall.SIGKILL, time.Minute); err != nil {
			return err
		}
		rest(ctx, w.lasts)
		if err := s.provider.start(ctx); err != nil {
			return err
		}
		return s.proxy.listen()
	case serverStopped:
		if err := s.provider.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		rest(ctx, w.lasts)
		return s.provider.cmd.Process.Signal(syscall.SIGCONT)
	case secretRotated:
		return s.rotate(ctx, w)
	case tokensRevoked, grantRevoked:
		return s.revoke(ctx, w)
	case caddyReloaded:
		return s.each(func(i *instance) error { return i.reload(ctx, s.version()) })
	case caddyRestarted:
		// one after the other, as a rollout does
		return s.each(func(i *instance) error {
			i.stop()
			return i.start(ctx)
		})
	case upstreamKilled:
		if err := s.upstream.stop(syscall.SIGKILL, time.Minute); err != nil {
			return err
		}
		rest(ctx, w.lasts)
		return s.startUpstream(ctx)
	}
	f := &fault{w.kind, make(chan struct{})}
	s.proxy.setFault(w.credential, f)
	rest(ctx, w.lasts)
	s.proxy.setFault(w.credential, nil)
	close(f.over)
	return nil
}

// rotate changes a secret at the server and in the file, in either order.
func (s *stage) rotate(ctx context.Context, w *window) error {
	secret := s.newSecret()
	if w.first {
		s.proxy.setSecret(secret)
		rest(ctx, w.lasts)
		return s.write(filepath.Join(s.dir, "secret"), secret)
	}
	if err := s.write(filepath.Join(s.dir, "secret"), secret); err != nil {
		return err
	}
	rest(ctx, w.lasts)
	s.proxy.setSecret(secret)
	return nil
}

// revoke ends the tokens that are held. One that came with a refresh token takes
// that with it, and all that was granted.
func (s *stage) revoke(ctx context.Context, w *window) error {
	count := 0
	limit := time.Now().Add(2 * s.provider.ttl)
	for _, c := range clients {
		if c.secret == "" || (c.name == refreshing) != (w.kind == grantRevoked) {
			continue
		}
		for _, token := range s.healthy(ctx, c.name, limit) {
			var raw string
			at := time.Now()
			s.book.with(func() {
				raw = s.book.raw[token]
				s.book.revoked[token] = at
				if count == 0 {
					w.from = at
				}
			})
			if err := s.provider.revoke(ctx, c.id, c.secret, raw); err != nil {
				return err
			}
			count++
		}
	}
	if count == 0 {
		return errors.New("nobody holds a token")
	}
	return nil
}

// healthy waits a while for a time without faults, in which what a revocation
// brings about is seen best, and returns the tokens that are held then.
func (s *stage) healthy(ctx context.Context, credential string, limit time.Time) []string {
	for {
		tokens := s.book.live(credential)
		if len(tokens) > 0 && !s.proxy.faulty(credential) || time.Now().After(limit) || ctx.Err() != nil {
			return tokens
		}
		rest(ctx, 100*time.Millisecond)
	}
}

// each does something with one Caddy after the other.
func (s *stage) each(do func(*instance) error) error {
	for _, i := range s.caddies {
		if err := do(i); err != nil {
			return err
		}
	}
	return nil
}

// version makes a configuration another one.
func (s *stage) version() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.versions++
	return s.versions
}
