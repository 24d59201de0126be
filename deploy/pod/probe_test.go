package pod

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// watch runs a probe until the context ends, and tells each time that enough of
// its results in a row were the same and it was the other before.
func (c *container) watch(ctx context.Context, p *corev1.Probe, tell func(ok bool, why error)) {
	if !wait(ctx, time.Duration(p.InitialDelaySeconds)*time.Second) {
		return
	}
	period := time.NewTicker(seconds(p.PeriodSeconds, 10))
	defer period.Stop()
	var told, last, before bool
	for row := int32(0); ; {
		why := c.probe(ctx, p)
		if ctx.Err() != nil {
			return
		}
		ok := why == nil
		if before && ok == last {
			row++
		} else {
			row = 1
		}
		last, before = ok, true
		if enough := cmp.Or(p.FailureThreshold, 3); ok && row >= cmp.Or(p.SuccessThreshold, 1) && !told || !ok && row == enough {
			told = ok
			tell(ok, why)
		}
		select {
		case <-period.C:
		case <-ctx.Done():
			return
		}
	}
}

// probe is nil when the container passes.
func (c *container) probe(ctx context.Context, p *corev1.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, seconds(p.TimeoutSeconds, 1))
	defer cancel()
	switch {
	case p.HTTPGet != nil:
		return c.get(ctx, p.HTTPGet)
	case p.Exec != nil:
		said, err := c.exec(ctx, p.Exec.Command)
		if err != nil {
			return fmt.Errorf("%w: %s", err, said)
		}
		return nil
	}
	return errors.New("a probe of a kind that this kubelet does not know")
}

// get asks from the node, as a kubelet does: a pod's loopback address is not
// there.
func (c *container) get(ctx context.Context, g *corev1.HTTPGetAction) error {
	port := strconv.Itoa(c.port(g.Port))
	scheme := "http"
	if g.Scheme == corev1.URISchemeHTTPS {
		scheme = "https"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+net.JoinHostPort(cmp.Or(g.Host, c.kubelet.ip.String()), port)+g.Path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "kube-probe/1.37")
	request.Header.Set("Accept", "*/*")
	for _, h := range g.HTTPHeaders {
		request.Header.Set(h.Name, h.Value)
		if h.Name == "Host" {
			request.Host = h.Value
		}
	}
	response, err := clientIn(c.kubelet.cluster.node).Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode >= 400 {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	return nil
}

// port is a number, or the name of one of the container's ports.
func (c *container) port(p intstr.IntOrString) int {
	for _, known := range c.spec.Ports {
		if p.Type == intstr.String && known.Name == p.StrVal {
			return int(known.ContainerPort)
		}
	}
	return p.IntValue()
}

// clientIn has a connection of its own for each request, as a kubelet has, and
// follows no redirect.
func clientIn(n *network) *http.Client {
	return &http.Client{
		Transport:     &http.Transport{DialContext: n.DialContext, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func seconds(n, otherwise int32) time.Duration {
	return time.Duration(cmp.Or(n, otherwise)) * time.Second
}

// wait tells whether d has passed before the context ended.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
