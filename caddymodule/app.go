// Package caddymodule is all that Caddy sees of this plugin, and only glue:
// the app that holds the credentials, the handler and the transport that put
// tokens on requests, their Caddyfile forms, the metrics and the commands.
package caddymodule

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/clientauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/grants"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/store"
)

func init() {
	caddy.RegisterModule(new(App))
}

const appName = "upstream_auth"

// App holds the credentials with which requests to upstreams are authorized:
// each is a way to obtain an access token from an OAuth 2.0 authorization
// server. A token is obtained when Caddy starts and renewed in the background;
// the handler and the transport of the same name put it on requests.
//
// A reload keeps the token of every credential whose configuration is
// unchanged. A start neither waits for an authorization server nor fails
// because it is down.
type App struct {
	// Credentials by name: 1 to 64 letters, digits, "_", "." and "-". Default:
	// none but those written in place.
	Credentials map[string]*Credential `json:"credentials,omitempty"`

	// EncryptionKeys seal what is kept in Caddy's storage: refresh tokens, and
	// access tokens that are shared. Each is 32 bytes in base64, and may be a
	// placeholder. The first seals, all open, so that a key is replaced by
	// writing a new one before it. Default: none; refresh tokens are then kept
	// plain in Caddy's files, and nowhere else.
	EncryptionKeys []string `json:"encryption_keys,omitempty"`

	logger    *zap.Logger
	emitter   *emitter
	storage   certmagic.Storage
	store     *store.Store
	toldPlain bool

	mu    sync.Mutex
	keys  map[poolKey]*attachment // of this config, named and written in place
	named map[string]*attachment  // those of them that routes find by name
	files map[string]string       // credentials by the path of their token file
}

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  appName,
		New: func() caddy.Module { return new(App) },
	}
}

// Provision checks the credentials. It does not touch the network: caddy
// validate runs it.
func (a *App) Provision(ctx caddy.Context) error {
	a.logger = ctx.Logger()
	a.keys, a.named, a.files = make(map[poolKey]*attachment), make(map[string]*attachment), make(map[string]string)
	if err := registerMetrics(ctx.GetMetricsRegistry()); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	if err := a.openStore(ctx); err != nil {
		return err
	}
	var err error
	if a.emitter, err = newEmitter(ctx, a.takeOver); err != nil {
		return err
	}
	for _, name := range sorted(a.Credentials) {
		if err := checkName(name); err != nil {
			return err
		}
		if a.Credentials[name] == nil {
			return fmt.Errorf("credential '%s' is null", name)
		}
		if _, err := a.add(ctx, name, a.Credentials[name]); err != nil {
			return err
		}
	}
	if at := adminAddress(ctx); isShared(at) {
		a.logger.Warn("whoever reaches the admin API can read every secret of this config, and each program of this machine can: write admin unix//path/to/socket|0600, or admin off", zap.String("admin", at))
	}
	return nil
}

// add provisions a credential and takes it from the pool. One written in place
// has no name yet, and is named by its hash.
func (a *App) add(ctx caddy.Context, name string, c *Credential) (*entry, error) {
	hash, err := fingerprint(c)
	if err != nil {
		return nil, fmt.Errorf("credential '%s': %w", name, err)
	}
	makes, err := newMakings(c)
	if err != nil {
		return nil, fmt.Errorf("credential '%s': %w", name, err)
	}
	inline := name == ""
	if inline {
		name = inlinePrefix + hash[:8]
	}
	if err := c.load(ctx); err != nil {
		return nil, fmt.Errorf("credential '%s': %w", name, err)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("credential '%s': %w", name, err)
	}
	if inline {
		err = c.checkInline()
	}
	if err == nil && (c.refreshing() || c.Share != nil) {
		err = a.checkStorage(c)
	}
	if err != nil {
		return nil, fmt.Errorf("credential '%s': %w", name, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	key := poolKey{name, hash}
	if at, ok := a.keys[key]; ok {
		return at.entry, nil // written in place more than once
	}
	file, err := a.claim(name, c)
	if err != nil {
		return nil, fmt.Errorf("credential '%s': %w", name, err)
	}
	a.warn(name, c)
	e, err := acquire(key, c, a.storage)
	if err != nil {
		return nil, err
	}
	at := &attachment{entry: e, requester: newRequester(c), logger: a.logger, emitter: a.emitter}
	at.routed.Store(inline)
	if at.file = file; file != nil {
		file.entry = e
	}
	if e.chain != nil {
		at.requester.keeper = &keeper{name: name, chain: e.chain, store: a.store}
	}
	if e.share != nil {
		at.requester.sharer = &sharer{name: name, share: e.share, store: a.store, makes: makes}
	}
	a.keys[key] = at
	if !inline {
		a.named[name] = at
	}
	return e, nil
}

// claim is what the config wants to stand in a credential's token file, nil
// where it has none. Called with the lock.
func (a *App) claim(name string, c *Credential) (*fileClaim, error) {
	if c.TokenFile == nil {
		return nil, nil
	}
	place, err := c.TokenFile.place()
	if err != nil {
		return nil, err
	}
	if other, ok := a.files[place.path]; ok {
		return nil, optionErrorf("token_file", "%s is that of the credential '%s', too: each needs a file of its own", place.path, other)
	}
	a.files[place.path] = name
	return &fileClaim{place: place, logger: a.logger}, nil
}

// takeOver has the token files be as this config wants them: it has started, and
// stays.
func (a *App) takeOver() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, at := range a.keys {
		if at.file != nil && at.file.file != nil {
			at.file.takeOver()
		}
	}
}

// warn tells of what works and had better be written otherwise.
func (a *App) warn(name string, c *Credential) {
	log := a.logger.With(zap.String("credential", name))
	if s, ok := c.grant.(grants.SecretHolder); ok && slices.ContainsFunc(s.ConfiguredSecrets(), func(s string) bool { return s != "" && !hasPlaceholder(s) }) {
		log.Warn("a token stands in the config, where the admin API, the autosave file and the debug log show it: write {file./path/to/token} or {env.NAME} instead")
	}
	if s, ok := c.method.(clientauth.SecretHolder); ok && !hasPlaceholder(s.ConfiguredSecret()) {
		log.Warn("the client secret stands in the config, where the admin API, the autosave file and the debug log show it: write {file./path/to/secret} or {env.NAME} instead")
	}
	if c.InsecureTokenURL && (strings.HasPrefix(c.TokenURL, "http:") || strings.HasPrefix(c.Issuer, "http:")) {
		log.Warn("insecure_token_url: the client secret and the tokens travel in the clear")
	}
	if c.TokenFile != nil {
		if mode, err := c.TokenFile.mode(); err == nil && mode&0o004 != 0 {
			log.Warn("token_file mode: every user of this machine can read the token, and use it until it ends", zap.String("mode", c.TokenFile.Mode))
		}
	}
	if c.TLS != nil && c.TLS.InsecureSkipVerify {
		log.Warn("tls insecure_skip_verify: whoever stands between can take the client secret and the tokens")
	}
}

// credential finds one that is named in the config.
func (a *App) credential(name string) (*attachment, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if at, ok := a.named[name]; ok {
		return at, nil
	}
	if _, ok := a.Credentials[name]; ok {
		return nil, fmt.Errorf("credential '%s' could not be loaded", name)
	}
	return nil, unknownCredential(name, sorted(a.Credentials))
}

func unknownCredential(name string, known []string) error {
	if len(known) == 0 {
		return fmt.Errorf("credential '%s' is not defined; none is: define it in the global options, upstream_auth { credential %s { … } }", name, name)
	}
	return fmt.Errorf("credential '%s' is not defined; defined are: %s", name, strings.Join(known, ", "))
}

// Start has the credentials make their first token requests, in the background.
func (a *App) Start() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, at := range a.keys {
		at.entry.attach(at)
	}
	return nil
}

// Stop leaves the access tokens, for requests that are being drained still need
// them. When the process ends no refresh token is spent any more. What is not in
// use ends with Cleanup, which waits for what is on its way.
func (a *App) Stop() error {
	if !caddy.Exiting() {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, at := range a.keys {
		if at.entry.chain != nil {
			at.entry.chain.Drain()
		}
	}
	return nil
}

// Cleanup gives the credentials back. It may run after a failed Provision.
func (a *App) Cleanup() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	for key, at := range a.keys {
		settled := at.entry.detach(at)
		wg.Go(func() { // each may wait for what is on its way: all at once
			if settled != nil {
				select {
				case <-settled:
				case <-time.After(fileWait): // a file system that hangs ends nothing
				}
			}
			_, err := pool.Delete(key)
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	clear(a.keys)
	clear(a.named)
	wg.Wait()
	a.emitter.close()
	return errors.Join(errs...)
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
