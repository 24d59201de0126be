package caddymodule

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

const namespace, subsystem = "caddy", "upstream_auth"

func opts(name, help string) prometheus.Opts {
	return prometheus.Opts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}
}

// The vectors are of the process, and are registered in each config's
// registry: so they survive a reload. No label holds a value from a request.
var (
	tokenRequests = prometheus.NewCounterVec(prometheus.CounterOpts(opts("token_requests_total",
		"Token requests that have ended, by what caused them and how they ended.")),
		[]string{"credential", "grant", "reason", "result"})
	tokenRequestDuration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Subsystem: subsystem, Name: "token_request_duration_seconds",
		Help:    "How long token requests took.",
		Buckets: prometheus.DefBuckets,
	}, []string{"credential"})
	lifetimeAssumed = prometheus.NewCounterVec(prometheus.CounterOpts(opts("lifetime_assumed_total",
		"Tokens that came without a usable lifetime, so that default_lifetime was assumed.")),
		[]string{"credential"})
	requests = prometheus.NewCounterVec(prometheus.CounterOpts(opts("requests_total",
		"Requests on their way to an upstream, by what became of them here.")),
		[]string{"credential", "outcome"})
	requestWait = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Subsystem: subsystem, Name: "request_wait_seconds",
		Help:    "How long requests waited for a token; those that did not wait are not counted.",
		Buckets: prometheus.DefBuckets,
	}, []string{"credential"})
	upstreamUnauthorized = prometheus.NewCounterVec(prometheus.CounterOpts(opts("upstream_unauthorized_total",
		"Answers of upstreams that refused the token, by what came of them: the request was made again, a token request is under way, or neither.")),
		[]string{"credential", "action"})
	tokensAdopted = prometheus.NewCounterVec(prometheus.CounterOpts(opts("tokens_adopted_total",
		"Tokens that another instance had asked for, taken over from Caddy's storage.")),
		[]string{"credential"})
	storeErrors = prometheus.NewCounterVec(prometheus.CounterOpts(opts("store_errors_total",
		"Calls to Caddy's storage for a token that failed, by what was to be done: load, save, delete, lock or unlock.")),
		[]string{"credential", "op"})
	buildInfo = prometheus.NewGaugeVec(prometheus.GaugeOpts(opts("build_info",
		"Always 1; the label is the version of the plugin.")), []string{"version"})
)

func init() { buildInfo.WithLabelValues(version()).Set(1) }

var (
	expiryDesc = prometheus.NewDesc("caddy_upstream_auth_token_expiry_timestamp_seconds",
		"When the token held stops being used, as a Unix time; 0 when none is held.", []string{"credential"}, nil)
	refreshDesc = prometheus.NewDesc("caddy_upstream_auth_token_refresh_timestamp_seconds",
		"When the next token request is due, or the one under way was made, as a Unix time.", []string{"credential"}, nil)
	lastSuccessDesc = prometheus.NewDesc("caddy_upstream_auth_token_last_success_timestamp_seconds",
		"When a token request last succeeded, as a Unix time; 0 when none has.", []string{"credential"}, nil)
	usableDesc = prometheus.NewDesc("caddy_upstream_auth_refresh_token_usable",
		"Whether there is a refresh token that the server has not refused: 1 or 0; only for grants that keep one.", []string{"credential"}, nil)
	templateTokensDesc = prometheus.NewDesc("caddy_upstream_auth_template_tokens",
		"Tokens that a template credential holds, one for each distinct value.", []string{"credential"}, nil)
	failuresDesc = prometheus.NewDesc("caddy_upstream_auth_token_consecutive_failures",
		"Token requests that failed since the last success.", []string{"credential"}, nil)
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
	buildInfo.Collect(ch)
	for name, e := range credentials.newest() {
		if e.tokens != nil {
			ch <- prometheus.MustNewConstMetric(templateTokensDesc, prometheus.GaugeValue, float64(e.tokens.Snapshot().Tokens), name)
			continue
		}
		if e.chain != nil {
			if state := e.chain.State(); state != nil {
				ch <- prometheus.MustNewConstMetric(usableDesc, prometheus.GaugeValue, boolean(state.Usable), name)
			}
		}
		s := e.source.Snapshot()
		for _, g := range []struct {
			desc  *prometheus.Desc
			value float64
		}{
			{expiryDesc, unix(s.Expires)}, {refreshDesc, unix(s.Next)},
			{lastSuccessDesc, unix(s.Obtained)}, {failuresDesc, float64(s.Failures)},
		} {
			ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, g.value, name)
		}
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
}

// remove drops a credential, and the series of a name that is gone with it.
func (r *registry) remove(e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	left := slices.DeleteFunc(r.byName[e.name], func(x *entry) bool { return x == e })
	if len(left) > 0 {
		r.byName[e.name] = left
		return
	}
	delete(r.byName, e.name)
	for _, v := range vectors() {
		v.DeletePartialMatch(prometheus.Labels{"credential": e.name})
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

// countAttempt counts a token request that has ended.
func countAttempt(credential, grant string, a token.Attempt) {
	if a.Adopted && a.Failure == nil {
		tokensAdopted.WithLabelValues(credential).Inc() // no server was asked
		return
	}
	result := "success"
	if a.Failure != nil {
		result = a.Failure.Kind.String()
	}
	tokenRequests.WithLabelValues(credential, grant, string(a.Reason), result).Inc()
	tokenRequestDuration.WithLabelValues(credential).Observe(a.Took.Seconds())
	if a.Failure == nil && a.Assumed {
		lifetimeAssumed.WithLabelValues(credential).Inc()
	}
}
