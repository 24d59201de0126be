package pod

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestOutage: the authorization server goes away while a token is held, stays
// away past the token's end, and comes back.
func TestOutage(t *testing.T) {
	t.Parallel()
	s := started(t, legacyExample, 16*time.Second, func(p *corev1.Pod, _ *objects) {
		// each failure makes the pause before the next token request longer, and
		// the outage need not be
		p.Spec.InitContainers[0].ReadinessProbe.PeriodSeconds = 1
	})
	s.until("the pod is ready", s.ready)
	s.serverSite.close()
	down := time.Now()
	s.until("a token request has failed", func() bool {
		_, body := s.status("/status")
		return strings.Contains(body, `"failing"`)
	})
	if code, _ := s.status("/status"); code != http.StatusOK {
		t.Errorf("the status is %d while a token is held, want 200", code)
	}
	if !s.ready() {
		t.Error("the pod is not ready while a token is held")
	}
	if n := s.counts().failed(); n > 0 {
		t.Errorf("%d requests failed while a token was held", n)
	}
	s.until("the token has ended", func() bool { return s.counts().failed() > 0 })
	if code, _ := s.status("/status"); code != http.StatusServiceUnavailable {
		t.Errorf("the status is %d without a token, want 503", code)
	}
	s.until("the pod is not ready", func() bool { return !s.ready() })
	s.serverSite.up(t)
	up := time.Now()
	healed := s.good()
	s.until("good answers", func() bool { return s.good() > healed+50 })
	s.until("the pod is ready", s.ready)

	// good ones, then 503, then good ones: nothing else, and never in turns
	all := s.application.answers()
	first := slices.IndexFunc(all, func(a answer) bool { return !a.ok() })
	length := slices.IndexFunc(all[first:], answer.ok)
	c := count(all)
	if count(all[first+length:]).failed() > 0 || c.lost+c.other > 0 {
		t.Errorf("not good ones, then 503, then good ones: %+v", c)
	}
	if expired := s.api.Expired() + s.api.Unknown() + s.api.Missing(); expired > 0 {
		t.Errorf("%d requests came to the API without a good token", expired)
	}
	if s.sidecar.restarted()+s.application.restarted() > 0 {
		t.Error("a container was restarted")
	}
	saw(t, 4, "the authorization server is away for longer than the token (16s) lives",
		"0 of %d failed while the token was valid, which was %s of the outage, and the pod stayed ready; then %d times 503, and the pod was not ready; good again %s after the server was back, by itself; nothing restarted, nothing came to the API without a good token",
		first, milliseconds(all[first].At.Sub(down)), length, milliseconds(all[first+length].At.Sub(up)))
}

// TestRotate: the client's secret is rotated on the volume, first in the good
// order, then in the bad one.
func TestRotate(t *testing.T) {
	t.Parallel()
	s := started(t, legacyExample, 16*time.Second, nil)
	before := s.secret()

	// the server takes both, the new one comes to the volume, the old one ends
	s.take(before, "second-"+before)
	s.rotate(s.secret())
	s.take(s.secret())
	s.until("the second secret is used", func() bool { return slices.Contains(s.sentSecrets(), s.secret()) })
	if refused := s.server.Requests() - s.server.Issued(); refused > 0 {
		t.Errorf("%d token requests were refused", refused)
	}
	second := s.server.Issued()

	// the old one ends, and only then the new one comes to the volume
	s.take("third-" + before)
	s.until("the second secret is refused", func() bool { return s.server.Requests() > s.server.Issued() })
	refused := time.Now()
	s.rotate(s.secret())
	s.until("the third secret is used", func() bool { return s.server.Issued() > second })
	healed := time.Since(refused)
	s.more(50)

	sent := s.sentSecrets()
	if last := slices.Index(sent, "second-"+before); slices.Contains(sent[last:], before) {
		t.Error("the first secret was sent after the second")
	}
	c := s.counts()
	if c.failed() > 0 {
		t.Errorf("%d of the application's requests failed: %+v", c.failed(), c)
	}
	if s.sidecar.restarted() > 0 {
		t.Error("the sidecar was restarted")
	}
	s.clean("the sidecar's log", s.sidecar.logged())
	saw(t, 5, "the client's secret is rotated on the volume, the old one refused from then on; and once more with the old one refused before",
		"the next token request has the new one, none is refused, no restart; the second time a token %s after the new secret was there, while the old token served; %d requests, 0 failed", milliseconds(healed), c.good)
}

// rotate changes the Secret, and brings it to the volume.
func (s *scene) rotate(secret string) {
	s.t.Helper()
	s.objects.secrets["upstream-auth"] = &corev1.Secret{Data: map[string][]byte{"client_secret": []byte(secret)}}
	if err := s.updateVolumes(); err != nil {
		s.t.Fatal(err)
	}
}

// TestServiceAccount: there is no secret, and the token of the service account
// is replaced while it is in use.
func TestServiceAccount(t *testing.T) {
	t.Parallel()
	s := started(t, tokenExample, 4*time.Second, nil)
	first := s.serviceTokens()[0]
	if err := s.updateVolumes(); err != nil {
		t.Fatal(err)
	}
	second := s.serviceTokens()[1]
	used := func() string {
		log := s.server.Log()
		return log[len(log)-1].Form.Get("client_assertion")
	}
	s.until("the second token is used", func() bool { return used() == second })
	s.more(50)
	c := s.counts()
	if c.failed() > 0 || s.server.Requests() != s.server.Issued() {
		t.Errorf("%d of the application's requests failed, and of %d token requests %d brought a token", c.failed(), s.server.Requests(), s.server.Issued())
	}
	if first == second || len(s.sentSecrets()) > 0 {
		t.Error("there is but one token, or there is a secret, too")
	}
	s.applicationHasNone()
	s.clean("the sidecar's log", s.sidecar.logged())
	saw(t, 6, "no secret: the token of the service account is the client's assertion (`examples/jwt-file`); the kubelet replaces it",
		"the next token request has the new one; %d requests, 0 failed", c.good)
}
