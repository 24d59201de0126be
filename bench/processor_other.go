//go:build !linux

package main

import (
	"errors"
	"os/exec"
)

var errLinux = errors.New("this is known on Linux alone")

func pin() (pins, func()) {
	return pins{note: "nothing is pinned to a processor: that works on Linux alone"}, func() {}
}

func startOn(int, *exec.Cmd) error { return errLinux }

func accountOf(int) (account, error) { return account{}, errLinux }
