package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"time"
)

const (
	countWarm      = 300  // requests to each site before anything is counted
	countRequests  = 2000 // in a batch whose allocations are counted
	countBatches   = 3
	callgrindBatch = 200 // requests in a batch whose instructions are: they take fifty times as long
	callgrindPause = 2 * time.Millisecond
)

// perRequest is what a request costs at one site.
type perRequest struct {
	objects, bytes float64
	instructions   profile   // nil where nothing counts them
	batches        []float64 // the sums of each batch's
}

// countAllocations has the allocations of requests to each site counted, by
// several batches that take turns: the median of each. What it costs to ask for
// them is taken off.
func countAllocations(ctx context.Context, dir string, sites []countSite, into map[string]*perRequest) error {
	c, err := newCountedCaddy(ctx, dir, sites, 0, func(*turn, *exec.Cmd) {})
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.warm(countWarm); err != nil {
		return err
	}
	objects, bytes := make(map[string][]float64), make(map[string][]float64)
	last, err := c.allocated(ctx)
	if err != nil {
		return err
	}
	for range countBatches {
		var asking allocated
		// the first request for them makes a connection
		for i := -2; i < len(sites); i++ {
			if i >= 0 {
				if err := c.call(i, countRequests); err != nil {
					return err
				}
			}
			next, err := c.allocated(ctx)
			if err != nil {
				return err
			}
			more := allocated{next.objects - last.objects, next.bytes - last.bytes}
			last = next
			if i < 0 {
				asking = more
				continue
			}
			name := sites[i].name
			objects[name] = append(objects[name], (float64(more.objects)-float64(asking.objects))/countRequests)
			bytes[name] = append(bytes[name], (float64(more.bytes)-float64(asking.bytes))/countRequests)
		}
	}
	for _, s := range sites {
		into[s.name].objects, into[s.name].bytes = median(objects[s.name]), median(bytes[s.name])
	}
	return nil
}

// countInstructions has the instructions of requests to each site counted, by
// several batches that take turns: of each function the median.
func countInstructions(ctx context.Context, dir, valgrind string, sites []countSite, batches int, into map[string]*perRequest) error {
	var file string
	c, err := newCountedCaddy(ctx, dir, sites, callgrindPause, func(t *turn, cmd *exec.Cmd) {
		file = filepath.Join(t.dir, "callgrind")
		underCallgrind(valgrind, file, cmd)
	})
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.warm(countWarm / 3); err != nil {
		return err
	}
	counting := callgrind{c.cmd.Process.Pid, file}
	profiles := make(map[string][]profile)
	for range batches {
		for i, s := range sites {
			p, err := counting.count(ctx, func() error { return c.call(i, callgrindBatch) })
			if err != nil {
				return err
			}
			p = p.over(callgrindBatch)
			profiles[s.name] = append(profiles[s.name], p)
			into[s.name].batches = append(into[s.name].batches, p.sum())
		}
	}
	for _, s := range sites {
		into[s.name].instructions = middle(profiles[s.name])
	}
	return nil
}
