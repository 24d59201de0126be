package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/grants"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/store"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// openStore opens Caddy's storage for what must outlive the process.
func (a *App) openStore(ctx caddy.Context) error {
	repl := caddy.NewReplacer()
	keys := make([]string, 0, len(a.EncryptionKeys))
	for _, configured := range a.EncryptionKeys {
		key, err := repl.ReplaceOrErr(configured, true, true)
		if err != nil {
			return fmt.Errorf("encryption_key: %w", err)
		}
		if !hasPlaceholder(configured) {
			a.logger.Warn("the encryption key stands in the config, where the admin API and the autosave file show it: write {file./path/to/key} or {env.NAME} instead")
		}
		keys = append(keys, trimNewline([]byte(key)))
	}
	parsed, err := store.ParseKeys(keys)
	if err != nil {
		return fmt.Errorf("encryption_key: %w", err)
	}
	a.storage = ctx.Storage()
	a.store = store.New(a.storage, parsed)
	return nil
}

// checkStorage tells whether tokens may be kept where they would be: refresh
// tokens in the clear in files of Caddy's own user, not in a database.
func (a *App) checkStorage(c *Credential) error {
	if len(a.EncryptionKeys) > 0 {
		return nil
	}
	if _, ok := a.storage.(*certmagic.FileStorage); !ok && c.refreshing() {
		return fmt.Errorf("its refresh token would be kept unsealed in the storage %T: set encryption_key in the global options of upstream_auth (make one with: openssl rand -base64 32)", a.storage)
	}
	if !a.toldPlain {
		a.toldPlain = true
		a.logger.Warn("tokens are kept unsealed in Caddy's storage: set encryption_key to seal them", zap.Any("storage", a.storage))
	}
	return nil
}

// keeper keeps the refresh token of one credential.
type keeper struct {
	name  string
	chain *chain
	store *store.Store
}

// chain is a token.Chain in its pool, where it outlives the configs and the
// credentials that use it.
type chain struct{ *token.Chain }

func newChain(name string) *chain {
	c := &chain{token.NewChain()}
	log := caddy.Log().Named(appName).With(zap.String("credential", name)) // no config's own: it outlives them
	c.Alarm = func(err error) {
		if err == nil {
			log.Info("the refresh token is stored again")
			return
		}
		log.Error("a new refresh token cannot be stored: it is kept in memory and tried again; if this process ends before, a new login is needed", zap.Error(err))
	}
	return c
}

// Destruct waits for a refresh that is under way, so that what it brings is
// saved.
func (c *chain) Destruct() error {
	c.Close()
	return nil
}

// chains are the refresh tokens in use. A credential that changed and its
// predecessor share one, so that the one waits for the other.
var chains = caddy.NewUsagePool()

// chainKey tells which credentials wait for each other: those of one name, on
// one storage. Whose refresh token it is, placeholders may hide.
func chainKey(storage certmagic.Storage, name string) string {
	options, err := json.Marshal(storage) // as configured; a live one may not be printed
	if err != nil {
		options = nil
	}
	return fmt.Sprintf("%T %s %s", storage, options, name)
}

// openSession implements token.Open.
func (q *requester) openSession(ctx context.Context) (*token.Session, error) {
	s, err := apart(ctx, q, func() (*token.Session, error) {
		c, k := q.credential, q.keeper
		r := newResolver(nil)
		path, err := q.refreshPath(r)
		if err != nil {
			return nil, err
		}
		s := &token.Session{
			Path:  path,
			Store: stored{k.store.Value(path, k.name), k.name},
			Spend: func(ctx context.Context, refreshToken string, guard token.Guard) (*oauth.Response, error) {
				return q.request(ctx, ask{refreshToken: refreshToken, guard: guard})
			},
		}
		if g, ok := c.grant.(grants.Refreshing); ok {
			s.Grace = g.RetryGrace()
			// of no consequence once one is stored: it is taken once
			s.Initial, s.NoInitial = r.resolve(g.InitialRefreshToken())
		}
		return s, nil
	})
	return s, asFailure(err)
}

// refreshPath is where the refresh token of one server and client is stored.
func (q *requester) refreshPath(r *resolver) (string, error) {
	server := q.credential.Issuer
	if server == "" {
		server = q.credential.TokenURL
	}
	server, err := r.resolve(server)
	if err != nil {
		return "", fmt.Errorf("server: %w", err)
	}
	clientID, err := r.resolve(q.credential.ClientID)
	if err != nil {
		return "", fmt.Errorf("client_id: %w", err)
	}
	return store.PathFor(q.keeper.name, server, clientID), nil
}

// stored is where a refresh token is stored.
type stored struct {
	*store.Value
	credential string
}

// Load implements token.Store.
func (k stored) Load(ctx context.Context) ([]byte, error) {
	raw, err := k.Value.Load(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fs.ErrNotExist
	}
	return raw, k.count(err)
}

// Save implements token.Store.
func (k stored) Save(ctx context.Context, content []byte) error {
	return k.count(k.Value.Save(ctx, content))
}

// KeepAside implements token.Store.
func (k stored) KeepAside(ctx context.Context) error {
	_, err := k.Value.KeepAside(ctx)
	return k.count(err)
}

// count counts an error, and says of it what the engine wants to know.
func (k stored) count(err error) error {
	if err == nil {
		return nil
	}
	op := "load"
	if failed, ok := errors.AsType[*store.Failed](err); ok {
		op = failed.Op
	}
	countStoreError(k.credential, op)
	if unreadable, ok := errors.AsType[*store.Unreadable](err); ok {
		return fmt.Errorf("%w: %w", token.ErrUnreadable, unreadable)
	}
	return err
}

// Interface guards
var (
	_ caddy.Destructor = (*chain)(nil)
	_ token.Store      = stored{}
	_ store.Storage    = certmagic.Storage(nil)
)
