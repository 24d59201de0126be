package caddymodule

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

// edge is deploy/edge/Caddyfile at work, in processes on one storage.
type edge struct {
	*application
	env    []string
	signIn *authserver.Listener
}

// instance is one of them.
type instance struct {
	*program
	https, status, socket string
}

// edgeAPI demands a token of auth, and tells who sent it and what it saw.
func edgeAPI(t *testing.T, auth *authserver.Server, name string, healthy *atomic.Bool) string {
	t.Helper()
	return listen(t, freeport.Addr(t), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !carriesToken(auth, r.Header.Get("Authorization")):
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/health" && !healthy.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			w.Header().Set("Set-Cookie", "session=of-the-api")
			fmt.Fprintf(w, "%s: %s for %q, cookie %q", name, r.URL.RequestURI(), r.Header.Get("X-User"), r.Header.Get("Cookie"))
		}
	})).URL()
}

// newEdge has all around Caddy ready. Nothing of the Caddyfile is changed but
// the CA, which is Caddy's own, the ports of its sites, and its patience with
// upstreams.
func newEdge(t *testing.T) *edge {
	t.Helper()
	a := &application{auth: map[string]*authserver.Server{}}
	a.parts = assemble(t, authserver.New(authserver.Config{ClientID: appClient, ClientSecret: oddSecret}))
	a.dir = t.TempDir()
	text, err := os.ReadFile("../deploy/edge/Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	a.text = strings.NewReplacer("health_interval 10s", "health_interval 50ms", "lb_try_duration 2s", "lb_try_duration 100ms").Replace(string(text))
	a.write("secrets/store-key", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n")
	signIn := listen(t, freeport.Addr(t), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if cookie, err := r.Cookie("session"); r.URL.Path != "/verify" || err != nil || cookie.Value != "ann" {
			http.Error(w, "sign in", http.StatusUnauthorized)
			return
		}
		w.Header().Set("X-User", "ann")
	}))
	e := &edge{application: a, env: []string{"SECRETS=" + a.dir + "/secrets", "STORAGE=" + a.storage, "SIGN_IN=" + signIn.Addr()}, signIn: signIn}
	for _, name := range []string{"crm", "billing", "orders"} {
		auth := authserver.New(authserver.Config{ClientID: name + "-app", ClientSecret: oddSecret, Issue: func(n int) string { return fmt.Sprintf("tell-nobody-%s-%d", name, n) }})
		a.auth[name] = auth
		a.write("secrets/"+name, oddSecret)
		e.env = append(e.env, strings.ToUpper(name)+"_CLIENT_ID="+name+"-app",
			strings.ToUpper(name)+"_TOKEN_URL="+listen(t, freeport.Addr(t), auth).URL()+authserver.TokenPath)
	}
	return e
}

// begin starts an instance.
func (e *edge) begin() *instance {
	e.t.Helper()
	_, https, _ := net.SplitHostPort(freeport.Addr(e.t))
	_, status, _ := net.SplitHostPort(freeport.Addr(e.t))
	_, plain, _ := net.SplitHostPort(freeport.Addr(e.t))
	i := &instance{https: "127.0.0.1:" + https, status: "127.0.0.1:" + status, socket: filepath.Join(e.dir, https)}
	file := e.write("Caddyfile-"+https, strings.Replace(e.text, "persist_config off",
		"persist_config off\ndefault_bind 127.0.0.1\nlocal_certs\nskip_install_trust\nhttp_port "+plain+"\nhttps_port "+https, 1))
	i.program = e.prepare("run", "--config", file, "--adapter", "caddyfile")
	i.cmd.Env = append(append(i.cmd.Env, e.env...), "STATUS_PORT="+status, "ADMIN_SOCKET="+i.socket)
	i.start()
	return i
}

// ready waits until an instance says that it is.
func (e *edge) ready(i *instance) {
	e.t.Helper()
	eventually(e.t, "an instance that is ready", func() bool {
		res, err := e.client.Get("http://" + i.status + "/")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		return err == nil && res.StatusCode == http.StatusOK && strings.Count(string(body), `"state": "ok"`) == len(e.auth)
	})
}

// end has an instance stop, and checks that it stops well.
func (i *instance) end() {
	i.t.Helper()
	if err := i.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		i.t.Fatal(err)
	}
	if err := i.cmd.Wait(); err != nil {
		i.t.Errorf("%v\n%s", err, i.all())
	}
}

// stored are the files of the storage that hold a text.
func (e *edge) stored(text string) (files []string) {
	e.t.Helper()
	err := filepath.WalkDir(e.storage, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if strings.Contains(string(content), text) {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return files
}

func TestApplicationsEdge(t *testing.T) {
	e := newEdge(t)
	var healthy, ailing atomic.Bool
	healthy.Store(true)
	ailing.Store(false)
	e.env = append(e.env,
		"CRM_UPSTREAMS="+edgeAPI(t, e.auth["crm"], "crm-1", &healthy)+" "+edgeAPI(t, e.auth["crm"], "crm-2", &ailing),
		"BILLING_UPSTREAM="+edgeAPI(t, e.auth["billing"], "billing", &healthy),
		"ORDERS_UPSTREAM="+edgeAPI(t, e.auth["orders"], "orders", &healthy))
	first := e.begin()
	authority := filepath.Join(e.storage, "pki/authorities/local")
	eventually(t, "the CA", func() bool { // Caddy takes no lock while it makes one
		_, err := os.Stat(filepath.Join(authority, "intermediate.key"))
		return err == nil
	})
	second := e.begin()
	e.ready(first)
	e.ready(second)
	for name, auth := range e.auth {
		if n := auth.Requests(); n != 1 {
			t.Errorf("%s: %d token requests for two instances, want 1", name, n)
		}
	}
	if files := e.stored("tell-nobody"); len(files) > 0 {
		t.Errorf("tokens lie in the clear in %v", files)
	}

	content, err := os.ReadFile(filepath.Join(authority, "root.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(content)
	for _, i := range []*instance{first, second} {
		client := e.by("tcp", i.https, &tls.Config{RootCAs: roots})
		session := []string{"Cookie", "session=ann", "X-User", "admin", "Authorization", "Basic b2xkOm9sZA=="}
		in := 0
		eventually(t, "the health check that takes crm-2 out of service", func() bool {
			if in++; !strings.HasPrefix(e.fetch(client, "https://crm.example.net/ask", session...).body, "crm-1") {
				in = 0
			}
			return in == 10
		})
		for address, want := range map[string]string{
			"https://crm.example.net/customers?of=me":     `crm-1: /customers?of=me for "ann", cookie ""`,
			"https://apis.example.net/billing/invoices":   `billing: /invoices for "ann", cookie ""`,
			"https://apis.example.net/orders/open?page=2": `orders: /open?page=2 for "ann", cookie ""`,
		} {
			got := e.fetch(client, address, session...)
			if e.wantText(got, http.StatusOK, want); got.header.Get("Set-Cookie") != "" {
				t.Error("the API's cookie came")
			}
			e.wantText(e.fetch(client, address, "X-User", "admin"), http.StatusUnauthorized, "sign in")
		}
		for range 4 { // crm-2 is not asked
			e.wantText(e.fetch(client, "https://crm.example.net/", session...), http.StatusOK, "crm-1")
		}
		e.wantText(e.fetch(client, "https://apis.example.net/elsewhere", session...), http.StatusNotFound, "")
		e.wantText(e.fetch(client, "https://apis.example.net/elsewhere"), http.StatusUnauthorized, "sign in")

		status := "http://" + i.status
		e.wantText(e.fetch(e.client, status+"/livez"), http.StatusOK, "")
		e.wantText(e.fetch(e.client, status+"/metrics"), http.StatusOK, `caddy_upstream_auth_requests_total{credential="billing",outcome="injected"} 1`)
		e.wantText(e.fetch(e.client, status+"/", "Host", "elsewhere.example.com"), http.StatusMisdirectedRequest, "")
		if info, err := os.Stat(i.socket); err != nil || info.Mode() != os.ModeSocket|0o600 {
			t.Errorf("the admin socket has mode %v %v", info, err)
		}
		if i == second { // it goes wrong
			healthy.Store(false)
			eventually(t, "no host in service", func() bool {
				return e.fetch(client, "https://crm.example.net/ask", session...).status == http.StatusServiceUnavailable
			})
			_ = e.signIn.Close()
			got := e.fetch(client, "https://apis.example.net/ask", session...)
			if e.wantText(got, http.StatusBadGateway, ""); got.header.Get("Proxy-Status") != "" {
				t.Error("nobody is let in, and the reason given is a token")
			}
		}
		i.end()
		i.wantAccessLog()
	}
	for name, auth := range e.auth {
		if n := auth.Requests(); n != 1 {
			t.Errorf("%s: %d token requests in the end, want 1", name, n)
		}
	}
}

// wantAccessLog looks at the lines for requests: who, by what, with what came
// of it.
func (i *instance) wantAccessLog() {
	i.t.Helper()
	counts := map[string]int{}
	for line := range strings.Lines(i.all()) {
		var entry struct {
			Logger     string `json:"logger"`
			Status     int    `json:"status"`
			User       string `json:"user"`
			Credential string `json:"upstream_auth_credential"`
			Outcome    string `json:"upstream_auth_outcome"`
			Request    struct {
				URI string `json:"uri"`
			} `json:"request"`
		}
		if json.Unmarshal([]byte(line), &entry) == nil && strings.HasPrefix(entry.Logger, "http.log.access") && entry.Request.URI != "/ask" {
			counts[fmt.Sprintf("%d %s %s %s", entry.Status, entry.User, entry.Credential, entry.Outcome)]++
		}
	}
	for line, want := range map[string]int{"200 ann crm injected": 5, "200 ann billing injected": 1, "200 ann orders injected": 1, "404 ann  ": 1, "401   ": 4} {
		if counts[line] != want {
			i.t.Errorf("%d lines of the access log say %q, want %d: %v", counts[line], line, want, counts)
		}
	}
	for _, secret := range []string{"tell-nobody", oddSecret, "session=ann"} {
		if strings.Contains(i.all(), secret) {
			i.t.Errorf("the log holds %s", secret)
		}
	}
}
