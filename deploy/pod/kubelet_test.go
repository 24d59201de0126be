package pod

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const namespaceName = "example"

// kubelet runs one pod.
type kubelet struct {
	cluster *cluster
	pod     *corev1.Pod
	objects *objects
	ip      netip.Addr
	dir     string
	volumes map[string]string // their directories, by name

	// serving ends when the pod is to stop.
	serving context.Context
	cease   context.CancelFunc
	// initialized and over are closed when the init containers are done, and
	// when none of the others runs any more.
	initialized, over chan struct{}
	all               []*container // in the order of the template, init containers first

	mu     sync.Mutex
	events []event
}

// event is something that a kubelet would tell of.
type event struct {
	at        time.Time
	container string
	what      string
}

// runPod starts a pod, and returns before its containers have.
func runPod(t *testing.T, c *cluster, pod *corev1.Pod, o *objects) *kubelet {
	t.Helper()
	k := &kubelet{
		cluster: c, pod: pod, objects: o, ip: podIP, volumes: map[string]string{},
		initialized: make(chan struct{}), over: make(chan struct{}),
	}
	var err error
	if k.dir, err = os.MkdirTemp(workspace, pod.Name+"-"); err != nil { //nolint:usetesting // in memory, and mounted upon
		t.Fatal(err)
	}
	// what a container sees is bound into it from here
	if err := os.Chmod(k.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := k.know(); err != nil {
		t.Fatal(err)
	}
	if err := k.makeFiles(); err != nil {
		t.Fatal(err)
	}
	k.serving, k.cease = context.WithCancel(context.Background())
	go k.run()
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(k.story())
		}
		k.kill()
	})
	return k
}

// makeFiles makes the volumes, and the files that each container is given.
func (k *kubelet) makeFiles() error {
	for i, v := range k.pod.Spec.Volumes {
		dir, err := k.makeVolume(&k.pod.Spec.Volumes[i])
		if err != nil {
			return err
		}
		k.volumes[v.Name] = dir
	}
	for name, content := range map[string]string{
		"resolv.conf": resolverConfig,
		"hostname":    k.pod.Name + "\n",
		"hosts":       "127.0.0.1\tlocalhost\n" + k.ip.String() + "\t" + k.pod.Name + "\n",
	} {
		if err := os.WriteFile(filepath.Join(k.dir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	for i, spec := range k.specs() {
		img := &applicationImage
		if strings.Contains(spec.Image, "caddy-upstream-auth") {
			img = &sidecarImage
		}
		k.all = append(k.all, &container{
			kubelet: k, spec: spec, image: img,
			sidecar: i < len(k.pod.Spec.InitContainers) && spec.RestartPolicy != nil && *spec.RestartPolicy == corev1.ContainerRestartPolicyAlways,
			up:      make(chan struct{}), over: make(chan struct{}),
		})
	}
	return nil
}

// specs are those of all containers, init containers first.
func (k *kubelet) specs() (all []*corev1.Container) {
	for i := range k.pod.Spec.InitContainers {
		all = append(all, &k.pod.Spec.InitContainers[i])
	}
	for i := range k.pod.Spec.Containers {
		all = append(all, &k.pod.Spec.Containers[i])
	}
	return all
}

// run starts the containers: init containers one after the other, each when the
// one before has ended well or, if it goes on, has started; then the others.
func (k *kubelet) run() {
	inits := len(k.pod.Spec.InitContainers)
	for _, c := range k.all[:inits] {
		if !k.start(c) {
			return
		}
		ended := c.over
		if c.sidecar {
			ended = nil
		}
		select {
		case <-c.up:
			if c.sidecar {
				continue
			}
			<-c.over
		case <-ended:
		case <-k.serving.Done():
			return
		}
		if l := c.current(); l == nil || l.code != 0 {
			k.stop() // the pod has failed
			return
		}
	}
	close(k.initialized)
	for _, c := range k.all[inits:] {
		if !k.start(c) {
			return
		}
	}
	for _, c := range k.all[inits:] {
		<-c.over
	}
	close(k.over)
	k.stop() // the sidecars of a pod whose work is done
}

func (k *kubelet) start(c *container) bool {
	if k.serving.Err() != nil {
		return false
	}
	l, err := c.launch()
	if err != nil {
		k.note(c, "cannot start: "+err.Error())
	}
	go c.keep(l)
	return true
}

// stop ends the pod, the ordinary containers first and then the sidecars, the
// last one first. It returns when all have ended.
func (k *kubelet) stop() {
	k.cease()
	deadline := time.Now().Add(30 * time.Second)
	if s := k.pod.Spec.TerminationGracePeriodSeconds; s != nil {
		deadline = time.Now().Add(time.Duration(*s) * time.Second)
	}
	turn := make(chan struct{})
	close(turn)
	var ordinary sync.WaitGroup
	var sidecars []*container
	for _, c := range k.all {
		if c.sidecar {
			sidecars = append(sidecars, c)
		} else {
			ordinary.Go(func() { c.stop(deadline, turn) })
		}
	}
	done := make(chan struct{})
	go func(done chan struct{}) {
		ordinary.Wait()
		close(done)
	}(done)
	var all sync.WaitGroup
	for _, c := range slices.Backward(sidecars) {
		before, after := done, make(chan struct{})
		all.Go(func() {
			defer close(after)
			c.stop(deadline, before)
		})
		done = after
	}
	all.Wait()
	ordinary.Wait()
}

// kill ends what a test has left, at once.
func (k *kubelet) kill() {
	k.cease()
	for _, c := range k.all {
		if l := c.current(); l != nil {
			_ = l.cmd.Process.Kill() // it may have ended
			<-l.ended
		}
	}
}

// phase is what a kubelet calls the state of the pod.
func (k *kubelet) phase() corev1.PodPhase {
	select {
	case <-k.initialized:
	default:
		return corev1.PodPending
	}
	select {
	case <-k.over:
	default:
		return corev1.PodRunning
	}
	for _, c := range k.all[len(k.pod.Spec.InitContainers):] {
		if l := c.current(); l == nil || l.code != 0 {
			return corev1.PodFailed
		}
	}
	return corev1.PodSucceeded
}

// ready is whether the pod gets traffic: all containers are ready, those init
// containers included that go on.
func (k *kubelet) ready() bool {
	return !slices.ContainsFunc(k.all, func(c *container) bool { return (c.sidecar || !c.init()) && !c.isReady() })
}

func (k *kubelet) container(t *testing.T, name string) *container {
	t.Helper()
	for _, c := range k.all {
		if c.spec.Name == name {
			return c
		}
	}
	t.Fatalf("no container %q in the template", name)
	return nil
}

func (k *kubelet) note(c *container, what string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.events = append(k.events, event{time.Now(), c.spec.Name, what})
}

// when is the time of the first event of a container that begins so, and zero
// if there was none.
func (k *kubelet) when(name, what string) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.events {
		if e.container == name && strings.HasPrefix(e.what, what) {
			return e.at
		}
	}
	return time.Time{}
}

// story is all that happened, for a test that has failed.
func (k *kubelet) story() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var b bytes.Buffer
	for _, e := range k.events {
		fmt.Fprintf(&b, "%7.3fs  %-14s %s\n", e.at.Sub(k.events[0].at).Seconds(), e.container, e.what)
	}
	for _, c := range k.all {
		if c.image == &sidecarImage {
			fmt.Fprintf(&b, "--- what %s has printed\n%s", c.spec.Name, c.logged())
		}
	}
	return b.String()
}
