package authserver

import "net/url"

// zoomWords reads the query, too, and knows account_credentials alone.
func zoomWords(r *Request) error {
	query, err := url.ParseQuery(r.RawQuery)
	if err != nil {
		return err
	}
	form := url.Values{}
	for _, from := range []url.Values{query, r.Form} {
		for name, values := range from {
			form[name] = append(form[name], values...)
		}
	}
	switch form.Get("grant_type") {
	case "account_credentials":
		form.Set("grant_type", "client_credentials")
	case "client_credentials":
		form.Set("grant_type", "unknown")
	}
	r.Form = form
	return nil
}
