package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

// statusWait asks a process how its credentials stand, once or until all is
// well.
type statusWait struct {
	process *process
	path    string
	one     bool          // credential
	most    time.Duration // 0 asks once
}

// waitStep lies between two questions.
const waitStep = time.Second

// mostUnknown is how often in a row a process may not know the credential: while
// it starts, it does not.
const mostUnknown = 5

func (s *statusWait) readFlags(fl caddycmd.Flags) error {
	text := fl.String("wait")
	if text == "" {
		return nil
	}
	most, err := caddy.ParseDuration(text)
	if err != nil || most <= 0 {
		return fmt.Errorf("--wait: '%s' is not a duration such as 30s or 10m", text)
	}
	s.most = most
	return nil
}

// answer is the process's, of the end of the wait if there is one.
func (s *statusWait) answer(ctx context.Context) (*reply, error) {
	if s.most == 0 {
		return s.process.ask(ctx, askTimeout, http.MethodGet, s.path)
	}
	end := time.Now().Add(s.most)
	step := time.NewTicker(waitStep)
	defer step.Stop()
	strange := 0
	for {
		left := time.Until(end)
		r, err := s.process.ask(ctx, min(askTimeout, max(left, waitStep)), http.MethodGet, s.path)
		if ctx.Err() != nil {
			return r, err
		}
		if err == nil && r.status == http.StatusNotFound {
			strange++
		} else {
			strange = 0
		}
		left = time.Until(end)
		if left <= 0 || strange >= mostUnknown || err == nil && s.well(r) {
			return r, err
		}
		last := time.NewTimer(left)
		select {
		case <-step.C:
		case <-last.C: // and one look more
		case <-ctx.Done():
			last.Stop()
			return nil, errors.New("interrupted")
		}
		last.Stop()
	}
}

// well tells whether there is nothing to wait for. A process that is starting
// has no credentials for a moment.
func (s *statusWait) well(r *reply) bool {
	if r.status != http.StatusOK {
		return false
	}
	if s.one {
		c := new(report)
		return json.Unmarshal(r.body, c) == nil && well(c)
	}
	all := new(overview)
	return json.Unmarshal(r.body, all) == nil && all.Ready && len(all.Credentials) > 0
}
