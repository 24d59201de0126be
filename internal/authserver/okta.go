package authserver

import "net/http"

var oktaWords = says("error_description", map[string]said{
	"invalid_client": {401, "", "The client secret supplied for a confidential client is invalid."},
})

// refuseOkta answers a client that it does not know in another form.
func refuseOkta(w http.ResponseWriter, r Request, no *refusal) {
	if !no.stranger {
		oktaWords(w, r, no)
		return
	}
	writeJSON(w, http.StatusUnauthorized, map[string]any{
		"errorCode":    no.code,
		"errorSummary": "Invalid value for 'client_id' parameter.",
		"errorLink":    no.code,
		"errorId":      "oae" + random()[:22],
		"errorCauses":  []any{},
	})
}
