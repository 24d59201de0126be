package pod

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// scene is a pod in its cluster.
type scene struct {
	*cluster
	*kubelet
	t                    *testing.T
	sidecar, application *container
}

// play starts the pod of an example. The authorization server is down; edit
// changes the pod before it starts, and may be nil.
func play(t *testing.T, e example, lifetime time.Duration, edit func(*corev1.Pod, *objects)) *scene {
	t.Helper()
	s := &scene{t: t, cluster: newCluster(t, lifetime)}
	pod, o := e.load(t, s.cluster)
	if edit != nil {
		edit(pod, o)
	}
	s.kubelet = runPod(t, s.cluster, pod, o)
	s.sidecar = s.container(t, "upstream-auth")
	for _, c := range s.all[len(pod.Spec.InitContainers):] {
		if c != s.sidecar {
			s.application = c
		}
	}
	return s
}

// started is play with the authorization server up, and returns when the
// application has had a few answers.
func started(t *testing.T, e example, lifetime time.Duration, edit func(*corev1.Pod, *objects)) *scene {
	t.Helper()
	s := play(t, e, lifetime, edit)
	s.serverSite.up(t)
	s.more(10)
	return s
}

// patience is for a machine that does many things at once: no figure.
const patience = 40 * time.Second

// until returns when ok is true, and gives up when patience ends.
func (s *scene) until(what string, ok func() bool) {
	s.t.Helper()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	end := time.NewTimer(patience)
	defer end.Stop()
	for !ok() {
		select {
		case <-poll.C:
		case <-end.C:
			s.t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// more returns when the application has had n more good answers.
func (s *scene) more(n int) {
	s.t.Helper()
	enough := s.good() + n
	s.until("good answers to the application", func() bool { return s.good() >= enough })
}

func (s *scene) good() int { return s.counts().good }

// answer is a line that the application prints.
type answer struct {
	At       time.Time `json:"at"`
	Took     float64   `json:"took_ms"`
	Status   int       `json:"status"`
	Error    string    `json:"error"`
	Draining bool      `json:"draining"`
}

func (a answer) ok() bool { return a.Status == http.StatusOK }

// answers are those that a container has had.
func (c *container) answers() (all []answer) {
	for line := range bytes.Lines([]byte(c.logged())) {
		var a answer
		if json.Unmarshal(line, &a) == nil {
			all = append(all, a)
		}
	}
	return all
}

// counts are of the application's answers, by what they were.
type counts struct{ good, unavailable, other, lost, drained int }

func (s *scene) counts() (c counts) { return count(s.application.answers()) }

func count(all []answer) (c counts) {
	for _, a := range all {
		switch {
		case a.ok():
			c.good++
		case a.Error != "":
			c.lost++
		case a.Status == http.StatusServiceUnavailable:
			c.unavailable++
		default:
			c.other++
		}
		if a.Draining {
			c.drained++
		}
	}
	return c
}

// failed is all but the good ones.
func (c counts) failed() int { return c.unavailable + c.other + c.lost }

// since are the answers to requests that were sent after at.
func since(all []answer, at time.Time) []answer {
	return slices.DeleteFunc(slices.Clone(all), func(a answer) bool { return a.At.Before(at) })
}

// status asks the pod's port of status from the node, as a probe does.
func (s *scene) status(path string) (code int, body string) {
	s.t.Helper()
	return s.ask(s.node, http.MethodGet, "http://"+podIP.String()+":9180"+path, "")
}

// ask sends a request from a namespace; 0 is no answer, and body then says why.
func (s *scene) ask(from *network, method, url, host string) (code int, body string) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), method, url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if host != "" {
		request.Host = host
	}
	client := clientIn(from)
	client.Timeout = 5 * time.Second
	response, err := client.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// clean fails if a token or a secret stands where it must not.
func (s *scene) clean(where, text string) {
	s.t.Helper()
	for _, secret := range slices.Concat(s.issuedTokens(), s.sentSecrets(), s.serviceTokens()) {
		if strings.Contains(text, secret) {
			s.t.Errorf("there is a token or a secret in %s", where)
		}
	}
}

// milliseconds is a duration as it is printed.
func milliseconds(d time.Duration) string { return d.Round(time.Millisecond).String() }
