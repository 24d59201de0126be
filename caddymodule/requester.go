package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/clientauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/caddymodule/grants"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/dpop"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// requester makes the token requests of one credential: it asks the grant and
// the client authentication for their parts, resolved anew each time.
type requester struct {
	credential *Credential
	connection connection
	files      lastFiles
	proof      lastProof
	server     server
	nonces     *dpop.Nonces
	keeper     *keeper // of the refresh token; nil where the grant has none
	sharer     *sharer // of the access token; nil unless it is shared
	// name is the credential's, and note warns of a condition once; both are lent
	// by the entry.
	name string
	note func(subject string, holds bool, message string, fields ...zap.Field)

	preparing     atomic.Int64
	mostPreparing int64 // at once: they hang where a file system does
}

func newRequester(c *Credential) *requester {
	most := int64(3) // a request, and looks for another refresh token or a shared access token
	if c.template.is() {
		most = int64(c.limits().InFlight)
	}
	return &requester{
		credential: c, connection: connection{tls: c.TLS, proxy: c.Proxy, once: c.refreshing()}, nonces: dpop.NewNonces(), mostPreparing: most,
		note: func(string, bool, string, ...zap.Field) {},
	}
}

// inherit takes over what the requester of an earlier config knew.
func (q *requester) inherit(from *requester) {
	q.files.set(from.files.get())
	q.proof.inherit(&from.proof)
	q.server.inherit(&from.server)
	q.nonces = from.nonces
}

// ask is what one token request is for, where it is not for everybody.
type ask struct {
	client       map[string]string // values of a template's placeholders
	subjectToken string            // what the client of the proxy sent
	refreshToken string
	held         *token.Token // is masked: a server may tell which one it has issued
	guard        token.Guard  // asked just before the request is written
	// params are those of a login or a logout, in place of the grant's, and at
	// is the endpoint that they go to, if it is not the token endpoint.
	params url.Values
	at     string
}

// Request implements token.Requester.
func (q *requester) Request(ctx context.Context, on token.Occasion) (*oauth.Response, error) {
	ctx = traced(ctx, on)
	if q.sharer != nil {
		res, err := q.sharer.share.Request(ctx, on, q.openShared, q.own)
		q.traceAdopted(ctx, res)
		return res, err
	}
	return q.own(ctx, on)
}

// own makes a request of this process's own.
func (q *requester) own(ctx context.Context, on token.Occasion) (*oauth.Response, error) {
	if q.keeper != nil {
		return q.keeper.chain.Refresh(ctx, on, func(ctx context.Context) (*token.Session, error) {
			s, err := q.openSession(ctx)
			if err == nil {
				s.Spend = func(ctx context.Context, refreshToken string, guard token.Guard) (*oauth.Response, error) {
					return q.request(ctx, ask{refreshToken: refreshToken, guard: guard, held: on.Held})
				}
			}
			return s, err
		})
	}
	ctx, cancel := context.WithTimeout(ctx, on.Limit)
	defer cancel()
	return q.request(ctx, ask{guard: on.Lease, held: on.Held})
}

// Stale implements token.Requester.
func (q *requester) Stale() bool {
	if q.files.get().changed() {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), metadataTimeout)
	defer cancel()
	if q.sharer != nil && q.sharer.share.Stale(ctx, q.openShared) {
		return true
	}
	return q.keeper != nil && q.keeper.chain.Stale(ctx, q.openSession)
}

// request makes one token request; a second one where the server wants a nonce
// in it, and where it refuses a new secret and took an older one before.
func (q *requester) request(ctx context.Context, a ask) (*oauth.Response, error) {
	res, p, err := q.attempt(ctx, a, nil)
	if err == nil {
		q.proof.worked(p.request.URL, p.read)
		q.note("overlap", false, "")
		return res, nil
	}
	f, ok := errors.AsType[*oauth.Failure](err)
	if ok {
		q.server.doubt(f)
	}
	if !ok || p == nil {
		return res, err
	}
	if !refusesClient(f) {
		return res, err
	}
	recall := q.proof.instead(p.request.URL, p.read)
	if recall == nil {
		return res, err
	}
	again, p, errAgain := q.attempt(ctx, a, recall)
	if f, ok := errors.AsType[*oauth.Failure](errAgain); ok && (p == nil || refusesClient(f)) {
		return res, err // what is wrong with the new one is what matters
	}
	if errAgain != nil {
		return again, errAgain // a refresh token may have been spent
	}
	q.note("overlap", true, "the server refuses the new client secret, key or certificate, and still takes the one before it, which is used for a day at most", zap.Error(f))
	return again, nil
}

// refusesClient tells whether a server may have refused the client's proof.
func refusesClient(f *oauth.Failure) bool {
	return f.Code == "invalid_client" || f.Status == http.StatusUnauthorized || f.Status == http.StatusForbidden
}

// attempt makes one token request, and repeats it with the nonce that the
// server asks for (RFC 9449 §8).
func (q *requester) attempt(ctx context.Context, a ask, recall map[string]string) (*oauth.Response, *prepared, error) {
	for repeated := false; ; repeated = true {
		ctx, span := q.trace(ctx)
		p, err := q.ready(ctx, a, recall)
		if err != nil {
			span.end(err)
			return nil, nil, err
		}
		res, err := p.request.Do(ctx, span.over(p.way))
		span.end(err)
		if f, ok := errors.AsType[*oauth.Failure](err); ok && f.Code == dpop.ErrorCode && !repeated && q.credential.DPoP != nil {
			continue
		}
		if err == nil && p.binding != nil {
			res.Binding = p.binding
		}
		return res, p, err
	}
}

func (q *requester) tellExposed(r *resolver) {
	q.note("exposed", len(r.exposed) > 0, "everybody on this machine can read a file that proves who the client is: take the right from others (chmod o-r), or mount it with a mode of 0440",
		zap.Strings("files", r.exposed))
}

// prepared is a token request that is ready to be sent.
type prepared struct {
	request *oauth.Request
	way     http.RoundTripper
	read    map[string]string // what the client is proved with
	binding *binding
}

var errHanging = errors.New("the files of the credential cannot be read: their file system hangs")

// ready prepares a request.
func (q *requester) ready(ctx context.Context, a ask, recall map[string]string) (*prepared, error) {
	p, err := apart(ctx, q, func() (*prepared, error) {
		r := newResolver(a.client)
		if recall == nil { // else what it reads is not what is configured
			defer func() { q.files.set(r.files); q.tellExposed(r) }()
		}
		p, err := q.prepare(ctx, a, r, newProof(r, recall))
		if err == nil {
			if a.held != nil {
				r.secrets = append(r.secrets, a.held.Value)
			}
			p.request.Secrets = r.secrets
		}
		return p, err
	})
	return p, asFailure(err)
}

// asFailure takes what stands in the config or in its files for a refusal. Files
// that are not read in time may be tomorrow.
func asFailure(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*oauth.Failure](err); ok {
		return err
	}
	kind := oauth.Refused
	if errors.Is(err, errHanging) {
		kind = oauth.Unreachable
	}
	return &oauth.Failure{Kind: kind, Err: err}
}

// apart does what reads files: a file system may hang, and no deadline ends
// that.
func apart[T any](ctx context.Context, q *requester, do func() (*T, error)) (*T, error) {
	if q.preparing.Add(1) > q.mostPreparing {
		q.preparing.Add(-1)
		return nil, errHanging
	}
	type outcome struct {
		value *T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		value, err := do()
		q.preparing.Add(-1)
		done <- outcome{value, err}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
	}
	select {
	case o := <-done: // it noticed by itself
		return o.value, o.err
	case <-time.After(hanging):
		return nil, errHanging
	}
}

// hanging is how long after a request's end its preparation may still be at
// work, before a file system is blamed.
const hanging = 100 * time.Millisecond

func (q *requester) prepare(ctx context.Context, a ask, r *resolver, client *proof) (*prepared, error) {
	c := q.credential
	way, err := q.connection.open(r, client, c.method)
	if err != nil {
		return nil, err
	}
	at, err := q.find(ctx, r, way)
	if err != nil {
		return nil, err
	}
	clientID, err := r.resolve(c.ClientID) // no proof: another one is another client
	if err != nil {
		return nil, fmt.Errorf("client_id: %w", err)
	}
	params, err := c.params(r)
	if err != nil {
		return nil, err
	}
	if a.params == nil {
		err := c.grant.Prepare(ctx, &grants.Request{
			ClientID: clientID, TokenURL: at.tokenURL, Issuer: at.issuer,
			RefreshToken: a.refreshToken, SubjectToken: a.subjectToken,
			Params: params, Resolve: r.resolve, Secret: r.secret, ReadFile: r.secretFile,
		})
		if err != nil {
			return nil, fmt.Errorf("grant %s: %w", c.grantName, err)
		}
	}
	maps.Copy(params, a.params)
	r.secrets = append(r.secrets, a.refreshToken, a.subjectToken)
	for _, name := range []string{"code", "code_verifier", "device_code", "token"} {
		r.secrets = append(r.secrets, a.params.Get(name))
	}
	header := http.Header{"User-Agent": {"caddy-upstream-auth/" + version()}}
	err = c.method.Authenticate(ctx, &clientauth.Request{
		ClientID: clientID, TokenURL: at.tokenURL, Issuer: at.issuer, Algorithms: at.algorithms,
		Params: params, Header: header, Resolve: client.resolve, Secret: client.secret, ReadFile: client.secretFile,
	})
	if err != nil {
		return nil, err
	}
	req := &oauth.Request{URL: at.tokenURL, Params: params, Header: header, Fields: c.Response.fields(), TokenType: c.tokenType(params)}
	if err := c.Request.apply(req, r); err != nil {
		return nil, fmt.Errorf("request %w", err)
	}
	if a.at != "" {
		req.URL = a.at
	}
	if a.params != nil {
		params.Set("grant_type", a.params.Get("grant_type")) // of a login, which no shape changes
	}
	req.Guard = a.guard
	p := &prepared{request: req, way: way, read: client.read}
	if c.bound() {
		p.binding = &binding{nonces: q.nonces, certificate: q.connection.certificate(way, c.method)}
	}
	if c.DPoP != nil {
		if err := c.DPoP.bind(p.binding, r, at.dpopAlgorithms); err != nil {
			return nil, err
		}
		p.way = p.binding.proving(way)
	}
	return p, nil
}

// bound tells whether tokens are, or may be, bound to something that a request
// upstream has to show too.
func (c *Credential) bound() bool {
	_, certified := c.method.(clientauth.CertificateHolder)
	return certified || c.DPoP != nil
}

// tokenType is what has to come back.
func (c *Credential) tokenType(params url.Values) string {
	switch {
	case c.DPoP != nil:
		return "DPoP"
	case params.Get("requested_token_type") != "":
		return "N_A" // RFC 8693 §2.2.1: what is no access token has no type
	}
	return ""
}

// Interface guard
var _ token.Requester = (*requester)(nil)
