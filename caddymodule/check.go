package caddymodule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/advice"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/signing"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// checkup checks the credentials of a config.
type checkup struct {
	*roster
	values       map[string]string // of a template's placeholders
	subjectToken string            // in place of what a client would send
	spend, probe bool
	timeout      time.Duration // of one token request; 0 for each credential's own
	progress     *progress
}

// atOnce is how many credentials are checked at the same time.
const atOnce = 4

// run checks them all, and returns what came of each, in their order.
func (k *checkup) run(ctx context.Context) []*checked {
	out := make([]*checked, len(k.candidates))
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, c := range k.candidates {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			out[i] = k.check(ctx, c)
		})
	}
	wg.Wait()
	k.progress.stop()
	return out
}

// exam is the check of one credential.
type exam struct {
	*checkup
	*requester
	name    string
	found   *found // nil until its server is known
	limit   time.Duration
	checked *checked
}

var errInterruptedCheck = advice.Advice{Wrong: "the check was interrupted before an answer came", Do: "run it again"}

func (k *checkup) check(ctx context.Context, c *candidate) *checked {
	out := newChecked(c)
	switch {
	case c.requester == nil:
		out.fail(advice.Advice{Wrong: clipped(c.err.Error(), 500), Do: "correct it in the configuration; caddy validate tells the same"})
		return out
	case ctx.Err() != nil:
		out.fail(errInterruptedCheck)
		return out
	}
	x := &exam{checkup: k, requester: c.requester, name: c.name, limit: c.requester.credential.policy().Timeout, checked: out}
	if k.timeout > 0 {
		x.limit = k.timeout
	}
	x.note = out.note
	k.progress.begin(c.name, x.limit)
	defer k.progress.end(c.name)
	x.run(ctx)
	return out
}

func (x *exam) run(ctx context.Context) {
	inspected := x.keeper != nil && !x.spend
	if inspected {
		x.inspectStore(ctx)
	}
	var err error
	if x.found, err = x.locate(ctx, x.limit); err != nil {
		x.explain(ctx, err)
		return
	}
	x.checkCertificate()
	a, missing, err := x.asks()
	switch {
	case err != nil:
		x.checked.fail(advice.Advice{Wrong: err.Error(), Do: "correct what --value gives"})
	case inspected:
		x.checked.inspected("a token request would spend its refresh token: --spend makes one, and stores what it brings")
		x.rehearse(ctx)
	case len(missing) > 0:
		x.checked.inspected("its token depends on what a request brings: give it with " + strings.Join(missing, " "))
		x.rehearse(ctx)
	default:
		x.request(ctx, a)
	}
}

// subjectTokenValue is the name of a client's own token among the values.
const subjectTokenValue = "subject_token"

// asks is what a request for a template's token is made of, and what is missing
// for it, as it is to be written.
func (x *exam) asks() (a ask, missing []string, err error) {
	t := &x.credential.template
	for _, name := range t.names {
		if _, ok := x.values[name]; !ok {
			missing = append(missing, "--value "+name+"=<value>")
		}
	}
	if t.exchanges && x.subjectToken == "" {
		missing = append(missing, "--value "+subjectTokenValue+"=@<file>")
	}
	if len(missing) > 0 || !t.is() {
		return a, missing, nil
	}
	repl := caddy.NewEmptyReplacer()
	for name, value := range x.values {
		repl.Set(name, value)
	}
	r := (&http.Request{}).WithContext(context.WithValue(context.Background(), caddy.ReplacerCtxKey, repl))
	values, err := t.values(r)
	if err != nil {
		return a, nil, err
	}
	a = ask{client: t.client(values), subjectToken: x.subjectToken}
	if t.exchanges {
		_, err = t.subject(x.subjectToken)
	}
	return a, nil, err
}

// rehearse makes all of a token request but the request itself: what it needs is
// read, and the server is reached.
func (x *exam) rehearse(ctx context.Context) {
	const standIn = "x" // for what is not known, or must not be spent
	a := ask{refreshToken: standIn, subjectToken: standIn, client: make(map[string]string)}
	for _, name := range x.credential.template.names {
		a.client[name] = standIn
	}
	ready, cancel := context.WithTimeout(ctx, x.limit)
	defer cancel()
	if _, err := x.ready(ready, a, nil); err != nil {
		x.explain(ctx, err)
		return
	}
	x.reach(ctx)
}

// request makes a token request. It is one that an operator wishes for: where
// the token is shared, it is made with the lock and stored, and the instances
// that run adopt it.
func (x *exam) request(ctx context.Context, a ask) {
	began := time.Now()
	res, err := x.obtain(ctx, x.requester, a)
	took := time.Since(began)
	x.checked.Took = took.Seconds()
	if err != nil {
		x.explain(ctx, err)
		return
	}
	policy := x.credential.policy()
	t := advice.Token{
		Length: len(res.AccessToken), Lifetime: res.ExpiresIn, Type: res.Type, Scopes: res.Scopes, Missing: res.Missing,
		ServerTime: res.ServerTime, Received: time.Now(), Took: took, Margin: policy.ExpiryMargin, Bearer: res.Bearer,
	}
	if t.Lifetime <= 0 {
		t.Lifetime, t.Assumed = policy.DefaultLifetime, true
	}
	if claims, err := signing.Unverified(res.AccessToken); err == nil {
		t.JWTExpires = claims.Expires
	}
	x.checked.obtained(&t)
	for _, w := range advice.Warnings(t, x.facts()) {
		x.checked.warn(w)
	}
	if x.keeper == nil {
		return
	}
	if state := x.keeper.chain.State(); state != nil && errors.Is(state.Err, token.ErrStorage) {
		x.checked.fail(advice.For(&oauth.Failure{Kind: oauth.Unreachable, Err: state.Err}, x.facts()))
	}
}

// obtain makes a token request with a requester, which may be another one than
// the credential's own.
func (x *exam) obtain(ctx context.Context, q *requester, a ask) (*oauth.Response, error) {
	if q.credential.template.is() {
		ctx, cancel := context.WithTimeout(ctx, x.limit)
		defer cancel()
		return q.request(ctx, a)
	}
	return q.Request(ctx, token.Occasion{Reason: token.Forced, Limit: x.limit})
}

// inspectStore tells of a refresh token what is stored, and changes nothing.
func (x *exam) inspectStore(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	s, err := x.openSession(ctx)
	var kept *token.Inspection
	if err == nil {
		kept, err = token.Inspect(ctx, s.Store, s.Initial)
	}
	if err != nil {
		if !errors.Is(err, token.ErrUnreadable) {
			err = fmt.Errorf("%w: %w", token.ErrStorage, err)
		}
		x.checked.fail(advice.For(asRefusal(err), x.facts()))
		return
	}
	x.checked.keeps(kept, x.store, x.sealed)
	switch wrong := kept.Err(); {
	case errors.Is(wrong, token.ErrAnswerLost):
		a := advice.For(asRefusal(wrong), x.facts())
		a.Wrong = fmt.Sprintf("a request with the refresh token was begun on %s, and what came of it is not stored: it is under way at this moment, or its answer was lost", clockText(kept.Asked))
		x.checked.warn(a)
	case errors.Is(wrong, token.ErrLoginRequired) && s.NoInitial != nil:
		x.checked.fail(advice.For(asRefusal(fmt.Errorf("%w, and the configured one cannot be read: %w", wrong, s.NoInitial)), x.facts()))
	case wrong != nil:
		f := asRefusal(wrong)
		f.Code = kept.Code
		x.checked.fail(advice.For(f, x.facts()))
	}
}

// asRefusal is a failure of what was found here, without a server.
func asRefusal(err error) *oauth.Failure {
	if f, ok := errors.AsType[*oauth.Failure](err); ok {
		return f
	}
	return &oauth.Failure{Kind: oauth.Refused, Err: err}
}

// explain says what is wrong, with all evidence that can be had.
func (x *exam) explain(ctx context.Context, err error) {
	f := asRefusal(err)
	received := time.Now()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		x.checked.fail(errInterruptedCheck)
		return
	}
	facts := x.facts()
	facts.Received = received
	if x.found != nil && x.found.endpoint != nil && f.Kind == oauth.Refused && f.Status != 0 && (refusesClient(f) || f.Code == "invalid_scope") {
		facts.Methods, facts.Known = x.published(ctx)
	}
	ways := x.otherWays(f, &facts)
	if x.probe {
		facts.Tried = x.tryWays(ctx, ways)
	}
	a := advice.For(f, facts)
	if len(ways) > 0 && !x.probe {
		a.Do += "; to have the server asked in the other ways to send the proof (" + strings.Join(namesOf(ways), ", ") + "), each once: caddy upstream-auth check " + x.name + " --probe"
	}
	a.Do = x.asConfigured(a.Do)
	x.checked.refused(f, a)
}

// facts are what is known of the credential beside a failure.
func (x *exam) facts() advice.Facts {
	k := x.credential.facts(x.name)
	k.Timeout = x.limit
	k.Secret = x.secretShape()
	if x.found != nil {
		if at := x.found.endpoint; at != nil {
			k.Endpoint, k.Issuer = addressOf(at.tokenURL), addressOf(at.issuer)
		}
		k.Proxy = x.found.proxy(cmp.Or(k.Endpoint, k.Issuer))
	}
	r := newResolver(x.values)
	k.Scopes = slices.Clone(k.Scopes)
	for i, s := range k.Scopes {
		if resolved, err := r.resolve(s); err == nil {
			k.Scopes[i] = resolved
		}
	}
	return k
}
