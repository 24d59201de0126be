package oauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Discover asks an issuer for its metadata, at each place where servers have it,
// until one is good. Allow tells whether a URL may be used, and its error why
// not, without repeating the URL; the issuer and every endpoint have to pass. No
// redirect is followed. The error is always a *Failure, of kind Unreachable (its
// Status 0 where the network failed), Refused (no metadata, or what it says
// cannot be used) or Malformed (pages, redirects and the like instead of
// metadata).
func Discover(ctx context.Context, rt http.RoundTripper, issuer string, allow func(url string) error) (*Metadata, error) {
	places, err := wellKnown(issuer)
	if err == nil {
		err = allow(issuer)
	}
	if err != nil {
		return nil, &Failure{Kind: Refused, Err: fmt.Errorf("issuer: %w", err)}
	}
	var first *Failure // the first one that says more than that nothing is there
	none := &Failure{Kind: Refused}
	var tried []string
	for _, place := range places {
		doc, f := look(ctx, rt, place)
		if f == nil {
			m, err := doc.metadata(issuer, allow)
			if err == nil {
				return m, nil
			}
			f = &Failure{Kind: Refused, Status: http.StatusOK, Err: err}
		}
		if doc == nil && f.Kind != Unreachable {
			if f.Kind == Malformed {
				none.Kind = Malformed
			}
			tried = append(tried, place+" gave "+f.inWords())
			continue
		}
		if first == nil {
			f.Err = atPlace(place, f.Err)
			first = f
		}
		// The network is the same for all places, and who asks to be left alone
		// is left alone. Other errors may be those of one place: servers answer
		// 500 at a path that they do not have.
		if f.Status == 0 || f.Status == http.StatusTooManyRequests || f.RetryAfter > 0 {
			break
		}
	}
	if first != nil {
		return nil, first
	}
	none.Err = fmt.Errorf("no metadata found: %s; is the issuer written as the server has it? If the server has no metadata, write token_url in place of issuer", strings.Join(tried, "; "))
	return nil, none
}

// inWords is what a place gave instead of metadata.
func (f *Failure) inWords() string {
	if f.Err == nil {
		return fmt.Sprintf("HTTP %d", f.Status)
	}
	return fmt.Sprintf("HTTP %d, %v", f.Status, f.Err)
}

func atPlace(place string, err error) error {
	if err == nil {
		return errors.New("metadata at " + place)
	}
	return fmt.Errorf("metadata at %s: %w", place, err)
}

// wellKnown are the places of an issuer's metadata, those that most servers have
// first: that of OpenID Connect Discovery 1.0 §4.1, that of RFC 8414 §3.1, and
// where the two are confused.
func wellKnown(issuer string) ([]string, error) {
	u, err := url.Parse(issuer) // which may hold a secret, so no message repeats it
	switch {
	case err != nil || u.Host == "":
		return nil, errors.New("is not a URL: expected https://host or https://host/path")
	case u.User != nil:
		return nil, errors.New("holds a user: write client_id and client_auth instead")
	case strings.ContainsAny(issuer, "?#"):
		return nil, errors.New("holds a query or a fragment, which RFC 8414 §2 forbids")
	}
	const openID, oauth = "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"
	whole := strings.TrimSuffix(issuer, "/")
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	root := url.URL{Scheme: u.Scheme, Host: u.Host}
	places := []string{whole + openID, root.String() + oauth + path}
	if path != "" {
		places = append(places, whole+oauth)
	}
	return places, nil
}

// look asks one place for metadata.
func look(ctx context.Context, rt http.RoundTripper, place string) (document, *Failure) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, place, nil)
	if err != nil {
		return nil, &Failure{Kind: Unreachable, Err: withoutURL(err)}
	}
	req.Header.Set("Accept", "application/json")
	res, err := rt.RoundTrip(req)
	if err != nil {
		return nil, &Failure{Kind: Unreachable, Err: transportError(ctx, err)}
	}
	defer res.Body.Close()

	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	f := &Failure{Kind: Malformed, Status: res.StatusCode}
	switch {
	case res.StatusCode == http.StatusRequestTimeout, res.StatusCode == http.StatusTooEarly,
		res.StatusCode == http.StatusTooManyRequests, res.StatusCode >= 500:
		f.Kind, f.RetryAfter = Unreachable, parseRetryAfter(res.Header.Get("Retry-After"), date(res.Header))
	case res.StatusCode >= 400:
		f.Kind = Refused
	case res.StatusCode >= 300:
		f.Err = redirectError(req.URL, res.Header.Get("Location"))
	case res.StatusCode == http.StatusPartialContent, !isSuccess(res.StatusCode):
		f.Err = errors.New("which is no answer to this request")
	case err != nil: // the connection broke: another place is no better
		return nil, &Failure{Kind: Unreachable, Err: fmt.Errorf("reading the answer: %w", transportError(ctx, err))}
	default:
		doc, err := parseMetadata(body)
		if err == nil {
			return doc, nil
		}
		f.Err = err
	}
	return nil, f
}

// redirectError names the host alone: the rest may be anything.
func redirectError(from *url.URL, location string) error {
	to, err := from.Parse(location)
	if location == "" || err != nil {
		return errors.New("a redirect, which is not followed")
	}
	return fmt.Errorf("a redirect to the host %s, which is not followed", hostOf(to.String()))
}

// shown is a server's word as it may stand in an error.
func shown(s string) string { return newMask(nil).description(s) }
