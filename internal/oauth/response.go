package oauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Response is a token request that brought a token.
type Response struct {
	// AccessToken is visible ASCII (RFC 6749 A.12), so it can split no header.
	AccessToken string
	// RefreshToken is "" where none came.
	RefreshToken string
	// IDToken is what stands in id_token (OpenID Connect Core §3.1.3.3), not
	// verified; "" where none came.
	IDToken string
	// Binding is what the token is bound to, for whoever made the request; nil
	// for a bearer token.
	Binding any
	// ExpiresIn is the lifetime counted from the request's sending, 0 where
	// the answer holds none that can be used.
	ExpiresIn time.Duration
	// RefreshIn is when the server asks for a renewal, 0 where it does not say.
	RefreshIn time.Duration
	// Scopes is what the server says that it granted, nil where it says nothing.
	Scopes []string
	// Missing are the scopes that were asked for and not granted.
	Missing []string
	// Type is the token's type as it is sent: Bearer, DPoP or N_A.
	Type string
	// ServerTime is the server's clock when it answered (RFC 9110 §6.6.1), zero
	// where it does not tell.
	ServerTime time.Time
	// Bearer is false for a token outside the b64token of RFC 6750 §2.1, which
	// some upstreams may not take.
	Bearer bool

	// Adopted tells that another process made the request, which took so long.
	Adopted bool
	Took    time.Duration
	// Age is how long before it was wished for here the request was sent; below
	// zero where it was sent later.
	Age time.Duration
}

// Fields say where the values of an answer are, as dotted paths. An empty one
// is the standard's name.
type Fields struct {
	AccessToken      string
	RefreshToken     string
	ExpiresIn        string
	TokenType        string
	Error            string
	ErrorDescription string
	// ExpiresUnit is what expires_in counts: a second unless set.
	ExpiresUnit time.Duration
}

func or(path, standard string) string {
	if path == "" {
		return standard
	}
	return path
}

// answer is what came back, before anything is made of it.
type answer struct {
	status      int
	contentType string
	retryAfter  time.Duration
	date        time.Time
	body        []byte
}

// read sorts an answer into a Response or one of the three failures.
func (r *Request) read(a *answer, m mask) (*Response, error) {
	doc, parseErr := parse(a)
	code, description := r.Fields.problem(doc, a.status)
	failure := func(kind Kind, err error) *Failure {
		return a.failure(m, kind, code, description, err)
	}
	if f := r.failed(a, doc, parseErr, m); f != nil {
		return nil, f
	}
	switch {
	case a.status == http.StatusNoContent, a.status == http.StatusPartialContent, !isSuccess(a.status):
		f := failure(Malformed, errors.New("no token in an answer of this status"))
		f.Lost = isSuccess(a.status)
		return nil, f
	case parseErr != nil:
		f := failure(Malformed, parseErr)
		f.Lost = true
		return nil, f
	}
	res, err := r.token(doc, a)
	switch {
	case code != "" && (err != nil || r.Fields.Error != "" || word(doc["error"]) != ""):
		return nil, failure(Refused, nil)
	case err != nil:
		return r.refreshTokenAlone(doc), failure(Malformed, err)
	}
	return res, nil // beside a good token, a vendor's code is one of success
}

// refreshTokenAlone saves what a bad answer holds of use.
func (r *Request) refreshTokenAlone(doc document) *Response {
	if t := r.refreshToken(doc); t != "" {
		return &Response{RefreshToken: t}
	}
	return nil
}

func (r *Request) refreshToken(doc document) string {
	t, _ := doc.lookup(or(r.Fields.RefreshToken, "refresh_token")).(string)
	return t
}

// failed sorts what is no success by its status alone.
func (r *Request) failed(a *answer, doc document, parseErr error, m mask) *Failure {
	code, description := r.Fields.problem(doc, a.status)
	var page error
	if code == "" && len(a.body) > 0 {
		page = parseErr // a page instead of an error object is worth saying
	}
	switch {
	case a.status == http.StatusRequestTimeout, a.status == http.StatusTooEarly,
		a.status == http.StatusTooManyRequests, a.status >= 500,
		code == "temporarily_unavailable", code == "server_error":
		f := a.failure(m, Unreachable, code, description, page)
		f.Lost = a.status == http.StatusInternalServerError || a.status == http.StatusBadGateway || a.status == http.StatusGatewayTimeout
		return f
	case a.status >= 400:
		return a.failure(m, Refused, code, description, page)
	case a.status >= 300:
		return a.failure(m, Malformed, code, description, errors.New("a redirect, which is never followed with a secret"))
	}
	return nil
}

func (a *answer) failure(m mask, kind Kind, code, description string, err error) *Failure {
	return &Failure{
		Kind: kind, Status: a.status, Code: m.code(code), Description: m.description(description),
		RetryAfter: a.retryAfter, ServerTime: a.date, Err: err,
	}
}

func (r *Request) token(doc document, a *answer) (*Response, error) {
	res := &Response{ServerTime: a.date}
	var err error
	if res.AccessToken, err = accessToken(doc, or(r.Fields.AccessToken, "access_token")); err != nil {
		return nil, err
	}
	if res.Type, err = r.checkType(doc, or(r.Fields.TokenType, "token_type")); err != nil {
		return nil, err
	}
	res.Bearer = isB64Token(res.AccessToken)
	res.RefreshToken = r.refreshToken(doc)
	res.IDToken, _ = doc.lookup("id_token").(string)
	res.ExpiresIn, res.RefreshIn = r.Fields.lifetime(doc, res.AccessToken, a.date)
	requested := strings.Fields(r.Params.Get("scope"))
	if res.Scopes = scopes(doc.lookup("scope"), requested); res.Scopes != nil {
		for _, s := range requested {
			if !slices.Contains(res.Scopes, s) {
				res.Missing = append(res.Missing, s)
			}
		}
	}
	return res, nil
}

func accessToken(doc document, path string) (string, error) {
	switch v := doc.lookup(path).(type) {
	case nil:
		return "", fmt.Errorf("the answer has no %s", path)
	case string:
		if v == "" {
			return "", fmt.Errorf("%s is empty", path)
		}
		for i := range len(v) {
			if v[i] < 0x21 || v[i] > 0x7e {
				return "", fmt.Errorf("%s holds a character outside visible ASCII (RFC 6749 A.12)", path)
			}
		}
		return v, nil
	default:
		return "", fmt.Errorf("%s is not a string", path)
	}
}

// checkType refuses a token of another type than was asked for (RFC 6749
// §7.1). A missing type is a bearer token; BearerToken is Apigee's word for it.
// A bearer token in place of a bound one would be a downgrade (RFC 9449 §5).
func (r *Request) checkType(doc document, path string) (string, error) {
	v := doc.lookup(path)
	given, isString := v.(string)
	wanted := r.TokenType
	if wanted == "" || wanted == "N_A" {
		given = strings.ToLower(given)
		switch {
		case v == nil, isString && slices.Contains([]string{"", "bearer", "bearertoken"}, given):
			return "Bearer", nil
		case wanted == "N_A" && given == "n_a":
			return wanted, nil
		}
		wanted = "Bearer"
	}
	if strings.EqualFold(given, wanted) {
		return wanted, nil
	}
	return "", fmt.Errorf("%s is not %s", path, wanted)
}

// isB64Token tells whether a token is one of RFC 6750 §2.1.
func isB64Token(s string) bool {
	s = strings.TrimRight(s, "=")
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._~+/", r)
	}) < 0
}

// scopes reads a string of scopes (RFC 6749 §3.3) or a list of them. A single
// word is split at commas only where several scopes were asked for (GitHub).
func scopes(v any, requested []string) []string {
	var out []string
	switch v := v.(type) {
	case string:
		out = strings.Fields(v)
		if len(out) == 1 && len(requested) > 1 {
			out = strings.Split(out[0], ",")
		}
	case []any:
		for _, s := range v {
			if s, ok := s.(string); ok {
				out = append(out, s)
			}
		}
	}
	return out
}

// ErrPage is an answer that was made for a browser: a proxy's, a gateway's, or
// that of another address than the token endpoint's.
var ErrPage = errors.New("the answer is a page (HTML or XML), not a token response: is this the token endpoint, or a proxy's page?")

// document is an answer's body, whichever way it was written.
type document map[string]any

// parse reads JSON by its looks, not its Content-Type, which servers get
// wrong; and form encoding, which some send unasked (GitHub).
func parse(a *answer) (document, error) {
	if len(a.body) >= maxBody {
		return nil, errors.New("the answer is 1 MiB or more")
	}
	body := bytes.TrimSpace(bytes.TrimPrefix(a.body, []byte("\ufeff")))
	if len(body) == 0 {
		return nil, errors.New("the answer is empty")
	}
	if body[0] == '{' {
		var doc document
		dec := json.NewDecoder(bytes.NewReader(body))
		dec.UseNumber()
		if err := dec.Decode(&doc); err != nil {
			return nil, errors.New("the answer is JSON that does not parse or is cut short")
		}
		if _, err := dec.Token(); !errors.Is(err, io.EOF) {
			return nil, errors.New("the answer is more than one JSON object")
		}
		return doc, nil
	}
	mediaType, _, _ := mime.ParseMediaType(a.contentType)
	if mediaType == "text/html" || body[0] == '<' {
		return nil, ErrPage
	}
	if mediaType == "application/x-www-form-urlencoded" || mediaType == "text/plain" {
		if values, err := url.ParseQuery(string(body)); err == nil && bytes.ContainsRune(body, '=') {
			doc := make(document, len(values))
			for name := range values {
				doc[name] = values.Get(name)
			}
			return doc, nil
		}
	}
	return nil, errors.New("the answer is not a JSON object")
}

// lookup follows a dotted path; nil where it leads nowhere.
func (d document) lookup(path string) any {
	if v, ok := d[path]; ok {
		return v
	}
	head, rest, ok := strings.Cut(path, ".")
	if !ok {
		return nil
	}
	inner, _ := d[head].(map[string]any)
	return document(inner).lookup(rest)
}
