package pod

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// container is one of a pod, over all of its restarts.
type container struct {
	kubelet *kubelet
	spec    *corev1.Container
	image   *image
	// sidecar is an init container that goes on.
	sidecar bool
	// up is closed when it has started for the first time, its startup probe
	// included; over when it will not run again.
	up, over chan struct{}
	upOnce   sync.Once

	mu       sync.Mutex
	log      bytes.Buffer
	life     *life
	ready    bool
	started  bool
	restarts int
}

// life is one process of a container, from its start to its end.
type life struct {
	process process
	cmd     *exec.Cmd
	at      time.Time
	ended   chan struct{}
	code    int // as a kubelet shows it; read after ended
	// cancel ends the probes.
	cancel context.CancelFunc
}

// launch starts a process for the container, and returns when the hook that
// comes after the start has ended. A process that cannot be started has ended
// at once.
func (c *container) launch() (*life, error) {
	b, err := c.bundle()
	if err != nil {
		return nil, err
	}
	spec, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	l := &life{process: b.process, ended: make(chan struct{})}
	l.cmd = &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{asInit}, Env: []string{}, Stdout: c, Stderr: c,
		SysProcAttr: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC},
	}
	end, err := give(l.cmd, spec)
	if err != nil {
		return nil, err
	}
	defer end.Close()
	made, making, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer made.Close()
	l.cmd.ExtraFiles = append(l.cmd.ExtraFiles, c.kubelet.cluster.podNetwork.file, making)
	c.kubelet.note(c, "starts")
	l.at = time.Now()
	err = l.cmd.Start()
	making.Close()
	if err != nil {
		return nil, err
	}
	// ends when the process has become the container's, or has failed to
	if _, err := io.Copy(io.Discard, made); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	c.mu.Lock()
	c.life = l
	c.mu.Unlock()
	go func() {
		_ = l.cmd.Wait() // how it ended is in ProcessState
		l.code = l.cmd.ProcessState.ExitCode()
		if status, ok := l.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			l.code = 128 + int(status.Signal())
		}
		cancel()
		c.set(false, false)
		c.kubelet.note(c, fmt.Sprintf("exits %d", l.code))
		close(l.ended)
	}()
	if hook := c.spec.Lifecycle; hook != nil && hook.PostStart != nil {
		if err := c.hook(ctx, hook.PostStart); err != nil && ctx.Err() == nil {
			c.kubelet.note(c, "postStart hook failed: "+err.Error())
			c.signal(l, syscall.SIGKILL)
			return l, nil
		}
		c.kubelet.note(c, "postStart hook done")
	}
	go c.probes(ctx, l)
	return l, nil
}

// give has the process find content on its file 3.
func give(cmd *exec.Cmd, content []byte) (end io.Closer, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	go func() {
		defer w.Close()
		_, _ = w.Write(content) // a process that ends before it has read all of it says so itself
	}()
	cmd.ExtraFiles = []*os.File{r}
	return r, nil
}

// bundle is all that the container's first process needs to know.
func (c *container) bundle() (*bundle, error) {
	p, err := c.process()
	if err != nil {
		return nil, err
	}
	layer, err := os.MkdirTemp(c.kubelet.dir, c.spec.Name+"-")
	if err != nil {
		return nil, err
	}
	b := &bundle{Image: c.image.dir, Layer: layer, Hostname: c.kubelet.pod.Name, process: *p}
	if s := c.kubelet.securityContext(c.spec); s.ReadOnlyRootFilesystem != nil {
		b.ReadOnly = *s.ReadOnlyRootFilesystem
	}
	for _, name := range []string{"resolv.conf", "hosts", "hostname"} {
		b.Mounts = append(b.Mounts, mount{Source: filepath.Join(c.kubelet.dir, name), Target: "/etc/" + name, ReadOnly: b.ReadOnly})
	}
	for _, m := range c.spec.VolumeMounts {
		source, found := c.kubelet.volumes[m.Name]
		if !found {
			return nil, fmt.Errorf("container %s: no volume %q", c.spec.Name, m.Name)
		}
		b.Mounts = append(b.Mounts, mount{Source: filepath.Join(source, m.SubPath), Target: m.MountPath, ReadOnly: m.ReadOnly})
	}
	return b, nil
}

// exec runs a command in the container.
func (c *container) exec(ctx context.Context, args []string) (said string, err error) {
	c.mu.Lock()
	l := c.life
	c.mu.Unlock()
	p := l.process
	p.Args = args
	spec, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args, cmd.Env = []string{asExec}, []string{}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	end, err := give(cmd, spec)
	if err != nil {
		return "", err
	}
	defer end.Close()
	for _, kind := range enteredNamespaces {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", l.cmd.Process.Pid, kind.name))
		if err != nil {
			return "", err
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	err = cmd.Run()
	return out.String(), err
}

// hook runs what is to be done after the start, or before the stop.
func (c *container) hook(ctx context.Context, h *corev1.LifecycleHandler) error {
	switch {
	case h.Exec != nil:
		said, err := c.exec(ctx, h.Exec.Command)
		if err != nil {
			return fmt.Errorf("%w: %s", err, said)
		}
		return nil
	case h.HTTPGet != nil:
		return c.get(ctx, h.HTTPGet)
	case h.Sleep != nil:
		wait(ctx, time.Duration(h.Sleep.Seconds)*time.Second)
		return nil
	}
	return fmt.Errorf("container %s: a hook that this kubelet does not know", c.spec.Name)
}

// probes says when the container has started and is ready, and kills it when it
// does not live.
func (c *container) probes(ctx context.Context, l *life) {
	if p := c.spec.StartupProbe; p != nil {
		ctx, cancel := context.WithCancel(ctx)
		passed := false
		c.watch(ctx, p, func(ok bool, why error) {
			passed = ok
			cancel()
			if !ok {
				c.kubelet.note(c, "startup probe failed: "+why.Error())
				c.signal(l, syscall.SIGTERM)
			}
		})
		if !passed {
			return
		}
	}
	c.set(true, c.spec.ReadinessProbe == nil)
	c.upOnce.Do(func() { close(c.up) })
	c.kubelet.note(c, "has started")
	if p := c.spec.LivenessProbe; p != nil {
		go c.watch(ctx, p, func(ok bool, why error) {
			if !ok {
				c.kubelet.note(c, "liveness probe failed: "+why.Error())
				c.signal(l, syscall.SIGTERM)
			}
		})
	}
	if p := c.spec.ReadinessProbe; p != nil {
		c.watch(ctx, p, func(ok bool, why error) {
			c.set(true, ok)
			if ok {
				c.kubelet.note(c, "is ready")
			} else {
				c.kubelet.note(c, "is not ready: "+why.Error())
			}
		})
	}
}

// keep restarts the container as its policy has it, the first time at once.
func (c *container) keep(l *life) {
	defer close(c.over)
	for pause := time.Duration(0); ; pause = max(10*time.Second, 2*pause) {
		if l != nil {
			<-l.ended
		}
		if l != nil && !c.restartable(l.code) || !wait(c.kubelet.serving, pause) {
			return
		}
		c.mu.Lock()
		c.restarts++
		c.mu.Unlock()
		var err error
		if l, err = c.launch(); err != nil {
			c.kubelet.note(c, "cannot start: "+err.Error())
		}
	}
}

func (c *container) restartable(code int) bool {
	policy := c.kubelet.pod.Spec.RestartPolicy
	if own := c.spec.RestartPolicy; own != nil {
		policy = corev1.RestartPolicy(*own)
	}
	if c.init() && !c.sidecar && code == 0 {
		return false
	}
	return policy == "" || policy == corev1.RestartPolicyAlways || policy == corev1.RestartPolicyOnFailure && code != 0
}

func (c *container) init() bool {
	for i := range c.kubelet.pod.Spec.InitContainers {
		if c.spec == &c.kubelet.pod.Spec.InitContainers[i] {
			return true
		}
	}
	return false
}

// stop tells the container to end when its turn has come, and kills it when the
// pod's time is up; two seconds there are in any case.
func (c *container) stop(deadline time.Time, turn <-chan struct{}) {
	l := c.current()
	if l == nil {
		return
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	if hook := c.spec.Lifecycle; hook != nil && hook.PreStop != nil {
		if err := c.hook(ctx, hook.PreStop); err != nil {
			c.kubelet.note(c, "preStop hook failed: "+err.Error())
		}
	}
	select {
	case <-turn:
	case <-ctx.Done():
	}
	c.signal(l, syscall.SIGTERM)
	timer := time.NewTimer(max(time.Until(deadline), 2*time.Second))
	defer timer.Stop()
	select {
	case <-l.ended:
	case <-timer.C:
		c.signal(l, syscall.SIGKILL)
		<-l.ended
	}
}

// signal is for one life: the next has done nothing.
func (c *container) signal(l *life, s syscall.Signal) {
	select {
	case <-l.ended:
	default:
		c.kubelet.note(c, unix.SignalName(s))
		_ = l.cmd.Process.Signal(s) // one that has just ended needs none
	}
}

func (c *container) set(started, ready bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.started, c.ready = started, ready
}

func (c *container) isReady() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready
}

// restarted is how often it was.
func (c *container) restarted() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.restarts
}

func (c *container) current() *life {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.life
}

// Write takes what the container prints.
func (c *container) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log.Write(b)
}

// logged is all that it has printed.
func (c *container) logged() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log.String()
}
