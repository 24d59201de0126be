package caddymodule

import (
	"net/http"
	"testing"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// TestRejectionOfCall: what refuses a gRPC call has status 200.
func TestRejectionOfCall(t *testing.T) {
	const grpc = "application/grpc+proto"
	for name, tc := range map[string]struct {
		contentType, status, options string
		refused                      bool
	}{
		"UNAUTHENTICATED":             {grpc, "16", "", true},
		"PERMISSION_DENIED":           {grpc, "7", "", false},
		"OK":                          {grpc, "0", "", false},
		"not gRPC":                    {"text/plain", "16", "", false},
		"401 is no refusal here":      {grpc, "16", "rejected_on 403", false},
		"401 is one beside the other": {grpc, "16", "rejected_on 403 401", true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParts(t, authserver.Config{})
			p.upstream = listen(t, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tc.contentType)
				w.Header().Set("Grpc-Status", tc.status)
			}))
			p.run(p.credential(tc.options), replaying)
			if tc.refused {
				p.aged() // or it comes too soon, which would be counted as well
			}
			a, err := p.try(http.MethodPost, "/service/Method", nil)
			if err != nil || a.status != http.StatusOK {
				t.Fatalf("got %d %v", a.status, err)
			}
			if !tc.refused {
				p.wantRefusals(0, 0, 0)
				return
			}
			p.wantRefusals(0, 1, 0) // another token is asked for, and the call is not made again
			eventually(t, "another token", func() bool { return p.auth.Requests() == 2 })
		})
	}
}
