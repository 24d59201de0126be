package pod

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestStart: the application is held back while the authorization server is
// down, and starts with the first token.
func TestStart(t *testing.T) {
	t.Parallel()
	s := play(t, legacyExample, time.Hour, nil)
	s.until("the sidecar lives", func() bool {
		code, _ := s.status("/livez")
		return code == 200
	})
	// several tries of the startup probe
	s.until("the sidecar has asked", func() bool { return time.Since(s.when("upstream-auth", "starts")) > 3*time.Second })
	if code, body := s.status("/status"); code != 503 {
		t.Errorf("the status is %d while there is no token, want 503: %s", code, body)
	}
	if at := s.when("migrate", "starts"); !at.IsZero() {
		t.Error("an init container has started without a token")
	}
	if at := s.when("legacy", "starts"); !at.IsZero() {
		t.Error("the application has started without a token")
	}
	up := s.serverSite.up(t)
	s.more(50)
	if n := s.counts().failed(); n > 0 {
		t.Errorf("%d of the application's requests failed", n)
	}
	if init := count(s.container(t, "migrate").answers()); init.good == 0 || init.failed() > 0 {
		t.Errorf("the init container that comes behind the sidecar had %+v", init)
	}
	if n := s.sidecar.restarted(); n > 0 {
		t.Errorf("the sidecar was restarted %d times", n)
	}
	s.until("the pod is ready", s.ready)
	first := s.application.answers()[0]
	saw(t, 1, "the authorization server is down when the pod starts, and comes up",
		"no init container and no application until then, `/livez` 200, `/status` 503, no restart; the sidecar started %s after the server was up, the application had its first good answer after %s, and no other kind",
		milliseconds(s.when("upstream-auth", "has started").Sub(up)), milliseconds(first.At.Sub(up)))
}

// TestStartOlder: likewise without native sidecars, by the hook that comes
// after the sidecar's start.
func TestStartOlder(t *testing.T) {
	t.Parallel()
	s := play(t, olderExample, time.Hour, func(_ *corev1.Pod, o *objects) {
		for name, m := range o.configMaps {
			if strings.HasPrefix(name, "upstream-auth") && m.Data["SHUTDOWN_DELAY"] != "" {
				m.Data["SHUTDOWN_DELAY"] = "6s"
			}
		}
	})
	s.until("the sidecar lives", func() bool {
		code, _ := s.status("/livez")
		return code == 200
	})
	s.until("the hook has waited", func() bool { return time.Since(s.when("upstream-auth", "starts")) > 3*time.Second })
	if at := s.when("legacy", "starts"); !at.IsZero() {
		t.Error("the application has started without a token")
	}
	up := s.serverSite.up(t)
	s.more(50)
	first := s.application.answers()[0]
	saw(t, 2, "likewise before Kubernetes 1.29, with the hook in place of the probe",
		"the application is held back, too; first good answer %s after the server was up", milliseconds(first.At.Sub(up)))

	// the stop: both are told at the same moment
	told := time.Now()
	s.stop()
	took := time.Since(told)
	all := s.application.answers()
	if c := count(all); c.failed() > 0 || c.drained < 20 {
		t.Errorf("%d requests were made while draining, %d failed in all: %+v", c.drained, c.failed(), c)
	}
	if !s.when("legacy", "exits").Before(s.when("upstream-auth", "exits")) {
		t.Error("the sidecar ended before the application")
	}
	for _, c := range s.all {
		if l := c.current(); l.code != 0 {
			t.Errorf("%s ended with %d", c.spec.Name, l.code)
		}
	}
	saw(t, 11, "stop before Kubernetes 1.29: both are told at once, `SHUTDOWN_DELAY=6s`",
		"%d requests while the application drained for 2s, 0 failed; the sidecar ended %s after it; exit codes 0, the stop took %s",
		count(all).drained, milliseconds(s.when("upstream-auth", "exits").Sub(s.when("legacy", "exits"))), milliseconds(took))
}
