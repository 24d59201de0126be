package authserver

import (
	"net/http"
	"net/url"
)

// weChatWords reads the query. A grant type of RFC 6749 is not known there.
func weChatWords(r *Request) error {
	query, err := url.ParseQuery(r.RawQuery)
	if err != nil {
		return err
	}
	r.Form = url.Values{"client_id": query["appid"], "client_secret": query["secret"], "grant_type": {"unknown"}}
	if query.Get("grant_type") == "client_credential" {
		r.Form.Set("grant_type", "client_credentials")
	}
	return nil
}

// refuseWeChat answers with 200.
func refuseWeChat(w http.ResponseWriter, r Request, no *refusal) {
	number, text := 40002, "invalid grant_type"
	switch {
	case r.Form.Get("client_id") == "":
		number, text = 41002, "appid missing"
	case r.Form.Get("client_secret") == "":
		number, text = 41004, "appsecret missing"
	case no.stranger:
		number, text = 40013, "invalid appid"
	case no.code == "invalid_client":
		number, text = 40125, "invalid appsecret"
	}
	writeJSON(w, http.StatusOK, map[string]any{"errcode": number, "errmsg": text})
}
