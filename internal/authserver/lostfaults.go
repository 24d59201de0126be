package authserver

import "net/http"

// AfterProcessing has the healthy server do all that the request asks for, and
// then answers with fault: the answer is lost, and a refresh token is spent. A
// fault that changes an answer, such as CutBody, is given the lost one.
func AfterProcessing(fault Fault) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		lost := capture(r, next)
		fault(w, r, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { lost.send(w) }))
	}
}

// LostAnswers are the ways to lose an answer after the request was processed,
// by name.
func LostAnswers() map[string]Fault {
	return map[string]Fault{
		"reset":      AfterProcessing(Reset()),
		"500":        AfterProcessing(Status(http.StatusInternalServerError)),
		"502":        AfterProcessing(Status(http.StatusBadGateway)),
		"504":        AfterProcessing(Status(http.StatusGatewayTimeout)),
		"cut body":   AfterProcessing(CutBody()),
		"unreadable": AfterProcessing(Raw(http.StatusOK, "text/html", "<html>the proxy's own page</html>")),
	}
}
