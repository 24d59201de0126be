package advice

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
)

// ofStatus is an answer of which the status, or the form, says what is wrong.
func ofStatus(f *oauth.Failure, k Facts) Advice {
	switch {
	case f.Kind == oauth.Unreachable:
		return ofServer(f, k)
	case f.Status >= 300 && f.Status < 400:
		return ofRedirect(f, k)
	case f.Status == http.StatusNotFound, f.Status == http.StatusMethodNotAllowed, f.Status == http.StatusGone:
		return ofPlace(f, k)
	case f.Status == http.StatusProxyAuthRequired:
		return Advice{
			Wrong: "a proxy on the way to " + k.host() + " wants a user and a password (" + status(f) + ")",
			Do:    k.in("") + "proxy http://<user>:<password>@<host>:<port>, each from {env.NAME} or {file./path}" + k.around(),
			Topic: unreachable,
		}
	case errors.Is(f.Err, oauth.ErrPage):
		return ofPage(f, k)
	case f.Kind == oauth.Malformed:
		return ofForm(f, k)
	}
	return ofRefusal(f, k)
}

// ofServer is a server that says that it cannot now.
func ofServer(f *oauth.Failure, k Facts) Advice {
	a := Advice{Topic: unreachable}
	wait := "it is tried again by itself"
	if f.RetryAfter > 0 {
		wait = "no request is made for " + span(f.RetryAfter) + " or more, as the server asks"
	}
	by := status(f)
	if f.Code != "" {
		by = reason(f)
	}
	if f.Status == 0 && f.Code == "" {
		a.Wrong = "the token request did not get through to " + k.host()
		a.Do = wait + "; the log's cause has more"
		return a
	}
	if f.Code == "temporarily_unavailable" {
		a.Wrong = k.host() + " says that it cannot serve now (" + by + ")"
		a.Do = wait + "; if it stays, ask its operator"
		return a
	}
	switch f.Status {
	case http.StatusTooManyRequests:
		a.Topic = tooMany
		a.Wrong = k.host() + " gets more token requests than it allows (" + by + ")"
		a.Do = wait + ", and a token that is held serves on; if it comes again: several instances that ask each for itself can share one token (" + k.in("") + "share), other programs with this client_id count, too, and the server's operator can raise the limit"
	case http.StatusRequestTimeout, http.StatusTooEarly:
		a.Wrong = k.host() + " did not get the whole token request in time (" + by + ")"
		a.Do = wait + "; if it stays, the line to it, or a gateway before it, is slow or broken"
	case http.StatusNetworkAuthenticationRequired:
		a.Wrong = "the network demands a login before it lets anything out (" + by + ")"
		a.Do = "log in to the network from this machine, or have its operator exempt it"
	case http.StatusServiceUnavailable:
		a.Wrong = k.host() + " says that it cannot serve now (" + by + ")"
		a.Do = wait + "; if it stays, it is overloaded, in maintenance, or a gateway has no server left behind it: ask its operator"
	case http.StatusBadGateway, http.StatusGatewayTimeout, 520, 521, 522, 523, 524, 525, 526, 527, 530:
		a.Wrong = "a gateway before " + k.host() + " gets no answer from the server behind it (" + by + ")"
		a.Do = wait + "; if it stays, the server behind is down or slow: tell its operator"
	default:
		a.Wrong = k.host() + " failed at the token request (" + by + ")"
		a.Do = wait + "; if it stays, its operator finds the cause in its log; some servers fail so at a parameter that they do not expect: compare audience, resource and param with its documentation"
	}
	if errors.Is(f.Err, oauth.ErrPage) {
		a.Wrong += ", by a page"
		a.Do += k.viaProxy()
	}
	return a
}

// ofRedirect is an address from which the server sends on.
func ofRedirect(f *oauth.Failure, k Facts) Advice {
	a := Advice{Topic: wrongAnswer}
	a.Wrong = k.endpoint() + " redirects elsewhere (" + status(f) + "), and a secret never follows a redirect"
	to := "to see where to: " + k.page("grep -i ^location")
	switch {
	case strings.HasPrefix(k.Endpoint, "http://"):
		a.Do = "most likely to https: write https:// in " + k.address() + "; " + to
	case pathForBrowsers(k.Endpoint):
		a.Do = "this is the address for browsers: write the token endpoint in token_url (its path often ends with /token)"
	case f.Status == http.StatusFound || f.Status == http.StatusSeeOther:
		a.Do = "most likely to a login page, which is for browsers: token_url is not the token endpoint, or a proxy or gateway wants a login; " + to + k.viaProxy()
	default:
		a.Do = "write the address that it redirects to (often with or without a slash at the end, or another host), if it is the server's own; " + to
	}
	return a
}

// ofPlace is an address at which there is no token endpoint.
func ofPlace(f *oauth.Failure, k Facts) Advice {
	a := Advice{Topic: wrongAnswer}
	a.Wrong = "there is no token endpoint at " + cmp.Or(k.Endpoint, "the address in the metadata") + " (" + status(f) + ")"
	switch {
	case f.Status == http.StatusMethodNotAllowed:
		a.Wrong = k.endpoint() + " does not take a token request by the method that is used (" + status(f) + ")"
		a.Do = "most likely token_url is another endpoint: " + findEndpoint(k) + "; if the server's documentation wants another method: " + k.in("request") + "method GET (or POST)"
	case k.Issuer != "":
		a.Do = "the address is from the metadata of " + k.Issuer + ", which is fetched anew now; if it stays, the server is being moved or its metadata is wrong: tell its operator, or " + k.in("") + "token_url <the token endpoint>, in place of issuer"
	default:
		a.Do = "correct the path in token_url: " + findEndpoint(k)
	}
	return a
}

// findEndpoint tells how the token endpoint is found.
func findEndpoint(k Facts) string {
	at := "https://" + k.host()
	if u, err := url.Parse(k.Endpoint); err == nil && u.Host != "" {
		at = u.Scheme + "://" + u.Host
	}
	return "the server's documentation has it, and, where it has metadata: curl -s " + at + "/.well-known/openid-configuration (token_endpoint)"
}

// ofPage is a page for browsers in place of an answer.
func ofPage(f *oauth.Failure, k Facts) Advice {
	a := Advice{Topic: wrongAnswer, Wrong: "a page for browsers came in place of a token (" + status(f) + ") from " + k.host()}
	title := "its title says who made it: " + k.page("grep -i '<title'")
	switch {
	case k.Issuer == "" && pathForBrowsers(k.Endpoint):
		a.Do = "token_url is the address for browsers: write the token endpoint (its path often ends with /token)"
	case k.Proxy != "":
		a.Do = "most likely it is the proxy's (" + k.Proxy + "), which wants a login or does not allow the host: look at its log" + k.around() + "; " + title
	case f.Status == http.StatusForbidden:
		a.Do = "most likely a firewall before the server turns this machine away: have its address let in; " + title
	case f.Status == http.StatusBadRequest && strings.HasPrefix(k.Endpoint, "http://"):
		a.Do = "most likely it speaks TLS at this port: write https:// in " + k.address() + "; " + title
	case k.Issuer != "":
		a.Do = "something between here and the server answers for it: a proxy, a gateway, a network's login page; " + title
	default:
		a.Do = "either token_url is another page of the server, and not its token endpoint (compare with its documentation), or a proxy, a gateway or a network's login page answers for it; " + title
	}
	return a
}

// viaProxy tells what to do about a proxy, if one is in use.
func (k Facts) viaProxy() string {
	if k.Proxy == "" {
		return ""
	}
	return "; the proxy " + k.Proxy + " is in between" + k.around()
}

// pathForBrowsers tells of the last words of a path that an authorization
// endpoint or a login page has, and no token endpoint.
func pathForBrowsers(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	path := strings.TrimSuffix(u.Path, "/")
	last := strings.ToLower(path[strings.LastIndexByte(path, '/')+1:])
	return slices.Contains([]string{"authorize", "authorization", "auth", "login", "signin"}, last)
}

// ofForm is a good status and no token that could be used. The words are those
// of this program, which reads the answer.
func ofForm(f *oauth.Failure, k Facts) Advice {
	text := "no token in the answer"
	if f.Err != nil {
		text = f.Err.Error()
	}
	a := Advice{Topic: wrongAnswer, Wrong: k.host() + " answered without a token that can be used: " + text + " (" + status(f) + ")"}
	show := "its documentation shows what it answers"
	switch {
	case strings.Contains(text, "the answer has no "), strings.HasSuffix(text, "is not a string"):
		a.Do = "if the token stands elsewhere in the answer, " + k.in("response") + "access_token <its path, as in data.access_token>; " + show + "; if token_url is not the token endpoint, correct it"
	case strings.Contains(text, "is not DPoP"):
		a.Do = "the server gave a token that is not bound to the key: have DPoP enabled for this client there, or take dpop out of the credential"
	case strings.Contains(text, "is not Bearer"):
		a.Do = "the server gave a token of another type: if it is DPoP, " + k.in("dpop") + "key_file /path/to/key.pem, or have bearer tokens enabled for this client; if the type stands elsewhere in the answer, " + k.in("response") + "token_type <its path>"
	case strings.Contains(text, "outside visible ASCII"), strings.HasSuffix(text, "is empty") && !strings.Contains(text, "the answer is empty"):
		a.Do = "the server is broken, or the path is that of another value: " + k.in("response") + "access_token <its path>; " + show
	case strings.Contains(text, "1 MiB"):
		a.Do = "no token is this large: token_url is not the token endpoint, or a gateway answers for it; to look: " + k.page("head -c 900")
	case strings.Contains(text, "cut short"):
		a.Do = "it is tried again by itself; if it stays, a gateway or proxy in between cuts answers: look at its log and its limits" + k.viaProxy()
	case strings.Contains(text, "the answer is empty"), strings.Contains(text, "in an answer of this status"):
		a.Do = "token_url may be another endpoint of the server, or a gateway answers for it: compare with its documentation"
	default:
		a.Do = "token_url may not be the token endpoint, or something in between answers; to look: " + k.page("head -c 900") + "; if the server answers in another form than JSON, it cannot be used"
	}
	return a
}

// ofRefusal is a 4xx without a code.
func ofRefusal(f *oauth.Failure, k Facts) Advice {
	a := Advice{Topic: clientRefused, Wrong: k.host() + " refuses the token request without a word of why (" + status(f) + ")"}
	switch f.Status {
	case 0, http.StatusOK:
		a.Wrong = "the token request was refused"
		a.Do = askOperator
	case http.StatusBadRequest:
		if strings.HasPrefix(k.Endpoint, "http://") && f.Err != nil {
			a.Topic = wrongAnswer
			a.Do = "most likely it speaks TLS at this port: write https:// in " + k.address()
			return a
		}
		a.Do = "in this order: a parameter is missing or has another name there (compare with its documentation: rename, body, grant_type in the block request); the client's secret is wrong; " + askOperator
	case http.StatusForbidden:
		a.Do = "a firewall or a list of addresses before the server turns this machine away, or the client may not ask there; " + askOperator
	case http.StatusUnsupportedMediaType, http.StatusNotAcceptable:
		a.Topic = wrongAnswer
		a.Wrong = k.host() + " does not take the form of the token request (" + status(f) + ")"
		a.Do = "some servers want JSON: " + k.in("request") + "body json; its documentation shows the form"
		if f.Status == http.StatusNotAcceptable {
			a.Do = k.in("request") + "header Accept */*"
		}
	case http.StatusRequestEntityTooLarge, http.StatusRequestURITooLong, http.StatusRequestHeaderFieldsTooLarge:
		a.Topic = wrongAnswer
		a.Wrong = "the token request is larger than " + k.host() + " takes (" + status(f) + ")"
		a.Do = "what is large in it is an assertion, a token to exchange or a list of scopes: make it smaller, or have the limit raised; if the parameters travel in the URL, " + k.in("request") + "body form"
	case http.StatusMisdirectedRequest:
		a.Topic = tlsTopic
		a.Wrong = k.host() + " is not the server for this name on this connection (" + status(f) + ")"
		a.Do = "take server_name out of the block tls, or write the name there that stands in " + k.address()
	default:
		a.Do = askOperator + "; compare the request with the server's documentation"
	}
	return a
}
