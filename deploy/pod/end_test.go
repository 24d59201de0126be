package pod

import (
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestStop: the application drains with the proxy still there, which ends after
// it.
func TestStop(t *testing.T) {
	t.Parallel()
	s := started(t, legacyExample, time.Hour, nil)
	told := time.Now()
	s.stop()
	took := time.Since(told)
	all := s.application.answers()
	c := count(all)
	if c.failed() > 0 || c.drained < 20 {
		t.Errorf("%d requests were made while draining, %d failed in all: %+v", c.drained, c.failed(), c)
	}
	if s.when("upstream-auth", "SIGTERM").Before(s.when("legacy", "exits")) {
		t.Error("the sidecar was told to stop before the application had ended")
	}
	s.endedWell()
	if n := s.server.Requests(); n != 1 {
		t.Errorf("there were %d token requests, want the first alone", n)
	}
	saw(t, 10, "stop",
		"the application is told first: %d requests while it drained for 2s, 0 failed; the sidecar was told then, and ended within %s; exit codes 0, the stop took %s of 30s",
		c.drained, milliseconds(s.when("upstream-auth", "exits").Sub(s.when("upstream-auth", "SIGTERM"))), milliseconds(took))
}

// endedWell is that no container had to be killed, and none complains.
func (s *scene) endedWell() {
	s.t.Helper()
	for _, c := range s.all {
		if at := s.when(c.spec.Name, "SIGKILL"); !at.IsZero() {
			s.t.Errorf("%s had to be killed", c.spec.Name)
		}
		if l := c.current(); l.code != 0 {
			s.t.Errorf("%s ended with %d", c.spec.Name, l.code)
		}
	}
}

// TestJob: a Job ends with its application.
func TestJob(t *testing.T) {
	t.Parallel()
	s := play(t, jobExample, time.Hour, nil)
	s.serverSite.up(t)
	s.until("the pod has ended", func() bool { return !s.when("upstream-auth", "exits").IsZero() })
	if p := s.phase(); p != corev1.PodSucceeded {
		t.Errorf("the pod is %s, want Succeeded", p)
	}
	s.endedWell()
	c := s.counts()
	if c.good != 100 || c.failed() > 0 || c.drained > 0 {
		t.Errorf("the application had %+v, want 100 good answers", c)
	}
	saw(t, 12, "a Job", "the application ends after %d good answers, the sidecar is stopped %s later: `Succeeded`",
		c.good, milliseconds(s.when("upstream-auth", "exits").Sub(s.when("import", "exits"))))
}

// TestCrash: the sidecar is killed, as by the kernel for want of memory.
func TestCrash(t *testing.T) {
	t.Parallel()
	s := started(t, legacyExample, time.Hour, nil)
	killed := time.Now()
	s.sidecar.signal(s.sidecar.current(), syscall.SIGKILL)
	s.until("requests are lost", func() bool { return s.counts().lost > 0 })
	s.more(50)
	all := s.application.answers()
	c := count(all)
	back := since(all, killed)
	for len(back) > 0 && count(back).failed() > 0 {
		back = back[1:]
	}
	if c.unavailable+c.other > 0 {
		t.Errorf("there are other answers than good ones and none: %+v", c)
	}
	if s.sidecar.restarted() != 1 || s.application.restarted() != 0 {
		t.Errorf("the sidecar was restarted %d times and the application %d, want 1 and 0", s.sidecar.restarted(), s.application.restarted())
	}
	saw(t, 9, "the sidecar is killed (SIGKILL)",
		"the kubelet starts it again, and the application goes on running: %d of its requests found nobody, good again after %s, with a new token", c.lost, milliseconds(back[0].At.Sub(killed)))
}
