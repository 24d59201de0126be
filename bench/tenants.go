package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// flood throws distinct values at a template as fast as they are answered,
// while one tenant goes on working.
func flood(ctx context.Context, s *stage) error {
	s.option = "param tenant {header.X-Tenant}"
	if err := s.start(ctx); err != nil {
		return err
	}
	if r := s.requestFor("regular"); r.status != 200 {
		return fmt.Errorf("the first request: %s", r.says())
	}
	before, err := s.memory()
	if err != nil {
		return err
	}
	regular, done := new(load), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				r := s.requestFor("regular")
				regular.note(r, r.took)
			case <-done:
				return
			}
		}
	})
	began := time.Now()
	var next, good, away, other, most atomic.Int64
	var flooders sync.WaitGroup
	for range 16 {
		flooders.Go(func() {
			for ctx.Err() == nil {
				n := next.Add(1)
				if n > int64(*tenants) {
					return
				}
				r := s.requestFor("tenant-" + strconv.FormatInt(n, 10))
				switch r.status {
				case 200:
					good.Add(1)
				case 503:
					away.Add(1)
				default:
					if other.Add(1) == 1 {
						fmt.Printf("  value %d: %s after %s\n", n, r.says(), ms(r.took))
					}
				}
				if n%10_000 == 0 {
					if kib, err := s.memory(); err == nil {
						most.Store(max(most.Load(), int64(kib)))
					}
				}
			}
		})
	}
	flooders.Wait()
	took := time.Since(began)
	close(done)
	wg.Wait()
	fmt.Printf("  %d distinct values in %s: %d answered with a token, %d turned away with 503, %d otherwise\n", *tenants, took.Round(time.Second), good.Load(), away.Load(), other.Load())
	fmt.Printf("  token requests: %d (%.1f a second); resident memory %d MiB before, %d MiB at most\n", s.auth.Requests(), float64(s.auth.Requests())/took.Seconds(), before>>10, most.Load()>>10)
	fmt.Printf("  the tenant in regular use: %d requests, %d not answered with 200; p99 %s, slowest %s\n", regular.ok+regular.failed+regular.reset, regular.failed+regular.reset, ms(regular.percentile(99)), ms(regular.slowest))
	return nil
}

// memory is Caddy's resident memory in KiB (Linux).
func (s *stage) memory() (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.caddy.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
		}
	}
	return 0, fmt.Errorf("no VmRSS in /proc/%d/status", s.caddy.Process.Pid)
}
