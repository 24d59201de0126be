package oauth

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// problem finds the error in an answer: RFC 6749 §5.2's error and
// error_description, or one of the vocabularies that servers use instead.
// The code is "" where the answer speaks of no error; under a 2xx a code of 0
// or a word of success is none.
func (f *Fields) problem(doc document, status int) (code, description string) {
	if doc == nil {
		return "", ""
	}
	if f.Error != "" {
		code = word(doc.lookup(f.Error))
		description = word(doc.lookup(or(f.ErrorDescription, "error_description")))
		return unlessOK(code), description
	}
	switch v := doc["error"].(type) {
	case map[string]any:
		// {"error":{"code":…,"message":…}} (Google, Microsoft Graph)
		inner := document(v)
		return firstWord(inner, "code", "type", "status", "error"), firstWord(inner, "message", "description", "error_description")
	case bool:
		// {"error":true,"message":…}
		if v {
			return firstOr("error", doc, "code"), firstWord(doc, "error_description", "message")
		}
	default:
		if code = unlessOK(word(v)); code != "" {
			// Spring's {"status":401,"error":"Unauthorized","message":…} has no description
			description = firstWord(doc, or(f.ErrorDescription, "error_description"), "message")
			return code, description
		}
	}
	for _, names := range [][2]string{
		{"error_code", "error_msg"}, // Huawei OneAccess
		{"errcode", "errmsg"},       // WeChat
		{"errorCode", "errorMessage"},
	} {
		if code = unlessOK(word(doc[names[0]])); code != "" {
			return code, word(doc[names[1]])
		}
	}
	if ok, isBool := doc["ok"].(bool); isBool && !ok {
		// Slack: {"ok":false,"error":…}; here without the word
		return "not_ok", firstWord(doc, "message")
	}
	if status >= http.StatusBadRequest {
		// RFC 9457 (7807), and whatever else explains a 4xx
		return firstWord(doc, "title", "code"), firstWord(doc, "detail", "message", "error_description")
	}
	return "", ""
}

func firstWord(doc document, names ...string) string {
	for _, name := range names {
		if s := word(doc[name]); s != "" {
			return s
		}
	}
	return ""
}

func firstOr(fallback string, doc document, names ...string) string {
	if s := firstWord(doc, names...); s != "" {
		return s
	}
	return fallback
}

// word is the text of a JSON string or number.
func word(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	}
	return ""
}

func unlessOK(code string) string {
	switch code {
	case "0", "false", "ok", "OK", "success":
		return ""
	}
	return code
}
