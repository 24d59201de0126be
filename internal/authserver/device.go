package authserver

import (
	"crypto/rand"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	// DeviceAuthorizationPath is where a Server made by New gives a device its
	// codes.
	DeviceAuthorizationPath = "/device_authorization"
	// DevicePath is the page where a person enters the user code. To send it
	// there as user_code, by GET or POST, approves; with deny=1, it refuses.
	DevicePath = "/device"

	deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"
	// slowDown is by how much slow_down lengthens the interval (RFC 8628 §3.5).
	slowDown = 5 * time.Second
)

// deviceLogin is a login on another device.
type deviceLogin struct {
	rights   rights
	expires  time.Time
	interval time.Duration
	polled   time.Time // zero before the first time
	answer   string    // approved, denied, spent, or "" while nobody has said
}

// deviceAuthorization is RFC 8628 §3.1 and §3.2.
func (s *Server) deviceAuthorization(w http.ResponseWriter, r Request, err error) {
	scope, no := s.deviceScope(r, err)
	if no != nil {
		s.dialect.refuse(w, r, no)
		return
	}
	device, user := s.tokens.newDevice(rights{scope: scope, subject: s.config.Subject})
	page := base(r) + DevicePath
	writeJSON(w, http.StatusOK, map[string]any{
		"device_code":               device,
		"user_code":                 user,
		"verification_uri":          page,
		"verification_uri_complete": page + "?" + url.Values{"user_code": {user}}.Encode(),
		"expires_in":                int64(s.config.DeviceLifetime / time.Second),
		"interval":                  int64(s.config.DeviceInterval / time.Second),
	})
}

func (s *Server) deviceScope(r Request, err error) (string, *refusal) {
	if no := s.admit(r, err); no != nil {
		return "", no
	}
	return s.scope(r.Form.Get("scope"))
}

// newDevice keeps a login, and returns its device code and its user code.
func (t *tokens) newDevice(r rights) (device, user string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	d := &deviceLogin{rights: r, expires: now.Add(t.config.DeviceLifetime), interval: t.config.DeviceInterval}
	device, user = random(), userCode()
	memory := d.expires.Add(forgetAfter)
	t.devices.put(device, d, memory, now)
	t.userCodes.put(plainCode(user), d, memory, now)
	return device, user
}

// userCode is eight consonants (RFC 8628 §6.1).
func userCode() string {
	const letters = "BCDFGHJKLMNPQRSTVWXZ"
	var b [8]byte
	rand.Read(b[:]) // never fails, since Go 1.24
	for i := range b {
		b[i] = letters[int(b[i])%len(letters)]
	}
	return string(b[:4]) + "-" + string(b[4:])
}

// plainCode is a user code without what a person may write otherwise.
func plainCode(user string) string {
	return strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(user))
}

// deviceCode is RFC 8628 §3.4 and §3.5.
func (s *Server) deviceCode(a asker) (given, *refusal) {
	code := a.Form.Get("device_code")
	if code == "" {
		return given{}, refuse("invalid_request", "device_code is missing")
	}
	return s.tokens.poll(code, a.terms)
}

func (t *tokens) poll(code string, on terms) (given, *refusal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	d, held := t.devices.get(code, now)
	if !held || d.answer == "spent" {
		return given{}, refuse("invalid_grant", "the device code is unknown or was used before")
	}
	if !now.Before(d.expires) {
		return given{}, refuse("expired_token", "the device code has expired")
	}
	hasty := t.config.SlowDown && !d.polled.IsZero() && now.Sub(d.polled) < d.interval
	d.polled = now
	switch {
	case hasty:
		d.interval += slowDown
		return given{}, refuse("slow_down", "the device asks too often")
	case d.answer == "denied":
		return given{}, refuse("access_denied", "the person said no")
	case d.answer == "":
		return given{}, refuse("authorization_pending", "nobody has entered the user code")
	}
	d.answer = "spent"
	return t.begin(&chain{rights: d.rights}, on, now), nil
}

// ApproveDevice has a person enter a user code and agree. It is false for a
// code that is unknown, has expired or was answered before.
func (s *Server) ApproveDevice(userCode string) bool {
	return s.tokens.answerDevice(userCode, "approved")
}

// DenyDevice has a person enter a user code and refuse, as ApproveDevice.
func (s *Server) DenyDevice(userCode string) bool { return s.tokens.answerDevice(userCode, "denied") }

func (t *tokens) answerDevice(userCode, answer string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	d, held := t.userCodes.get(plainCode(userCode), now)
	if !held || d.answer != "" || !now.Before(d.expires) {
		return false
	}
	d.answer = answer
	return true
}

// device is the page of RFC 8628 §3.3.
func (s *Server) device(w http.ResponseWriter, r Request, err error) {
	query, queryErr := url.ParseQuery(r.RawQuery)
	if err != nil || queryErr != nil {
		http.Error(w, "the request cannot be read as a form", http.StatusBadRequest)
		return
	}
	parameter := func(name string) string {
		if value := r.Form.Get(name); value != "" {
			return value
		}
		return query.Get(name)
	}
	user, status, message := parameter("user_code"), http.StatusOK, "Enter the code that the device shows."
	if user != "" {
		answer := s.ApproveDevice
		message = "Approved: the device can go on."
		if parameter("deny") != "" {
			answer = s.DenyDevice
			message = "Denied."
		}
		if !answer(user) {
			status, message = http.StatusBadRequest, "That code is unknown, has expired or was answered before."
		}
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = devicePage().Execute(w, map[string]string{"Message": message, "Code": user})
}

var devicePage = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("device").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Log in on another device</title>
<p>{{.Message}}</p>
<form method="post"><input name="user_code" value="{{.Code}}" aria-label="code"> <button>Approve</button> <button name="deny" value="1">Deny</button></form>
`))
})
