package interop

import (
	"context"
	"errors"
	"flag"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var runbookTable = flag.String("interop.runbook", "", "write what TestRunbook saw to the end of this file, docs/runbook.md")

const (
	alertsFile  = "../deploy/prometheus/alerts.yml"
	runbookFile = "../docs/runbook.md"
)

// Life of the access tokens: of those that have to end, and of the others.
const (
	shortLife = 10 * time.Second
	longLife  = time.Minute
)

// tried is a Caddy with a credential for each fault, with requests for all of
// them, under a real Prometheus.
type tried struct {
	*caddy
	*prometheus
	began time.Time // Caddy's start

	long, short *provider // servers that stop
	server      *server   // and one that stays
	page        atomic.Bool
	paged       *httptest.Server // before the one that stays: a page in its place
	api         *upstream        // that refuses tokens
	second      *upstream        // that one credential may not go to, at first
	mail        *site
	secret      string // file with that of the credential "refused"
	other       atomic.Bool

	mu       sync.Mutex
	statuses map[string]map[int]int // of the answers, by host
	rows     []triedRow
}

// triedRow is a line of the table.
type triedRow struct {
	alert, fault, advice string
	fires, ends          time.Duration
}

// triedSites is the configuration; every credential has a site of its name.
const triedSites = `{
	admin unix/%[1]s/admin.sock
	persist_config off
	auto_https off
	grace_period 2s
	storage file_system %[1]s/storage
	upstream_auth {
		credential soon {
			token_url %[2]s
			refresh_at 35%%
			client_id basic
			client_auth client_secret_basic {env.SECRET}
		}
		credential crm {
			token_url %[3]s
			client_id basic
			client_auth client_secret_basic {env.SECRET}
		}
		credential paged {
			token_url %[5]s/token
			refresh_at 10%%
			client_id basic
			client_auth client_secret_basic {env.SECRET}
		}
		credential refused {
			token_url %[4]s/token
			client_id basic
			client_auth client_secret_basic {file.%[1]s/secret}
		}
		credential mail {
			token_url %[4]s/token
			refresh_at 10%%
			grant authorization_code {
				authorization_url %[4]s/authorize
				redirect_uri http://%[6]s/callback
			}
			client_id basic
			client_auth client_secret_basic {env.SECRET}
			scopes read write offline_access
		}
		credential kept {
			token_url %[4]s/token
			refresh_at 10%%
			grant refresh_token {file.%[1]s/initial}
			client_id basic
			client_auth client_secret_basic {env.SECRET}
		}
		credential api {
			token_url %[4]s/token
			client_id basic
			client_auth client_secret_basic {env.SECRET}
		}
		credential denied {
			token_url %[4]s/token
			client_id basic
			client_auth client_secret_basic {env.SECRET}
		}
	}
}

http://127.0.0.1 {
	bind unix/%[1]s/sites.sock
	metrics /metrics
}

http://denied {
	bind unix/%[1]s/sites.sock
	reverse_proxy {header.X-Upstream} {
		header_up Host {upstream_hostport}
		transport upstream_auth denied {
			upstreams %[7]s
		}
	}
}
`

const triedSite = `
http://%[2]s {
	bind unix/%[1]s/sites.sock
	reverse_proxy %[3]s {
		header_up Host {upstream_hostport}
		transport upstream_auth %[2]s {
			wait 1s
		}
	}
}
`

// TestRunbook causes the fault of each alert, sees it fire in a Prometheus, does
// what docs/runbook.md says, and sees it end.
func TestRunbook(t *testing.T) {
	t.Parallel()
	tr := startTried(t)
	tr.inHealth(t)
	var all sync.WaitGroup
	for name, trial := range map[string]func(*testing.T){
		"soon": tr.trySoon, "crm": tr.tryNoToken, "paged": tr.tryPage, "refused": tr.tryRefused, "mail": tr.tryLogin,
		"kept": tr.tryStorage, "api": tr.tryUpstream, "denied": tr.tryDenied,
	} {
		// side by side, more of them than there are processors
		all.Go(func() { t.Run(name, trial) })
	}
	all.Wait()
	tr.tryUnwatched(t)
	tr.tell(t)
}

// trySoon: the server is gone when a token is due, and back before it ends.
func (tr *tried) trySoon(t *testing.T) {
	t.Helper()
	tr.try(t, trial{
		credential: "soon", fault: "the authorization server is stopped", advice: "it is started again, and `refresh`",
		alerts: []string{"UpstreamAuthUnreachable", "UpstreamAuthTokenExpiresSoon"},
		status: "failing", topic: "unreachable",
		breaks: func() { tr.long.stop(t, syscall.SIGKILL) },
		mends:  func() { tr.long.start(t); tr.refresh(t, "soon") },
	})
	tr.nobodyNoticed(t, "soon")
}

// tryNoToken: the server is gone for longer than a token lives.
func (tr *tried) tryNoToken(t *testing.T) {
	t.Helper()
	tr.try(t, trial{
		credential: "crm", fault: "the authorization server is stopped for longer than a token lives", advice: "it is started again, and `refresh`",
		alerts: []string{"UpstreamAuthNoToken", "UpstreamAuthRequestsFail", "UpstreamAuthRequestsTurnedAway"},
		status: "unavailable", topic: "unreachable",
		breaks: func() { tr.short.stop(t, syscall.SIGKILL) },
		mends:  func() { tr.short.start(t); tr.refresh(t, "crm") },
	})
}

func (tr *tried) tryPage(t *testing.T) {
	t.Helper()
	tr.try(t, trial{
		credential: "paged", fault: "what stands before the authorization server answers with a page", advice: "it is taken away, and `refresh`",
		alerts: []string{"UpstreamAuthWrongAnswer"},
		status: "failing", topic: "wrong-answer",
		breaks: func() { tr.page.Store(true) },
		mends:  func() { tr.page.Store(false); tr.refresh(t, "paged") },
	})
	tr.nobodyNoticed(t, "paged")
}

// tryRefused: the fault is there from the start.
func (tr *tried) tryRefused(t *testing.T) {
	t.Helper()
	tr.try(t, trial{
		credential: "refused", fault: "the secret in the file is a wrong one, from the start", advice: "the right one is written into the file",
		alerts: []string{"UpstreamAuthRefused"},
		status: "unavailable", topic: "client-refused",
		since: tr.began,
		mends: func() { tr.write(t, tr.secret, "secret-of-basic") },
	})
}

// tryLogin: the refresh token is revoked, until that has hit the newest.
func (tr *tried) tryLogin(t *testing.T) {
	t.Helper()
	var revoked string
	revoke := func() {
		poll(t, startDeadline, "the refusal", func(context.Context) error {
			if newest := tr.mail.refreshToken(t); newest != revoked {
				revoked = newest
				tr.revoke(t, newest)
			}
			if !tr.logs("mail", `"code":"invalid_grant"`) {
				return errors.New("not yet")
			}
			return nil
		})
	}
	tr.try(t, trial{
		credential: "mail", fault: "the server revokes the refresh token", advice: "`login`, while Caddy runs",
		alerts: []string{"UpstreamAuthRefreshTokenEnded"},
		status: "login required", topic: "login-required",
		breaks: revoke,
		mends:  func() { tr.mail.inBrowser(t, tr.server.browse) },
	})
}

// tryStorage: the folder of one credential is none any more.
func (tr *tried) tryStorage(t *testing.T) {
	t.Helper()
	folder := filepath.Join(tr.dir, "storage", "upstream_auth", "kept")
	tr.try(t, trial{
		credential: "kept", fault: "in the place of the storage's folder there is a file", advice: "the folder is put back",
		alerts: []string{"UpstreamAuthStorageErrors"},
		status: "storage unavailable", topic: "storage",
		breaks: func() {
			if err := os.Rename(folder, folder+".away"); err != nil {
				t.Fatal(err)
			}
			tr.write(t, folder, "")
		},
		mends: func() {
			if err := os.Remove(folder); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(folder+".away", folder); err != nil {
				t.Fatal(err)
			}
		},
	})
	tr.nobodyNoticed(t, "kept")
}

// stranger is a server that has never seen our tokens.
type stranger struct{ authority }

func (stranger) introspect(context.Context, string) (introspection, error) {
	return introspection{}, nil
}

func (tr *tried) tryUpstream(t *testing.T) {
	t.Helper()
	tr.try(t, trial{
		credential: "api", fault: "the upstream trusts another authorization server", advice: "it trusts ours again",
		alerts: []string{"UpstreamAuthTokenRefusedUpstream", "UpstreamAuthTokenRefusalsRise"},
		status: "rejected",
		breaks: func() { tr.api.trust(stranger{tr.server}) },
		mends:  func() { tr.api.trust(tr.server) },
	})
}

// trust has the upstream ask another server from now on.
func (u *upstream) trust(a authority) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.authority = a
	clear(u.known)
}

func (tr *tried) tryDenied(t *testing.T) {
	t.Helper()
	tr.try(t, trial{
		credential: "denied", fault: "requests are for an upstream that is not among `upstreams`", advice: "it is added, and `caddy reload`",
		alerts: []string{"UpstreamAuthUpstreamDenied"},
		status: "ok",
		breaks: func() { tr.other.Store(true) },
		mends: func() {
			text, err := os.ReadFile(tr.config)
			if err != nil {
				t.Fatal(err)
			}
			was := "upstreams " + tr.api.Listener.Addr().String()
			tr.write(t, tr.config, strings.Replace(string(text), was, was+" "+tr.second.Listener.Addr().String(), 1))
			tr.command(t, "reload", "--config", tr.config, "--adapter", "caddyfile")
		},
	})
}

// tryUnwatched comes last, for it stops Caddy.
func (tr *tried) tryUnwatched(t *testing.T) {
	t.Helper()
	tr.try(t, trial{
		fault: "Caddy is stopped", advice: "it is started again",
		alerts: []string{"UpstreamAuthNotWatched"},
		breaks: func() { tr.caddy.stop(t, syscall.SIGTERM) },
		mends:  func() { tr.run(t) },
	})
}

// trial is a fault, and what is done about it.
type trial struct {
	credential    string // "" for none
	fault, advice string // in words
	alerts        []string
	status, topic string    // while they fire: the state, and the section that status leads to
	since         time.Time // when the fault began, where there is nothing to break
	breaks, mends func()
}

// try causes a fault, waits for the alerts, mends it, and waits for their end.
func (tr *tried) try(t *testing.T, l trial) {
	t.Helper()
	if l.breaks != nil {
		l.since = time.Now()
		l.breaks()
	}
	alarms := make([]alarm, len(l.alerts))
	for n, alert := range l.alerts {
		alarms[n] = alarm{alert, l.credential}
	}
	fired := tr.fires(t, alarms)
	tr.looksInto(t, l)
	mended := time.Now()
	l.mends()
	ended := tr.ends(t, alarms)
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for n, alert := range l.alerts {
		row := triedRow{alert, l.fault, l.advice, max(fired[n].Sub(l.since), 0), max(ended[n].Sub(mended), 0)}
		t.Logf("%s: %s: fired after %.1fs; %s: gone after %.1fs", row.alert, row.fault, row.fires.Seconds(), row.advice, row.ends.Seconds())
		tr.rows = append(tr.rows, row)
	}
}

// looksInto has the command status tell what is wrong, as the runbook wants it.
func (tr *tried) looksInto(t *testing.T, l trial) {
	t.Helper()
	if l.status == "" {
		return
	}
	printed := tr.command(t, "upstream-auth", "status", l.credential, "--config", tr.config, "--adapter", "caddyfile")
	first, _, _ := strings.Cut(printed, "\n")
	if !strings.HasSuffix(first, "  "+l.status) {
		t.Errorf("status of %s begins with %q; want the state %q", l.credential, first, l.status)
	}
	if leads := strings.Contains(printed, "docs/runbook.md#"+l.topic+"\n"); l.topic != "" && !leads {
		t.Errorf("status of %s does not lead to #%s:\n%s", l.credential, l.topic, printed)
	}
}

// refresh does not wait for the next attempt.
func (tr *tried) refresh(t *testing.T, credential string) {
	t.Helper()
	printed := tr.command(t, "upstream-auth", "refresh", credential, "--config", tr.config, "--adapter", "caddyfile")
	if !strings.HasPrefix(printed, credential+": new token") {
		t.Errorf("refresh of %s says:\n%s", credential, printed)
	}
}

// command runs one to its end, and returns what it prints; whether all is well
// is for who asked.
func (tr *tried) command(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Env = tr.environ
	out, err := cmd.Output()
	if ended, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Logf("caddy %s: %v\n%s%s", strings.Join(args, " "), err, ended.Stderr, out)
	} else if err != nil {
		t.Fatalf("caddy %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}
