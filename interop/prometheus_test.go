package interop

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// hurry is how many times faster than shipped the rules are run: each duration
// that PromQL or "for" has is divided by it, and nothing else is changed. A
// number of seconds in an expression stays, for tokens are not faster.
const hurry = 60

var ruleDuration = regexp.MustCompile(`(\[|\boffset |\bfor: )(\d+)([smhd])\b`)

// hurried are rules with each duration divided.
func hurried(rules string) string {
	units := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}
	return ruleDuration.ReplaceAllStringFunc(rules, func(found string) string {
		part := ruleDuration.FindStringSubmatch(found)
		n, _ := strconv.Atoi(part[2]) // digits
		return fmt.Sprintf("%s%dms", part[1], (time.Duration(n) * units[part[3]] / hurry).Milliseconds())
	})
}

// prometheus is a real one, which scrapes and judges once a second, by the
// configuration and the rules of deploy/prometheus.
type prometheus struct {
	*process
	url string

	mu      sync.Mutex
	fired   map[alarm]time.Time // what fires, since when
	ended   map[alarm]time.Time // what has fired, and when it was seen to be over
	changed chan struct{}       // closed, and replaced, by each look
	err     error               // of the last look
}

// alarm is an alert of a credential, "" for none.
type alarm struct{ alert, credential string }

// startPrometheus starts one that scrapes the address.
func startPrometheus(t *testing.T, address string) *prometheus {
	t.Helper()
	path, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatalf("Prometheus is needed, to see alerts fire: apt-get install --no-install-recommends prometheus: %v", err)
	}
	dir := t.TempDir()
	for name, edit := range map[string]func(string) string{
		"alerts.yml": hurried,
		"prometheus.yml": strings.NewReplacer(
			"_interval: 15s", "_interval: 1s",
			"127.0.0.1:9180", address,
		).Replace,
	} {
		text, err := os.ReadFile(filepath.Join("..", "deploy", "prometheus", name))
		if err != nil {
			t.Fatal(err)
		}
		edited := edit(string(text))
		if edited == string(text) {
			t.Fatalf("%s holds nothing that the test has to change", name)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(edited), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := &prometheus{fired: make(map[alarm]time.Time), ended: make(map[alarm]time.Time), changed: make(chan struct{})}
	p.process = start(t, "prometheus", exec.Command(path,
		"--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address=127.0.0.1:0"))
	t.Cleanup(func() {
		p.stop(t, syscall.SIGTERM)
		if t.Failed() {
			t.Logf("prometheus printed:\n%s", &p.output)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), startDeadline)
	defer cancel()
	listening := regexp.MustCompile(`msg="Listening on" address=(\S+)`)
	line, err := p.process.await(ctx, listening.MatchString)
	if err != nil {
		t.Fatalf("%v\n%s", err, &p.output)
	}
	p.url = "http://" + listening.FindStringSubmatch(line)[1]
	p.watch(t)
	return p
}

// watch looks at the alerts until the test ends.
func (p *prometheus) watch(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			p.look(ctx)
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
}

func (p *prometheus) look(ctx context.Context) {
	var answer struct {
		Data struct {
			Alerts []struct {
				Labels map[string]string
				State  string
			}
		}
	}
	err := p.ask(ctx, "/api/v1/alerts", &answer)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err = err; err == nil {
		firing := make(map[alarm]bool)
		for _, a := range answer.Data.Alerts {
			if a.State == "firing" {
				firing[alarm{a.Labels["alertname"], a.Labels["credential"]}] = true
			}
		}
		p.note(firing)
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// note keeps when an alarm began and ended.
func (p *prometheus) note(firing map[alarm]bool) {
	for a := range firing {
		if _, known := p.fired[a]; !known {
			p.fired[a] = time.Now()
		}
	}
	for a := range p.fired {
		if !firing[a] {
			delete(p.fired, a)
			p.ended[a] = time.Now()
		}
	}
}

func (p *prometheus) ask(ctx context.Context, path string, answer any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path, nil)
	if err != nil {
		return err
	}
	return askProvider(req, answer)
}

// fires waits until all of the alarms have fired, and tells when each did.
func (p *prometheus) fires(t *testing.T, alarms []alarm) []time.Time {
	t.Helper()
	return p.await(t, alarms, func(a alarm) time.Time { return p.fired[a] })
}

// ends waits until all of the alarms, which have fired, are over.
func (p *prometheus) ends(t *testing.T, alarms []alarm) []time.Time {
	t.Helper()
	return p.await(t, alarms, func(a alarm) time.Time {
		if _, still := p.fired[a]; still {
			return time.Time{}
		}
		return p.ended[a]
	})
}

func (p *prometheus) await(t *testing.T, alarms []alarm, when func(alarm) time.Time) []time.Time {
	t.Helper()
	const deadline = 90 * time.Second
	seen := make([]time.Time, len(alarms))
	timer := time.NewTimer(deadline)
	defer timer.Stop()
	for {
		p.mu.Lock()
		for n, a := range alarms {
			if seen[n].IsZero() {
				seen[n] = when(a)
			}
		}
		fired, changed, err := maps.Clone(p.fired), p.changed, p.err
		p.mu.Unlock()
		if !slices.ContainsFunc(seen, time.Time.IsZero) {
			return seen
		}
		select {
		case <-changed:
		case <-timer.C:
			t.Fatalf("%v: not all within %s, but at %v; firing are %v, %v", alarms, deadline, seen, slices.Collect(maps.Keys(fired)), err)
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

// scraped is how many times the target was.
func (p *prometheus) scraped(ctx context.Context) (int, error) {
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := p.ask(ctx, "/api/v1/query?query=sum(sum_over_time(up%5B1h%5D))", &answer); err != nil {
		return 0, err
	}
	if len(answer.Data.Result) == 0 {
		return 0, nil
	}
	text, _ := answer.Data.Result[0].Value[1].(string)
	return strconv.Atoi(text)
}

// forward listens on loopback for what only speaks TCP, and passes all on to a
// unix socket.
func forward(t *testing.T, socket string) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			from, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer from.Close()
				to, err := new(net.Dialer).DialContext(t.Context(), "unix", socket)
				if err != nil {
					return // as if nobody listened
				}
				defer to.Close()
				go func() {
					_, _ = io.Copy(to, from) // until either has gone
					to.Close()
				}()
				_, _ = io.Copy(from, to)
			})
		}
	})
	return ln.Addr().String()
}

// TestHurried: durations, and nothing that looks like one.
func TestHurried(t *testing.T) {
	t.Parallel()
	const rules = `      - record: a:ratio_rate5m
        expr: rate(b{c="5m"}[1d] offset 15m) > 3600 and increase(b[5m])
        for: 2m
        description: for 15 minutes, 5m`
	const want = `      - record: a:ratio_rate5m
        expr: rate(b{c="5m"}[1440000ms] offset 15000ms) > 3600 and increase(b[5000ms])
        for: 2000ms
        description: for 15 minutes, 5m`
	if got := hurried(rules); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
