package caddymodule

import (
	"errors"
	"io"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"
)

// unheard tells that reverse_proxy's own log goes nowhere, while ours does not.
// Without it a request costs some 7% less, for Caddy encodes each one for a line
// that it writes at level DEBUG alone; but nobody would be told where an answer
// breaks off.
func (t *Transport) unheard(ctx caddy.Context, proxy *reverseproxy.Handler) bool {
	return proxy != nil && t.logger.Core().Enabled(zap.WarnLevel) && !ctx.Logger(proxy).Core().Enabled(zap.WarnLevel)
}

// watch has an answer's body tell where it breaks off.
func (t *Transport) watch(req *http.Request, res *http.Response) {
	if _, upgraded := res.Body.(io.Writer); upgraded || res.Body == http.NoBody {
		return
	}
	res.Body = &watchedBody{ReadCloser: res.Body, transport: t, req: req, status: res.StatusCode}
}

// watchedBody is the body of an upstream's answer.
type watchedBody struct {
	io.ReadCloser
	transport *Transport
	req       *http.Request // of which nothing but the method and the upstream is told
	status    int
	length    int64
}

// Read implements io.Reader.
func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.length += int64(n)
	if err != nil && !errors.Is(err, io.EOF) && b.req.Context().Err() == nil { // else the client is gone
		b.transport.logger.Warn("an upstream's answer breaks off", zap.String("credential", b.transport.inject.name),
			zap.String("upstream", b.req.URL.Host), zap.String("method", b.req.Method), zap.Int("status", b.status),
			zap.Int64("bytes", b.length), zap.Error(err))
	}
	return n, err
}

// Interface guards
var _ io.ReadCloser = (*watchedBody)(nil)
