package authserver

import (
	"net/http"
	"time"
)

// OneAccessPath is where a Server made by NewOneAccess answers.
const OneAccessPath = "/api/v2/tenant/token"

// OneAccessIDToken is the ID token in each answer of OneAccess: shaped like a
// JWT, and easy to find where it should not be, which is anywhere.
const OneAccessIDToken = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJpZC10b2tlbiJ9.not-an-access-token" //nolint:gosec // a make-believe token

// NewOneAccess returns a server that speaks as Huawei Cloud OneAccess does where
// it hands out API access credentials: the client in the body alone, a lifetime
// of 1800 seconds unless config has another, the running token with what is left
// of it, errors of its own shape, and an ID token beside. What config says of
// methods, scopes and the running token is ignored.
func NewOneAccess(config Config) *Server {
	config.Methods = []string{Post}
	config.RunningToken = true
	if config.Lifetime <= 0 {
		config.Lifetime = 1800 * time.Second
	}
	return newServer(config, oneAccess)
}

var oneAccess = dialect{
	path:   OneAccessPath,
	scope:  "all",
	answer: func(members map[string]any) { members["id_token"] = OneAccessIDToken },
	refuse: refuseOneAccess,
}

// oneAccessCodes are made up in the shape of the vendor's (APP_ACCOUNT.0004):
// the page of this endpoint names the members and no value.
var oneAccessCodes = map[string]string{
	"invalid_request":        "COMMON.0001",
	"invalid_client":         "AUTH.0001",
	"unsupported_grant_type": "AUTH.0002",
}

// refuseOneAccess answers every error with 400, that of a bad client too.
func refuseOneAccess(w http.ResponseWriter, _ Request, no *refusal) {
	writeJSON(w, http.StatusBadRequest, map[string]any{
		"error_code": oneAccessCodes[no.code],
		"error_msg":  no.description,
	})
}
