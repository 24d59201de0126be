package faults

import (
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
)

// Files and the storage. Nothing is asked for with what cannot be read, and no
// refresh token is spent while what comes of it cannot be stored.
var fileLines = []line{
	{name: "secret file: swapped while it is read", how: secretSwapped{}, want: used},
	{name: "secret file: empty for a moment", how: secretFile(func(string) string { return "" }), want: refused, unasked: true, says: "is empty"},
	{name: "secret file: a newline alone", how: secretFile(func(string) string { return "\n" }), want: refused, unasked: true},
	{name: "secret file: gone for a moment", how: secretFile(func(string) string { return noFile }), want: refused, unasked: true, says: "no such file"},
	{name: "secret file: half written", how: secretFile(func(s string) string { return s[:len(s)/2] }), first: refused, want: used, twice: true},
	{name: "secret file: another secret", how: secretFile(func(string) string { return mark(ofSecret, "another") }), first: refused, want: used, twice: true},

	{name: "storage: disk full", how: stores(diskFull), config: rotating, want: unreachable, unasked: true, says: "storage for refresh tokens fails"},
	{name: "storage: read-only", how: stores(readOnly), config: rotating, want: unreachable, unasked: true, says: "storage for refresh tokens fails"},
	{name: "storage: lost", how: stores(storageLost), config: rotating, want: unreachable, unasked: true, says: "storage for refresh tokens fails"},
	{name: "storage: hangs", how: stores(storageHangs), config: rotating, want: unreachable, unasked: true, says: "storage for refresh tokens fails"},
	{name: "storage: forgets what is written", how: stores(storageLiar), config: rotating, want: unreachable, unasked: true, says: "storage for refresh tokens fails"},

	{name: "storage: lost, tokens shared", how: stores(storageLost), options: "share", guise: bare, want: used},
	{name: "storage: hangs, tokens shared", how: stores(storageHangs), options: "share", guise: bare, want: used},
	{name: "storage: disk full, tokens shared", how: stores(diskFull), options: "share", guise: bare, want: used},
	{name: "storage: lost, sharing held", how: stores(storageLost), options: "share {\non_storage_failure hold\n}", guise: bare, want: unreachable, unasked: true},
	{name: "storage: hangs, sharing held", how: stores(storageHangs), options: "share {\non_storage_failure hold\n}", guise: bare, want: unreachable, unasked: true},
}

// rotating has a server end a refresh token that is used, and its whole chain if
// it comes again.
func rotating(c *authserver.Config) {
	c.RefreshTokens, c.Rotate, c.ReuseDetection = true, authserver.RotateAlways, true
}
