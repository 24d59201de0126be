package caddymodule

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

const namespace, subsystem = "caddy", "upstream_auth"

// ofSeconds is the unit of durations and of moments.
const ofSeconds = "seconds"

func opts(name, help string) prometheus.Opts {
	return prometheus.Opts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}
}

// durations is a histogram. In text it has classic buckets, and for a Prometheus
// that scrapes native histograms each bucket is a tenth wider than the one before
// at most: 160 of them reach from 60µs to a minute. With more it would be begun
// anew, once an hour at most.
func durations(name, help string) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Namespace: namespace, Subsystem: subsystem, Name: name, Help: help, Unit: ofSeconds,
		Buckets:                         prometheus.DefBuckets,
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  160,
		NativeHistogramMinResetDuration: time.Hour,
	}
}

// gauge is of each credential, and read when it is asked for.
func gauge(name, unit, help string) *prometheus.Desc {
	return prometheus.V2.NewDesc(prometheus.BuildFQName(namespace, subsystem, name), help,
		prometheus.UnconstrainedLabels{"credential"}, nil, prometheus.WithUnit(unit))
}

// The vectors are of the process, and are registered in each config's
// registry: so they survive a reload. No label holds a value from a request.
var (
	tokenRequests = prometheus.NewCounterVec(prometheus.CounterOpts(opts("token_requests_total",
		"Token requests that have ended, by what caused them and how they ended.")),
		[]string{"credential", "grant", "reason", "result"})
	tokenRequestDuration = prometheus.NewHistogramVec(durations("token_request_duration_seconds",
		"How long token requests took, in seconds."), []string{"credential"})
	lifetimeAssumed = prometheus.NewCounterVec(prometheus.CounterOpts(opts("lifetime_assumed_total",
		"Tokens that came without a usable lifetime, so that default_lifetime was assumed.")),
		[]string{"credential"})
	requests = prometheus.NewCounterVec(prometheus.CounterOpts(opts("requests_total",
		"Requests on their way to an upstream, by what became of them here.")),
		[]string{"credential", "outcome"})
	requestWait = prometheus.NewHistogramVec(durations("request_wait_seconds",
		"How long requests waited for a token, in seconds; those that did not wait are not counted."), []string{"credential"})
	upstreamUnauthorized = prometheus.NewCounterVec(prometheus.CounterOpts(opts("upstream_unauthorized_total",
		"Answers of upstreams that refused the token, by what came of them: the request was made again, a token request is under way, or neither.")),
		[]string{"credential", "action"})
	tokensAdopted = prometheus.NewCounterVec(prometheus.CounterOpts(opts("tokens_adopted_total",
		"Tokens that another instance had asked for, taken over from Caddy's storage.")),
		[]string{"credential"})
	storeErrors = prometheus.NewCounterVec(prometheus.CounterOpts(opts("store_errors_total",
		"Calls to Caddy's storage for a token that failed, by what was to be done: load, save, lock or unlock.")),
		[]string{"credential", "op"})
	buildInfo = prometheus.NewGaugeVec(prometheus.GaugeOpts(opts("build_info",
		"Always 1; the label is the version of the plugin.")), []string{"version"})
)

var (
	expiryDesc = gauge("token_expiry_timestamp_seconds", ofSeconds,
		"When the token held stops being used, as a Unix time in seconds; 0 when none is held. Not for templates.")
	refreshDesc = gauge("token_refresh_timestamp_seconds", ofSeconds,
		"When the next token request is due, or the one under way was made, as a Unix time in seconds. Not for templates.")
	lastSuccessDesc = gauge("token_last_success_timestamp_seconds", ofSeconds,
		"When a token request last succeeded, as a Unix time in seconds; 0 when none has.")
	failuresDesc = gauge("token_consecutive_failures", "",
		"Token requests that failed since the last success; of a template those that were not about one value alone.")
	usableDesc = gauge("refresh_token_usable", "",
		"Whether there is a refresh token that the server has not refused: 1 or 0; only for grants that keep one.")
	templateTokensDesc = gauge("template_tokens", "",
		"Tokens that a template credential holds, one for each distinct value.")
)

// vectors are deleted from when a credential goes.
func vectors() []interface {
	prometheus.Collector
	DeletePartialMatch(prometheus.Labels) int
} {
	return []interface {
		prometheus.Collector
		DeletePartialMatch(prometheus.Labels) int
	}{tokenRequests, tokenRequestDuration, lifetimeAssumed, requests, requestWait, upstreamUnauthorized, tokensAdopted, storeErrors}
}

// collector is all metrics of the plugin as one, so that a registry takes them
// whole or not at all. Its gauges are read from snapshots when asked for.
type collector struct{}

// registerMetrics adds the metrics to a config's registry.
func registerMetrics(registry *prometheus.Registry) error {
	if registry == nil {
		return nil
	}
	err := registry.Register(collector{})
	if _, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		return nil
	}
	return err
}

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, v := range vectors() {
		v.Describe(ch)
	}
	buildInfo.Describe(ch)
	for _, d := range []*prometheus.Desc{expiryDesc, refreshDesc, lastSuccessDesc, failuresDesc, usableDesc, templateTokensDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (collector) Collect(ch chan<- prometheus.Metric) {
	for _, v := range vectors() {
		v.Collect(ch)
	}
	buildInfo.WithLabelValues(version()).Set(1) // the same each time; a start need not read it
	buildInfo.Collect(ch)
	for name, e := range credentials.newest() {
		set := func(desc *prometheus.Desc, value float64) {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, name)
		}
		if e.tokens != nil {
			s := e.tokens.Snapshot()
			set(templateTokensDesc, float64(s.Tokens))
			set(lastSuccessDesc, unix(s.Obtained))
			set(failuresDesc, float64(s.Failures))
			continue
		}
		if e.chain != nil {
			if state := e.chain.State(); state != nil {
				set(usableDesc, boolean(state.Usable))
			}
		}
		s := e.source.Snapshot()
		set(expiryDesc, unix(s.Expires))
		set(refreshDesc, unix(s.Next))
		set(lastSuccessDesc, unix(s.Obtained))
		set(failuresDesc, float64(s.Failures))
	}
}

// registry knows the live credentials by name. Two of one name live side by
// side while a reload replaces one with the other.
type registry struct {
	mu     sync.Mutex
	byName map[string][]*entry
}

var credentials = &registry{byName: make(map[string][]*entry)}

func (r *registry) add(e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byName[e.name] = append(r.byName[e.name], e)
	e.beginSeries()
}

// remove drops a credential, and with a name that is gone its series; with a
// grant those of its token requests.
func (r *registry) remove(e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	left := slices.DeleteFunc(r.byName[e.name], func(x *entry) bool { return x == e })
	if len(left) > 0 {
		r.byName[e.name] = left
		if !slices.ContainsFunc(left, func(x *entry) bool { return x.grant == e.grant }) {
			e.endTokenRequests()
		}
		return
	}
	delete(r.byName, e.name)
	e.endSeries()
}

// endSeries deletes the series of a name, one by one: a match by the name alone
// looks at those of all credentials, and there may be many of either.
func (e *entry) endSeries() {
	e.endTokenRequests()
	tokenRequestDuration.DeleteLabelValues(e.name)
	lifetimeAssumed.DeleteLabelValues(e.name)
	for o := range outcomes {
		requests.DeleteLabelValues(e.name, outcome(o).String())
	}
	for _, action := range actions {
		upstreamUnauthorized.DeleteLabelValues(e.name, action)
	}
	requestWait.DeleteLabelValues(e.name)
	tokensAdopted.DeleteLabelValues(e.name)
	for _, op := range []string{"load", "save", "lock", "unlock"} {
		storeErrors.DeleteLabelValues(e.name, op)
	}
}

func (e *entry) endTokenRequests() {
	for _, reason := range []token.Reason{token.Start, token.Scheduled, token.Demand, token.Rejected, token.Forced} {
		for _, result := range []string{resultSuccess, oauth.Unreachable.String(), oauth.Refused.String(), oauth.Malformed.String()} {
			tokenRequests.DeleteLabelValues(e.name, e.grant, string(reason), result)
		}
	}
}

// newest is the credential that stands for each name: the last that was
// started, for one that a config only tries out is not running.
func (r *registry) newest() map[string]*entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]*entry, len(r.byName))
	for name, entries := range r.byName {
		for _, e := range entries {
			if e.running() {
				out[name] = e
			}
		}
	}
	return out
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// unix is a moment as a gauge shows it, 0 for none.
func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// resultSuccess is how a token request ended that did not fail; the others are
// the kinds of failures.
const resultSuccess = "success"

// beginSeries makes the series of a credential that have known labels, at 0. To
// Prometheus a counter that is born at 1 has not risen: the first failure would
// be no increase(), and no alert.
func (e *entry) beginSeries() {
	reasons := []token.Reason{token.Start, token.Scheduled, token.Demand, token.Rejected, token.Forced}
	if e.tokens != nil {
		reasons = []token.Reason{token.Scheduled, token.Demand, token.Rejected}
	}
	for _, reason := range reasons {
		for _, result := range []string{resultSuccess, oauth.Unreachable.String(), oauth.Refused.String(), oauth.Malformed.String()} {
			tokenRequests.WithLabelValues(e.name, e.grant, string(reason), result)
		}
	}
	tokenRequestDuration.WithLabelValues(e.name)
	lifetimeAssumed.WithLabelValues(e.name)
	for o := range outcomes {
		requests.WithLabelValues(e.name, outcome(o).String())
	}
	for _, action := range actions {
		upstreamUnauthorized.WithLabelValues(e.name, action)
	}
	requestWait.WithLabelValues(e.name)
	var ops []string
	switch {
	case e.share != nil:
		tokensAdopted.WithLabelValues(e.name)
		ops = []string{"load", "save", "lock", "unlock"}
	case e.chain != nil:
		ops = []string{"load", "save"}
	}
	for _, op := range ops {
		storeErrors.WithLabelValues(e.name, op)
	}
}

// countStoreError counts a call to Caddy's storage that failed. One that ends
// when its credential is gone must not bring the series back.
func countStoreError(credential, op string) {
	credentials.mu.Lock()
	defer credentials.mu.Unlock()
	if len(credentials.byName[credential]) > 0 {
		storeErrors.WithLabelValues(credential, op).Inc()
	}
}

// countAttempt counts a token request that has ended.
func countAttempt(credential, grant string, a token.Attempt) {
	if a.Adopted && a.Failure == nil {
		tokensAdopted.WithLabelValues(credential).Inc() // no server was asked
		return
	}
	result := resultSuccess
	if a.Failure != nil {
		result = a.Failure.Kind.String()
	}
	tokenRequests.WithLabelValues(credential, grant, string(a.Reason), result).Inc()
	tokenRequestDuration.WithLabelValues(credential).Observe(a.Took.Seconds())
	if a.Failure == nil && a.Assumed {
		lifetimeAssumed.WithLabelValues(credential).Inc()
	}
}
