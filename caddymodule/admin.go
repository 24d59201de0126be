package caddymodule

import (
	"os"
	"reflect"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// adminAddress is where the admin API of a config listens, "" if it is off.
// Caddy does not tell its modules, so the config is looked at from outside: it
// is only for a warning, and where the look fails there is none.
func adminAddress(ctx caddy.Context) string {
	cfg := reflect.ValueOf(ctx).FieldByName("cfg")
	if cfg.Kind() != reflect.Pointer || cfg.IsNil() {
		return ""
	}
	admin := cfg.Elem().FieldByName("Admin")
	if !admin.IsValid() {
		return ""
	}
	listen := ""
	if !admin.IsNil() {
		if admin.Elem().FieldByName("Disabled").Bool() {
			return ""
		}
		listen = admin.Elem().FieldByName("Listen").String()
	}
	if listen == "" {
		listen = os.Getenv("CADDY_ADMIN")
	}
	if listen == "" {
		listen = caddy.DefaultAdminListen
	}
	return listen
}

// isShared tells whether more than one user of the machine can reach an
// address.
func isShared(address string) bool {
	return address != "" && !strings.HasPrefix(address, "unix") && !strings.HasPrefix(address, "fd")
}
