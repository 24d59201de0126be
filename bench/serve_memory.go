package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/bench/result"
)

var (
	memoryCallers = flag.Int("memory-connections", 1000, "callers, with a connection each, under a limit of memory in the scenario serve")
	memoryLength  = flag.Duration("memory-for", 15*time.Second, "length of the load under a limit of memory in the scenario serve")
	memoryLimit   = flag.Int("memory-limit", 128, "that limit, in MiB; that of deploy/kubernetes is the default")
)

// memory puts the sidecar, and the reference, under a load of many connections
// that never wait, in as much memory as a container has.
func (v *serving) memory(ctx context.Context, set *result.Set, all []subject) error {
	table := result.Table{
		Name:  "memory",
		Heads: []string{"proxy", "resident at rest, MiB", "most under load", "private at rest", "most under load", "limit", "requests", "failed", "p99, ms"},
	}
	how := ""
	for _, s := range all {
		if s.name != sidecarName && s.name != referenceName {
			continue
		}
		row, err := v.underLimit(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		how = row.how
		table.Rows = append(table.Rows, []string{
			s.name, inMiB(row.rest.resident), inMiB(row.most.resident), inMiB(row.rest.private), inMiB(row.most.private), fmt.Sprint(*memoryLimit), fmt.Sprint(row.requests), fmt.Sprint(row.failed), inMS(row.p99),
		})
		if s.name == sidecarName {
			set.Goals = append(set.Goals, result.Goal{
				ID: "P2", What: fmt.Sprintf("private memory of the sidecar with %d connections under load, in a container", *memoryCallers),
				Want: fmt.Sprintf("< %d MiB, none failed", *memoryLimit), Figure: fmt.Sprintf("%s MiB, %d of %d failed", inMiB(row.most.private), row.failed, row.requests),
				Met: row.most.private < *memoryLimit<<10 && row.failed == 0 && row.requests > 0,
			})
		}
	}
	table.Note = fmt.Sprintf("Memory with %d connections whose callers never wait, for %s. Private is what is not a file's, which the kernel can drop and read again; resident has the binary too, which here is another's to pay for. %s", *memoryCallers, *memoryLength, how)
	set.Tables = append(set.Tables, table)
	return nil
}

// crowded is what came of it.
type crowded struct {
	rest, most memory
	requests   int
	failed     int
	p99        time.Duration
	how        string // the memory is limited
}

func (v *serving) underLimit(ctx context.Context, s subject) (row crowded, err error) {
	room := newRoom(*memoryLimit << 20)
	defer room.close()
	inside := s
	inside.command = func(t *turn) (*exec.Cmd, error) {
		cmd, err := s.command(t)
		if err != nil {
			return nil, err
		}
		return room.wrap(cmd), nil
	}
	r, err := v.start(ctx, inside)
	if err != nil {
		return row, err
	}
	defer r.turn.close()
	row.how = room.how
	select {
	case <-ctx.Done():
		return row, ctx.Err()
	case <-time.After(startRest):
	}
	pid := r.turn.cmd.Process.Pid
	if row.rest, err = memoryOfGroup(pid); err != nil {
		return row, err
	}
	g, err := gather(r.turn.proxy, *memoryCallers)
	if err != nil {
		return row, err
	}
	defer g.close()
	g.open()
	stop, peak := make(chan struct{}), make(chan int)
	go func() { peak <- mostPrivate(pid, stop) }()
	p := g.press(*memoryLength)
	close(stop)
	row.most.private = <-peak
	slices.Sort(p.times)
	row.requests, row.failed, row.p99 = len(p.times)+p.failed, p.failed, quantile(p.times, 0.99)
	select {
	case <-r.turn.ended:
		return row, fmt.Errorf("the process ended under the load, of %d MiB perhaps: %s", *memoryLimit, r.turn.log())
	default:
	}
	status, err := statusOf(pid)
	if err != nil {
		return row, err
	}
	row.most.resident, err = lineOf(status, "VmHWM:")
	return row, err
}

// mostPrivate looks at a process until stop is closed, every 20 ms: the kernel
// keeps the most of all that is resident, and not of this.
func mostPrivate(pid int, stop <-chan struct{}) (most int) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if status, err := statusOf(pid); err == nil {
			if now, err := lineOf(status, "RssAnon:"); err == nil {
				most = max(most, now)
			}
		}
		select {
		case <-stop:
			return most
		case <-ticker.C:
		}
	}
}

func statusOf(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return string(text), err
}

// memoryOfGroup is that of the processes of a group. What several share counts
// once: of all but the largest only what is theirs alone.
func memoryOfGroup(group int) (sum memory, err error) {
	l, err := look()
	if err != nil {
		return memory{}, err
	}
	var all []string
	largest, most := 0, -1
	for _, pid := range l.processes(group) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return memory{}, err
		}
		m, err := readMemory(string(text))
		if err != nil {
			return memory{}, err
		}
		if m.resident > most {
			largest, most, sum = len(all), m.resident, m
		}
		all = append(all, string(text))
	}
	if len(all) == 0 {
		return memory{}, errors.New("the process has ended")
	}
	for i, text := range all {
		if i == largest {
			continue
		}
		clean, err := lineOf(text, "Private_Clean:")
		if err != nil {
			return memory{}, err
		}
		dirty, err := lineOf(text, "Private_Dirty:")
		if err != nil {
			return memory{}, err
		}
		sum.resident += clean + dirty
		sum.private += dirty
	}
	return sum, nil
}

// room is a limit of memory for one process.
type room struct {
	dir string // of the control group; "" if none can be made
	env []string
	how string // in words, for a table
}

// newRoom makes a control group of either version. Where that is not to be had
// the process is told what Caddy would tell the runtime in a container of that
// size: nine tenths of it.
func newRoom(bytes int) *room {
	var why error
	for _, kind := range []struct{ root, file, name string }{
		{"/sys/fs/cgroup", "memory.max", "a control group (memory.max)"},
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "a control group (version 1, memory.limit_in_bytes)"},
	} {
		dir, err := os.MkdirTemp(kind.root, "upstream-auth-bench")
		if err != nil {
			why = err
			continue
		}
		// only a control group has the file; on a plain file system it would be made
		f, err := os.OpenFile(filepath.Join(dir, kind.file), os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(strconv.Itoa(bytes))
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			why = errors.Join(err, os.Remove(dir))
			continue
		}
		return &room{dir: dir, how: fmt.Sprintf("The limit of %d MiB is that of %s; beyond it the kernel ends the process.", bytes>>20, kind.name)}
	}
	limit := bytes / 10 * 9
	return &room{
		env: []string{"GOMEMLIMIT=" + strconv.Itoa(limit)},
		how: fmt.Sprintf("The limit of %d MiB is told to the runtime alone, as Caddy does in a container (GOMEMLIMIT=%d): no control group could be made (%v).", bytes>>20, limit, why),
	}
}

// wrap has a process be in it from its first instruction: what it is to make of
// its limit a runtime reads when it starts.
func (r *room) wrap(cmd *exec.Cmd) *exec.Cmd {
	if r.dir == "" {
		cmd.Env = append(cmd.Environ(), r.env...)
		return cmd
	}
	args := append([]string{"-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(r.dir, "cgroup.procs")}, cmd.Args...)
	args[3] = cmd.Path
	in := exec.Command("/bin/sh", args...)
	in.Env, in.Dir = cmd.Env, cmd.Dir
	return in
}

// close removes it; the process has ended.
func (r *room) close() {
	if r.dir == "" {
		return
	}
	for range 50 { // the kernel takes a moment to see that it is empty
		if os.Remove(r.dir) == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	fmt.Printf("  %s is left: remove it with rmdir\n", r.dir)
}
