//go:build !linux

package token

import "time"

// Slept is not known here: a token held over a suspension is found out by its
// upstream.
func Slept() time.Duration { return 0 }

// Jumps is not known here: the clocks are compared each second.
func Jumps() (jumps <-chan struct{}, stop func()) { return nil, func() {} }
