package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

// stage is all that takes part in a run.
type stage struct {
	dir          string // short, for a unix socket's path has about 100 characters
	binary       string
	share        bool
	book         *book
	watch        *watch
	provider     *provider
	proxy        *proxy
	upstream     *process
	upstreamAddr string
	caddies      []*instance

	mu       sync.Mutex
	versions int
	logging  sync.Mutex // one login at a time
	asides   sync.WaitGroup
}

// newStage starts all processes.
func newStage(ctx context.Context, dir, binary string, instances int, share bool, ttl time.Duration) (*stage, error) {
	s := &stage{dir: dir, binary: binary, share: share, book: newBook(), watch: newWatch()}
	s.provider = &provider{dir: dir, ttl: ttl, client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	s.proxy = newProxy(s.book, s.watch, s.provider)
	for _, addr := range []*string{&s.provider.addr, &s.proxy.addr, &s.upstreamAddr} {
		var err error
		if *addr, err = freeport.Take(); err != nil {
			return s, err
		}
	}
	s.proxy.refused = s.chainEnded
	for _, c := range clients {
		if c.name != rotating {
			s.watch.secret("the secret of "+c.name, c.secret)
		}
	}
	if err := s.provider.start(ctx); err != nil {
		return s, err
	}
	if err := s.proxy.listen(); err != nil {
		return s, err
	}
	if err := s.startUpstream(ctx); err != nil {
		return s, err
	}
	secret := s.newSecret()
	s.proxy.setSecret(secret)
	if err := s.write(filepath.Join(dir, "secret"), secret); err != nil {
		return s, err
	}
	for n := range instances {
		i, err := newInstance(s, n)
		if err != nil {
			return s, err
		}
		s.caddies = append(s.caddies, i)
		if n == 0 || !share {
			if err := os.MkdirAll(s.storage(n), 0o700); err != nil {
				return s, err
			}
			if err := s.login(ctx, n, "", nil); err != nil {
				return s, err
			}
		}
	}
	for _, i := range s.caddies {
		if err := i.start(ctx); err != nil {
			return s, err
		}
	}
	return s, nil
}

// storage is the folder of an instance's storage.
func (s *stage) storage(instance int) string {
	if s.share {
		instance = 0
	}
	return filepath.Join(s.dir, fmt.Sprintf("storage-%d", instance))
}

// newSecret is another secret for the client whose secret is changed.
func (s *stage) newSecret() string {
	secret := rand.Text()
	s.watch.secret("the secret of "+rotating, secret)
	return secret
}

// write writes a file as a whole, as what mounts secrets does.
func (s *stage) write(path, text string) error {
	if err := os.WriteFile(path+".new", []byte(text+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// login gives those on a storage a new refresh token to begin with, unless the
// one that was refused is not the newest any more.
func (s *stage) login(ctx context.Context, instance int, because string, refused *ask) error {
	s.logging.Lock()
	defer s.logging.Unlock()
	if s.share {
		instance = 0
	}
	var since time.Time
	s.book.with(func() {
		for _, l := range s.book.logins {
			if l.storage == instance {
				since = l.at
			}
		}
	})
	if refused != nil && refused.arrived.Before(since.Add(2*time.Second)) {
		return nil // it was still on its way
	}
	token, err := s.provider.login(ctx, clientOf(refreshing).id)
	if err != nil {
		return err
	}
	s.watch.secret("a refresh token", token)
	if err := s.write(filepath.Join(s.storage(instance), "initial"), token); err != nil {
		return err
	}
	s.book.with(func() { s.book.logins = append(s.book.logins, login{instance, time.Now(), because}) })
	return nil
}

// chainEnded is what the operator does when the server refuses a refresh token.
func (s *stage) chainEnded(a ask) {
	s.asides.Go(func() {
		number, err := strconv.Atoi(instanceOf(a.process))
		if err != nil {
			s.book.fault("a token request of %q, which is no process", a.process)
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		for {
			err := s.login(ctx, number, s.whyEnded(a), &a)
			if err == nil {
				return
			}
			if rest(ctx, time.Second); ctx.Err() != nil {
				s.book.note("no new login for %s: %v", a.process, err)
				return
			}
		}
	})
}

// startUpstream starts the upstream, the first time or again.
func (s *stage) startUpstream(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	listening := make(chan struct{}, 1)
	cmd := exec.Command(self, upstreamCommand, "-listen", s.upstreamAddr, "-provider", s.provider.issuer)
	s.upstream, err = start("upstream", cmd, func(line string) {
		if line == upstreamListens {
			listening <- struct{}{}
			return
		}
		var r refusal
		if json.Unmarshal([]byte(line), &r) != nil {
			s.book.note("the upstream says: %s", line)
			return
		}
		s.book.with(func() { s.book.refusals = append(s.book.refusals, r) })
	})
	if err != nil {
		return err
	}
	select {
	case <-listening:
		return nil
	case <-s.upstream.ended:
		return errors.New("the upstream ended at once")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stopCaddies ends them well.
func (s *stage) stopCaddies() {
	var all sync.WaitGroup
	for _, i := range s.caddies {
		all.Go(i.stop)
	}
	all.Wait()
}

// close ends what is left.
func (s *stage) close() {
	s.stopCaddies()
	s.asides.Wait()
	for _, p := range []*process{s.upstream, s.provider.process} {
		if p != nil {
			_ = p.cmd.Process.Signal(syscall.SIGCONT) // in case that it is stopped
			_ = p.stop(syscall.SIGKILL, time.Second)
		}
	}
	if s.proxy.server != nil {
		s.proxy.deny()
	}
	for _, i := range s.caddies {
		_ = i.log.Close()
	}
}
