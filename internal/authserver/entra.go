package authserver

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// checkEntra wants one scope, of all that an API has been given.
func checkEntra(_ *Server, r Request) *refusal {
	scopes := strings.Fields(r.Form.Get("scope"))
	switch {
	case len(scopes) == 0:
		return refuse("invalid_request", "the parameter scope is missing")
	case len(scopes) > 1 || !strings.HasSuffix(scopes[0], "/.default"):
		return refuse("invalid_scope", "client credentials want one scope that ends with /.default")
	}
	return nil
}

// entraNumbers are those of the errors (AADSTS), by their codes.
var entraNumbers = map[string]int{
	"invalid_client":         7000215,
	"unauthorized_client":    700016,
	"invalid_request":        90014,
	"invalid_scope":          1002012,
	"unsupported_grant_type": 70003,
}

func refuseEntra(w http.ResponseWriter, r Request, no *refusal) {
	code, status := no.code, http.StatusBadRequest
	switch {
	case no.stranger:
		code = "unauthorized_client"
	case code == "invalid_client":
		status = http.StatusUnauthorized
	}
	number := entraNumbers[code]
	if code == "invalid_client" && r.Form.Get("client_assertion") != "" {
		number = 700027
	}
	stamp, trace, correlation := time.Now().UTC().Format("2006-01-02 15:04:05Z"), newUUID(), newUUID()
	writeJSON(w, status, map[string]any{
		"error": code,
		"error_description": fmt.Sprintf("AADSTS%d: %s. Trace ID: %s Correlation ID: %s Timestamp: %s",
			number, no.description, trace, correlation, stamp),
		"error_codes":    []int{number},
		"timestamp":      stamp,
		"trace_id":       trace,
		"correlation_id": correlation,
		"error_uri":      "https://login.microsoftonline.com/error?code=" + strconv.Itoa(number),
	})
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails, since Go 1.24
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
