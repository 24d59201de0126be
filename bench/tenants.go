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
	most.Store(int64(before))
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
						fmt.Printf("  value %d: %s after %s\n", n, r.says(), brief(r.took))
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
	return publish(figures("tenants", fmt.Sprintf("%s distinct values thrown at a template as fast as they are answered, while one tenant is in regular use.", grouped(*tenants)),
		figure("took", "%s", took.Round(time.Second)),
		figure("answered with a token", "%d", good.Load()),
		figure("turned away with 503", "%d", away.Load()),
		figure("answered otherwise", "%d", other.Load()),
		figure("token requests", "%d, %.1f a second", s.auth.Requests(), float64(s.auth.Requests())/took.Seconds()),
		figure("resident memory before", "%d MiB", before>>10),
		figure("resident memory at most", "%d MiB", most.Load()>>10),
		figure("the regular tenant's requests", "%d", regular.ok+regular.failed+regular.reset),
		figure("of those, not answered with 200", "%d", regular.failed+regular.reset),
		figure("of those, p99 and slowest", "%s, %s", brief(regular.percentile(99)), brief(regular.slowest)),
	))
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
