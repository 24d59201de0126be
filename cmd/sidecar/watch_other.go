//go:build !unix

package main

// watch leaves --watch to Caddy, which could not be told by a signal here.
func watch(args []string) []string { return args }
