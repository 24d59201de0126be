package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// adminFlags are those of a command that asks a running process.
func adminFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.String("address", "", "Where the process's admin API listens, as in the option admin (default: as the configuration says)")
	f.StringP("config", "c", "", "The configuration file that the process runs with (default: the Caddyfile of this folder)")
	f.StringP("adapter", "a", "", "The adapter of the configuration, where it is not JSON")
	f.Bool("json", false, "Print what the admin API answers")
}

// process is a running Caddy, seen through its admin API.
type process struct {
	address string // for a person
	base    string // scheme and host
	socket  bool
	client  *http.Client
}

// findProcess is the process that the flags name: as for caddy reload, by its
// address, by its configuration, by CADDY_ADMIN, or at Caddy's default address.
func findProcess(fl caddycmd.Flags) (*process, error) {
	if address := fl.String("address"); address != "" {
		p, err := newProcess(address)
		if err != nil {
			return nil, fmt.Errorf("--address: %w", err)
		}
		return p, nil
	}
	raw, file, _, err := caddycmd.LoadConfig(fl.String("config"), fl.String("adapter"))
	if err != nil {
		return nil, fmt.Errorf("looking for the admin API's address in the configuration: %w; --address names it without one", err)
	}
	var config struct {
		Admin struct {
			Listen   string `json:"listen"`
			Disabled bool   `json:"disabled"`
		} `json:"admin"`
	}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &config); err != nil {
			return nil, fmt.Errorf("looking for the admin API's address in %s: %w", file, err)
		}
	}
	address := config.Admin.Listen
	switch {
	case config.Admin.Disabled:
		return nil, fmt.Errorf("%s turns the admin API off, and without it a process cannot be asked: write admin unix//path/to/socket|0600 there and restart Caddy, or look at the page of upstream_auth_status", file)
	case address == "":
		address = caddy.DefaultAdminListen
	}
	p, err := newProcess(address)
	if err != nil && file != "" {
		return nil, fmt.Errorf("the admin API's address in %s: %w", file, err)
	}
	return p, err
}

// newProcess reads an address in Caddy's form, the mode of a socket and all.
func newProcess(address string) (*process, error) {
	address, err := caddy.NewReplacer().ReplaceOrErr(address, true, true)
	if err != nil {
		return nil, err
	}
	at, err := caddy.ParseNetworkAddress(address)
	switch {
	case err != nil:
		return nil, fmt.Errorf("'%s': %w", address, err)
	case at.IsFdNetwork():
		return nil, fmt.Errorf("'%s' is a socket that the process was given, and has no address of its own: name with --address what the socket listens on", address)
	case at.IsUnixNetwork() && at.Host == "", !at.IsUnixNetwork() && (at.PortRangeSize() != 1 || at.StartPort == 0):
		return nil, fmt.Errorf("'%s': expected an address such as localhost:2019 or unix//path/to/socket", address)
	}
	p := &process{address: at.JoinHostPort(0), base: "http://" + at.JoinHostPort(0)}
	network := at.Network
	if at.IsUnixNetwork() {
		// the mode, as in unix//path|0600, is for the one who listens
		p.address, _, _ = strings.Cut(at.Host, "|")
		p.base, p.socket, network = "http://127.0.0.1", true, "unix"
	}
	p.client = &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, p.address)
			},
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return p, nil
}

// reply is what the admin API answers.
type reply struct {
	status int
	body   []byte
	at     time.Time // the process's clock
}

// errorText is the API's word for what is wrong, "" where it is no error of the
// API.
func (r *reply) errorText() string {
	var e struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(r.body, &e) != nil {
		return ""
	}
	return e.Error
}

// ask makes a request. Its error says in plain words why there is no answer of
// the API; what the API itself refuses is a reply.
func (p *process) ask(ctx context.Context, most time.Duration, method, path string) (*reply, error) {
	limited, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	r, err := p.send(limited, method, path)
	switch {
	case ctx.Err() != nil:
		return nil, errors.New("interrupted")
	case err != nil:
		return nil, p.unreached(err, most)
	case r.status == http.StatusForbidden:
		return nil, fmt.Errorf("the admin API at %s does not let this command in (%s): --address has to be one that the option admin of its configuration lists among its origins", p.address, onlyPrintable(r.errorText()))
	case r.status == http.StatusOK && json.Valid(r.body), r.errorText() != "":
		return r, nil
	case r.status == http.StatusNotFound:
		return nil, fmt.Errorf("the Caddy at %s does not have this plugin: name another with --address, or compare with what its binary prints for: caddy list-modules", p.address)
	}
	return nil, fmt.Errorf("what answers at %s is not Caddy's admin API (HTTP %d): name its address with --address", p.address, r.status)
}

func (p *process) send(ctx context.Context, method, path string) (*reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, p.base+path, nil)
	if err != nil {
		return nil, err
	}
	if !p.socket { // for which Caddy knows no origin of its own
		req.Header.Set("Origin", p.base)
	}
	res, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	r := &reply{status: res.StatusCode, at: time.Now()}
	if at, err := http.ParseTime(res.Header.Get("Date")); err == nil && at.Sub(r.at).Abs() > 2*time.Second {
		r.at = at // another machine; to the second alone
	}
	r.body, err = io.ReadAll(res.Body)
	return r, err
}

// unreached says why nobody answers.
func (p *process) unreached(err error, most time.Duration) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the process at %s does not answer within %s: it hangs, or the machine is overloaded", p.address, most)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the admin API at %s is another user's: run this command as the user that Caddy runs as", p.address)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("nothing listens at %s: Caddy does not run, or its admin API is elsewhere or off; --address or --config tells where it is%s", p.address, sidecars())
	}
	return fmt.Errorf("asking the admin API at %s: %w", p.address, err)
}

// sidecars names the admin APIs of those that the command proxy has started.
func sidecars() string {
	found, err := filepath.Glob(filepath.Join(filepath.Dir(adminPath()), "caddy-upstream-auth-*.sock"))
	if err != nil || len(found) == 0 {
		return ""
	}
	for i, path := range found {
		found[i] = "--address unix/" + path
	}
	return "; for what caddy upstream-auth proxy runs: " + strings.Join(found, " or ")
}
