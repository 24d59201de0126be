package authserver

import (
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// startDevice returns the codes of a login on another device.
func startDevice(t *testing.T, s *Server, more ...string) (device, user string) {
	t.Helper()
	m := members(t, ask(s, DeviceAuthorizationPath, form(more...)))
	device, _ = m["device_code"].(string)
	user, _ = m["user_code"].(string)
	if device == "" || user == "" {
		t.Fatalf("the answer is %v", m)
	}
	return device, user
}

// wantPoll polls, and returns the answer.
func wantPoll(t *testing.T, s *Server, device, want string) map[string]any {
	t.Helper()
	body := strings.Replace(form("device_code", device), "client_credentials", url.QueryEscape(deviceGrant), 1)
	w := ask(s, TokenPath, body)
	m := members(t, w)
	got, _ := m["error"].(string)
	if got != want || (w.Code == 200) != (want == "") {
		t.Errorf("after %v, a poll is answered %d %v, want %q", time.Now(), w.Code, m, want)
	}
	return m
}

func TestDevice(t *testing.T) {
	s := refresher(Config{DeviceInterval: 2 * time.Second})
	m := members(t, ask(s, DeviceAuthorizationPath, form("scope", "openid")))
	user, _ := m["user_code"].(string)
	if !regexp.MustCompile(`^[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}$`).MatchString(user) ||
		m["verification_uri"] != "http://example.com/device" || m["verification_uri_complete"] != "http://example.com/device?user_code="+user ||
		m["expires_in"] != 600.0 || m["interval"] != 2.0 || len(m) != 6 {
		t.Errorf("the answer is %v", m)
	}
	device := m["device_code"].(string)
	wantPoll(t, s, device, "authorization_pending")
	wantPoll(t, s, device, "authorization_pending") // nobody minds the haste
	if w := get(s, DevicePath, url.Values{"user_code": {user}}); w.Code != 200 || !strings.Contains(w.Body.String(), "Approved") {
		t.Errorf("the page answers %d %s", w.Code, w.Body)
	}
	m = wantPoll(t, s, device, "")
	if _, err := s.Verify(m["access_token"].(string)); err != nil || m["scope"] != "openid" || m["id_token"] == nil {
		t.Errorf("the answer is %v, and the token: %v", m, err)
	}
	mustRefresh(t, s, m["refresh_token"].(string))
	wantPoll(t, s, device, "invalid_grant")
	wantPoll(t, s, "x", "invalid_grant")
	wantPoll(t, s, "", "invalid_request")
	if s.RequestsTo(DeviceAuthorizationPath) != 1 || s.RequestsTo(DevicePath) != 1 || s.Requests() != 7 {
		t.Errorf("%d, %d and %d requests are counted", s.RequestsTo(DeviceAuthorizationPath), s.RequestsTo(DevicePath), s.Requests())
	}
}

func TestDevicePage(t *testing.T) {
	s := New(Config{ClientID: client, ClientSecret: secret})
	w := get(s, DevicePath, nil)
	if h := w.Header(); w.Code != 200 || !strings.Contains(w.Body.String(), "<form") || h.Get("Content-Type") != "text/html; charset=utf-8" || h.Get("Cache-Control") != "no-store" {
		t.Errorf("the page answers %d %v %s", w.Code, w.Header(), w.Body)
	}
	device, user := startDevice(t, s)
	if w := get(s, DevicePath, url.Values{"user_code": {`"><script>`}}); w.Code != 400 || strings.Contains(w.Body.String(), "<script>") {
		t.Errorf("an unknown code is answered %d %s", w.Code, w.Body)
	}
	wantPoll(t, s, device, "authorization_pending")
	other := strings.ToLower(strings.ReplaceAll(user, "-", " "))
	if w := ask(s, DevicePath, url.Values{"user_code": {other}}.Encode()); w.Code != 200 {
		t.Errorf("by POST, in another form, it is answered %d %s", w.Code, w.Body)
	}
	if w := ask(s, DevicePath, url.Values{"user_code": {user}, "deny": {"1"}}.Encode()); w.Code != 400 {
		t.Errorf("a second answer is answered %d", w.Code)
	}
	wantPoll(t, s, device, "")

	device, user = startDevice(t, s)
	if w := get(s, DevicePath, url.Values{"user_code": {user}, "deny": {"1"}}); w.Code != 200 || !strings.Contains(w.Body.String(), "Denied") {
		t.Errorf("the page answers %d %s", w.Code, w.Body)
	}
	wantPoll(t, s, device, "access_denied")
	wantPoll(t, s, device, "access_denied")
	if w := ask(s, DevicePath, "%zz"); w.Code != 400 {
		t.Errorf("what is no form is answered %d", w.Code)
	}
}

func TestDeviceExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{ClientID: client, ClientSecret: secret, DeviceLifetime: time.Minute})
		device, _ := startDevice(t, s)
		late, lateUser := startDevice(t, s)
		wait(time.Minute - 1)
		wantPoll(t, s, device, "authorization_pending")
		if !s.ApproveDevice(lateUser) {
			t.Error("in time, it cannot be approved")
		}
		wait(1)
		wantPoll(t, s, device, "expired_token")
		wantPoll(t, s, late, "expired_token")
		_, user := startDevice(t, s)
		wait(time.Minute)
		if s.ApproveDevice(user) || s.DenyDevice(user) || s.ApproveDevice("") {
			t.Error("too late, it can be answered")
		}
	})
}

func TestSlowDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{ClientID: client, ClientSecret: secret, SlowDown: true})
		device, user := startDevice(t, s)
		for _, step := range []struct {
			wait time.Duration
			want string
		}{
			{0, "authorization_pending"},
			{5*time.Second - 1, "slow_down"},
			{10*time.Second - 1, "slow_down"},
			{15 * time.Second, "authorization_pending"},
			{15*time.Second - 1, "slow_down"},
		} {
			wait(step.wait)
			wantPoll(t, s, device, step.want)
		}
		s.ApproveDevice(user)
		wait(20 * time.Second)
		wantPoll(t, s, device, "")
	})
}

func TestDeviceAuthorizationRefuses(t *testing.T) {
	s := New(Config{ClientID: client, ClientSecret: secret, Scopes: []string{"read"}})
	for body, want := range map[string]string{
		"client_id=app+1":               "invalid_client",
		form("scope", "write"):          "invalid_scope",
		form("scope", "", "scope", "a"): "invalid_request",
		"%zz":                           "invalid_request",
	} {
		if w := ask(s, DeviceAuthorizationPath, body); w.Code != 400 || members(t, w)["error"] != want {
			t.Errorf("%q is answered %d %s", body, w.Code, w.Body)
		}
	}
	s.DeviceAuthorization.FailNext(1, Down())
	if w := ask(s, DeviceAuthorizationPath, form()); w.Code != 503 {
		t.Errorf("a fault is answered %d", w.Code)
	}
	startDevice(t, s)
	if w := ask(NewOneAccess(Config{}), DeviceAuthorizationPath, form()); w.Code != 404 {
		t.Errorf("OneAccess answers %d", w.Code)
	}
}
