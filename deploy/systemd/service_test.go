package systemd

import (
	"regexp"
	"strings"
	"testing"
)

const (
	crm      = "caddy-upstream-auth@crm.service"
	settings = "UPSTREAM=http://127.0.0.1:9002\nTOKEN_URL=http://127.0.0.1:9001/token\nCLIENT_ID=crm\n"
)

// TestService is the life of a sidecar under a real systemd. Each part begins
// where the one before it ended.
func TestService(t *testing.T) {
	m := booted
	m.eventually(t, "systemd has started", func() bool {
		out, err := m.try(t, "systemctl", "is-active", "multi-user.target")
		return err == nil && out == "active"
	})
	m.write(t, "/etc/caddy-upstream-auth/crm/env", settings, 0o600)
	m.write(t, "/etc/caddy-upstream-auth/crm/client_secret", "first", 0o600)

	t.Run("the application waits for the first token", func(t *testing.T) {
		m.run(t, "systemctl", "start", "--no-block", "crm.service")
		m.eventually(t, "the sidecar listens and has no token", func() bool {
			return m.property(t, crm, "SubState") == "start-post"
		})
		if state := m.property(t, "crm.service", "ActiveState"); state != "inactive" {
			t.Fatalf("the application is %s before there is a token", state)
		}
		m.run(t, "systemctl", "start", "authority.service")
		m.run(t, "systemctl", "start", "crm.service")
		if state := m.property(t, crm, "ActiveState"); state != "active" {
			t.Fatalf("the application was started, and the sidecar is %s", state)
		}
		if got := m.seen(t, "start"); got != "200 OK" {
			t.Fatalf("the application's first request got %q\n%s", got, m.journal(t))
		}
		if got := m.seen(t, "secret"); got != "first" {
			t.Fatalf("the secret that was used is %q", got)
		}
	})

	t.Run("it may do what it needs, and nothing else", func(t *testing.T) { confined(t, m) })

	t.Run("a reload keeps the process", func(t *testing.T) {
		before := m.property(t, crm, "MainPID")
		m.run(t, "sh", "-c", "sed -i 's|respond /livez 200|respond /livez \"edited\" 200|' /etc/caddy-upstream-auth/Caddyfile")
		m.run(t, "systemctl", "reload", crm)
		if got := m.run(t, "curl", "-s", "http://127.0.0.1:9180/livez"); got != "edited" {
			t.Fatalf("after the reload /livez answers %q", got)
		}
		m.run(t, "sh", "-c", "echo } >>/etc/caddy-upstream-auth/Caddyfile")
		if out, err := m.try(t, "systemctl", "reload", crm); err == nil {
			t.Fatalf("a broken configuration was loaded: %s", out)
		}
		if got := m.run(t, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:8080/"); got != "200" {
			t.Fatalf("after a reload that failed, a request gets %s", got)
		}
		m.run(t, "sed", "-i", "$d", "/etc/caddy-upstream-auth/Caddyfile")
		if after := m.property(t, crm, "MainPID"); after != before {
			t.Fatalf("process %s became %s", before, after)
		}
	})

	t.Run("a restart takes the new secret, and leaves the application alone", func(t *testing.T) {
		since := m.property(t, "crm.service", "ActiveEnterTimestampMonotonic")
		m.write(t, "/etc/caddy-upstream-auth/crm/client_secret", "second", 0o600)
		m.run(t, "systemctl", "restart", crm)
		if got := m.seen(t, "secret"); got != "second" {
			t.Fatalf("the secret that was used is %q", got)
		}
		if now := m.property(t, "crm.service", "ActiveEnterTimestampMonotonic"); now != since {
			t.Fatal("the application was restarted, too")
		}
	})

	t.Run("it is started again when it was killed", func(t *testing.T) {
		m.run(t, "systemctl", "kill", "--signal=KILL", crm)
		m.eventually(t, "it runs again", func() bool {
			return m.run(t, "systemctl", "show", "--property=NRestarts,SubState", crm) == "NRestarts=1\nSubState=running"
		})
	})

	t.Run("another instance cannot be loaded, and is not tried again", func(t *testing.T) {
		m.write(t, "/etc/caddy-upstream-auth/shop/env", settings+"LISTEN_PORT=none\n", 0o600)
		m.write(t, "/etc/caddy-upstream-auth/shop/client_secret", "third", 0o600)
		const shop = "caddy-upstream-auth@shop.service"
		if out, err := m.try(t, "systemctl", "start", shop); err == nil {
			t.Fatalf("it started: %s", out)
		}
		if state, restarts := m.property(t, shop, "ActiveState"), m.property(t, shop, "NRestarts"); state != "failed" || restarts != "0" {
			t.Fatalf("it is %s, after %s restarts", state, restarts)
		}
	})

	t.Run("it outlives the application, and leaves nothing in /run", func(t *testing.T) {
		m.run(t, "systemctl", "isolate", "quiet.target") // which waits for nothing that it stops
		m.eventually(t, "the sidecar has stopped", func() bool { return m.property(t, crm, "ActiveState") == "inactive" })
		if got := m.seen(t, "stop"); got != "200 OK" {
			t.Fatalf("the application's last request got %q\n%s", got, m.journal(t))
		}
		if result := m.property(t, crm, "Result"); result != "success" {
			t.Fatalf("the sidecar ended with %s", result)
		}
		if left := m.run(t, "find", "/run/caddy-upstream-auth", "/run/credentials", "-mindepth", "1"); left != "" {
			t.Fatalf("left behind:\n%s", left)
		}
	})

	t.Run("nothing was denied that it tried", func(t *testing.T) {
		denied := regexp.MustCompile(`(?i)operation not permitted|permission denied|read-only file system|SIGSYS|address family not supported`)
		for line := range strings.Lines(m.journal(t)) {
			if denied.MatchString(line) {
				t.Error(strings.TrimSpace(line))
			}
		}
	})
}

// confined looks at the process of the service, as the kernel has it.
func confined(t *testing.T, m *machine) {
	t.Helper()
	pid := m.property(t, crm, "MainPID")
	status := m.run(t, "cat", "/proc/"+pid+"/status")
	for _, want := range []string{
		`Uid:\s+(6[1-5]\d{3})\s+`, // a dynamic user
		`CapPrm:\s+0+\n`, `CapEff:\s+0+\n`, `CapBnd:\s+0+\n`, `CapAmb:\s+0+\n`,
		`NoNewPrivs:\s+1\n`, `Seccomp:\s+2\n`,
	} {
		if !regexp.MustCompile(want).MatchString(status) {
			t.Errorf("no %s in\n%s", want, status)
		}
	}
	if limits := m.run(t, "cat", "/proc/"+pid+"/limits"); !regexp.MustCompile(`Max core file size\s+0\s+0`).MatchString(limits) {
		t.Errorf("it may leave a core:\n%s", limits)
	}
	environment := m.run(t, "cat", "/proc/"+pid+"/environ")
	if strings.Contains(environment, "first") {
		t.Error("the secret stands in the environment")
	}
	for path, want := range map[string]string{
		"/run/credentials/" + crm + "/client_secret": "400",
		"/run/caddy-upstream-auth/crm":               "700",
		"/run/caddy-upstream-auth/crm/admin.sock":    "600",
		"/var/lib/private/caddy-upstream-auth/crm":   "700",
	} {
		if got := m.run(t, "stat", "-c", "%a", path); got != want {
			t.Errorf("%s has mode %s, want %s", path, got, want)
		}
	}
	metrics := m.run(t, "curl", "-s", "http://127.0.0.1:9180/metrics")
	if !strings.Contains(metrics, "process_start_time_seconds") {
		t.Error("the metrics of the process are missing")
	}
}
