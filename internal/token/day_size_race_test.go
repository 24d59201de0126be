//go:build race

package token

// An instance whose token request failed looks each second for what may have
// changed: that makes millions of goroutines in the day of a thousand, each of
// which costs some ten times as much here.
const dayInstances = 250
