package pod

import (
	"strings"
	"testing"
	"time"
)

// TestEdit: the ConfigMap with the Caddyfile is edited while requests come.
func TestEdit(t *testing.T) {
	t.Parallel()
	s := started(t, legacyExample, time.Hour, nil)
	original := s.caddyfile("")
	edition := func(n string) string {
		return strings.Replace(original, "transport upstream_auth upstream", "header_up X-Edition "+n+"\n\t\ttransport upstream_auth upstream", 1)
	}
	edited := time.Now()
	s.caddyfile(edition("two"))
	s.until("the edited configuration is used", func() bool { return s.lastEdition() == "two" })
	took := time.Since(edited)

	served := "two"
	for _, bad := range []struct{ what, text, next string }{
		{"an edit that cannot be run", strings.Replace(edition("never"), "credential upstream", "credential another", 1), "three"},
		{"an edit that is no Caddyfile", "http://127.0.0.1:8080 {\n", "four"},
	} {
		before := s.errorsLogged()
		s.caddyfile(bad.text)
		s.until("the log tells of "+bad.what, func() bool { return s.errorsLogged() > before })
		s.more(50)
		if e := s.lastEdition(); e != served {
			t.Errorf("after %s, edition %q serves, want %q", bad.what, e, served)
		}
		served = bad.next
		s.caddyfile(edition(served))
		s.until("the mended configuration is used", func() bool { return s.lastEdition() == served })
	}

	c := s.counts()
	if c.failed() > 0 {
		t.Errorf("%d of the application's requests failed: %+v", c.failed(), c)
	}
	if n := s.server.Requests(); n != 1 {
		t.Errorf("there were %d token requests, want the first alone", n)
	}
	if s.sidecar.restarted() > 0 {
		t.Error("the sidecar was restarted")
	}
	saw(t, 7, "the ConfigMap with the Caddyfile is edited, well and badly",
		"loaded in place %s after it came to the volume, with the same token; a bad edit leaves what runs, and stands in the log; the mended one is loaded, too; %d requests, 0 failed, 1 token request, no restart", milliseconds(took), c.good)
}

// errorsLogged is how many errors stand in the sidecar's log.
func (s *scene) errorsLogged() int { return strings.Count(s.sidecar.logged(), `"level":"error"`) }

// caddyfile changes that of the ConfigMap if text is not empty, brings it to the
// volume, and returns it.
func (s *scene) caddyfile(text string) string {
	s.t.Helper()
	for name, m := range s.objects.configMaps {
		if _, found := m.Data["Caddyfile"]; !found || !strings.HasPrefix(name, "upstream-auth") {
			continue
		}
		if text == "" {
			return m.Data["Caddyfile"]
		}
		m.Data["Caddyfile"] = text
		if err := s.updateVolumes(); err != nil {
			s.t.Fatal(err)
		}
		return text
	}
	s.t.Fatal("no ConfigMap with a Caddyfile")
	return ""
}
